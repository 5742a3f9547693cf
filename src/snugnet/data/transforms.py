"""Random changes and normalisation of whole batches, on whatever device they are."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from snugnet.data.config import AugmentConfig

__all__ = ["Augment", "AugmentConfig", "normalise"]


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float], *, channels_last: bool = False) -> Tensor:
    """``(x - mean) / std`` of each channel.

    Args:
        images: ``(n, 3, h, w)``; uint8 in 0..255, or floating point in 0..1.
        mean: of the red, green and blue channel, in 0..1.
        std: likewise.
        channels_last: lay the result out in torch's channels-last memory format.

    Returns:
        float32 ``(n, 3, h, w)``.
    """
    scale = 1 / torch.tensor(std, dtype=torch.float32)
    shift = -torch.tensor(mean, dtype=torch.float32) * scale
    if not images.is_floating_point():
        scale = scale / 255
    scale, shift = (value.view(3, 1, 1).to(images.device, non_blocking=True) for value in (scale, shift))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return images.to(torch.float32, memory_format=layout).mul(scale).add_(shift)


class Augment:
    """Augmentation of a batch of training images as an `AugmentConfig` says.

    Every image gets its own random parameters, drawn from torch's global CPU generator: ``torch.manual_seed`` (or a
    restored generator state) reproduces the result bit for bit. It holds no tensors, so it needs no ``.to(device)``.

    Of kornia 0.9, three things to know. What an image gets depends on the size of its batch too (crops, jitters and
    erasures of a smaller batch are not the first of a larger one's), so `Batches` only gives full ones, and a batch is
    never augmented in parts. Its modules augment in eval mode as well, so only the training step may call this. Flips,
    crops and rotations return the contiguous layout, whatever they were given: `normalise` comes after, and lays out.
    """

    def __init__(self, config: AugmentConfig, mean: Sequence[float], *, cropped: bool = False) -> None:
        """Prepare.

        Args:
            config: what to do.
            mean: of the red, green and blue channel, in 0..1, as `normalise` gets it: what is cut out is 0 behind it.
            cropped: whether ``random_resized_crop`` is done already (`Batches.cropped`).
        """
        self.config = config.model_copy(update={"random_resized_crop": None}) if cropped else config
        self.mean = tuple(mean)
        self._operations = _kornia_operations(self.config)

    @property
    def active(self) -> bool:
        """Whether anything is switched on."""
        return bool(self.config.crop_padding) or len(self._operations) > 0 or bool(self.config.cutout)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Augment.

        Args:
            images: ``(n, 3, h, w)``; uint8 in 0..255, or float32 in 0..1.

        Returns:
            float32 ``(n, 3, h, w)`` in 0..1; the values of ``images`` where nothing is switched on.
        """
        # Cropping moves pixels, so it is done before uint8 becomes float: a quarter of the memory to move.
        images = _random_crop(images, self.config.crop_padding) if self.config.crop_padding else images
        images = images if images.is_floating_point() else images.to(torch.float32).div_(255)
        for operation in self._operations:
            images = operation(images)
        return _cutout(images, self.config.cutout, self.mean) if self.config.cutout else images


def _kornia_operations(config: AugmentConfig) -> list[Callable[[Tensor], Tensor]]:
    from kornia import augmentation as kornia

    operations: list[Callable[[Tensor], Tensor]] = []
    # The size of the images is not known here, so random_resized_crop makes its kornia module on first use.
    if config.random_resized_crop is not None:
        operations.append(_RandomResizedCrop(config.random_resized_crop))
    if config.flip:
        operations.append(kornia.RandomHorizontalFlip(p=0.5))
    if config.auto_augment:
        operations.append(_AutoAugment(config.auto_augment))
    if config.rotate:
        operations.append(kornia.RandomRotation(config.rotate, p=1.0))
    if config.color_jitter:
        # No hue: kornia's conversion to HSV and back takes ten times as long as the other three (6 ms for 128 images
        # of 32 x 32 on 2 cores), and hue is the least used of them.
        strength = config.color_jitter
        operations.append(kornia.ColorJitter(strength, strength, strength, 0.0, p=1.0))
    if config.erase:
        operations.append(kornia.RandomErasing(p=config.erase))
    return operations


class _RandomResizedCrop:
    """kornia's RandomResizedCrop at the size of the images it is given.

    Its ``resample`` mode crops all images in one call; ``slice`` loops over them in Python.
    """

    def __init__(self, area: tuple[float, float]) -> None:
        self.area = area
        self._by_size: dict[tuple[int, int], Callable[[Tensor], Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Crop and resize ``(n, 3, h, w)``."""
        from kornia.augmentation import RandomResizedCrop

        size = (images.shape[-2], images.shape[-1])
        if size not in self._by_size:
            self._by_size[size] = RandomResizedCrop(size, scale=self.area, p=1.0, cropping_mode="resample")
        return self._by_size[size](images)


class _AutoAugment:
    """kornia's AutoAugment with a sub-policy for each image; its own call draws one for the whole batch."""

    def __init__(self, policy: str) -> None:
        from kornia.augmentation.auto import AutoAugment

        self.policies: list[Any] = list(AutoAugment(policy).children())

    def __call__(self, images: Tensor) -> Tensor:
        """Change ``(n, 3, h, w)`` in 0..1."""
        drawn = torch.randint(len(self.policies), (len(images),)).tolist()
        changed = torch.empty_like(images)
        for policy in sorted(set(drawn)):
            own = torch.tensor([i for i, each in enumerate(drawn) if each == policy]).to(
                images.device, non_blocking=True
            )
            changed[own] = self.policies[policy](images[own])
        return changed


def _random_crop(images: Tensor, padding: int) -> Tensor:
    """Pad with black and crop back, each image at its own place.

    kornia's RandomCrop takes 10 ms for 128 images of 32 x 32 on 2 cores by resampling, which also blurs by rounding;
    its ``slice`` mode takes 1.3 ms in a Python loop over the images that waits for a GPU each time. One gather takes
    under 1 ms and waits for nothing.
    """
    n, channels, height, width = images.shape
    padded = nn.functional.pad(images, (padding, padding, padding, padding))
    corner = torch.randint(0, 2 * padding + 1, (2, n)).to(images.device, non_blocking=True)
    rows = corner[0, :, None] + torch.arange(height, device=images.device)
    columns = corner[1, :, None] + torch.arange(width, device=images.device)
    batch = torch.arange(n, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return padded[batch, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _cutout(images: Tensor, side: int, mean: Sequence[float]) -> Tensor:
    """Fill a square of each image with the mean colour; its centre is uniform over the pixels, what lies beyond an edge is not there."""
    n, _, height, width = images.shape
    holes = []
    for size in (height, width):
        first = (torch.randint(0, size, (n, 1)) - side // 2).to(images.device, non_blocking=True)
        pixel = torch.arange(size, device=images.device)
        holes.append((pixel >= first) & (pixel < first + side))
    hole = holes[0][:, None, :, None] & holes[1][:, None, None, :]
    fill = torch.tensor(mean, dtype=images.dtype).view(3, 1, 1).to(images.device, non_blocking=True)
    return torch.where(hole, fill, images)

"""Random changes and normalisation of whole batches, on whatever device they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from snugnet.data import draws
from snugnet.extras import needs

if TYPE_CHECKING:
    from snugnet.data.config import AugmentConfig


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float], *, channels_last: bool = False) -> Tensor:
    """``(x - mean) / std`` of each channel. No gradient flows through it.

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
    scale, shift = torch.stack([scale, shift]).view(2, 3, 1, 1).to(images.device, non_blocking=True)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    # Into a tensor that is laid out already: one pass over the pixels less than a copy that is then changed.
    result = torch.empty(images.shape, dtype=torch.float32, device=images.device, memory_format=layout)
    return torch.mul(images, scale, out=result).add_(shift)


Step = tuple[Callable[..., Tensor], Sequence[Tensor]]
"""A change to a batch, and the small tensors that it takes besides, on the host."""


class Augment:
    """Augmentation of a batch of training images as an `AugmentConfig` says.

    Every image gets its own random parameters, drawn from torch's global CPU generator: ``torch.manual_seed`` (or a
    restored generator state) reproduces the result bit for bit. They go to the device in one copy. It holds no tensors,
    so it needs no ``.to(device)``.

    Crop, flip and rotation are one bilinear sampling of each image (whole-pixel crops and flips without rotation are a
    gather, and exact). So a crop that is rotated shows the image around it, not black, which comes only from beyond the
    image (or beyond the crop, where images are streamed and come cropped); and nothing is interpolated twice. Where AutoAugment stands between them, rotation is a sampling of its own.

    Colour jitter is one affine step, clamped to 0..1 at its end. kornia and torchvision clamp after each of brightness,
    contrast and saturation, in an order drawn for the batch; without clamping the three commute (`draws.colour_matrices`).
    So results are equal where no step between leaves 0..1; docs/data.md says how often one does.

    AutoAugment is kornia's, and what an image gets of it depends on the size of its batch too. So `Batches` only gives
    full ones, and a batch is never augmented in parts. Only the training step may call this.
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
        self._auto = _AutoAugment(config.auto_augment) if config.auto_augment else None

    @property
    def active(self) -> bool:
        """Whether anything is switched on."""
        return self.config != type(self.config)()

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Augment.

        Args:
            images: ``(n, 3, h, w)``; uint8 in 0..255, or float32 in 0..1.

        Returns:
            float32 ``(n, 3, h, w)`` in 0..1, to float rounding; the values of ``images`` where nothing is switched on.
        """
        if not self.active:
            return _unit_range(images)
        n, _, height, width = images.shape
        steps = self._steps(draws.uniform(n), height, width)
        host = [tensor for _, tensors in steps for tensor in tensors]
        sent = iter(host if images.device.type == "cpu" else _sent(host, images.device))
        for step, tensors in steps:
            images = step(images, *(next(sent) for _ in tensors))
        return images

    def _steps(self, u: dict[str, Tensor], height: int, width: int) -> list[Step]:
        """What to do, in order, for images of ``height`` x ``width``."""
        config = self.config
        steps = self._moves(u, height, width)
        if config.color_jitter:
            factors = 1 + config.color_jitter * (2 * u["factors"] - 1)
            steps.append((_recoloured, draws.colour_matrices(factors)))
        if config.erase:
            box = draws.erased_boxes(u, config.erase, height, width)
            steps.append((_filled, (*draws.box_pixels(box, height, width), torch.zeros(3))))
        if config.cutout:
            centre = (u["cutout"] * torch.tensor([[height], [width]])).floor()
            box = torch.cat([centre - config.cutout // 2, torch.full_like(centre, config.cutout)])
            steps.append((_filled, (*draws.box_pixels(box, height, width), torch.tensor(self.mean))))
        return steps

    def _moves(self, u: dict[str, Tensor], height: int, width: int) -> list[Step]:
        """Crop, flip, AutoAugment and rotation."""
        config = self.config
        angle = config.rotate * (2 * u["angle"][0] - 1)
        if config.random_resized_crop is not None or (config.rotate and self._auto is None):
            turn = angle if self._auto is None else torch.zeros_like(angle)
            lines = draws.sampling_lines(self._window(u, height, width), self._mirrored(u), turn, height, width)
            steps: list[Step] = [(_unit_range, ()), (_sampled, lines)]
        else:
            # Moving whole pixels is done before uint8 becomes float: a quarter of the memory to move.
            steps = [*self._whole_moves(u, height, width), (_unit_range, ())]
        if self._auto is not None:
            steps.append((self._auto, ()))
            if config.rotate:
                whole = torch.tensor([[0], [0], [height], [width]]).expand(-1, len(angle))
                upright = torch.zeros(len(angle), dtype=torch.bool)
                steps.append((_sampled, draws.sampling_lines(whole, upright, angle, height, width)))
        return steps

    def _whole_moves(self, u: dict[str, Tensor], height: int, width: int) -> list[Step]:
        """Crop and flip without any interpolation."""
        padding = self.config.crop_padding
        if padding:
            corner = (u["place"] * (2 * padding + 1)).long()
            lines = draws.shift_indices(corner, self._mirrored(u), height, width, width + 2 * padding)
            return [(partial(nn.functional.pad, pad=(padding,) * 4), ()), (_gathered, lines)]
        return [(_flipped, [draws.mirror_indices(self._mirrored(u), width)])] if self.config.flip else []

    def _window(self, u: dict[str, Tensor], height: int, width: int) -> Tensor:
        """``(4, n)``: top, left, height and width of what an image becomes."""
        if self.config.random_resized_crop is not None:
            return draws.resized_crops(u, self.config.random_resized_crop, height, width)
        padding = self.config.crop_padding
        corner = (u["place"] * (2 * padding + 1)).long() - padding
        return torch.cat([corner, torch.tensor([[height], [width]]).expand_as(corner)])

    def _mirrored(self, u: dict[str, Tensor]) -> Tensor:
        return u["flip"][0] < (0.5 if self.config.flip else 0)


def _sent(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Copies of small tensors on a device, of any types, by one transfer; it waits for nothing that runs there."""
    # Eight bytes are the largest type's alignment.
    blocks = [nn.functional.pad(t.contiguous().flatten().view(torch.uint8), (0, -t.nbytes % 8)) for t in tensors]
    packed = torch.cat(blocks) if blocks else torch.empty(0, dtype=torch.uint8)
    packed = packed.pin_memory() if device.type == "cuda" else packed
    parts = packed.to(device, non_blocking=True).split([len(block) for block in blocks])
    return [part[: t.nbytes].view(t.dtype).view(t.shape) for part, t in zip(parts, tensors, strict=True)]


class _AutoAugment:
    """kornia's AutoAugment with a sub-policy for each image; its own call draws one for the whole batch."""

    def __init__(self, policy: str) -> None:
        needs("kornia")
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


def _unit_range(images: Tensor) -> Tensor:
    """uint8 in 0..255 as float32 in 0..1."""
    return images if images.is_floating_point() else images / 255


def _gathered(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Windows of images at `draws.shift_indices`. kornia's RandomCrop resamples, which is slower and blurs by rounding."""
    n, channels = images.shape[:2]
    index = (rows[:, :, None] + columns[:, None]).view(n, 1, -1).expand(-1, channels, -1)
    return images.flatten(2).gather(2, index).view(n, channels, rows.shape[1], columns.shape[1])


def _flipped(images: Tensor, columns: Tensor) -> Tensor:
    """Images whose columns are those at `draws.mirror_indices`."""
    return images.gather(3, columns[:, None, None].expand(images.shape))


def _sampled(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Images read bilinearly at `draws.sampling_lines`, black beyond their edges."""
    return nn.functional.grid_sample(images, rows[:, :, None] + columns[:, None], align_corners=True)


def _recoloured(images: Tensor, own: Tensor, mean: Tensor) -> Tensor:
    """The affine step of `draws.colour_matrices`, clamped to 0..1."""
    pixels = images.flatten(2).contiguous()
    shift = mean.bmm(pixels.mean(2, keepdim=True))
    return own.bmm(pixels).add_(shift).clamp_(0, 1).view(images.shape)


def _filled(images: Tensor, rows: Tensor, columns: Tensor, colour: Tensor) -> Tensor:
    """A colour where both the row and the column are marked."""
    return torch.where(rows[:, None, :, None] & columns[:, None, None, :], colour.view(3, 1, 1), images)

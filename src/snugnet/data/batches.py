"""Batches from images that stay on the device; no work in Python for each image."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from snugnet.data.dataset import ImageSet
from snugnet.errors import ConfigError, DataError

_SHARE_OF_FREE = 0.5  # of the device's free memory that the images may take; the rest is for training


class Batches:
    """Shuffled training batches, each a pure function of (seed, step), or one shard of each.

    Step ``s`` is batch ``s % steps_per_epoch`` of epoch ``s // steps_per_epoch``; each epoch is its own seeded
    permutation, and its last rows that do not fill a batch are left out. So a resumed run goes on with exactly the
    batches that an uninterrupted one sees, on any device. With shards each of several processes has its part of every
    batch, all of one size; put together in order they are the batch that one process has.

    Attributes:
        steps_per_epoch: batches in an epoch.
        batch_size: rows of a batch, all shards together; the whole set where that is smaller.
        on_device: False where the images did not fit and each batch is copied instead.
    """

    def __init__(
        self,
        image_set: ImageSet,
        batch_size: int,
        seed: int,
        *,
        device: str | torch.device = "cpu",
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        """Move the images to ``device`` as uint8, if they take at most half of its free memory.

        Args:
            image_set: to draw from.
            batch_size: rows of a batch.
            seed: of the order.
            device: of the batches.
            shard: which one of how many.

        Raises:
            ConfigError: ``batch_size`` below 1, or a negative seed; shards would not be of one size.
            DataError: no images.
        """
        if batch_size < 1 or seed < 0:
            raise ConfigError(f"batch_size is {batch_size}, seed is {seed}; at least 1 and 0 are allowed: raise them")
        if not len(image_set):
            raise DataError("there are no images to make batches of; give a set that is not empty")
        self.device = torch.device(device)
        self.on_device = _fits(image_set.images, self.device)
        self._set = image_set.to(self.device if self.on_device else "cpu")
        self._seed = seed
        self.batch_size = min(batch_size, len(image_set))
        self.steps_per_epoch = len(image_set) // self.batch_size
        self._shard, shards = shard
        self._rows, left = divmod(self.batch_size, shards)
        if left:
            raise ConfigError(
                f"a batch of {self.batch_size} images does not divide by {shards} devices; give another batch_size or other devices"
            )
        self._epoch: tuple[int, Tensor] = (-1, torch.empty(0, dtype=torch.int64))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images uint8 ``(n, 3, r, r)`` and labels int64 ``(n,)`` of ``step`` (0, 1, ...): the batch, or the shard of it.

        Raises:
            ConfigError: a negative step.
        """
        if step < 0:
            raise ConfigError(f"step is {step}; steps count from 0")
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.batch_size + self._shard * self._rows
        rows = self._permutation(epoch)[start : start + self._rows]
        images, labels = self._set.images.index_select(0, rows), self._set.labels.index_select(0, rows)
        if self.on_device:
            return images, labels
        return (
            images.pin_memory().to(self.device, non_blocking=True),
            labels.pin_memory().to(self.device, non_blocking=True),
        )

    def _permutation(self, epoch: int) -> Tensor:
        # Only a memory of the last epoch: the content depends on seed and epoch alone. Drawn by numpy, because torch
        # draws other permutations on a GPU than on a CPU.
        known, rows = self._epoch  # one tuple, so that two threads never see the halves of two epochs
        if known != epoch:
            order = np.random.default_rng((self._seed, epoch)).permutation(len(self._set))
            rows = torch.from_numpy(order).to(self._set.labels.device)
            self._epoch = (epoch, rows)
        return rows


def evaluation_batches(image_set: ImageSet, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All images in order, as views of at most ``batch_size`` rows; the last batch may be smaller.

    Raises:
        ConfigError: ``batch_size`` below 1.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; at least 1 is allowed: raise it")
    yield from zip(image_set.images.split(batch_size), image_set.labels.split(batch_size), strict=True)


def _fits(images: Tensor, device: torch.device) -> bool:
    if device.type != "cuda" or images.device.type == "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return images.numel() <= _SHARE_OF_FREE * free

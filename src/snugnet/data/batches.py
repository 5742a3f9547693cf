"""Batches from images that stay on the device, where they fit; no work in Python for each image."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snugnet.data.image_set import ImageSet, StoredImages, to_device
from snugnet.data.stream import EncodedImages, Stream, StreamedBatches
from snugnet.errors import ConfigError, DataError


class Batches:
    """Shuffled training batches, each a pure function of (seed, step), or one shard of each.

    Step ``s`` is batch ``s % steps_per_epoch`` of epoch ``s // steps_per_epoch``; each epoch is its own seeded
    permutation, and its last rows that do not fill a batch are left out. So a resumed run goes on with exactly the
    batches that an uninterrupted one sees, on any device. With shards each of several processes has its part of every
    batch, all of one size; put together in order they are the batch that one process has.

    Attributes:
        steps_per_epoch: batches in an epoch.
        batch_size: rows of a batch, all shards together; the whole set where that is smaller.
        on_device: False where the images did not fit, or lie on a disk, and each batch is copied instead.
        cropped: whether images come as random parts of the original ones, so that augmentation is not to crop any more.
    """

    def __init__(
        self,
        image_set: ImageSet,
        batch_size: int,
        seed: int,
        *,
        device: str | torch.device = "cpu",
        shard: tuple[int, int] = (0, 1),
        crop: tuple[float, float] | None = None,
    ) -> None:
        """Move the images to ``device`` as uint8, if they are in memory and take at most half of its free memory.

        Args:
            image_set: to draw from.
            batch_size: rows of a batch.
            seed: of the order.
            device: of the batches.
            shard: which one of how many.
            crop: of images that are streamed, the range of the share of each image's area that is cut out of it at random.

        Raises:
            ConfigError: ``batch_size`` below 1, or a negative seed; shards would not be of one size.
            DataError: no images.
        """
        if batch_size < 1 or seed < 0:
            raise ConfigError(f"batch_size is {batch_size}, seed is {seed}; at least 1 and 0 are allowed: raise them")
        if not len(image_set):
            raise DataError("there are no images to make batches of; give a set that is not empty")
        self.device = torch.device(device)
        self._set = image_set.to(self.device)
        self.on_device = self._set.on_device
        self._seed = seed
        self.batch_size = min(batch_size, len(image_set))
        self.steps_per_epoch = len(image_set) // self.batch_size
        self._order = _Order(len(image_set), self.batch_size, seed, shard)
        none = torch.empty(0, dtype=torch.int64)
        self._epoch: tuple[int, Tensor, Tensor] = (-1, none, none)
        self._stream = self._streamed(image_set, crop) if image_set.streamed else None
        self.cropped = self._stream is not None and crop is not None

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images uint8 ``(n, 3, r, r)`` and labels int64 ``(n,)`` of ``step`` (0, 1, ...): the batch, or the shard of it.

        Raises:
            ConfigError: a negative step.
            DataError: an image that is streamed can no longer be decoded.
        """
        here, there = self._places(step)
        labels = self._set.labels.index_select(0, there)
        if self._stream is None:
            return self._set.pixels(there if self.on_device else here), labels
        return to_device(self._stream.images(step, pin=self.device.type == "cuda"), self.device), labels

    @property
    def rows(self) -> int:
        """Of what :meth:`batch` gives: the batch, or the shard of it."""
        return self._order.rows

    def whole(self, step: int) -> tuple[Tensor, Tensor]:
        """What :meth:`batch` gives, where nothing is cropped: centre squares."""
        here, there = self._places(step)
        return self._set.pixels(there if self.on_device else here), self._set.labels.index_select(0, there)

    def close(self) -> None:
        """End the processes that make batches ahead, where there are any."""
        if self._stream is not None:
            self._stream.close()

    def _streamed(self, image_set: ImageSet, crop: tuple[float, float] | None) -> Stream:
        assert isinstance(image_set.images, StoredImages)
        store = image_set.images.store
        assert isinstance(store, EncodedImages)
        rows, order = image_set.images.rows, self._order
        part = (order.shard[0] * order.rows, self.batch_size)
        return Stream(StreamedBatches(store, lambda step: rows[order.places(step)], crop, self._seed, part))

    def _places(self, step: int) -> tuple[Tensor, Tensor]:
        """Which images a step has, on the CPU and on the device."""
        if step < 0:
            raise ConfigError(f"step is {step}; steps count from 0")
        epoch, part = self._order.part(step)
        known, here, there = self._epoch  # one tuple, so that two threads never see the halves of two epochs
        if known != epoch:
            here = torch.from_numpy(self._order.of_epoch(epoch))
            there = here.to(self.device)
            self._epoch = (epoch, here, there)
        return here[part], there[part]


class _Order:
    """Which images each step has: a function of the seed and the step."""

    def __init__(self, images: int, batch_size: int, seed: int, shard: tuple[int, int]) -> None:
        """Of so many images.

        Raises:
            ConfigError: shards would not be of one size.
        """
        self.images, self.batch_size, self.seed, self.shard = images, batch_size, seed, shard
        self.rows, left = divmod(batch_size, shard[1])
        if left:
            raise ConfigError(
                f"a batch of {batch_size} images does not divide by {shard[1]} devices; give another batch_size or other devices"
            )
        self._known: tuple[int, NDArray[np.int64]] = (-1, np.zeros(0, dtype=np.int64))

    def part(self, step: int) -> tuple[int, slice]:
        """The epoch of a step, and which part of it."""
        epoch, position = divmod(step, self.images // self.batch_size)
        start = position * self.batch_size + self.shard[0] * self.rows
        return epoch, slice(start, start + self.rows)

    def of_epoch(self, epoch: int) -> NDArray[np.int64]:
        """All places, shuffled. Drawn by numpy, because torch draws other permutations on a GPU than on a CPU."""
        return np.random.default_rng((self.seed, epoch)).permutation(self.images)

    def places(self, step: int) -> NDArray[np.int64]:
        """Places of a step, ``(rows,)``; an epoch's are only drawn once while its steps follow each other."""
        epoch, part = self.part(step)
        if self._known[0] != epoch:
            self._known = epoch, self.of_epoch(epoch)
        return self._known[1][part]


def evaluation_batches(image_set: ImageSet, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All images in order, as views of at most ``batch_size`` rows; the last batch may be smaller.

    Raises:
        ConfigError: ``batch_size`` below 1.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; at least 1 is allowed: raise it")
    for start in range(0, len(image_set), batch_size):
        part = slice(start, start + batch_size)
        yield image_set.pixels(part), image_set.labels[part]

"""Labelled images by number, wherever they lie: in memory, on a device, on a disk, or encoded in their source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from snugnet.data.measures import Measures, measure

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Index = NDArray[np.int64]
_SHARE_OF_FREE = 0.5  # of a device's free memory that the images may take; the rest is for training
_DIGEST_ALL = 4 * 2**30  # bytes up to which a digest is of the pixels themselves, beyond which it is of their hashes
_READ = 256  # images that are read at once where all are


class Store(Protocol):
    """Where images lie that are not in memory.

    Attributes:
        resolution: side of the images in pixels.
        decodes: whether an image is decoded anew each time that it is read.
    """

    @property
    def decodes(self) -> bool: ...

    @property
    def resolution(self) -> int: ...

    def read(self, rows: Index) -> NDArray[np.uint8]:
        """The images of these rows, in their order: ``(m, 3, r, r)``, an array of its own."""

    def measures(self, rows: Index) -> Measures:
        """What was measured when they were decoded, ``(m,)``."""


@dataclass(frozen=True, eq=False)
class StoredImages:
    """A choice of the images of a store: what stands in an `ImageSet` in the place of a tensor.

    Attributes:
        store: where they lie.
        rows: int64 ``(n,)``, which of them, in order.
    """

    store: Store
    rows: Index

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(n, 3, r, r)``."""
        return len(self.rows), 3, self.store.resolution, self.store.resolution

    def read(self, places: Index | slice) -> Tensor:
        """The images at these places, uint8 ``(m, 3, r, r)`` on the CPU."""
        import torch

        return torch.from_numpy(self.store.read(self.rows[places]))

    def take(self, places: Index) -> StoredImages:
        """Those at some places; none is read."""
        return StoredImages(self.store, self.rows[places])

    # as `snugnet.fingerprint.digest` reads an array that is too large for it
    dtype = np.dtype(np.uint8)

    def chunks(self) -> Iterator[NDArray[np.uint8]]:
        """All images, a few hundred at a time."""
        for start in range(0, len(self.rows), _READ):
            yield self.store.read(self.rows[start : start + _READ])


@dataclass(frozen=True, eq=False)
class _Several:
    """Stores one after the other, as one."""

    stores: tuple[StoredImages, ...]

    @property
    def decodes(self) -> bool:
        return any(each.store.decodes for each in self.stores)

    @property
    def resolution(self) -> int:
        return self.stores[0].store.resolution

    def _parts(self, rows: Index) -> Iterator[tuple[StoredImages, Index, Index]]:
        """Of each store the rows that are asked of it, and their places in the answer."""
        starts = np.cumsum([0, *(len(each.rows) for each in self.stores)])
        for each, start, end in zip(self.stores, starts[:-1], starts[1:], strict=True):
            places = np.flatnonzero((rows >= start) & (rows < end))
            yield each, each.rows[rows[places] - start], places

    def read(self, rows: Index) -> NDArray[np.uint8]:
        images = np.empty((len(rows), 3, self.resolution, self.resolution), dtype=np.uint8)
        for each, own, places in self._parts(rows):
            if len(own):
                images[places] = each.store.read(own)
        return images

    def measures(self, rows: Index) -> Measures:
        found = [(each.store.measures(own), places) for each, own, places in self._parts(rows)]
        measures = np.empty(len(rows), dtype=found[0][0].dtype)
        for own, places in found:
            measures[places] = own
        return measures


@dataclass(frozen=True)
class ImageSet:
    """Images and labels.

    Attributes:
        images: uint8 ``(n, 3, r, r)``, RGB; or where they lie, if they are not in memory: :meth:`pixels` gives them either way.
        labels: int64 ``(n,)``; their device is the one on which :meth:`pixels` gives images.
    """

    images: Tensor | StoredImages
    labels: Tensor

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Where :meth:`pixels` gives images, and labels are."""
        return self.labels.device

    @property
    def resolution(self) -> int:
        """Side of the images in pixels."""
        return int(self.images.shape[-1])

    @property
    def on_device(self) -> bool:
        """Whether the images themselves are on their device, so that nothing is copied for a batch."""
        return not isinstance(self.images, StoredImages) and self.images.device == self.device

    @property
    def streamed(self) -> bool:
        """Whether images are decoded anew each time that they are asked for."""
        return isinstance(self.images, StoredImages) and self.images.store.decodes

    @cached_property
    def measures(self) -> Measures:
        """What there is to know of each image without its pixels, ``(n,)``."""
        if isinstance(self.images, StoredImages):
            return self.images.store.measures(self.images.rows)
        return measure(self.images.cpu().numpy())

    def pixels(self, places: Tensor | slice) -> Tensor:
        """Images at some places (whole numbers, ``(m,)``, or a slice): uint8 ``(m, 3, r, r)`` on the set's device."""
        if isinstance(self.images, StoredImages):
            images = self.images.read(places if isinstance(places, slice) else places.cpu().numpy())
        elif isinstance(places, slice):
            images = self.images[places]
        else:
            images = self.images.index_select(0, places.to(self.images.device))
        return to_device(images, self.device)

    def to(self, device: str | torch.device, share: float = _SHARE_OF_FREE) -> ImageSet:
        """The same images, given on ``device``: moved there if they are in memory and fit, else copied as they are asked for.

        Args:
            device: a CPU or a GPU.
            share: of the device's free memory that they may take.
        """
        import torch

        images = self.images
        if not isinstance(images, StoredImages) and fits(images, torch.device(device), share):
            images = images.to(device)
        return replace(self, images=images, labels=self.labels.to(device))

    def load(self) -> ImageSet:
        """The same images, in memory."""
        if not isinstance(self.images, StoredImages):
            return self
        return replace(self, images=to_device(self.images.read(slice(None)), self.device))

    def take(self, index: Tensor | Index | list[int]) -> ImageSet:
        """The rows of ``index`` (whole numbers, ``(m,)``), in its order."""
        import torch

        rows = torch.as_tensor(index, dtype=torch.int64, device=self.labels.device)
        images: Tensor | StoredImages
        if isinstance(self.images, StoredImages):
            images = self.images.take(rows.cpu().numpy())
        else:
            images = self.images.index_select(0, rows.to(self.images.device))
        return ImageSet(images, self.labels.index_select(0, rows))

    def of_classes(self, class_indices: Tensor | Index | Sequence[int]) -> ImageSet:
        """The rows whose label is one of ``class_indices``; labels stay as they are."""
        import torch

        wanted = torch.as_tensor(class_indices, dtype=torch.int64, device=self.labels.device)
        own = torch.isin(self.labels, wanted)
        return self if bool(own.all()) else self.take(own.nonzero().flatten())

    def among(self, class_indices: Sequence[int]) -> ImageSet:
        """The rows of these classes, in order; the new labels are places in ``class_indices``."""
        import torch

        own = self.of_classes(class_indices)
        wanted = torch.as_tensor(class_indices, device=own.labels.device)
        place = torch.empty(int(wanted.max()) + 1, dtype=torch.int64, device=own.labels.device)
        place[wanted] = torch.arange(len(wanted), device=place.device)
        return ImageSet(own.images, place[own.labels])

    def joined(self, other: ImageSet) -> ImageSet:
        """These images and then those of another set of the same resolution; in memory only where both are."""
        import torch

        labels = torch.cat([self.labels, other.labels])
        if isinstance(self.images, StoredImages) and isinstance(other.images, StoredImages):
            both = _Several((self.images, other.images))
            return ImageSet(StoredImages(both, np.arange(len(labels))), labels)
        pair = self.load().images, other.load().images
        return ImageSet(torch.cat(pair), labels)  # type: ignore[arg-type]

    def contents(self) -> tuple[Any, ...]:
        """What a digest of this set is to be made of: pixels and labels, or of more than 4 GiB the pixels' hashes and labels.

        So it does not say whether images lie in memory or on a disk, and a run that began with the one goes on with the other. Of
        images that are streamed it does, since training crops them in another way.
        """
        n, channels, height, width = self.images.shape
        if self.streamed:
            return "streamed", self.measures["hash"], self.labels
        large = n * channels * height * width > _DIGEST_ALL
        return self.measures["hash"] if large else self.images, self.labels


def to_device(images: Tensor, device: torch.device) -> Tensor:
    """A batch on a device; copied there without waiting."""
    if images.device == device:
        return images
    return images.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else images.to(device)


def fits(images: Tensor, device: torch.device, share: float = _SHARE_OF_FREE) -> bool:
    """Whether images may be moved to a device: they are on a GPU already, it is a CPU, or they take no more than a share of what is free."""
    import torch

    if device.type != "cuda" or images.device.type == "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return images.numel() <= share * free

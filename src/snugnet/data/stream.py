"""Training images that are decoded as they are needed, in worker processes: each batch a pure function of (seed, step).

torch's DataLoader does the work: its workers ask for whole batches by step, so that it does not matter which worker makes which,
and a run that goes on asks for the same ones.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from snugnet.data.cache import ENCODED, Cache
from snugnet.data.depth import Range
from snugnet.data.images import Box, EncodedImage, centre_square, decode, no_warnings
from snugnet.data.measures import Measures
from snugnet.data.source import SourceSplit
from snugnet.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

Index = NDArray[np.int64]
_CROPS = 6  # of the random streams of a seed, beside those of `snugnet.data.dataset`
_TRIES = 10  # to find a crop that lies in the image, as everybody's RandomResizedCrop
_RATIO = (math.log(3 / 4), math.log(4 / 3))


@dataclass(eq=False)
class EncodedImages:
    """A `Store` that decodes what it is asked for.

    Attributes:
        cache: what was measured when each image was looked at, and encoded images of sources that are not read at random.
        split: of the source.
        value_range: as in `decode_image`.
        workers: processes that decode while a network trains.
    """

    cache: Cache
    split: SourceSplit
    value_range: Range | None
    workers: int
    decodes: ClassVar[bool] = True

    @property
    def resolution(self) -> int:
        """Side of the images in pixels."""
        return self.cache.resolution

    def measures(self, rows: Index) -> Measures:
        """What was measured of the centre squares when they were first decoded."""
        return self.cache.measures(rows)

    def read(self, rows: Index) -> NDArray[np.uint8]:
        """The centre squares, pixel by pixel as they are in memory."""
        return self._decoded(rows, lambda place: centre_square, draft=False)

    def crops(
        self, rows: Index, area: tuple[float, float], seed: tuple[int, ...], part: tuple[int, int] | None = None
    ) -> NDArray[np.uint8]:
        """Random parts of the original images, resized: uint8 ``(m, 3, r, r)``.

        Args:
            rows: of the split.
            area: range of the part's share of the image's area; its aspect ratio is between 3/4 and 4/3.
            seed: of the draw.
            part: the place of the first row in a batch, and the rows of that, of which these are a part; a batch of their own without it.
        """
        first, batch = part or (0, len(rows))
        draws = np.random.default_rng(seed).random((batch, 2 * _TRIES + 2))[first : first + len(rows)]
        return self._decoded(rows, lambda place: partial(random_box, area=area, draws=draws[place]), draft=True)

    def encoded(self, rows: Index) -> list[EncodedImage]:
        """Encoded images in the order of the rows."""
        if self.split.at_random:
            unique, back = np.unique(rows, return_inverse=True)
            found = list(self.split.read(unique))
            return [found[place] for place in back]
        known = (self.cache.table["state"][rows] & ENCODED) != 0
        assert known.all()
        where = self.split.where
        return [EncodedImage(row, self.cache.encoded(row), f"{where}, row {row}") for row in rows.tolist()]

    def _decoded(
        self, rows: Index, box_of: Callable[[int], Callable[[int, int], Box]], *, draft: bool
    ) -> NDArray[np.uint8]:
        """Decode, by as many threads as there are CPUs where no worker process does it."""
        from torch.utils.data import get_worker_info

        images = np.empty((len(rows), 3, self.resolution, self.resolution), dtype=np.uint8)

        def work(place: int, item: EncodedImage) -> None:
            try:
                if item.data is None:
                    raise DataError("there is no image")
                images[place] = decode(item.data, self.resolution, self.value_range, box_of(place), draft=draft)[0]
            except DataError as error:
                raise DataError(
                    f"{item.name}: {error}. It could be decoded when it was looked at first: leave images as they are while they "
                    "are streamed"
                ) from None

        threads = 1 if get_worker_info() is not None else min(8, os.cpu_count() or 1)
        with no_warnings():
            if threads == 1:
                list(map(work, range(len(rows)), self.encoded(rows)))
            else:
                with ThreadPoolExecutor(threads) as pool:
                    list(pool.map(work, range(len(rows)), self.encoded(rows)))
        return images


def random_box(width: int, height: int, area: tuple[float, float], draws: NDArray[np.float64]) -> Box:
    """A part of an image as RandomResizedCrop draws it (Szegedy et al., arXiv 1409.4842, section 6).

    Args:
        width: of the image.
        height: likewise.
        area: range of the part's share of the image's area.
        draws: uniform in 0..1: two for each try to find a shape, and two for the place.

    Returns:
        A box in whole pixels; where no shape fits, the largest one in the middle whose ratio is allowed.
    """
    low, high = _RATIO
    for share, ratio in draws[:-2].reshape(-1, 2).tolist():
        size = width * height * (area[0] + (area[1] - area[0]) * share)
        aspect = math.exp(low + (high - low) * ratio)
        across, down = round(math.sqrt(size * aspect)), round(math.sqrt(size / aspect))
        if 0 < across <= width and 0 < down <= height:
            left, top = (
                int(draw * (room + 1)) for draw, room in zip(draws[-2:], (width - across, height - down), strict=True)
            )
            return left, top, left + across, top + down
    across = max(1, min(width, round(height * math.exp(high))))
    down = max(1, min(height, round(width / math.exp(low))))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


@dataclass(frozen=True, eq=False)
class StreamedBatches:
    """Images of training steps: what torch's DataLoader asks, by step.

    Attributes:
        images: where they lie.
        rows_of: rows of the store for a step.
        area: of random crops; None for centre squares.
        seed: of the training.
        part: of the batch, see :meth:`EncodedImages.crops`.
    """

    images: EncodedImages
    rows_of: Callable[[int], Index]
    area: tuple[float, float] | None
    seed: int
    part: tuple[int, int]

    def __getitem__(self, step: int) -> Tensor | str:
        """uint8 ``(b, 3, r, r)``; or what went wrong, since an error of a worker comes with the whole story of its process."""
        import torch

        try:
            rows = self.rows_of(step)
            if self.area is None:
                return torch.from_numpy(self.images.read(rows))
            return torch.from_numpy(self.images.crops(rows, self.area, (self.seed, _CROPS, step), self.part))
        except DataError as error:
            return str(error)


class Stream:
    """Batches of images, made ahead by worker processes as long as steps follow each other."""

    def __init__(self, batches: StreamedBatches) -> None:
        self._batches = batches
        self._coming: Iterator[Any] | None = None
        self._next = 0
        self._last: tuple[int, Tensor] | None = None

    def images(self, step: int, *, pin: bool = False) -> Tensor:
        """Images of a step, uint8 ``(b, 3, r, r)`` on the CPU.

        Raises:
            DataError: an image can no longer be decoded, or a worker has ended.
        """
        if self._last is not None and self._last[0] == step:
            return self._last[1]
        if self._coming is None or step != self._next:
            self._coming = self._from(step, pin)
        try:
            found: Tensor | str = next(self._coming)
        except (
            RuntimeError,
            OSError,
            EOFError,
        ) as error:  # a worker was killed; the last two while it handed over a batch
            self._coming = None
            raise DataError(
                f"a process that decodes training images has ended ({str(error).partition(chr(10))[0][:160]}); set data.workers to fewer, "
                "or to 0, and go on"
            ) from None
        self._next = step + 1
        if isinstance(found, str):
            self._coming = None
            raise DataError(found)
        self._last = step, found
        return found

    def close(self) -> None:
        """Let the workers end; who asks for more images gets new ones."""
        self._coming = None

    def _from(self, step: int, pin: bool) -> Iterator[Any]:
        import torch
        from torch.utils.data import DataLoader

        workers = self._batches.images.workers if "fork" in multiprocessing.get_all_start_methods() else 0
        loader: DataLoader[Any] = DataLoader(
            self._batches,  # type: ignore[arg-type]
            batch_size=None,
            sampler=_Steps(step),
            num_workers=workers,
            # an iterator draws a seed for its workers: not from the generator that a training step draws from
            generator=torch.Generator(),
            worker_init_fn=_begin_worker,
            multiprocessing_context="fork" if workers else None,
            pin_memory=pin and workers > 0,
            prefetch_factor=2 if workers else None,
        )
        return iter(loader)


class _Steps:
    """Steps from one on, without end."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __iter__(self) -> Iterator[int]:
        step = self.first
        while True:
            yield step
            step += 1


def _begin_worker(number: int) -> None:
    """Leave Ctrl-C to the process that trains, which ends its step first; and end when told to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

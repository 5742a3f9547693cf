"""What decoding a source has come to, on a disk: pixels, and what was measured of each image.

A cache is a folder of one split of a source at one resolution. It has a place for every row, and rows are decoded into it when
they are first asked for, so that recipes which choose other rows share it. A row counts once its pixels are on the disk: a run
that is killed, or a disk that is full, leaves a cache that is gone on with.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from snugnet.data.depth import Depth
from snugnet.data.images import Chunk
from snugnet.data.measures import MEASURES, Measures, measure
from snugnet.errors import BusyError, DataError
from snugnet.files import file_stamp, json_text, locked, write_atomically
from snugnet.fingerprint import digest

Index = NDArray[np.int64]
LOOKED_AT, BAD, PIXELS, ENCODED = 1, 2, 4, 8
"""Bits of a row's state: measured; cannot be decoded; its pixels are kept; its encoded bytes are kept."""
_ROW = np.dtype([("state", "u1"), ("offset", "<u8"), ("length", "<u8"), *MEASURES.descr])
_FORMAT = 1
_COMMIT = 64 * 2**20  # bytes after which what was written is made to count
_MAPPED = 128 * 2**20  # bytes of the pixels that a process has mapped at most, about
_PAGES = 2**16  # bytes that the system maps around each that is touched
_WAIT = 0.5  # seconds between two looks whether another process has done its part


@dataclass(eq=False)
class Cache:
    """A cache on a disk; a `Store` of the rows whose pixels it keeps.

    Attributes:
        folder: of this cache alone.
        rows: of the split.
        resolution: side of the images in pixels.
        table: for each row its state, where its encoded bytes are, and what was measured.
        problems: of bad rows, their name and the reason.
        depths: of rows of more than 8 bits.
    """

    folder: Path
    rows: int
    resolution: int
    table: NDArray[np.void] = field(init=False, repr=False)
    problems: dict[int, str] = field(init=False, repr=False)
    depths: dict[int, Depth] = field(init=False, repr=False)
    decodes: ClassVar[bool] = False
    _touched: int = field(default=0, init=False, repr=False)

    @classmethod
    def of(cls, root: Path, identity: Mapping[str, Any], rows: int, resolution: int) -> Cache:
        """Open the cache of what an identity describes, or begin it.

        Args:
            root: under which caches are.
            identity: plain JSON of all that the pixels depend on. A cache of anything else is another folder.
            rows: of the split.
            resolution: side of the images in pixels.

        Raises:
            DataError: the folder cannot be made, or holds something else.
        """
        identity = {"format": _FORMAT, "rows": rows, "resolution": resolution, **identity}
        cache = cls(root / f"{resolution}px-{digest(identity)}", rows, resolution)
        index = cache.folder / "index.json"
        with cache.problems_named("begin"):
            if not index.exists():
                write_atomically(index, json_text(identity).encode())
            elif _json(index) != json.loads(json_text(identity)):
                raise DataError(f"{index} is not the index of the images asked for; delete {cache.folder}")
            cache.reload()
        return cache

    # -- what there is -------------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read what is there by now; rows whose files are shorter than they should be are not there."""
        self.table = np.zeros(self.rows, dtype=_ROW)
        if self._path("rows").exists():
            known = np.fromfile(self._path("rows"), dtype=_ROW, count=self.rows)
            self.table[: len(known)] = known
        self.problems, self.depths = {}, {}
        linked: dict[int, list[Any]] = {}
        for line in self._lines():
            row = line["row"]
            if "problem" in line:
                self.problems[row] = line["problem"]
            if "depth" in line:
                self.depths[row] = Depth(*line["depth"])
            if "file" in line:
                linked[row] = line["file"]
        self._forget(
            np.array([row for row, file in linked.items() if file != file_stamp(Path(file[0]))], dtype=np.int64)
        )
        ends = (np.arange(self.rows, dtype=np.uint64) + np.uint64(1)) * np.uint64(self._bytes)
        self._forget(self._kept(PIXELS) & (ends > self._size("pixels")))
        self._forget(self._kept(ENCODED) & (self.table["offset"] + self.table["length"] > self._size("encoded")))

    def missing(self, rows: Index, needed: NDArray[np.uint8]) -> Index:
        """Those rows that are not yet decoded, or of which something needed (bits of each one's state) is not kept; bad ones never are."""
        state = self.table["state"][rows]
        found: Index = rows[((state & needed) != needed) & ((state & BAD) == 0)]
        return found

    def bad(self, rows: Index) -> NDArray[np.bool_]:
        """Which rows cannot be decoded."""
        found: NDArray[np.bool_] = (self.table["state"][rows] & BAD) != 0
        return found

    def measures(self, rows: Index) -> Measures:
        """What was measured of decoded rows, `MEASURES` ``(m,)``."""
        measures = np.zeros(len(rows), dtype=MEASURES)
        for name in MEASURES.names or ():
            measures[name] = self.table[name][rows]
        return measures

    def read(self, rows: Index) -> NDArray[np.uint8]:
        """Pixels of rows, which are kept: uint8 ``(m, 3, r, r)``."""
        file, pixels = self._map
        for first, count in _runs(rows):
            # all of a batch is on its way from the disk before the first row is waited for
            start = first * self._bytes // mmap.PAGESIZE * mmap.PAGESIZE
            _advise(file, "WILLNEED", start, (first + count) * self._bytes - start)
        images = pixels[rows]
        self._touched += len(rows) * (self._bytes + _PAGES)
        if (
            self._touched > _MAPPED
        ):  # what was read stays with the system, but no longer counts as this process's memory
            _advise(file, "DONTNEED")
            self._touched = 0
        return images

    def encoded(self, row: int) -> bytes:
        """The encoded bytes of a row, which are kept."""
        offset, length = int(self.table["offset"][row]), int(self.table["length"][row])
        return os.pread(self._encoded_file.fileno(), length, offset)

    @cached_property
    def _map(self) -> tuple[mmap.mmap, NDArray[np.uint8]]:
        with self._path("pixels").open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        _advise(mapped, "RANDOM")
        whole = len(mapped) // self._bytes
        flat = np.frombuffer(mapped, dtype=np.uint8, count=whole * self._bytes)
        return mapped, flat.reshape(whole, 3, self.resolution, self.resolution)

    @cached_property
    def _encoded_file(self) -> FileIO:
        return FileIO(self._path("encoded"))

    # -- writing -------------------------------------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[CacheWriter]:
        """Be the one who writes; what others have written meanwhile is waited for and read.

        Raises:
            DataError: the disk is full or cannot be written; what counts already stays.
        """
        with self.problems_named("write"), _alone(self.folder):
            self.reload()
            writer = CacheWriter(self)
            try:
                yield writer
                writer.commit()
            finally:
                writer.close()
            for name in ("_map", "_encoded_file"):
                self.__dict__.pop(name, None)

    @contextmanager
    def problems_named(self, doing: str) -> Iterator[None]:
        """Whatever the disk refuses is a DataError that says what to do."""
        try:
            yield
        except OSError as error:
            kept = int(np.count_nonzero(self._kept(LOOKED_AT))) if hasattr(self, "table") else 0
            so_far = f"; {kept:,} images that are there already are kept" if kept else ""
            if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
                raise DataError(
                    f"no space is left for the cache of images {self.folder}{so_far}: free some, or set data.cache to a folder on "
                    "another disk, and run the same again"
                ) from None
            raise DataError(
                f"cannot {doing} the cache of images {self.folder}: {error.strerror or error}{so_far}; set data.cache to another "
                "folder"
            ) from None

    @property
    def _bytes(self) -> int:
        return 3 * self.resolution**2

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.{'jsonl' if name == 'notes' else 'bin'}"

    def _size(self, name: str) -> int:
        path = self._path(name)
        return path.stat().st_size if path.exists() else 0

    def _kept(self, bit: int) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (self.table["state"] & bit) != 0
        return found

    def _forget(self, rows: Index | NDArray[np.bool_]) -> None:
        self.table["state"][rows] = 0

    def _lines(self) -> Iterator[dict[str, Any]]:
        path = self._path("notes")
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                yield json.loads(line)
            except ValueError:  # cut off by a kill: its row does not count, and is decoded again
                continue


class CacheWriter:
    """Puts decoded images into a cache. They count from `commit` on, which comes by itself every 64 MiB."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self._files = {name: _open_to_write(cache._path(name)) for name in ("pixels", "encoded", "notes", "rows")}
        self._states: dict[int, int] = {}
        self._size = 0

    def add(self, chunk: Chunk, keep: NDArray[np.integer]) -> None:
        """Write a chunk.

        Args:
            chunk: of decoded images.
            keep: for each of its images what is kept of it: the bits PIXELS and ENCODED.

        Raises:
            OSError: by the disk.
            DataError: an image whose bytes are to be kept has none.
        """
        table, notes = self.cache.table, []
        measures = measure(chunk.images)
        for place, item in enumerate(chunk.items):
            row = item.row
            note: dict[str, Any] = {"row": row}
            self._states[row] = LOOKED_AT | int(keep[place])
            if isinstance(item.data, Path) and not item.own_file:
                note["file"] = file_stamp(item.data)
            if place in chunk.problems:
                note["problem"] = chunk.problems[place]
                self._states[row] = LOOKED_AT | BAD
            elif place in chunk.depths:
                depth = chunk.depths[place]
                note["depth"] = [depth.kind, depth.low, depth.high, depth.full]
            if self._states[row] & PIXELS:
                self._put("pixels", chunk.images[place].tobytes(), row * self.cache._bytes)
            if self._states[row] & ENCODED:
                content = _bytes_of(item.data, item.name)
                table["offset"][row], table["length"][row] = self._put("encoded", content), len(content)
            for name in MEASURES.names or ():
                table[name][row] = measures[name][place]
            if len(note) > 1:
                notes.append(json.dumps(note) + "\n")
        self.cache.problems |= {chunk.items[place].row: problem for place, problem in chunk.problems.items()}
        self.cache.depths |= {chunk.items[place].row: depth for place, depth in chunk.depths.items()}
        if notes:
            self._put("notes", "".join(notes).encode())
        if self._size > _COMMIT:
            self.commit()

    def commit(self) -> None:
        """Make all count that was written: the pixels are on the disk before the table says so."""
        if not self._states:
            return
        for name in ("pixels", "encoded", "notes"):
            os.fsync(self._files[name].fileno())
        rows = np.fromiter(self._states, dtype=np.int64)
        # what another state had kept already stays
        old = self.cache.table["state"][rows] & (PIXELS | ENCODED)
        before = self.cache.table["state"].copy()
        self.cache.table["state"][rows] = np.fromiter(self._states.values(), dtype=np.uint8) | old
        first, last = int(rows.min()), int(rows.max()) + 1
        try:
            self._put("rows", self.cache.table[first:last].tobytes(), first * _ROW.itemsize)
            os.fsync(self._files["rows"].fileno())
        except OSError:
            self.cache.table["state"] = before
            raise
        self._states.clear()
        self._size = 0

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files.values():
            file.close()

    def _put(self, name: str, content: bytes, offset: int | None = None) -> int:
        """Write at a place, or at the end; returns the place."""
        file = self._files[name]
        place = file.seek(0, os.SEEK_END) if offset is None else file.seek(offset)
        left = memoryview(content)
        while left:  # a disk that is nearly full takes a part, and refuses the rest
            left = left[file.write(left) :]
        self._size += len(content)
        return place


def _advise(mapped: mmap.mmap, advice: str, *where: int) -> None:
    """Tell the system how a mapping is used, where it can be told."""
    if hasattr(mmap, f"MADV_{advice}"):
        mapped.madvise(getattr(mmap, f"MADV_{advice}"), *where)


def _open_to_write(path: Path) -> FileIO:
    path.touch()
    return FileIO(path, "r+")


def _bytes_of(data: Any, name: str) -> bytes:
    if isinstance(data, Path):
        return data.read_bytes()
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise DataError(f"{name} is no encoded image but {type(data).__name__}; set data.storage to disk")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None


def _runs(rows: Index) -> Iterator[tuple[int, int]]:
    """First row and number of rows that follow each other."""
    ordered = np.sort(rows)
    starts = np.flatnonzero(np.diff(ordered, prepend=-2) > 1)
    for start, end in zip(starts, [*starts[1:], len(ordered)], strict=True):
        yield int(ordered[start]), int(ordered[end - 1] - ordered[start] + 1)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process writes here."""
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(folder))
                break
            except BusyError:
                time.sleep(_WAIT)
        yield

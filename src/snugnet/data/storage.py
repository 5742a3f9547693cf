"""Where decoded images are kept: in memory, on a disk, or nowhere, so that they are decoded each time they are needed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from snugnet.data.cache import ENCODED, LOOKED_AT, PIXELS, Cache
from snugnet.data.config import DataConfig
from snugnet.data.depth import Depth
from snugnet.data.image_set import Store
from snugnet.data.images import decode_chunks
from snugnet.data.source import SourceSplit
from snugnet.data.stream import EncodedImages
from snugnet.errors import DataError
from snugnet.extras import needs

Index = NDArray[np.int64]
Kind = Literal["memory", "disk", "stream"]
_SHARE_OF_MEMORY = 0.5  # of what is free, that images may take; the rest is for training
_SHARE_OF_DISK = 0.9


@dataclass(frozen=True)
class Storage:
    """Where the images of one loading are kept.

    Attributes:
        kind: memory, disk or stream.
        note: why, for the report; empty for images in memory, the usual case.
    """

    kind: Kind
    note: str = ""

    @classmethod
    def of(cls, config: DataConfig, images: int, cached: Callable[[], int]) -> Storage:
        """The one that is asked for, or that fits.

        Args:
            config: what to load.
            images: how many there are of all splits.
            cached: asked where they may go to the disk: how many bytes of them are there already.
        """
        size = images * 3 * config.resolution**2
        if config.storage != "auto":
            return cls(config.storage, _note(config, config.storage, size) if config.storage != "memory" else "")
        memory = available_memory()
        if memory is None or size <= _SHARE_OF_MEMORY * memory / _processes():
            return cls("memory")
        disk = free_disk(cache_folder(config)) + cached()
        kind: Kind = "disk" if size <= _SHARE_OF_DISK * disk else "stream"
        why = f"{_gib(size)} of decoded images are more than half of the {_gib(memory)} of memory that are free"
        if kind == "stream":
            why += f", and more than the {_gib(disk)} of disk"
        return cls(kind, f"{_note(config, kind, size)}, because {why}")


def decode_to_cache(
    split: SourceSplit, rows: Mapping[str, Index], config: DataConfig, kind: Kind, progress: str | None
) -> tuple[dict[str, Store], Cache]:
    """Decode what is not yet in the cache of a split; nothing of it is held in memory.

    Args:
        split: of a source.
        rows: of it, that are asked for as training, validation and test images.
        config: what to load.
        kind: with ``stream`` the pixels of training images are not kept.
        progress: description of the bar; None for no bar.

    Returns:
        For each of the names in ``rows`` the store to read them from, by their numbers in the split; and what is known of them.

    Raises:
        DataError: a bad image, unless they are skipped; or the disk is full.
    """
    cache = _cache(split, config)
    needed = np.zeros(cache.rows, dtype=np.uint8)
    for name, own in rows.items():
        streamed = kind == "stream" and name == "train"
        needed[own] = LOOKED_AT | (PIXELS if not streamed else 0 if split.at_random else ENCODED)
    _fill(cache, split, needed, config, progress)
    encoded = EncodedImages(cache, split, config.value_range, _workers(config))
    return {name: encoded if kind == "stream" and name == "train" else cache for name in rows}, cache


def _cache(split: SourceSplit, config: DataConfig) -> Cache:
    return Cache.of(cache_folder(config), _identity(split, config), len(split.labels.codes), config.resolution)


def cached_bytes(splits: Iterable[SourceSplit], config: DataConfig) -> int:
    """Of pixels that the caches of some splits hold already."""
    rows = sum(int(np.count_nonzero(_cache(split, config).table["state"] & PIXELS)) for split in splits)
    return rows * 3 * config.resolution**2


def _fill(
    cache: Cache, split: SourceSplit, needed: NDArray[np.uint8], config: DataConfig, progress: str | None
) -> None:
    wanted = np.flatnonzero(needed)
    skip_bad = config.on_bad_image == "skip"
    if len(cache.missing(wanted, needed[wanted])):
        with cache.writing() as writer:
            missing = cache.missing(wanted, needed[wanted])  # another process may have been at it
            _check_space(cache, needed[missing])
            chunks = decode_chunks(
                split.read(missing), len(missing), cache.resolution,
                value_range=config.value_range, skip_bad=skip_bad, progress=progress,
            )  # fmt: skip
            for chunk in chunks:
                writer.add(chunk, needed[[item.row for item in chunk.items]] & (PIXELS | ENCODED))
    bad = wanted[cache.bad(wanted)]
    if len(bad) and not skip_bad:
        raise DataError(f"{cache.problems[int(bad[0])]}, or set on_bad_image=skip")


def _check_space(cache: Cache, needed: NDArray[np.uint8]) -> None:
    """Refuse at once what cannot end well; how much encoded images will take is not known."""
    size = int(np.count_nonzero(needed & PIXELS)) * 3 * cache.resolution**2
    free = free_disk(cache.folder)
    if size > free:
        raise DataError(
            f"the cache of images {cache.folder} needs {_gib(size)} more, and {_gib(free)} are free; free some, set data.cache to a "
            "folder on another disk, or data.storage to stream"
        )


def _identity(split: SourceSplit, config: DataConfig) -> dict[str, object]:
    """All that decoded pixels depend on, the resolution aside."""
    needs("PIL")
    from PIL import __version__, features

    return {
        "content": split.content(),
        "value_range": config.value_range,
        "pillow": __version__,
        "jpeg": features.version("jpg"),
    }


def known_depths(cache: Cache, rows: Index) -> list[Depth]:
    """Of those rows that have more than 8 bits, in order."""
    return [cache.depths[row] for row in rows.tolist() if row in cache.depths]


def cache_folder(config: DataConfig) -> Path:
    """Where caches are: as configured, else ``$SNUGNET_CACHE``, else ``~/.cache/snugnet``."""
    return Path(config.cache or os.environ.get("SNUGNET_CACHE") or "~/.cache/snugnet").expanduser()


def available_memory() -> int | None:
    """Bytes of memory that can be had without swapping, within the limit of a container; None where the system does not say."""
    known = []
    try:
        meminfo = Path("/proc/meminfo").read_text()
        known.append(
            int(next(line.split()[1] for line in meminfo.splitlines() if line.startswith("MemAvailable:"))) * 1024
        )
    except (OSError, StopIteration, ValueError):
        pass
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            known.append(max(0, int(limit) - int(Path("/sys/fs/cgroup/memory.current").read_text())))
    except (OSError, ValueError):
        pass
    return min(known) if known else None


def free_disk(folder: Path) -> int:
    """Bytes that are free where a folder is, or will be."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(there).free


def _workers(config: DataConfig) -> int:
    if config.workers is not None:
        return config.workers
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cpus) // _processes())


def _processes() -> int:
    """Processes of this machine that torchrun has started to train together: each loads the images, and they share what there is."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def _note(config: DataConfig, kind: Kind, size: int) -> str:
    if kind == "disk":
        return f"decoded images are kept on the disk, below {cache_folder(config)} ({_gib(size)})"
    return f"training images are decoded as they are needed; what else is decoded is kept below {cache_folder(config)}"


def _gib(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB"

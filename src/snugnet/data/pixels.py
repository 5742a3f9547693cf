"""Whether there is anything to see in images: what is said before a training, and when one has gone wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from snugnet.errors import DataError

FLAT = 2  # levels of 255 by which the pixels of an image "of one colour" may differ: JPEG's rounding
_NARROW = 32  # levels: an eighth of what there is
SAMPLE = 2000  # images whose histogram is taken
_CHUNK = 1024


def spans(images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The smallest and the greatest value of each channel of each image.

    Args:
        images: uint8 ``(n, c, h, w)``.

    Returns:
        Two arrays ``(n, c)``.
    """
    flat = images.reshape(*images.shape[:2], -1)
    parts = [flat[start : start + _CHUNK] for start in range(0, len(flat), _CHUNK)]
    if not parts:
        return (np.zeros(images.shape[:2], np.uint8),) * 2
    return np.concatenate([part.min(2) for part in parts]), np.concatenate([part.max(2) for part in parts])


def is_flat(low: NDArray[np.uint8], high: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which images, of :func:`spans`, are of one colour but for rounding: bool ``(n,)``."""
    found: NDArray[np.bool_] = np.all(high.astype(np.int16) - low <= FLAT, axis=1)
    return found


def check_pixels(
    low: NDArray[np.uint8],
    high: NDArray[np.uint8],
    counts: NDArray[np.int64],
    value_range: Sequence[float] | None = None,
    split: str = "training",
) -> list[str]:
    """Notes on images that have little or nothing in them.

    Args:
        low: of all images, at least one, as `spans` gives it.
        high: likewise.
        counts: how often each value is there, ``(256,)``, in `SAMPLE` of the images or fewer.
        value_range: how they were scaled, for messages.
        split: whose images they are, in words.

    Raises:
        DataError: all training images are of one and the same colour. Of others, of which there may be a few, this is a note.
    """
    flat = is_flat(low, high)
    advice = (
        f"value_range=[{value_range[0]:g}, {value_range[1]:g}] may be wrong"
        if value_range is not None
        else "if their values have another range than 0 to 255, say so by value_range=[low, high]"
    )
    if flat.all() and is_flat(low.min(0)[None], high.max(0)[None])[0]:
        problem = f"all {len(flat)} {split} images are of one and the same colour (values {low.min()} to {high.max()} of 0 to 255)"
        if split == "training":
            raise DataError(f"{problem}, so there is nothing to learn; look at the files, and {advice}")
        return [f"{problem}; look at the files, and {advice}"]
    notes = []
    if flat.any():
        notes.append(
            f"{int(flat.sum())} of {len(flat)} {split} images are of one colour each (values that differ by {FLAT} of 255 "
            f"or less); {advice}"
        )
    counts = np.cumsum(counts)
    # 0.1% of the pixels, at either end half of it, may be specks
    first, last = np.searchsorted(counts, [0.0005 * counts[-1], 0.9995 * counts[-1]])
    if last - first < _NARROW:
        notes.append(f"{split} images use the values {first} to {last} of 0 to 255 alone; {advice}")
    return notes

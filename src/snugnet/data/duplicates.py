"""Images that stand in two places, found by a hash of their pixels.

Pixels are compared as a network sees them: decoded, RGB, cut and resized to the resolution in use, as bytes. A copy under
another name or in another lossless format is found; the same photo encoded anew as JPEG, cropped or recoloured is another
image here. The smaller the resolution, the more do photos that differ in details alone become equal.
"""

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snugnet.extras import needs

Index = NDArray[np.int64]
_PLACES_NAMED = 5  # places that a report names, for each pair of splits


def pixel_hashes(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """A number for each image: equal for equal pixels, and for others by chance alone.

    XXH3 of 64 bits: two of a million images are confused with a probability of 3e-8. 100,000 images of 64 x 64 take
    0.1 s, and 8 bytes each.

    Args:
        images: uint8 ``(n, ...)``.

    Returns:
        uint64 ``(n,)``.
    """
    needs("xxhash")
    import xxhash

    numbers = (xxhash.xxh3_64_intdigest(np.ascontiguousarray(image).data) for image in images)
    return np.fromiter(numbers, dtype=np.uint64, count=len(images))


def equal_pairs(first: NDArray[np.uint64], second: NDArray[np.uint64] | None = None) -> tuple[Index, Index]:
    """Positions of equal hashes.

    Args:
        first: ``(n,)``.
        second: ``(m,)``; None for repeats within ``first``.

    Returns:
        Positions in ``first`` and in ``second``, ascending in the latter: each of ``second`` that is in ``first``, with the
        first such place. Without ``second``: each repeat, with the first of its kind.
    """
    values, places = np.unique(first, return_index=True)
    asked = first if second is None else second
    if not len(values):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    at = np.minimum(np.searchsorted(values, asked), len(values) - 1)
    found = np.flatnonzero(values[at] == asked)
    known = places[at[found]]
    if second is None:
        repeats = known != found
        known, found = known[repeats], found[repeats]
    return known, found


def report_duplicates(
    hashes: Mapping[str, NDArray[np.uint64]],
    labels: Mapping[str, Index],
    names: Callable[[str, Index], list[str]],
) -> dict[str, Any]:
    """Count equal images within each split and between each two.

    Args:
        hashes: `pixel_hashes` of each split, ``(n,)``.
        labels: ``(n,)`` of each split.
        names: of the images of a split at some positions.

    Returns:
        JSON-ready, by ``"train"`` or ``"train and test"``: ``count`` (images that are in the split before already; within a
        split, images beyond the first), ``other_class`` (those whose label differs there), and ``first``, pairs of names.
    """
    report: dict[str, Any] = {}
    for one, other in [(split, split) for split in hashes] + list(combinations(hashes, 2)):
        known, found = equal_pairs(hashes[one], None if one == other else hashes[other])
        shown = zip(names(one, known[:_PLACES_NAMED]), names(other, found[:_PLACES_NAMED]), strict=True)
        report[one if one == other else f"{one} and {other}"] = {
            "count": len(found),
            "other_class": int((labels[one][known] != labels[other][found]).sum()),
            "first": [list(pair) for pair in shown],
        }
    return report

"""What is kept of each decoded image, whether or not its pixels are: enough for mean and std, equal images, and empty ones.

It is measured once, when an image is decoded or when it is first asked for, so that images which lie on a disk are not read
again to be looked at.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from snugnet.data.duplicates import pixel_hashes

MEASURES = np.dtype([("hash", "<u8"), ("low", "u1", 3), ("high", "u1", 3), ("sum", "<u8", 3), ("squares", "<u8", 3)])
"""Of one image: `pixel_hashes`; smallest and greatest value of each channel; sums of the values and of their squares."""
Measures = NDArray[np.void]
_CHUNK = 64


def measure(images: NDArray[np.uint8]) -> Measures:
    """Measure images.

    Args:
        images: uint8 ``(n, 3, r, r)``.

    Returns:
        `MEASURES`, ``(n,)``.
    """
    measures = np.zeros(len(images), dtype=MEASURES)
    measures["hash"] = pixel_hashes(images)
    values = np.arange(256, dtype=np.int64)
    for start in range(0, len(images), _CHUNK):
        own = slice(start, start + _CHUNK)
        counts = histograms(images[own])  # faster than a pass over the pixels for each
        there = counts > 0
        measures["low"][own] = there.argmax(axis=2)
        measures["high"][own] = 255 - there[:, :, ::-1].argmax(axis=2)
        measures["sum"][own] = counts @ values
        measures["squares"][own] = counts @ values**2
    return measures


def histograms(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each value is there, in each channel of each image: ``(n, c, h, w)`` to ``(n, c, 256)``."""
    counts = np.empty((*images.shape[:2], 256), dtype=np.int64)
    for image, of_image in zip(images, counts, strict=True):
        for channel, own in zip(image, of_image, strict=True):
            own[:] = np.bincount(channel.ravel(), minlength=256)
    return counts


def mean_std_of(measures: Measures, pixels: int) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Exact mean and standard deviation of each channel, in 0..1 (sums of whole numbers, so order does not matter).

    Args:
        measures: of the images, at least one.
        pixels: of one image.
    """
    count = len(measures) * pixels
    mean = measures["sum"].sum(axis=0, dtype=np.uint64).astype(np.float64) / count
    squares = measures["squares"].sum(axis=0, dtype=np.uint64).astype(np.float64) / count
    std = np.sqrt(np.maximum(squares - np.square(mean), 0)) / 255
    std[std < 1e-6] = 1.0
    red, green, blue = (mean / 255).tolist()
    return (red, green, blue), tuple(std.tolist())

"""What a training was given, looked at when its loss is not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from snugnet.data.pixels import is_flat, spans

_FAR = 50.0  # standard deviations; ordinary images are within three, and one white pixel on black within 30


def faults(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> str:
    """What is wrong with the images of a step, in words; "" if nothing is.

    Args:
        images: uint8 ``(n, 3, h, w)``, as they come before augmentation.
        mean: of each channel, 0 to 1, that is taken away.
        std: of each channel, that is divided by.
    """
    if not all(math.isfinite(value) for value in (*mean, *std)) or min(std) <= 0:
        return f"their mean {list(mean)} and std {list(std)} are not finite numbers to divide by"
    low, high = spans(images.detach().cpu().numpy())
    flat = int(is_flat(low, high).sum())
    if 2 * flat > len(images):
        return (
            f"{flat} of the {len(images)} of that step are of one colour each (values {low.min()} to {high.max()} of 0 to 255); "
            "if their values have another range, say so by data.value_range"
        )
    ends = zip(low.min(0), high.max(0), mean, std, strict=True)
    far = max(abs(float(value) / 255 - middle) / spread for *both, middle, spread in ends for value in both)
    if far > _FAR:
        return (
            f"they lie up to {far:.0f} standard deviations from the mean of the training images, whose std is "
            f"{min(std):.2g}: nearly all of these are of one colour; if their values have another range, say so by data.value_range"
        )
    return ""

"""From pixels of any depth to 8 bits, by a stated rule.

* 8 bits stay as they are; 1 bit becomes 0 and 255.
* Unsigned 16 bits: 0 to 65535 become 0 to 255 (and 12 bits of a TIFF that says so: 0 to 4095). An image that would be black for
  it, all its values below 256, is refused: its range is another one.
* Whole numbers of an image of 32 bits or of a signed type have no known range. Within 0 to 65535 they count as 16 bits, which is noted;
  beyond, they are refused.
* Floating-point pixels have no known range and are refused.
* Of colours of 16 bits Pillow reads the upper eight, so values below 256 are black to it.

With ``value_range=[low, high]`` all of this gives way to one rule, for images of every depth: low becomes 0, high 255, what lies
between is spread evenly, and what lies beyond is cut off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snugnet.errors import DataError

Range = tuple[float, float]
COLOUR = "16-bit colour"
_LEAST_LEVELS = 16  # of 16-bit colours between black and white
_USUAL: tuple[Range, ...] = ((0, 1), (0, 255), (0, 1023), (0, 4095), (0, 16383), (0, 65535), (-1, 1), (-32768, 32767))


@dataclass(frozen=True)
class Depth:
    """Of an image that had more than 8 bits.

    Attributes:
        kind: in words, such as "16-bit".
        low: its smallest value.
        high: its greatest value.
        full: the value that became 255.
    """

    kind: str
    low: float
    high: float
    full: float


def to_8_bit(values: NDArray[Any], kind: str, full: int, value_range: Range | None) -> tuple[NDArray[np.uint8], Depth]:
    """Scale whole or floating-point pixels.

    Args:
        values: of any shape, not empty.
        kind: what they are, in words.
        full: the greatest value of their type, one less than a power of two from 255 on; 0 where nobody knows it.
        value_range: what becomes 0 and 255, where it is said.

    Raises:
        DataError: they have no range, or would all be black.
    """
    low, high = values.min().item(), values.max().item()
    if not np.isfinite(low + high):
        raise DataError(f"image cannot be decoded: it has {kind} pixels that are not finite; mend or remove it")
    if value_range is not None:
        return scaled(values, value_range), Depth(kind, low, high, value_range[1])
    if not full:
        whole = values.dtype.kind in "iu"
        of = f"{kind} pixels ({low:g} to {high:g})" if whole else f"floating-point pixels ({low:g} to {high:g})"
        raise DataError(f"image cannot be decoded: it has {of}, whose range is unknown; {advice(low, high)}")
    if low < 0 or high > full:
        raise DataError(
            f"image cannot be decoded: its {kind} values are {low:g} to {high:g}, and 0 to {full} are read; "
            f"{advice(low, high)}"
        )
    step = (full + 1) // 256
    if 0 < high < step:
        raise DataError(
            f"image cannot be decoded: its {kind} values are {low:g} to {high:g} of 0 to {full}, so it would be black; "
            f"{advice(low, high)}"
        )
    return (values // step).astype(np.uint8), Depth(kind, low, high, full)


def of_colours(levels: NDArray[np.uint8], full: int, value_range: Range | None) -> Depth:
    """What Pillow has made 8 bits of.

    Args:
        levels: as it gives them, not empty.
        full: the value that its level 255 stands for.
        value_range: what becomes 0 and 255, where it is said.

    Raises:
        DataError: of the values between those it tells fewer than 16 apart.
    """
    step = (full + 1) // 256
    if value_range is not None and value_range[1] - value_range[0] + 1 < _LEAST_LEVELS * step:
        raise DataError(
            f"image cannot be decoded: of {COLOUR}s the upper eight bits are read, which tell apart only every {step} values, so "
            f"value_range=[{value_range[0]:g}, {value_range[1]:g}] leaves next to nothing; store it with 8 bits"
        )
    return Depth(COLOUR, levels.min().item() * step, levels.max().item() * step + step - 1, full)


def scaled(values: NDArray[Any], value_range: Range) -> NDArray[np.uint8]:
    """Spread ``value_range`` over 0 to 255, to the nearest whole number."""
    low, high = value_range
    spread = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.rint(np.clip(spread, 0, 255)).astype(np.uint8)


def scaling_table(value_range: Range, stored: int = 255) -> list[int]:
    """What each of 256 levels becomes, of an image whose level 255 stands for the value ``stored``."""
    return [int(value) for value in scaled(np.arange(256) * (stored / 255), value_range)]


def advice(low: float, high: float) -> str:
    """What to set for values between ``low`` and ``high``."""
    usual = next((each for each in _USUAL if each[0] <= low and high <= each[1]), None)
    start, end = usual or (low, high)
    return f"say which values are black and white by value_range=[{start:g}, {end:g}] or so"


def check_depths(depths: Sequence[Depth], total: int, split: str = "training") -> list[str]:
    """Notes on the images of more than 8 bits.

    Args:
        depths: of those images.
        total: images of the split, of any depth.
        split: whose images they are, in words.

    Raises:
        DataError: nearly all of them stay in the lowest quarter of their range (12 or 14 bits in 16): they would be dark, and
            have a few of the 256 levels. Of images that are not trained on, of which there may be a few, this is a note.
    """
    notes = []
    for kind in dict.fromkeys(each.kind for each in depths):
        own = [each for each in depths if each.kind == kind]
        low, high, full = _extremes(own)
        dark = [each for each in own if each.high < each.full / 4]
        if len(dark) >= 0.99 * len(own):
            low, high, _ = _extremes(dark)
            problem = (
                f"{len(dark)} of {len(own)} {kind} {split} images stay below a quarter of their range ({low:g} to "
                f"{high:g} of 0 to {full:g}) and "
            )
            hint = f"{advice(low, high)}; [0, {full:g}] leaves them dark"
            if kind == COLOUR and high < _LEAST_LEVELS * 256 - 1:
                hint = "store them with 8 bits (of 16-bit colours the upper eight are read)"
            if split == "training":
                raise DataError(f"{problem}would be nearly black; {hint}")
            notes.append(f"{problem}are nearly black; {hint}")
            continue
        if split != "training":
            continue
        also = f"; {len(dark)} of them stay below a quarter of it" if dark else ""
        notes.append(
            f"{len(own)} of {total} {split} images are {kind}: of their values ({low:g} to {high:g}), 0 to {full:g} became "
            f"0 to 255{also} (value_range says otherwise)"
        )
    return notes


def _extremes(depths: Iterable[Depth]) -> tuple[float, float, float]:
    every = list(depths)
    return min(each.low for each in every), max(each.high for each in every), max(each.full for each in every)

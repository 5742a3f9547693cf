"""From measurements to a profile: checked against what there is to measure, corrected by whole networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from snugnet.costs.profile import Accuracy, Profile
from snugnet.costs.units import VERSION, block_name, distinct_blocks, is_silent, named_row
from snugnet.errors import DataError
from snugnet.extras import needs
from snugnet.profiling.readings import Measured
from snugnet.profiling.writing import SUFFIXES
from snugnet.spaces import Block, Blueprint, Population, SearchSpace
from snugnet.texts import listed

_NETWORKS_A_FACTOR = 4
"""With fewer whole networks than that for each factor, fewer factors are fitted."""


def make_profile(
    space: SearchSpace,
    widths: Sequence[int],
    measured: Measured,
    device: str,
    *,
    batch: int = 1,
    precision: str = "float32",
    fill: bool = False,
) -> Profile:
    """A profile from a table of measurements.

    Args:
        space: that was measured.
        widths: of classifiers that are needed beside the space's own; others that were measured are taken as well.
        measured: the table.
        device: its name.
        batch: images at once, in every measurement.
        precision: of the files that were measured, ``float32`` or ``int8``.
        fill: whether a block that is missing may have the least value of those that are at least as large in every size, which is never
            too little by the sizes; without it, or where there is none, a missing block is refused.

    Raises:
        DataError: the table is of another version, resolution or batch, has rows of something else, or lacks some.
    """
    _check_about(space, measured, batch, precision)
    measured = _of_precision(measured, precision)
    required = distinct_blocks(space, widths, batch)
    others = _other_widths(space, widths, measured, batch)
    rows: dict[str, Population] = {}
    for name in measured.values:
        if name in required or name in others:
            continue
        row = named_row(space, name, batch)
        if row is None:
            raise DataError(
                f"{measured.path}, line {measured.lines[name]}: {name} is no file of this family's bundle at batch {batch} and resolution "
                f"{space.resolution}; another family, resolution or batch has other files: run 'snugnet profile bundle' anew"
            )
        rows[name] = row
    _check_whole(measured, rows)
    values = {name: value for name, value in measured.values.items() if name not in rows}
    missing = [name for name in required if name not in values]
    filled = _filled(required, values, missing) if fill else {}
    lacking = [name for name in missing if name not in filled]
    if lacking:
        why = "; none that was measured is at least as large" if fill else "; --fill gives it the value of a larger one"
        raise DataError(
            f"{measured.path} lacks {len(lacking)} of {len(required)} blocks: {listed(lacking, 3)}{why}, or measure them"
        )
    own = space.blueprint(space.largest).num_classes
    profile = Profile(
        device,
        measured.unit,
        batch,
        {**values, **filled},
        tuple(sorted({own, *widths, *others.values()})),
        {"time": 1.0, "block": 0.0, "inputs": 0.0},
        filled=tuple(filled),
        about=dict(measured.about),
        precision=precision,
    )
    whole = np.array([measured.values[name] for name in rows])
    return _corrected(profile, space, list(rows.values()), whole)


def _of_precision(measured: Measured, precision: str) -> Measured:
    """The same under the names of blocks and networks, which in a bundle of int8 files have an ending.

    Raises:
        DataError: a row is of a file of another precision; the message names the line.
    """
    suffix = SUFFIXES[precision]
    for name, line in measured.lines.items():
        if not name.endswith(suffix):
            raise DataError(
                f"{measured.path}, line {line}: {name} is no {precision} file; leave out --int8, or measure an int8 bundle"
            )
    values = {name.removesuffix(suffix): value for name, value in measured.values.items()}
    return replace(
        measured, values=values, lines={name.removesuffix(suffix): line for name, line in measured.lines.items()}
    )


def _check_about(space: SearchSpace, measured: Measured, batch: int, precision: str) -> None:
    """Refuse what says of itself that it is of something else."""
    expected = {
        "version": VERSION, "space": space.name, "resolution": space.resolution, "batch": batch, "precision": precision,
    }  # fmt: skip
    for key, value in expected.items():
        if (given := measured.about.get(key, str(value))) != str(value):
            what = "of a bundle of version" if key == "version" else f"measured with {key}"
            raise DataError(f"{measured.path} is {what} {given}; needed: {value}")


def _other_widths(space: SearchSpace, widths: Sequence[int], measured: Measured, batch: int) -> dict[str, int]:
    """Names of classifiers of all other widths up to the space's own, of which each head was measured, and their width."""
    found: dict[str, int] = {}
    for width in range(2, space.blueprint(space.largest).num_classes):
        if width not in widths:
            heads = set(distinct_heads(space, width, batch))
            if heads <= measured.values.keys():
                found |= dict.fromkeys(heads, width)
    return found


def distinct_heads(space: SearchSpace, width: int, batch: int) -> list[str]:
    """Names of the blocks with the classifier, at one width."""
    last = len(space.parts) - 1
    shape = [len(space.choices[c].options) for c in space.parts[last].choices]
    heads = [space.part_blocks(last, indices) for indices in np.ndindex(*shape)]
    narrowed = (
        Blueprint(blocks, space.in_channels, space.resolution).with_classes(width) for blocks in heads if blocks
    )
    return list(dict.fromkeys(block_name(each.blocks[-1], batch) for each in narrowed))


def _check_whole(measured: Measured, rows: Mapping[str, Population]) -> None:
    """Refuse a table that lacks whole networks of the bundle that it names."""
    told = measured.about.get("networks", "")
    if told.isdecimal() and int(told) != len(rows):
        raise DataError(f"{measured.path} has {len(rows)} whole networks, its bundle {told}; measure all of them")


def _filled(required: Mapping[str, Block], values: Mapping[str, float], missing: Sequence[str]) -> dict[str, float]:
    """For missing blocks the least value of those that are at least as large."""
    filled = {}
    for name in missing:
        larger = [
            values[other] for other, block in required.items() if other in values and _covers(block, required[name])
        ]
        if larger:
            filled[name] = min(larger)
    return filled


def _covers(block: Block, other: Block) -> bool:
    """Whether a block has the same layers as another, each at least as large in every size."""
    sizes = ("in_channels", "out_channels", "resolution", "kernel", "hidden")
    if len(block.all_layers) != len(other.all_layers) or (block.shortcut is None) != (other.shortcut is None):
        return False
    for mine, its in zip(block.all_layers, other.all_layers, strict=True):
        same = replace(mine, name=its.name, groups=its.groups, **{size: getattr(its, size) for size in sizes}) == its
        if not same or mine.depthwise != its.depthwise or any(getattr(mine, s) < getattr(its, s) for s in sizes):
            return False
    return (block.join, block.split) == (other.join, other.split)


def _corrected(profile: Profile, space: SearchSpace, rows: Sequence[Population], whole: NDArray[np.float64]) -> Profile:
    """The profile with factors that are fitted to whole networks by least squares of relative errors."""
    count = min(len(rows) // _NETWORKS_A_FACTOR, len(profile.factors))
    if count == 0:
        return profile
    needs("scipy")
    from scipy.stats import kendalltau

    names = list(profile.factors)[:count]
    sums = np.array([network_features(profile, space.blueprint(row), names) for row in rows])
    design = sums / whole[:, None]
    fitted = np.linalg.lstsq(design, np.ones(len(rows)), rcond=None)[0]
    left_out = (design @ fitted - 1) / (
        1 - np.diag(design @ np.linalg.pinv(design))
    )  # its error in a fit to all others
    accuracy = Accuracy(
        networks=len(rows),
        mape=float(np.abs(left_out).mean()),
        kendall_tau=float(kendalltau(whole * (1 + left_out), whole)[0]),
        parts=float(design[:, 0].mean()),
    )
    factors = {**dict.fromkeys(profile.factors, 0.0), **dict(zip(names, fitted.tolist(), strict=True))}
    return replace(profile, factors=factors, accuracy=accuracy)


def network_features(profile: Profile, blueprint: Blueprint, names: Sequence[str]) -> list[float]:
    """What the features of a network's blocks add up to."""
    each = [profile.features(block) for block in blueprint.blocks if not is_silent(block)]
    return [sum(of[name] for of in each) for name in names]

"""Seeded, stratified choices of rows. They depend on the seed and the labels alone."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]


def stratified_rows(labels: Index, count: int, seed: int | Sequence[int], *, leave_one: bool = False) -> Index:
    """Choose ``count`` rows in which every class has its share.

    Each class gets its exact quota rounded down or up (largest remainders first, ties by lot); where that leaves a
    class with nothing although there is a row for each, every class gets one row first. scikit-learn's stratified
    splits refuse classes of one row and subsets smaller than the number of classes; this does not.

    Args:
        labels: int64 ``(n,)``.
        count: rows to choose, 0 to n.
        seed: of the choice.
        leave_one: never take a class's last row, as far as ``count`` allows.

    Returns:
        int64 ``(count,)``: the chosen rows, ascending.
    """
    if not 0 <= count <= len(labels):
        raise ValueError(f"count is {count}; 0 to {len(labels)} rows can be chosen")
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    generator = np.random.default_rng(seed)
    _, sizes = np.unique(labels, return_counts=True)
    limits = sizes - 1 if leave_one and count <= (sizes - 1).sum() else sizes
    lot = generator.permutation(len(sizes))
    takes = _quotas(sizes, limits, count, lot)
    first = np.minimum(limits, 1)
    if (takes < first).any() and count >= first.sum():
        takes = first + _quotas(sizes - first, limits - first, count - first.sum(), lot)
    shuffled = generator.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    starts = np.cumsum(sizes) - sizes
    chosen = [by_class[start : start + take] for start, take in zip(starts, takes, strict=True)]
    return np.sort(np.concatenate(chosen))


def split_off(labels: Index, count: int, seed: int | Sequence[int]) -> tuple[Index, Index]:
    """Rows that stay, and ``count`` stratified rows that are split off; both ascending, disjoint, together all."""
    taken = stratified_rows(labels, count, seed, leave_one=True)
    stays = np.ones(len(labels), dtype=bool)
    stays[taken] = False
    return np.flatnonzero(stays), taken


def _quotas(sizes: Index, limits: Index, count: int, lot: Index) -> Index:
    """Largest-remainder shares of ``count`` in proportion to ``sizes``, none above its limit."""
    exact = sizes * (count / max(1, sizes.sum()))
    takes: Index = np.minimum(np.floor(exact + 1e-9).astype(np.int64), limits)
    while (short := count - takes.sum()) > 0:
        room = np.flatnonzero(takes < limits)
        order = room[np.lexsort((lot[room], np.round(takes - exact, 9)[room]))]
        takes[order[:short]] += 1
    return takes

"""What is left of a cost's range under limits on other costs: the two ends of a slider that moves as others are set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from snugnet.costs.decoding import decode, find_feasible
from snugnet.costs.exact.allowed import Allowed
from snugnet.costs.exact.automaton import Automaton
from snugnet.costs.exact.best import make_lattice
from snugnet.costs.maximum import MaximumTable, within
from snugnet.costs.table import CostTable, common_automaton
from snugnet.errors import BudgetError
from snugnet.spaces import Population

_CELLS = 1024  # of the grid of one limit
_JOINT = 16  # times as many where several limits bind
_TRACED = 64  # cells whose true costs are looked at, before only cells are in which everything surely fits

Limit = tuple[CostTable | MaximumTable, float]


def ends_within(table: CostTable | MaximumTable, limits: Sequence[Limit]) -> tuple[float, float]:
    """Cost of the cheapest and of the dearest architecture within limits on other costs.

    Both are costs of architectures that exist and are within the limits, so a budget between them is met. Without a limit on a sum
    they are exact; under such limits they are as exact as the grid of :func:`snugnet.costs.decode` is. Of a maximum under limits on
    sums the upper end is the one without those: a budget there leaves nothing out.

    Args:
        table: the cost.
        limits: tables of the same space, and the most that each may be.

    Raises:
        BudgetError: no architecture is within the limits.
    """
    maxima = [(t, limit) for t, limit in limits if isinstance(t, MaximumTable)]
    for each, limit in limits:
        each.check_budget(limit)
    allowed = within(maxima)
    sums = [(t, limit) for t, limit in limits if isinstance(t, CostTable) and limit < t.range[1]]
    if not sums:
        return table.bounds(allowed=allowed)
    tables, most = [t for t, _ in sums], np.array([limit for _, limit in sums])
    if isinstance(table, MaximumTable):
        return _least(table, tables, most, allowed), table.bounds(allowed=allowed)[1]
    automaton = common_automaton([table, *tables], allowed)
    low, high = (float(table(_end(table, sign, tables, most, automaton, allowed))[0]) for sign in (-1, 1))
    return low, high


def _end(
    table: CostTable,
    sign: int,
    tables: Sequence[CostTable],
    most: NDArray[np.float64],
    automaton: Automaton,
    allowed: Allowed | None,
) -> Population:
    """The cheapest (sign -1) or dearest (sign 1) architecture that is found within limits on sums: shape ``(1, d)``."""
    gains = [sign * increment[:, None] for increment in table.terms.increments(automaton)]
    rows = [automaton.best(gains)[0], *(each.terms.ends(automaton)[:1] for each in tables)]
    if not _fitting(rows[0], tables, most).size:
        excesses = tuple(each.excess(automaton) for each in tables)
        lows = [each.constant + excess.low for each, excess in zip(tables, excesses, strict=True)]
        left = most - np.array(lows)
        uppers = tuple(float(excess.level(room[None])[0]) for excess, room in zip(excesses, left, strict=True))
        side = _CELLS if len(tables) == 1 else max(2, round((_JOINT * _CELLS) ** (1 / len(tables))))
        lattice = make_lattice(automaton, excesses, uppers, side)
        paths = lattice.solve(gains, lattice.buffers(1, np.dtype(np.float64)))
        for safe in (False, True):
            reach = (lattice.coordinates <= lattice.cells(left[None], safe=safe)[0][:, None]).all(axis=0)
            final = np.where(reach, paths.final[0], -np.inf)
            best = np.argsort(-final, kind="stable")[: 1 if safe else _TRACED]
            best = best[np.isfinite(final[best])]
            rows.append(paths.trace(np.zeros(len(best), dtype=np.intp), best))
    fitting = _fitting(np.concatenate(rows), tables, most)
    if not fitting.size:
        nothing = np.zeros(int(table.space.offsets[-1]))
        return find_feasible(tables, automaton, nothing, most, allowed=allowed)[None]
    return fitting[[(sign * table(fitting)).argmax()]]


def _fitting(rows: Population, tables: Sequence[CostTable], most: NDArray[np.float64]) -> Population:
    costs = np.stack([each(rows) for each in tables], axis=1)
    return rows[(costs <= most).all(axis=1)]


def _least(
    table: MaximumTable, tables: Sequence[CostTable], most: NDArray[np.float64], allowed: Allowed | None
) -> float:
    """The least that a maximum can be within limits on sums, by bisection of the values that it has."""
    nothing = np.zeros((1, int(table.space.offsets[-1])))

    def found(among: Allowed | None) -> float:
        return float(table(decode(tables, nothing, most[None], allowed=among))[0])

    high, low = found(allowed), table.bounds(allowed=allowed)[0]
    levels = [value for value in table.values if low <= value < high]
    while levels:
        middle = levels[len(levels) // 2]
        try:
            high = found(within([(table, middle)], allowed))
            levels = [value for value in levels if value < high]
        except BudgetError:
            levels = [value for value in levels if value > middle]
    return high

"""Decoding under every limit of a range at once: the answer only changes at a few costs, and between these it is looked up."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snugnet.costs.exact.automaton import Floats
from snugnet.costs.exact.best import make_lattice
from snugnet.costs.table import CostTable, common_automaton
from snugnet.spaces import Population

_STATE_VALUES = 2**16  # values a state: a chunk of scores stays in the second-level cache
_NEAR = 1e-9  # relative: so near to the end of a grid's budgets the next grid may be taken


@dataclass(frozen=True, eq=False)
class Stairs:
    """What :func:`snugnet.costs.decode` answers to one row of scores under each limit in ``(above, upto]`` on one cost.

    Attributes:
        above, upto: the limits that it is for.
        costs: rising; each answer is that of the limits from its own cost up to the next one's.
        rows: the answers, ``(len(costs), d)``.
    """

    above: float
    upto: float
    costs: list[float]
    rows: Population

    def row(self, limit: float) -> NDArray[np.int16]:
        """The answer under a limit of the range, ``(d,)``."""
        row: NDArray[np.int16] = self.rows[bisect_right(self.costs, limit) - 1]
        return row


def make_stairs(
    table: CostTable,
    scores: Floats,
    limits: NDArray[np.float64],
    above: NDArray[np.float64],
    upto: NDArray[np.float64],
    *,
    cells: int = 1024,
) -> list[Stairs]:
    """Solve each row of scores for a range of limits: a programme as for one limit, and a few paths more to trace back.

    Args:
        table: the cost.
        scores: in one-hot layout, finite, ``(n, sum of options)``.
        limits: at least the cheapest architecture's cost, ``(n,)``.
        above, upto: the range around each limit that is asked for, ``(n,)``; the stairs' own ends where the decode's grid does.
        cells: of the decode's grid.
    """
    automaton = common_automaton([table])
    excess = table.excess(automaton)
    least, low, high = table.range[0], table.constant + excess.low, table.range[1]
    rungs = excess.level(limits - low)
    lower = np.where(rungs > 0, np.maximum(rungs / 4 * (1 + _NEAR), excess.smallest), 0.0)
    upper = np.where(rungs > 0, rungs, min(excess.smallest, excess.span)) * (1 - _NEAR)
    above = np.maximum(above, np.minimum(low + lower, np.nextafter(limits, -np.inf)))
    above = np.where(rungs > 0, above, np.nextafter(least, -np.inf))
    upto = np.minimum(upto, np.where(rungs >= excess.span, np.inf, np.maximum(low + upper, limits)))
    gains = automaton.scores(scores)
    freely, _ = automaton.best(gains)
    cheapest = table.terms.ends(table.automaton())[:1]
    found: list[list[tuple[Floats, Population]]] = [[] for _ in scores]
    if len(gains) == 1:
        for own, gain in zip(found, gains[0].T, strict=True):
            own.append((gain, automaton.steps[0].rows))
    else:
        within = np.stack([above, np.minimum(upto, high)], 1) - low
        for rung in np.unique(rungs):
            members = np.flatnonzero(rungs == rung)
            lattice = make_lattice(automaton, (excess,), (float(rung),), cells)
            size = max(1, _STATE_VALUES // lattice.size)
            for start in range(0, len(members), size):
                some = members[start : start + size]
                paths = lattice.solve([gain[:, some] for gain in gains], lattice.buffers(len(some), scores.dtype))
                final, cell = np.ascontiguousarray(paths.final), lattice.coordinates[0]
                final[cell > lattice.cells(within[some, 1:], safe=False)] = -np.inf
                sure = np.where(cell <= lattice.cells(within[some, :1], safe=True), final, -np.inf)
                open_ = np.isfinite(final) & ~np.isfinite(sure)
                open_[np.arange(len(some)), sure.argmax(1)] |= np.isfinite(sure).any(1)
                scenario, cells_ = np.nonzero(open_)
                rows, values = paths.trace(scenario, cells_), final[scenario, cells_]
                ends = np.searchsorted(scenario, np.arange(len(some) + 1))
                for i, first, last in zip(some.tolist(), ends, ends[1:], strict=False):
                    found[i].append((values[first:last], rows[first:last]))
    return [
        _steps(table, float(a), float(b), [(np.array([np.inf]), best[None]), *own, (np.array([-np.inf]), cheapest)])
        for own, best, a, b in zip(found, freely, above, upto, strict=True)
    ]


def _steps(table: CostTable, above: float, upto: float, found: Sequence[tuple[Floats, Population]]) -> Stairs:
    """Of architectures in the order in which the decode tries equals, those that it answers under some limit."""
    rows = np.concatenate([rows for _, rows in found])
    tried = np.argsort(-np.concatenate([values for values, _ in found]), kind="stable")
    place = np.empty(len(rows), dtype=np.intp)
    place[tried] = np.arange(len(rows))
    costs = table(rows)
    by_cost = np.lexsort((place, costs))
    by_cost = by_cost[costs[by_cost] <= upto]
    best = np.minimum.accumulate(place[by_cost])
    kept = np.flatnonzero(np.diff(best, prepend=len(rows)) < 0)
    kept = kept[max(0, np.searchsorted(costs[by_cost[kept]], above, "right") - 1) :]
    chosen = by_cost[kept]
    return Stairs(above, upto, costs[chosen].tolist(), rows[chosen])

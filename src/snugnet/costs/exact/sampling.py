"""Exact uniform sampling under a budget or inside a window, by counting paths on a grid.

Every entry is rounded *down* to a grid, and for each state and cell the paths that lead there are counted. A cell of
the last step is drawn in proportion to its count and the path is traced back, each transition in proportion to the
paths behind it: a uniform draw among all architectures whose *rounded* cost is in reach, a superset of those whose true
cost is. One test on the true cost then leaves an exactly uniform draw. The grid is made fine enough that the test
rarely fails, and where few architectures are in reach they are simply listed.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from snugnet.costs.budget import format_amount
from snugnet.costs.exact.automaton import Plan
from snugnet.costs.exact.grid import EDGE, Excess
from snugnet.errors import BudgetError
from snugnet.spaces import Population

if TYPE_CHECKING:
    from snugnet.costs.table import CostTable

_COARSE, _FINE = 2**14, 2**18  # cells
_WINDOW_SLACK = 0.02  # rounding, relative to the width of a window
_GOOD = 0.97  # share of draws that pass the test; below that the grid is refined
_PILOT = 4096
_LIST = 2**16  # architectures
_CHUNK = 4096  # draws at a time
_GIVE_UP = 2**20  # draws in a row that all fail the test


class Counts:
    """How many paths lead to each state and cell, for rounded costs up to some limit.

    Attributes:
        plan: the plan.
        delta: width of a cell, in the unit of the cost.
        cells: number of cells.
        slack: more than this a true cost is never above its rounded cost.
        log2: log2 of what the counts of the last step have been divided by.
    """

    def __init__(self, plan: Plan, excess: Excess, upper: float, cells: int) -> None:
        self.plan = plan
        self.delta = excess.step(upper, cells)
        self.cells = math.floor(upper / self.delta + EDGE) + 1
        self.slack, self.log2 = 0.0, 0
        self._shifts = [np.floor(e / self.delta + 1e-9).astype(np.int64) for e in excess.steps]
        self._kept = [np.flatnonzero(q < self.cells) for q in self._shifts]
        # Zeros to the left of the first cell: a look-up past the edge then needs no test.
        self.pad = max((int(q[kept].max()) for q, kept in zip(self._shifts, self._kept, strict=True)), default=0)
        count = np.zeros((1, self.pad + self.cells))
        count[0, self.pad] = 1
        self._counts = [count]
        for step, q, kept, e in zip(plan.steps, self._shifts, self._kept, excess.steps, strict=True):
            after = np.zeros((step.targets, self.pad + self.cells))
            for k in kept:
                after[step.target[k], self.pad + q[k] :] += count[
                    step.source[k], self.pad : self.pad + self.cells - q[k]
                ]
            exponent = math.frexp(after.max())[1]  # a power of two, so that nothing is rounded
            count = np.ldexp(after, -exponent)
            self.log2 += exponent
            self.slack += float((e[kept] - self.delta * q[kept]).max())
            self._counts.append(count)

    @property
    def last(self) -> NDArray[np.float64]:
        """Paths that end in each cell, divided by ``2 ** log2``: shape ``(cells,)``."""
        return self._counts[-1][0, self.pad :]

    def draw(self, cells: NDArray[np.int64], uniforms: NDArray[np.float64]) -> Population:
        """Uniform draws among the paths that end in given cells.

        Args:
            cells: of the last step, with a count above zero: shape ``(n,)``.
            uniforms: in [0, 1), one a step: shape ``(steps, n)``.

        Returns:
            Rows, shape ``(n, d)``.
        """
        columns = np.zeros((self.plan.d, len(cells)), dtype=np.int16)
        at = cells + self.pad
        state = np.zeros(len(cells), dtype=np.intp)
        for t in reversed(range(len(self.plan.steps))):
            step, before = self.plan.steps[t], np.empty_like(state)
            for target in range(step.targets):
                here = slice(None) if step.targets == 1 else np.flatnonzero(state == target)
                arrive = self._kept[t][step.target[self._kept[t]] == target]
                pick = arrive[self._pick(t, arrive, at[here], uniforms[t, here])]
                at[here] -= self._shifts[t][pick]
                before[here] = step.source[pick]
                for c in step.introduced:
                    columns[c, here] = step.rows[:, c].take(pick)
            state = before
        return columns.T.copy()

    def _pick(
        self, t: int, arrive: NDArray[np.intp], at: NDArray[np.int64], uniforms: NDArray[np.float64]
    ) -> NDArray[np.intp]:
        """For paths at given cells, which of the arriving transitions they came by: shape ``(n,)``."""
        source, shift, counts = self.plan.steps[t].source, self._shifts[t], self._counts[t]
        behind = np.empty((len(arrive), len(at)))
        for row, k in zip(behind, arrive, strict=True):
            counts[source[k]].take(at - shift[k], out=row, mode="clip")
        for row, before in zip(behind[1:], behind, strict=False):
            row += before
        # Just below the total, so that a transition with paths behind it is always found.
        threshold = uniforms * (behind[-1] * (1 - 2.0**-50)) if len(behind) else uniforms
        pick = np.zeros(len(at), dtype=np.int8 if len(arrive) < 128 else np.intp)
        for row in behind[:-1]:
            np.add(pick, row <= threshold, out=pick)
        return pick.astype(np.intp)

    def list(self, low: int, high: int) -> Population:
        """All architectures that end in cells ``low`` to ``high``: shape ``(n, d)``."""
        at = np.arange(low, high + 1)
        at = at[self.last[at] > 0] + self.pad
        state, rows = np.zeros(len(at), dtype=np.intp), np.zeros((len(at), self.plan.d), dtype=np.int16)
        for t in reversed(range(len(self.plan.steps))):
            step, kept = self.plan.steps[t], self._kept[t]
            before = at - self._shifts[t][kept][:, None]
            paths = self._counts[t][step.source[kept][:, None], before] > 0
            k, i = np.nonzero(paths & (step.target[kept][:, None] == state))
            pick = kept[k]
            at, state, rows = before[k, i], step.source[pick], rows[i]
            rows[:, step.introduced] = step.rows[pick][:, step.introduced]
        return rows


class Sampler:
    """Draws uniformly among the architectures with ``at_least <= cost <= budget``.

    Attributes:
        table: the cost.
        budget, at_least: the window.
        drawn, accepted: draws so far, and those whose true cost passed the test.
    """

    def __init__(self, table: CostTable, budget: float, at_least: float, *, listed: int = _LIST) -> None:
        """Count, and make the grid fine enough.

        Args:
            table: the cost.
            budget: greatest cost allowed; infinite for no bound.
            at_least: smallest cost allowed; minus infinity for no bound.
            listed: list the architectures in reach where there are no more than these.

        Raises:
            BudgetError: no architecture lies in the window.
        """
        self.table, self.budget, self.at_least = table, budget, at_least
        self.drawn = self.accepted = 0
        self._check_window()
        self._list: Population | None = None
        self._expected = 1.0  # draws a sample; not from what was drawn so far: a seed always gives the same samples
        excess = table.excess(table.plan)
        if excess.common and at_least > excess.low:
            steps = math.floor((min(budget, table.range[1]) - excess.low) / excess.common)
            if excess.low + steps * excess.common < at_least:  # the costs step over the window
                self._refuse(proven=True)
        upper = float(excess.level(np.array([budget]))[0])
        cells = _COARSE
        if at_least > excess.low:
            width = max(min(budget - excess.low, excess.span) - (at_least - excess.low), excess.finest)
            wanted = upper * len(table.plan.steps) / (_WINDOW_SLACK * width)
            cells = min(_FINE, max(_COARSE, 2 ** math.ceil(math.log2(max(wanted, 1)))))
        while True:
            self._count(excess, upper, cells)
            if self.reachable <= listed:
                rows = self._counts.list(self._low, self._high)
                self._list = rows[self._inside(rows)]
                if not len(self._list):
                    self._refuse(proven=True)
                return
            share = float(self._inside(self._propose(_PILOT, np.random.default_rng(0))).mean())
            self._expected = 1 / max(share, 1 / _PILOT)
            if share >= _GOOD or cells >= _FINE or not self._counts.slack:
                return
            cells *= 4

    @property
    def reachable(self) -> float:
        """Architectures whose rounded cost is in reach: those in the window, and few more."""
        return float(np.ldexp(self._cumulative[-1], self._counts.log2)) if len(self._cumulative) else 0.0

    @property
    def tries(self) -> float:
        """Draws a sample so far (1 where nothing has been drawn)."""
        return self.drawn / self.accepted if self.accepted else 1.0

    def sample(self, n: int, rng: np.random.Generator) -> Population:
        """Draw ``n`` canonical rows, shape ``(n, d)``.

        Raises:
            BudgetError: the window is so narrow that nothing in it is found.
        """
        if self._list is not None:
            return self._list[rng.integers(len(self._list), size=n)]
        found: list[Population] = []
        missing, failed = n, 0
        while missing > 0:
            rows = self._propose(math.ceil(missing * self._expected * 1.01) + 8, rng)
            inside = self._inside(rows)
            self.drawn += len(rows)
            self.accepted += int(inside.sum())
            failed = 0 if inside.any() else failed + len(rows)
            if failed >= _GIVE_UP:
                self._refuse(proven=False)
            found.append(rows if inside.all() else rows[inside])
            missing -= len(found[-1])
        return np.concatenate(found)[:n] if found else np.zeros((0, self.table.space.d), dtype=np.int16)

    def _check_window(self) -> None:
        if math.isnan(self.budget) or math.isnan(self.at_least):
            raise BudgetError(f"a budget is a number, got {self.budget} and at least {self.at_least}")
        self.table.check_budget(self.budget)
        if self.at_least > self.budget or self.at_least > self.table.range[1]:
            low, high = (format_amount(v, self.table.unit) for v in (self.at_least, self.budget))
            raise BudgetError(
                f"no architecture of {self.table.space.name} has {self.table.name} from {low} to {high}; "
                f"feasible: {self.table.describe_range()}"
            )

    def _count(self, excess: Excess, upper: float, cells: int) -> None:
        self._counts = counts = self.table.counts(upper, cells)
        left, least = min(self.budget - excess.low, excess.span), max(self.at_least - excess.low, 0.0)
        self._high = min(math.floor(left / counts.delta + EDGE), counts.cells - 1)
        self._low = max(math.ceil((least - counts.slack) / counts.delta - EDGE), 0)
        self._cumulative = np.cumsum(counts.last[self._low : self._high + 1])

    def _inside(self, rows: Population) -> NDArray[np.bool_]:
        costs = self.table(rows)
        return (costs <= self.budget) & (costs >= self.at_least)

    def _propose(self, n: int, rng: np.random.Generator) -> Population:
        """Draws among what is in reach; the result depends on the generator alone, not on the threads."""
        workers = min(4, os.cpu_count() or 1)
        sizes = [min(_CHUNK, n - start) for start in range(0, n, _CHUNK)]
        steps = len(self._counts.plan.steps)

        def draw(uniforms: NDArray[np.float64]) -> Population:
            threshold = uniforms[-1] * (self._cumulative[-1] * (1 - 2.0**-50))
            cells = self._low + np.searchsorted(self._cumulative, threshold, side="right")
            return self._counts.draw(cells, uniforms)

        if len(sizes) == 1 or workers == 1:
            return np.concatenate([draw(rng.random((steps + 1, size))) for size in sizes])
        batches = []
        with ThreadPoolExecutor(workers) as pool:
            for start in range(0, len(sizes), 16 * workers):  # not all uniforms at once
                uniforms = [rng.random((steps + 1, size)) for size in sizes[start : start + 16 * workers]]
                batches += list(pool.map(draw, uniforms))
        return np.concatenate(batches)

    def _refuse(self, proven: bool) -> NoReturn:
        """Say that the window is empty and what lies next to it.

        Raises:
            BudgetError: always.
        """
        table, found = self.table, "has" if proven else f"was found in {_GIVE_UP:,} draws to have"
        low, high = (format_amount(v, table.unit) for v in (self.at_least, self.budget))
        below, above = (f"{value:,.10g}" for value in self._neighbours())
        raise BudgetError(
            f"no architecture of {table.space.name} {found} {table.name} from {low} to {high}; the nearest below and "
            f"above have {below} and {above} {table.unit}; feasible: {table.describe_range()}"
        )

    def _neighbours(self) -> tuple[float, float]:
        """The nearest attainable costs below and above the window; on an inexact grid, the nearest among many draws."""
        excess = self.table.excess(self.table.plan)
        counts = self.table.counts(excess.span, _FINE)
        filled = np.flatnonzero(counts.last > 0)
        margin = math.ceil(counts.slack / counts.delta) + 1
        below = filled[filled <= (self.at_least - excess.low) / counts.delta + EDGE][-margin - 1 :]
        above = filled[filled >= (self.budget - excess.low - counts.slack) / counts.delta - EDGE][: 2 * margin + 1]
        cells = np.repeat(np.concatenate([below, above]), 64)
        uniforms = np.random.default_rng(0).random((len(counts.plan.steps), len(cells)))
        costs = np.concatenate([self.table(counts.draw(cells, uniforms)), self.table.range])
        return float(costs[costs < self.at_least].max()), float(costs[costs > self.budget].min())

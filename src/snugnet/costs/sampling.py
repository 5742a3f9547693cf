"""Exact uniform sampling under a budget or inside a window: uniform over choices, or over architectures.

Over choices is what a draw of every option alike comes to, kept where it lies in the window (SPOS, OFA, AttentiveNAS's equations 2
and 5): an architecture whose blocks are left out counts as often as those blocks have options. Over architectures, a space of optional
blocks gives deep networks almost alone.

Architectures are counted by their cost on a grid (:mod:`snugnet.costs.exact.count`) and drawn among those whose rounded cost is
in reach; one test on the true cost then leaves an exactly uniform draw. The grid is made fine enough that the test rarely
fails, and where few architectures are in reach, or a table is over all choices, they are simply listed.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from snugnet.costs.budget import format_amount
from snugnet.costs.exact.allowed import Allowed
from snugnet.costs.exact.count import Over, make_counts
from snugnet.costs.exact.excess import EDGE
from snugnet.costs.maximum import MaximumTable, within
from snugnet.costs.table import CostTable
from snugnet.errors import BudgetError
from snugnet.spaces import Population

_COARSE, _FINE = 2**14, 2**18  # cells
_WINDOW_SLACK = 0.02  # rounding, relative to the width of a window
_GOOD = 0.97  # share of draws that pass the test; below that the grid is refined
_PILOT = 4096
_LIST = 2**16  # architectures
_DRAWS_AT_ONCE = 4096  # draws at a time
_GIVE_UP = 2**20  # draws in a row that all fail the test
_SAMPLERS_KEPT = 32  # samplers


def sample(
    table: CostTable | MaximumTable,
    n: int,
    rng: np.random.Generator,
    budget: float | None = None,
    at_least: float | None = None,
    allowed: Allowed | None = None,
    over: Over = "choices",
) -> Population:
    """Draw architectures among all with ``at_least <= cost <= budget``.

    Args:
        table: the cost, a sum or a maximum.
        n: how many.
        rng: source of randomness.
        budget: greatest cost allowed, in the table's unit.
        at_least: smallest cost allowed, of a sum.
        allowed: further limits.
        over: what the draw is uniform over.

    Returns:
        Canonical rows, shape ``(n, d)``.

    Raises:
        BudgetError: no architecture lies in between; found before anything is drawn.

    Examples:
        >>> import numpy as np
        >>> from snugnet.costs import counted_table
        >>> from snugnet.spaces import get_space
        >>> madds = counted_table(get_space("ofa-mobilenet-v3"), "madds")
        >>> rows = sample(madds, 1000, np.random.default_rng(0), budget=200e6)
        >>> rows.shape, bool((madds(rows) <= 200e6).all())
        ((1000, 45), True)
    """
    return make_sampler(table, budget, at_least, allowed, over).sample(n, rng)


def make_sampler(
    table: CostTable | MaximumTable,
    budget: float | None = None,
    at_least: float | None = None,
    allowed: Allowed | None = None,
    over: Over = "choices",
) -> Sampler:
    """The sampler of one budget or window; the last ones are kept.

    Raises:
        BudgetError: no architecture lies in it, or a window is of a maximum.
    """
    if isinstance(table, MaximumTable):
        if at_least is not None:
            raise BudgetError(
                f"{table.name} is a maximum; a least of it is no limit that can be drawn under: leave it out"
            )
        if budget is not None:
            table.check_budget(float(budget), allowed=allowed)
            allowed = within([(table, float(budget))], allowed)
        table, budget = table.nothing, None
    most, least = np.inf if budget is None else float(budget), -np.inf if at_least is None else float(at_least)
    return _kept(table, most, least, allowed, over)


@lru_cache(maxsize=_SAMPLERS_KEPT)
def _kept(table: CostTable, budget: float, at_least: float, allowed: Allowed | None, over: Over) -> Sampler:
    return Sampler(table, budget, at_least, allowed, over)


class Sampler:
    """Draws among the architectures with ``at_least <= cost <= budget``.

    Attributes:
        table: the cost.
        budget, at_least: the window.
        allowed: further limits; ``None`` for none.
        over: what a draw is uniform over.
        drawn, accepted: draws so far, and those whose true cost passed the test.
    """

    def __init__(
        self,
        table: CostTable,
        budget: float,
        at_least: float,
        allowed: Allowed | None = None,
        over: Over = "choices",
        *,
        listed: int = _LIST,
    ) -> None:
        """Count, and make the grid fine enough.

        Args:
            table: the cost.
            budget: greatest cost allowed; infinite for no bound.
            at_least: smallest cost allowed; minus infinity for no bound.
            allowed: further limits.
            over: what a draw is uniform over.
            listed: list the architectures in reach where there are no more than these.

        Raises:
            BudgetError: no architecture lies in the window.
        """
        self.table, self.budget, self.at_least, self.allowed, self.over = table, budget, at_least, allowed, over
        self.drawn = self.accepted = 0
        self._check_window()
        self._list: Population | None = None
        self._expected = 1.0  # draws a sample; not from what was drawn so far: a seed always gives the same samples
        self._automaton = table.automaton(allowed)
        if len(self._automaton.steps) == 1:  # of one step every transition is an architecture
            self._keep(self._automaton.steps[0].rows)
            return
        self._excess = excess = table.excess(self._automaton)
        # What the window leaves above the cheapest.
        least, left = (min(bound - table.constant - excess.low, excess.span) for bound in (at_least, budget))
        if excess.common and least > 0 and math.floor(left / excess.common) * excess.common < least:
            self._refuse(proven=True)  # the costs step over the window
        upper = float(excess.level(np.array([left]))[0])
        cells = _COARSE
        if least > 0:
            width = max(left - least, excess.finest)
            wanted = upper * len(self._automaton.steps) / (_WINDOW_SLACK * width)
            cells = min(_FINE, max(_COARSE, 2 ** math.ceil(math.log2(max(wanted, 1)))))
        while True:
            self._count(upper, cells, max(least, 0.0), left)
            if self.reachable <= listed:
                self._keep(self._counts.list(self._low, self._high))
                return
            share = float(self._inside(self._propose(_PILOT, np.random.default_rng(0))).mean())
            self._expected = 1 / max(share, 1 / _PILOT)
            if share >= _GOOD or cells >= _FINE or not self._counts.slack:
                return
            cells *= 4

    @property
    def reachable(self) -> float:
        """Architectures whose rounded cost is in reach, as often as they count: those in the window, and few more."""
        if self._list is not None and len(self._automaton.steps) == 1:
            return float(self._listed[-1])
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
            drawn = np.searchsorted(self._listed, rng.random(n) * self._listed[-1], side="right")
            answer: Population = self._list[np.minimum(drawn, len(self._list) - 1)]
            return answer
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
        self.table.check_budget(self.budget, allowed=self.allowed)
        if self.at_least > self.budget or self.at_least > self.table.bounds(allowed=self.allowed)[1]:
            raise BudgetError(f"no architecture of {self._asked('has')}; feasible: {self._feasible()}")

    def _asked(self, verb: str) -> str:
        low, high = (format_amount(value, self.table.unit) for value in (self.at_least, self.budget))
        return f"{self.table.space.name} {verb} {self.table.name} from {low} to {high}"

    def _feasible(self) -> str:
        return self.table.describe_range(self.allowed)

    def _count(self, upper: float, cells: int, least: float, left: float) -> None:
        self._counts = counts = make_counts(self._automaton, self._excess, upper, cells, self.over)
        self._high = min(math.floor(left / counts.delta + EDGE), counts.cells - 1)
        self._low = max(math.ceil((least - counts.slack) / counts.delta - EDGE), 0)
        self._cumulative = np.cumsum(counts.last[self._low : self._high + 1])

    def _keep(self, rows: Population) -> None:
        """Draw from a list of those that are inside."""
        self._list = rows[self._inside(rows)]
        if not len(self._list):
            self._refuse(proven=True)
        alike = self.over == "architectures"
        self._listed = np.cumsum(np.ones(len(self._list)) if alike else self.table.space.ways(self._list))

    def _inside(self, rows: Population) -> NDArray[np.bool_]:
        costs = self.table(rows)
        return (costs <= self.budget) & (costs >= self.at_least)

    def _propose(self, n: int, rng: np.random.Generator) -> Population:
        """Draws among what is in reach; the result depends on the generator alone, not on the threads."""
        workers = min(4, os.cpu_count() or 1)
        sizes = [min(_DRAWS_AT_ONCE, n - start) for start in range(0, n, _DRAWS_AT_ONCE)]
        steps = len(self._automaton.steps)

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
        below, above = (f"{value:,.10g}" for value in self._neighbours())
        asked = self._asked("has" if proven else f"was found in {_GIVE_UP:,} draws to have")
        raise BudgetError(
            f"no architecture of {asked}; the nearest below and above have {below} and {above} {self.table.unit}; "
            f"feasible: {self._feasible()}"
        )

    def _neighbours(self) -> tuple[float, float]:
        """The nearest attainable costs below and above the window; on an inexact grid, the nearest among many draws."""
        if len(self._automaton.steps) == 1:
            costs = self.table(self._automaton.steps[0].rows)
            return float(costs[costs < self.at_least].max()), float(costs[costs > self.budget].min())
        low = self.table.constant + self._excess.low
        counts = make_counts(self._automaton, self._excess, self._excess.span, _FINE)
        filled = np.flatnonzero(counts.last > 0)
        margin = math.ceil(counts.slack / counts.delta) + 1
        below = filled[filled <= (self.at_least - low) / counts.delta + EDGE][-margin - 1 :]
        above = filled[filled >= (self.budget - low - counts.slack) / counts.delta - EDGE][: 2 * margin + 1]
        cells = np.repeat(np.concatenate([below, above]), 64)
        uniforms = np.random.default_rng(0).random((len(self._automaton.steps), len(cells)))
        ends = self.table.bounds(allowed=self.allowed)
        costs = np.concatenate([self.table(counts.draw(cells, uniforms)), ends])
        return float(costs[costs < self.at_least].max()), float(costs[costs > self.budget].min())

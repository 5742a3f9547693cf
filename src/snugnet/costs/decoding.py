"""Decoding: for each scenario the best-scoring architecture within its budgets, never above one."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import ArrayLike, NDArray

from snugnet.costs.budget import exact_amount
from snugnet.costs.exact.allowed import Allowed
from snugnet.costs.exact.automaton import Automaton, Floats
from snugnet.costs.exact.best import Lattice, Paths, make_lattice
from snugnet.costs.exact.feasible import undominated
from snugnet.costs.maximum import MaximumTable, within
from snugnet.costs.table import CostTable, common_automaton
from snugnet.errors import BudgetError, SpaceError
from snugnet.spaces import Population

_AT_A_TIME = 2**14  # scenarios: what is kept of each step does not grow with their number
_GAINS = 2**23  # scores of transitions at a time: where there are many transitions, fewer scenarios
_JOINT = 16  # times as many cells where several budgets bind at once
_FEW = 256  # scenarios that one thread solves faster than several
_STATE_VALUES = 2**16  # values a state: a chunk of scores stays in the second-level cache
_FINAL_VALUES = 2**20  # cells of scenarios that are looked at together
_TRACED = (1, 7, 8, 8)  # cells traced back together, the best ones first: mostly the first fits
_TRACED_SAFE = 8  # and then of those in which everything fits


def decode(
    tables: Sequence[CostTable | MaximumTable],
    scores: ArrayLike,
    budgets: ArrayLike,
    *,
    which: NDArray[np.intp] | None = None,
    allowed: Allowed | None = None,
    cells: int = 1024,
) -> Population:
    """The architectures with the greatest sum of scores over the choices that matter, within budgets.

    No result is above a budget: true costs are compared. Each is optimal to the quantisation. With ``T`` steps (the
    automaton's, 20 for ``ofa-mobilenet-v3``) and ``delta`` the width of a cell, at most
    ``4 * (budget - cheapest) / cells``, no architecture that costs at most ``budget - T * delta`` scores more; nor, in
    exact arithmetic, does any at all where the unconstrained best fits, or where costs are multiples of a whole number
    and ``cells`` of those reach the budget. Where several budgets bind at once, a side of the grid has
    ``(16 * cells) ** (1 / m)`` cells for ``m`` binding tables, and the statement holds for architectures that keep
    this distance from each of those budgets. Where one table is over all choices (a look-up) nothing is rounded, and no architecture
    within the budgets scores more. Sums are taken in the precision of the scores. A scenario's result does not
    depend on the others. Ties are broken the same way every time.

    Args:
        tables: costs of one space, sums and maxima: a limit on a maximum leaves architectures out, and the rest is as if there were
            no others. All scenarios with the same limits on maxima are decoded together.
        scores: in one-hot layout (``space.offsets``), shape ``(n, sum of options)``, or with ``which`` as many rows as differ; minus
            infinity forbids an option.
        budgets: shape ``(n, len(tables))``, or ``(n,)`` for one table; infinite for no bound.
        which: of the scores each scenario has, as a row of them, shape ``(n,)``; without it, scenario i has row i. Scenarios that share
            scores share most of the work.
        allowed: further limits, the same for all scenarios.
        cells: of the grid of one budget.

    Returns:
        Canonical rows, shape ``(n, d)``.

    Raises:
        BudgetError: budgets that no architecture meets; names the scenario, where there are several, and the feasible range. Or nothing is allowed.
        SpaceError: wrong shapes, scores that are NaN or plus infinity, or everything forbidden.

    Examples:
        >>> from snugnet.costs import counted_table
        >>> from snugnet.spaces import get_space
        >>> space = get_space("ofa-mobilenet-v3")
        >>> madds, params = counted_table(space, "madds"), counted_table(space, "params")
        >>> wanted = space.one_hot(space.largest)  # a score for every option: here, the largest network
        >>> row = decode([madds, params], wanted, [[200e6, 5e6]])
        >>> bool(madds(row)[0] <= 200e6), bool(params(row)[0] <= 5e6)
        (True, True)
    """
    array, limits, own = _check(tables, scores, budgets, which, cells)
    numbers = np.arange(len(own)) if len(own) > 1 else None
    sums = [m for m, table in enumerate(tables) if isinstance(table, CostTable)]
    if len(sums) == len(tables):
        return _decode([t for t in tables if isinstance(t, CostTable)], array, own, limits, allowed, cells, numbers)
    space, maxima = tables[0].space, [(m, t) for m, t in enumerate(tables) if isinstance(t, MaximumTable)]
    added = [t for t in tables if isinstance(t, CostTable)] or [maxima[0][1].nothing]
    bounds = limits[:, sums] if sums else np.full((len(own), 1), np.inf)
    for m, table in maxima:
        for i in np.flatnonzero(limits[:, m] < table.bounds(allowed=allowed)[0]):
            table.check_budget(float(limits[i, m]), _where(numbers, i), allowed)
    different, kind = np.unique(limits[:, [m for m, _ in maxima]], axis=0, return_inverse=True)
    fitting = [within(zip((t for _, t in maxima), limit, strict=True), allowed) for limit in different.tolist()]
    rows = np.zeros((len(own), space.d), dtype=np.int16)
    for among in dict.fromkeys(fitting):  # between some limits no cost lies
        members = np.flatnonzero(np.array([each is among for each in fitting])[kind.ravel()])
        named = None if numbers is None else numbers[members]
        rows[members] = _decode(added, array, own[members], bounds[members], among, cells, named)
    return rows


def _decode(
    tables: Sequence[CostTable],
    scores: Floats,
    which: NDArray[np.intp],
    limits: NDArray[np.float64],
    allowed: Allowed | None,
    cells: int,
    numbers: NDArray[np.intp] | None,
) -> Population:
    """Decode under limits on sums; ``numbers`` are those of the scenarios, for messages, where there are several."""
    automaton = common_automaton(tables, allowed)
    for m, table in enumerate(tables):
        for i in np.flatnonzero(limits[:, m] < table.bounds(allowed=allowed)[0]):
            table.check_budget(float(limits[i, m]), _where(numbers, i), allowed)
    rows = np.zeros((len(which), automaton.d), dtype=np.int16)
    size = max(1, min(_AT_A_TIME, _GAINS // max(1, sum(len(step.rows) for step in automaton.steps))))
    order = np.argsort(which, kind="stable")  # so that those that share scores are side by side
    for start in range(0, len(order), size):
        some = order[start : start + size]
        used, own = np.unique(which[some], return_inverse=True)
        named = None if numbers is None else numbers[some]
        rows[some] = _Decoder(tables, allowed, automaton, scores[used], own, limits[some], cells, named).run()
    return rows


def _where(numbers: NDArray[np.intp] | None, i: int | np.integer) -> str:
    """For messages: which scenario of several."""
    return "" if numbers is None else f"scenario {numbers[i]}: "


class _Decoder:
    """Some scenarios of one call, in the order of their scores, and those of them that are not solved yet."""

    def __init__(
        self,
        tables: Sequence[CostTable],
        allowed: Allowed | None,
        automaton: Automaton,
        scores: Floats,
        own: NDArray[np.intp],
        budgets: NDArray[np.float64],
        cells: int,
        numbers: NDArray[np.intp] | None,
    ) -> None:
        self.tables, self.allowed, self.automaton = tables, allowed, automaton
        self.scores, self.own, self.budgets, self.cells = scores, own, budgets, cells
        self.numbers = numbers
        self.excesses = [table.excess(automaton) for table in tables]
        self.lows = np.array([table.constant + e.low for table, e in zip(tables, self.excesses, strict=True)])
        self.forbidding = np.any(np.isneginf(scores), axis=1, keepdims=True)[:, 0]
        self.rows = np.zeros((len(own), automaton.d), dtype=np.int16)
        self.pending = np.ones(len(own), dtype=bool)

    def run(self) -> Population:
        """Easy scenarios first: a relaxation whose optimum meets all budgets has solved the problem itself."""
        cheapest = [self._cheapest(m) for m in range(len(self.tables))]
        gains = self.automaton.scores(self.scores)
        rows, sums = self.automaton.best(gains)
        forbidden = np.isin(self.own, np.flatnonzero(np.isneginf(sums)))
        if forbidden.any():
            where = _where(self.numbers, forbidden.argmax())
            raise SpaceError(f"{where}the scores forbid every architecture")
        rows = rows[self.own]
        self._accept(np.arange(len(rows)), rows)
        if len(gains) == 1:
            self._look_at_all(gains[0])
        binding = self._costs(rows) > self.budgets
        if len(self.tables) > 1:
            for m in range(len(self.tables)):
                self._solve(np.flatnonzero(self.pending & binding[:, m]), [m], self.cells)
        highs = [table.bounds(allowed=self.allowed)[1] for table in self.tables]
        for i in np.flatnonzero(self.pending):
            binding[i] |= self.budgets[i] < highs
        for subset in np.unique(binding[self.pending], axis=0):
            members = np.flatnonzero(self.pending & (binding == subset).all(axis=1))
            side = self.cells if subset.sum() == 1 else max(2, round((_JOINT * self.cells) ** (1 / subset.sum())))
            self._solve(members, np.flatnonzero(subset).tolist(), side)
        for rows in cheapest:  # all that is left of a budget may be less than the rounding
            left = np.flatnonzero(self.pending)
            self._accept(left, rows[left])
        for i in np.flatnonzero(self.pending):
            self.rows[i] = find_feasible(
                self.tables,
                self.automaton,
                self.scores[self.own[i]],
                self.budgets[i],
                _where(self.numbers, i),
                self.allowed,
            )
        return self.rows

    def _costs(self, rows: Population) -> NDArray[np.float64]:
        """True costs, shape ``(n, m)``."""
        return np.stack([table(rows) for table in self.tables], axis=1)

    def _accept(self, scenarios: NDArray[np.intp], rows: Population) -> None:
        """Keep the rows that meet all budgets."""
        fits = (self._costs(rows) <= self.budgets[scenarios]).all(axis=1)
        self.rows[scenarios[fits]] = rows[fits]
        self.pending[scenarios[fits]] = False

    def _look_at_all(self, gains: Floats) -> None:
        """Of an automaton of one step every transition is an architecture, so none has to be reached over a grid.

        Args:
            gains: what each scores, shape ``(K, n)``.
        """
        rows, open_ = self.automaton.steps[0].rows, np.flatnonzero(self.pending)
        gains, costs = gains[:, self.own[open_]], self._costs(rows)
        for m, cost in enumerate(costs.T):
            gains[cost[:, None] > self.budgets[open_, m]] = -np.inf
        best = gains.argmax(axis=0)
        found = gains[best, np.arange(len(open_))] > -np.inf
        self._accept(open_[found], rows[best[found]])

    def _cheapest(self, m: int) -> Population:
        """The cheapest architecture of each scenario under one table; refuses a budget below it."""
        table, budgets = self.tables[m], self.budgets[:, m]
        rows = np.repeat(table.terms.ends(table.automaton(self.allowed))[:1], len(budgets), axis=0)
        some = np.flatnonzero(self.forbidding[self.own])
        if len(some):
            rows[some] = table.terms.extreme(self.automaton, ~np.isneginf(self.scores[self.own[some]]), -1)[0]
            least = table(rows[some])
            for i, low in zip(some, least, strict=True):
                if budgets[i] < low:
                    raise BudgetError(
                        f"{_where(self.numbers, i)}of what its scores allow, no architecture has {table.name} <= "
                        f"{budgets[i]:,.10g}; feasible: from {low:,.10g} {table.unit}"
                    )
        return rows

    def _solve(self, scenarios: NDArray[np.intp], members: list[int], cells: int) -> None:
        """Solve scenarios under some of their budgets, those of a grid together, in chunks, on all cores."""
        if not len(scenarios):
            return
        left = self.budgets[scenarios] - self.lows
        levels = np.stack([self.excesses[m].level(left[:, m]) for m in members], axis=1)
        tasks = []
        # For a few scenarios the arrays are so small that threads mostly wait for one another.
        workers = min(4, os.cpu_count() or 1) if len(scenarios) > _FEW else 1
        for uppers in np.unique(levels, axis=0):
            group = scenarios[(levels == uppers).all(axis=1)]
            lattice = make_lattice(
                self.automaton, tuple(self.excesses[m] for m in members), tuple(uppers.tolist()), cells
            )
            columns = np.unique(self.own[group], return_inverse=True)[1] // max(1, _STATE_VALUES // lattice.size)
            chunks = np.split(group, np.flatnonzero(np.diff(columns)) + 1)
            tasks += [(lattice, members, chunks[w::workers]) for w in range(min(workers, len(chunks)))]
        if len(tasks) == 1 or workers == 1:
            for task in tasks:
                self._solve_chunks(*task)
        else:
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(lambda task: self._solve_chunks(*task), tasks))

    def _solve_chunks(self, lattice: Lattice, members: list[int], chunks: list[NDArray[np.intp]]) -> None:
        buffers = None
        for chunk in chunks:
            used, own = np.unique(self.own[chunk], return_inverse=True)
            if buffers is None or len(used) != buffers.n:
                buffers = lattice.buffers(len(used), self.scores.dtype)
            paths = lattice.solve(self.automaton.scores(self.scores[used]), buffers)
            ends = np.ascontiguousarray(paths.final)
            size = max(1, _FINAL_VALUES // lattice.size)
            for start in range(0, len(chunk), size):
                self._trace(paths, ends, own[start : start + size], chunk[start : start + size], members)

    def _trace(
        self, paths: Paths, ends: Floats, own: NDArray[np.intp], scenarios: NDArray[np.intp], members: list[int]
    ) -> None:
        """Go back from the best cells of solved scores, whose ``ends`` are as in :attr:`Paths.final`, ``own`` of each scenario."""
        lattice = paths.lattice
        left = (self.budgets[scenarios] - self.lows)[:, members]
        final = ends[own]
        final[~_reach(lattice, lattice.cells(left, safe=False))] = -np.inf
        open_ = np.arange(len(scenarios))
        for cells in _TRACED:
            open_ = self._try_best(paths, own, final, open_, scenarios, members, cells)
        while len(members) == 1 and len(open_) and np.isfinite(final[open_]).any():  # few: at most as many as steps
            open_ = self._try_best(paths, own, final, open_, scenarios, members, _TRACED_SAFE)
        if len(open_):
            final[~_reach(lattice, lattice.cells(left, safe=True))] = -np.inf
            self._try_best(paths, own, final, open_, scenarios, members, _TRACED_SAFE)

    def _try_best(
        self,
        paths: Paths,
        own: NDArray[np.intp],
        final: Floats,
        open_: NDArray[np.intp],
        chunk: NDArray[np.intp],
        members: list[int],
        count: int,
    ) -> NDArray[np.intp]:
        """Trace the best ``count`` cells back and see which true costs fit; the cells are struck out of ``final``.

        Scenarios count as solved once the budgets of this grid are met, but the result is kept only where it meets all.

        Returns:
            Those of the open scenarios, as positions in the chunk, that stay open.
        """
        if not len(open_):
            return open_
        left, each = final[open_], np.arange(len(open_))
        cells, finite = [], []
        for _ in range(count):
            cells.append(left.argmax(axis=1))
            finite.append(left[each, cells[-1]] > -np.inf)
            left[each, cells[-1]] = -np.inf
        final[open_] = left
        # A scenario with fewer cells left than are looked at has others struck out: from those no path leads back.
        real = np.flatnonzero(np.concatenate(finite))
        scenario = np.tile(open_, count)[real]
        rows = np.zeros((count * len(open_), self.rows.shape[1]), dtype=np.int16)
        ends = own[scenario] * paths.lattice.size + np.concatenate(cells)[real]
        different, back = np.unique(ends, return_inverse=True)
        rows[real] = paths.trace(*divmod(different, paths.lattice.size))[back]
        fits = np.zeros((count, len(open_)), dtype=bool)
        fits.flat[real] = (self._costs(rows[real]) <= self.budgets[chunk[scenario]])[:, members].all(axis=1)
        solved, first = fits.any(axis=0), fits.argmax(axis=0)
        self._accept(chunk[open_[solved]], rows.reshape(count, len(open_), -1)[first, each][solved])
        return open_[~solved]


def _reach(lattice: Lattice, top: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which flat cells lie within the last cell of each dimension: from ``(n, m)`` to ``(n, size)``."""
    reach: NDArray[np.bool_] = lattice.coordinates[0] <= top[:, :1]
    for j in range(1, top.shape[1]):
        reach &= lattice.coordinates[j] <= top[:, j : j + 1]
    return reach


def find_feasible(
    tables: Sequence[CostTable],
    automaton: Automaton,
    scores: Floats,
    budgets: NDArray[np.float64],
    where: str = "",
    allowed: Allowed | None = None,
) -> NDArray[np.int16]:
    """An architecture within all budgets, the best of those that are found.

    Args:
        tables: costs of one space.
        automaton: of the allowed architectures, for all of the tables.
        scores: of one scenario, shape ``(sum of options,)``.
        budgets: shape ``(m,)``.
        where: put before the message of an error.
        allowed: for that message.

    Returns:
        A canonical row, shape ``(d,)``.

    Raises:
        BudgetError: there is none, or (the message says so) none was found among more labels than can be kept.
    """
    binding = [(table, budget) for table, budget in zip(tables, budgets, strict=True) if budget < np.inf]
    rows, found, proven = undominated(
        automaton,
        [np.stack(step, axis=1) for step in zip(*(t.terms.increments(automaton) for t, _ in binding), strict=True)],
        [gain[:, 0] for gain in automaton.scores(scores[None])],
        np.array([budget - table.constant for table, budget in binding]),
        np.array([table.excess(automaton).span or 1.0 for table, _ in binding]),
    )
    fits = np.all([table(rows) <= budget for table, budget in binding], axis=0)
    if not fits.any():
        wanted = " and ".join(f"{table.name} <= {exact_amount(budget, math.floor)}" for table, budget in binding)
        ranges = "; ".join(f"{table.name} {_exact_range(table, allowed)}" for table, _ in binding)
        raise BudgetError(
            f"{where}no architecture of {tables[0].space.name} {'has' if proven else 'was found to have'} {wanted} "
            f"together; feasible alone: {ranges}"
        )
    best: NDArray[np.int16] = rows[fits][found[fits].argmax()]
    return best


def _exact_range(table: CostTable, allowed: Allowed | None) -> str:
    """A range to choose limits from: every digit of what is large, and both ends inside."""
    low, high = table.bounds(allowed=allowed)
    among = "" if allowed is None else f" ({allowed.text})"
    return f"{exact_amount(low, math.ceil)} to {exact_amount(high, math.floor)} {table.unit}{among}"


def _check(
    tables: Sequence[CostTable | MaximumTable],
    scores: ArrayLike,
    budgets: ArrayLike,
    which: NDArray[np.intp] | None,
    cells: int,
) -> tuple[Floats, NDArray[np.float64], NDArray[np.intp]]:
    """Scores, budgets, and which of the scores each scenario has, as arrays of the right shapes."""
    if not tables:
        raise SpaceError("decoding needs at least one cost table")
    space, m = tables[0].space, len(tables)
    if any(table.space.choices != space.choices for table in tables):
        raise SpaceError("the cost tables belong to different spaces")
    if cells < 1:
        raise SpaceError(f"cells is a positive whole number, got {cells!r}")
    array = np.asarray(scores)
    array = array if array.dtype == np.float64 else array.astype(np.float32)
    if array.ndim != 2 or array.shape[1] != space.offsets[-1]:
        raise SpaceError(f"scores have shape (n, {space.offsets[-1]}), got {array.shape}")
    bad = np.isnan(array) | np.isposinf(array)
    if bad.any():
        raise SpaceError(f"scenario {int(bad.any(axis=1).argmax())}: scores are numbers or minus infinity")
    own = np.arange(len(array)) if which is None else np.asarray(which)
    if own.ndim != 1 or own.dtype.kind not in "iu" or (len(own) and not 0 <= own.min() <= own.max() < len(array)):
        raise SpaceError(f"which has a row of {len(array)} scores for each scenario, got {own!r:.100}")
    limits = np.asarray(budgets, dtype=np.float64)
    if limits.ndim == 1 and m == 1:
        limits = limits[:, None]
    if limits.shape != (len(own), m):
        raise SpaceError(f"budgets have shape ({len(own)}, {m}): one a scenario and table, got {limits.shape}")
    if np.isnan(limits).any():
        raise BudgetError(f"scenario {int(np.isnan(limits).any(axis=1).argmax())}: a budget is not a number (NaN)")
    return array, limits, own

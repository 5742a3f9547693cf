"""The best sum of scores under budgets, by a max-plus dynamic programme on a grid of costs.

Each entry of each table is rounded to the nearest cell. For every state and cell the programme keeps the best score of
all paths that lead there, for many scenarios at once: a transition shifts all cells by the same amount, so it is one
addition and one maximum of slices. With several budgets the grid has a dimension for each, laid out flat; margins
between its rows catch what is shifted past an edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from snugnet.costs.exact.automaton import Automaton, Floats
from snugnet.costs.exact.excess import EDGE, Excess
from snugnet.spaces import Population

_INNER = 1024  # numbers that a broadcast addition goes through at a time


@dataclass(frozen=True, eq=False)
class Move:
    """One step on the grid: its transitions that no budget rules out, and those of them that look alike.

    Attributes:
        kept: which transitions of the step: shape ``(k,)``.
        shift: how far each moves on the flat grid: shape ``(k,)``.
        starts: where runs of transitions with equal source, target and shift begin: shape ``(runs,)``.
        runs: ``(source, target, shift)`` of each run.
        reach: cells, from the origin on, that may be occupied before this step.
    """

    kept: NDArray[np.intp]
    shift: NDArray[np.int64]
    starts: NDArray[np.intp]
    runs: list[tuple[int, int, int]]
    reach: int


@lru_cache(maxsize=64)
def make_lattice(automaton: Automaton, excesses: tuple[Excess, ...], uppers: tuple[float, ...], cells: int) -> Lattice:
    """A :class:`Lattice`; the last ones are kept, since budgets of one rung share theirs."""
    return Lattice(automaton, excesses, uppers, cells)


class Lattice:
    """A grid for the costs of some tables, up to some amounts above their minima.

    Attributes:
        automaton: the automaton.
        deltas: width of a cell for each table, in its unit.
        slack: by how much a true cost may be above (``slack[0]``) or below (``slack[1]``) its rounded cost, at most half
            a cell a step: shape ``(2, m)``.
        size: length of the flat grid, margins included.
        origin: flat index of cost zero.
        coordinates: cell of each flat index, below 0 in a margin: shape ``(m, size)``.
    """

    def __init__(self, automaton: Automaton, excesses: Sequence[Excess], uppers: Sequence[float], cells: int) -> None:
        """Round the entries and lay the grid out.

        Args:
            automaton: the automaton.
            excesses: one a table.
            uppers: for each table the most that any path may cost above the minimum.
            cells: for each table, as many as reach up to that.
        """
        self.automaton = automaton
        self.deltas = np.array([e.step(u, cells) for e, u in zip(excesses, uppers, strict=True)])
        m, steps = len(excesses), range(len(automaton.steps))
        # An entry above what the budget leaves is in no feasible path, so its rounding does not matter either.
        kept = [
            np.flatnonzero(
                np.all([e.steps[t] <= u * (1 + 1e-9) for e, u in zip(excesses, uppers, strict=True)], axis=0)
            )
            for t in steps
        ]
        entries = [np.array([e.steps[t][kept[t]] for e in excesses]).reshape(m, -1) for t in steps]
        shifts = [np.rint(entry / self.deltas[:, None]).astype(np.int64) for entry in entries]
        error = [e - self.deltas[:, None] * q for e, q in zip(entries, shifts, strict=True)]
        self.slack = np.zeros((2, m))
        for step_error in error:
            self.slack += [step_error.max(axis=1, initial=0), (-step_error).max(axis=1, initial=0)]
        margins = np.max([q.max(axis=1, initial=0) for q in shifts], axis=0, initial=0)
        sizes = np.floor((np.array(uppers) + self.slack[1]) / self.deltas + EDGE).astype(np.int64) + 1
        widths = margins + sizes
        strides = np.cumprod([1, *widths[:0:-1]])[::-1]
        self.size, self.origin = int(widths.prod()), int(margins @ strides)
        self.coordinates = np.indices(widths).reshape(m, -1) - margins[:, None]
        # Margins that lie between rows, and so have to be cleared: width of a row, of its margin, and of what is below.
        self._between = [(int(widths[j]), int(margins[j]), int(strides[j])) for j in range(1, m)]
        self.moves: list[Move] = []
        rows = 1  # of the first dimension, occupied so far
        for step, keep, shift in zip(automaton.steps, kept, shifts, strict=True):
            flat = strides @ shift
            order = np.lexsort((flat, step.source[keep], step.target[keep]))
            keep, flat = keep[order], flat[order]
            keys = np.stack([step.source[keep], step.target[keep], flat], axis=1)
            starts = np.flatnonzero(np.concatenate([[True], (keys[1:] != keys[:-1]).any(axis=1)])[: len(keys)])
            runs = [(source, target, move) for source, target, move in keys[starts].tolist()]
            reach = min(int(rows * strides[0]), self.size - self.origin)
            self.moves.append(Move(keep, flat, starts, runs, reach))
            rows = min(rows + int(shift[0].max(initial=0)), int(sizes[0]))
        self._last = min(int(rows * strides[0]), self.size - self.origin)

    def cells(self, left: NDArray[np.float64], *, safe: bool) -> NDArray[np.int64]:
        """The last cell that may hold paths within what budgets leave, or (safe) that holds no others.

        Args:
            left: budgets above the minima, shape ``(n, m)``.
            safe: which of the two.
        """
        within = left - self.slack[0] if safe else left + self.slack[1]
        found: NDArray[np.int64] = np.floor(within / self.deltas + EDGE).astype(np.int64)
        return found

    def buffers(self, n: int, dtype: np.dtype) -> Buffers:
        """Room for :meth:`solve` on ``n`` scenarios, to be used again and again."""
        repeat = max(1, _INNER // n)
        rows = self.size + repeat
        states = [1, *(step.targets for step in self.automaton.steps)]
        values = [np.full((s, rows * n), -np.inf, dtype=dtype) for s in states]
        values[0][0, self.origin * n : (self.origin + 1) * n] = 0
        return Buffers(n, repeat, rows, values, np.empty(rows * n, dtype))

    def solve(self, gains: Sequence[Floats], buffers: Buffers) -> Paths:
        """Best scores of all states and cells.

        Args:
            gains: what each transition scores, a list over steps of shape ``(K, n)``.
            buffers: from :meth:`buffers`, for just these ``n`` scenarios.
        """
        n, repeat, at, scratch = buffers.n, buffers.repeat, self.origin, buffers.scratch
        kept = [gain[move.kept] for move, gain in zip(self.moves, gains, strict=True)]
        reaches = [*(move.reach for move in self.moves[1:]), self._last]
        for move, gain, reach, old, new in zip(
            self.moves, kept, reaches, buffers.values, buffers.values[1:], strict=False
        ):
            new[:, at * n : (at + reach) * n] = -np.inf
            tiles = np.tile(np.maximum.reduceat(gain, move.starts, axis=0), (1, repeat))
            for (source, target, shift), tile in zip(move.runs, tiles, strict=True):
                length = min(move.reach, self.size - at - shift)
                blocks = -(-length // repeat)
                end = blocks * repeat * n
                before = old[source, at * n : at * n + end].reshape(blocks, -1)
                np.add(before, tile, out=scratch[:end].reshape(blocks, -1))
                into = new[target, (at + shift) * n : (at + shift + length) * n]
                np.maximum(into, scratch[: length * n], out=into)
            for state in new:
                for width, margin, below in self._between:
                    state[: self.size * n].reshape(-1, width, below * n)[:, :margin] = -np.inf
        return Paths(self, buffers, kept)


@dataclass(frozen=True, eq=False)
class Buffers:
    """Best scores before and after each step.

    A state's scores are laid out cell by cell, the scenarios of a cell side by side: any run of cells is then one
    contiguous piece. Scores of transitions are repeated ``repeat`` times and added to as many cells at once.

    Attributes:
        n: scenarios.
        repeat: cells that are added to at once.
        rows: cells, and room for one such run.
        values: one more than steps, shape ``(states, rows * n)``.
        scratch: shape ``(rows * n,)``.
    """

    n: int
    repeat: int
    rows: int
    values: list[Floats]
    scratch: Floats


@dataclass(frozen=True, eq=False)
class Paths:
    """Solved scenarios, until the buffers are used again.

    Attributes:
        lattice: the grid.
        buffers: best scores before and after each step.
        gains: scores of the kept transitions, a list over steps of shape ``(k, n)``.
    """

    lattice: Lattice
    buffers: Buffers
    gains: list[Floats]

    @property
    def final(self) -> Floats:
        """Best score in each cell of the flat grid: shape ``(n, size)``."""
        return self.buffers.values[-1].reshape(-1, self.buffers.n)[: self.lattice.size].T

    def trace(self, scenario: NDArray[np.intp], cell: NDArray[np.intp]) -> Population:
        """The best architectures that end in given cells.

        Args:
            scenario: shape ``(r,)``.
            cell: flat index of each, with a finite score: shape ``(r,)``.

        Returns:
            Canonical rows, shape ``(r, d)``.
        """
        if not len(cell):  # a step may have no transition left, so there would be none to pick from
            return np.zeros((0, self.lattice.automaton.d), dtype=np.int16)
        automaton, n, at = self.lattice.automaton, self.buffers.n, cell.copy()

        def pick(t: int, state: NDArray[np.intp]) -> tuple[NDArray[np.intp], None]:
            step, move, before = automaton.steps[t], self.lattice.moves[t], self.buffers.values[t]
            source, target = step.source[move.kept], step.target[move.kept]
            index = (source * self.buffers.rows - move.shift)[:, None] * n + (at * n + scenario)
            sums = before.ravel().take(index)  # never outside: no cell moves further than the margins
            sums += self.gains[t].take(scenario, axis=1)
            if step.targets > 1:
                sums[target[:, None] != state] = -np.inf
            best = sums.argmax(axis=0)
            np.subtract(at, move.shift[best], out=at)
            return move.kept[best], None

        return automaton.trace(len(cell), pick)

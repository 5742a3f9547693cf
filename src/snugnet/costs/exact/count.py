"""How many architectures there are by cost: paths counted on a grid, drawn and listed.

Every entry is rounded *down* to a grid, and for each state and cell the paths that lead there are counted. A cell of
the last step is drawn in proportion to its count and the path is traced back, each transition in proportion to the
paths behind it: a uniform draw among all architectures whose *rounded* cost is in reach, a superset of those whose true
cost is. Or each path counts as often as rows of options lead to it, those of choices that do not matter included: the draw
is then uniform over choices.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from snugnet.costs.exact.automaton import Automaton
from snugnet.costs.exact.excess import EDGE, Excess
from snugnet.spaces import Population

Over = Literal["choices", "architectures"]
"""What a draw is uniform over: every choice over its options (as SPOS, OFA and AttentiveNAS draw), or architectures."""

_COUNTS_KEPT = 8  # some take up to 100 MB
_GROUPED = 12  # transitions into one state; where there are more, a draw looks at groups of them first
_GROUPED_DRAWS = 1024  # below so many draws at once the groups' sums are not worth making
_GROUPED_BYTES = 2**23  # of one state's


@lru_cache(maxsize=_COUNTS_KEPT)
def make_counts(automaton: Automaton, excess: Excess, upper: float, cells: int, over: Over = "architectures") -> Counts:
    """:class:`Counts`; the last ones are kept, since windows of one width share theirs."""
    return Counts(automaton, excess, upper, cells, over)


class Counts:
    """How many paths lead to each state and cell, for rounded costs up to some limit.

    Over choices, a path counts as often as rows lead to it.

    Attributes:
        automaton: the automaton.
        delta: width of a cell, in the unit of the cost.
        cells: number of cells.
        slack: more than this a true cost is never above its rounded cost.
        log2: log2 of what the counts of the last step have been divided by.
    """

    def __init__(
        self, automaton: Automaton, excess: Excess, upper: float, cells: int, over: Over = "architectures"
    ) -> None:
        self.automaton = automaton
        self._ways = [step.ways if over == "choices" else np.ones(len(step.ways)) for step in automaton.steps]
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
        self._sums: dict[tuple[int, int], NDArray[np.float64]] = {}
        each = zip(automaton.steps, self._ways, self._shifts, self._kept, excess.steps, strict=True)
        for step, ways, q, kept, e in each:
            after = np.zeros((step.targets, self.pad + self.cells))
            for k in kept:
                behind = count[step.source[k], self.pad : self.pad + self.cells - q[k]]
                after[step.target[k], self.pad + q[k] :] += behind if ways[k] == 1 else ways[k] * behind
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
        at = cells + self.pad

        def pick(t: int, state: NDArray[np.intp]) -> tuple[NDArray[np.intp], None]:
            step, kept = self.automaton.steps[t], self._kept[t]
            picked = np.empty(len(at), dtype=np.intp)
            for target in range(step.targets):
                here = slice(None) if step.targets == 1 else np.flatnonzero(state == target)
                arrive = kept[step.target[kept] == target]
                picked[here] = arrive[self._pick(t, target, arrive, at[here], uniforms[t, here])]
            np.subtract(at, self._shifts[t].take(picked), out=at)
            return picked, None

        return self.automaton.trace(len(cells), pick)

    def _pick(
        self, t: int, target: int, arrive: NDArray[np.intp], at: NDArray[np.int64], uniforms: NDArray[np.float64]
    ) -> NDArray[np.intp]:
        """For paths at given cells, which of the transitions that arrive at a target they came by: shape ``(n,)``."""
        sums = self._sums_of(t, target, arrive, len(at))
        if sums is not None:
            return self._pick_grouped(t, arrive, sums, at, uniforms)
        source, shift, counts = self.automaton.steps[t].source, self._shifts[t], self._counts[t]
        behind, ways = np.empty((len(arrive), len(at))), self._ways[t]
        for row, k in zip(behind, arrive, strict=True):
            counts[source[k]].take(at - shift[k], out=row, mode="clip")
            if ways[k] != 1:
                row *= ways[k]
        for row, before in zip(behind[1:], behind, strict=False):
            row += before
        threshold = _below(uniforms, behind[-1]) if len(behind) else uniforms
        pick = np.zeros(len(at), dtype=np.int8 if len(arrive) < 128 else np.intp)
        for row in behind[:-1]:
            np.add(pick, row <= threshold, out=pick)
        return pick.astype(np.intp)

    def _sums_of(self, t: int, target: int, arrive: NDArray[np.intp], draws: int) -> NDArray[np.float64] | None:
        """What :meth:`_make_sums` makes, once; none where draws are faster without."""
        if (t, target) not in self._sums and len(arrive) > _GROUPED and draws >= _GROUPED_DRAWS:
            size = _group_size(len(arrive))
            if -(-len(arrive) // size) * self.cells * 8 <= _GROUPED_BYTES:
                self._sums[t, target] = self._make_sums(t, arrive, size)
        return self._sums.get((t, target))

    def _make_sums(self, t: int, arrive: NDArray[np.intp], size: int) -> NDArray[np.float64]:
        """Paths by the transitions up to the end of each group of ``size``, at each cell: shape ``(groups, cells)``."""
        source, shift, counts = self.automaton.steps[t].source, self._shifts[t], self._counts[t]
        total, sums = np.zeros(self.cells), []
        for i, k in enumerate(arrive):
            begin = self.pad - shift[k]
            total = self._ways[t][k] * counts[source[k], begin : begin + self.cells] + total
            if (i + 1) % size == 0 or i + 1 == len(arrive):
                sums.append(total)
        return np.stack(sums)

    def _pick_grouped(
        self,
        t: int,
        arrive: NDArray[np.intp],
        sums: NDArray[np.float64],
        at: NDArray[np.int64],
        uniforms: NDArray[np.float64],
    ) -> NDArray[np.intp]:
        """What :meth:`_pick` gives without groups, to the last bit: first the group, then the transition in it."""
        source, shift, counts = self.automaton.steps[t].source, self._shifts[t], self._counts[t]
        size, cell = _group_size(len(arrive)), at - self.pad
        threshold = _below(uniforms, sums[-1].take(cell))
        group = np.zeros(len(at), dtype=np.int16)
        for row in sums[:-1]:
            np.add(group, row.take(cell) <= threshold, out=group)
        pick = group.astype(np.intp)
        before = np.where(pick > 0, sums.ravel().take((pick - 1) * self.cells + cell, mode="clip"), 0.0)
        pick *= size
        first = pick.copy()
        behind = source[arrive] * counts.shape[1] - shift[arrive]  # where each transition's counts begin
        ways = self._ways[t][arrive]
        for j in range(size - 1):
            own = counts.ravel().take(behind.take(first + j, mode="clip") + at)
            before = ways.take(first + j, mode="clip") * own + before
            pick += before <= threshold
        return np.minimum(pick, len(arrive) - 1)

    def list(self, low: int, high: int) -> Population:
        """All architectures that end in cells ``low`` to ``high``: shape ``(n, d)``."""
        at = np.arange(low, high + 1)
        at = at[self.last[at] > 0] + self.pad

        def pick(t: int, state: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
            nonlocal at
            step, kept = self.automaton.steps[t], self._kept[t]
            before = at - self._shifts[t][kept][:, None]
            paths = self._counts[t][step.source[kept][:, None], before] > 0
            k, path = np.nonzero(paths & (step.target[kept][:, None] == state))
            at = before[k, path]
            return kept[k], path

        return self.automaton.trace(len(at), pick)


def _below(uniforms: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
    """Thresholds just below the total, so that a transition with paths behind it is always found."""
    return uniforms * (total * (1 - 2.0**-50))


def _group_size(transitions: int) -> int:
    """A look at a transition inside a group takes some three times as long as one at a group."""
    return max(2, round(math.sqrt(transitions / 3)))

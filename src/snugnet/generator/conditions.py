"""The generator under limits: which of its conditions to ask for, and the exact decode of what it answers."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from snugnet.costs import CostTable, MaximumTable, decode
from snugnet.costs.stairs import Stairs, make_stairs
from snugnet.generator.model import ArchitectureGenerator, regrets
from snugnet.spaces import Population
from snugnet.training.threads import side_by_side

CELLS = 512
"""Of the decode's grid: half of its default, which is twice as fast and changes no accuracy that we could measure."""
CONDITIONS = 65
"""Budgets at which the generator may be asked, for each mixture of superclasses."""
MIXTURES = 1024
"""Of so many mixtures the generator's answers are remembered: at most some 40 MB."""
STAIRS = 256
"""Of so many mixtures under one cost the stairs are remembered: at most some 130 MB."""
_Answers = dict[int, tuple[NDArray[np.float32], NDArray[np.int16]]]
"""What a generator says, and what it holds most probable, for one mixture of superclasses, by the condition's position."""
_PASS = 1024  # rows of one pass: half the time a row that many thousands take, as the states stay in the cache


@dataclass(frozen=True)
class Batch:
    """Scenarios that the same tables serve.

    Attributes:
        members: their positions, (n,).
        mixture: of each, as a position among the mixtures, (n,).
        tables: of the costs that are limited.
        limits: on these, (n, tables); infinite where there is none.
    """

    members: NDArray[np.intp]
    mixture: NDArray[np.intp]
    tables: Sequence[CostTable | MaximumTable]
    limits: NDArray[np.float64]

    def part(self, some: NDArray[np.intp]) -> Batch:
        """Some of the scenarios."""
        return replace(self, members=self.members[some], mixture=self.mixture[some], limits=self.limits[some])


@dataclass
class _Staircase:
    """What is remembered of a mixture under limits on one cost.

    Attributes:
        known: by the limit that each goes up to.
        seen: ranges of limits that were asked for, by the condition and the lower end.
    """

    known: list[tuple[float, float, Stairs]] = field(default_factory=list)
    seen: set[tuple[int, float]] = field(default_factory=set)

    def at(self, limit: float) -> Stairs | None:
        """The stairs for a limit."""
        place = bisect_left(self.known, (limit,))
        if place == len(self.known):
            return None
        _, above, stairs = self.known[place]
        return stairs if above < limit else None


class ConditionedGenerator:
    """A trained generator, asked for architectures within limits; several threads may ask.

    Asked for the very budget it leaves a third of it unused, because its most probable architecture is often cheaper than its average
    one; and it says nothing about budgets of another cost. So it is asked for a condition at which what it holds most probable no
    longer fits the limits, and one step before which it still does (the last condition where all fit); the decode then trims
    that one down. The condition is found by bisection: a scenario of its own looks up seven of them, not all.

    Attributes:
        generator: in eval mode.
        table: any cost of its space; it bounds nothing.
    """

    def __init__(self, generator: ArchitectureGenerator, table: CostTable | MaximumTable) -> None:
        self.generator, self.table = generator, table
        self.conditions = np.linspace(generator.low, generator.high, CONDITIONS)
        self._answers: OrderedDict[bytes, _Answers] = OrderedDict()
        self._staircases: OrderedDict[tuple[CostTable, bytes], _Staircase] = OrderedDict()
        self._guard = threading.Lock()

    def scores(self, mixtures: NDArray[np.float32], budgets: NDArray[np.float64]) -> NDArray[np.float32]:
        """Log-probabilities of all options, (n, sum of options), for mixtures of superclasses (n, groups) and budgets (n,)."""
        device = self.generator.group_embedding.device

        def scores(start: int) -> NDArray[np.float32]:
            some = slice(start, start + _PASS)
            groups, asked = torch.from_numpy(mixtures[some]), torch.from_numpy(budgets[some])
            return self.generator.scores(groups.to(device), asked.to(device, torch.float32)).cpu().numpy()

        starts = range(0, len(budgets), _PASS)
        with side_by_side(device, len(starts)) as mapped:
            return np.concatenate(list(mapped(scores, starts)))

    def decode(
        self, mixtures: NDArray[np.float32], batches: Sequence[Batch], noise: NDArray[np.float32] | None = None
    ) -> Population:
        """An architecture within its limits for each scenario.

        Args:
            mixtures: the different mixtures of superclasses, (m, groups).
            batches: the scenarios; together their members are 0 to n - 1.
            noise: added to the scores, (n, sum of options); Gumbel noise makes samples of the generator's distribution.

        Returns:
            Rows, (n, d).

        Raises:
            BudgetError: no architecture is within the limits of a scenario.
        """
        rows = np.empty((sum(len(batch.members) for batch in batches), self.generator.space.d), dtype=np.int16)
        for batch in batches:
            for part in [batch] if noise is not None else self._look_up(mixtures, batch, rows):
                answers = self._remembered(mixtures, np.unique(part.mixture))
                places, _, _ = self._places(mixtures, answers, part)
                different, which = np.unique(part.mixture * CONDITIONS + places, return_inverse=True)
                scores, _ = self._answered(mixtures, answers, different)
                if noise is not None:
                    scores, which = scores[which] + noise[part.members], np.arange(len(which))
                scores = regrets(scores, self.generator.space)
                rows[part.members] = decode(part.tables, scores, part.limits, which=which, cells=CELLS)
        return rows

    # -- limits on one sum: what was solved once is looked up ----------------------------------------------------------

    def _look_up(self, mixtures: NDArray[np.float32], batch: Batch, rows: Population) -> list[Batch]:
        """Answer what is known of the scenarios that have one limit, on a sum; returns those that are left to decode.

        In a range of limits that asks for one condition, and is on one grid of the decode, the answer is a step function of the limit. A range
        that is asked for a second time has its steps solved; they are what the decode answers, so no answer depends on what was asked before.
        """
        limited = np.isfinite(batch.limits)
        single, left = limited.sum(1) == 1, []
        for m, table in enumerate(batch.tables):
            if isinstance(table, CostTable):
                own = np.flatnonzero(single & limited[:, m])
                part = replace(batch.part(own), tables=[table], limits=batch.limits[own, m : m + 1])
                left.append(part.part(self._by_stairs(mixtures, part, table, rows)))
                single[own], limited[own] = False, False
        left.append(batch.part(np.flatnonzero(limited.any(1) | ~np.isfinite(batch.limits).any(1))))
        return [part for part in left if len(part.members)]

    def _by_stairs(
        self, mixtures: NDArray[np.float32], batch: Batch, table: CostTable, rows: Population
    ) -> NDArray[np.intp]:
        """Answer scenarios under the one table of their batch; returns the positions of those that are left."""
        known, different = list[_Staircase](), np.unique(batch.mixture)
        with self._guard:
            for m in different.tolist():
                key = table, mixtures[m].tobytes()
                known.append(self._staircases.setdefault(key, _Staircase()))
                self._staircases.move_to_end(key)
            while len(self._staircases) > STAIRS:
                self._staircases.popitem(last=False)
        of = [known[place] for place in np.searchsorted(different, batch.mixture).tolist()]
        members, limits = batch.members.tolist(), batch.limits[:, 0].tolist()

        def missed(among: Iterable[int]) -> list[int]:
            left = []
            for i in among:
                stairs = of[i].at(limits[i])
                if stairs is None:
                    left.append(i)
                else:
                    rows[members[i]] = stairs.row(limits[i])
            return left

        left = missed(range(len(limits)))
        if left:
            self._make_stairs(mixtures, batch.part(np.array(left)), table, [of[i] for i in left])
            left = missed(left)
        return np.array(left, dtype=np.intp)

    def _make_stairs(
        self, mixtures: NDArray[np.float32], batch: Batch, table: CostTable, known: Sequence[_Staircase]
    ) -> None:
        """Solve the ranges that the scenarios are in, where one was asked for before or by another of them; ``known`` of each."""
        answers = self._remembered(mixtures, np.unique(batch.mixture))
        places, above, upto = self._places(mixtures, answers, batch)
        wanted = dict[tuple[int, int, float], int]()
        for i, key in enumerate(zip(batch.mixture.tolist(), places.tolist(), above.tolist(), strict=True)):
            if key[1:] in known[i].seen:
                wanted.setdefault(key, i)
            known[i].seen.add(key[1:])
        if not wanted:
            return
        some = np.array(list(wanted.values()))
        different, which = np.unique(batch.mixture[some] * CONDITIONS + places[some], return_inverse=True)
        scores, _ = self._answered(mixtures, answers, different)
        scores = regrets(scores, self.generator.space)[which]
        made = make_stairs(table, scores, batch.limits[some, 0], above[some], upto[some], cells=CELLS)
        with self._guard:
            for i, stairs in zip(some.tolist(), made, strict=True):
                insort(known[i].known, (stairs.upto, stairs.above, stairs), key=lambda entry: entry[0])

    def _places(
        self, mixtures: NDArray[np.float32], answers: dict[int, _Answers], batch: Batch
    ) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
        """Position of the condition to ask for in each scenario of a batch, (n,).

        Returns:
            It; and of the first table, in which range around its limit others ask for the same: the ends, the lower one not in it, (n,) each.
        """
        n = len(batch.members)
        low, high = np.zeros(n, dtype=np.intp), np.full(n, CONDITIONS - 1)
        above, upto = np.full(n, -np.inf), np.full(n, np.inf)
        while len(open_ := np.flatnonzero(low < high)):
            middle = (low[open_] + high[open_]) // 2
            different, back = np.unique(batch.mixture[open_] * CONDITIONS + middle, return_inverse=True)
            _, rows = self._answered(mixtures, answers, different)
            costs = np.stack([table(rows) for table in batch.tables], 1)[back]
            outgrown = (costs >= batch.limits[open_]).any(1)
            more, less = open_[outgrown], open_[~outgrown]
            high[more], low[less] = middle[outgrown], middle[~outgrown] + 1
            upto[more] = np.minimum(upto[more], costs[outgrown, 0])
            above[less] = np.maximum(above[less], costs[~outgrown, 0])
        return low, above, upto

    def _remembered(self, mixtures: NDArray[np.float32], wanted: NDArray[np.intp]) -> dict[int, _Answers]:
        """What the generator has said of some mixtures; those used last are kept."""
        answers = {}
        with self._guard:
            for m in wanted.tolist():
                key = mixtures[m].tobytes()
                answers[m] = self._answers.setdefault(key, {})
                self._answers.move_to_end(key)
            while len(self._answers) > MIXTURES:
                self._answers.popitem(last=False)
        return answers

    def _answered(
        self, mixtures: NDArray[np.float32], answers: dict[int, _Answers], different: NDArray[np.intp]
    ) -> tuple[NDArray[np.float32], Population]:
        """Scores and the most probable architectures of mixtures at conditions: ``mixture * CONDITIONS + place``, (n,).

        Returns:
            Shapes (n, sum of options) and (n, d).
        """
        wanted = [(answers[m], m, place) for m, place in (divmod(each, CONDITIONS) for each in different.tolist())]
        new = [(answer, m, place) for answer, m, place in wanted if place not in answer]
        if new:
            which, places = [m for _, m, _ in new], [place for _, _, place in new]
            scores = self.scores(mixtures[which], self.conditions[places])
            found = decode([self.table], regrets(scores, self.generator.space), np.full(len(new), np.inf))
            for (answer, _, place), score, row in zip(new, scores, found, strict=True):
                answer[place] = score.copy(), row.copy()  # a view would keep those of all
        every, rows = zip(*(answer[place] for answer, _, place in wanted), strict=True)
        return np.stack(every), np.stack(rows)

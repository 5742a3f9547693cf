"""The generator under limits: which of its conditions to ask for, and the exact decode of what it answers."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from snugnet.costs import CostTable, MaximumTable, decode
from snugnet.generator.model import ArchitectureGenerator, regrets
from snugnet.spaces import Population
from snugnet.training.threads import side_by_side

CELLS = 512
"""Of the decode's grid: half of its default, which is twice as fast and changes no accuracy that we could measure."""
CONDITIONS = 65
"""Budgets at which the generator may be asked, for each mixture of superclasses."""
MIXTURES = 1024
"""Of so many mixtures the generator's answers are remembered: at most some 40 MB."""
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
        n = sum(len(batch.members) for batch in batches)
        mixture, place = np.empty(n, dtype=np.intp), np.empty(n, dtype=np.intp)
        for batch in batches:
            mixture[batch.members] = batch.mixture
        answers = self._remembered(mixtures, np.unique(mixture))
        for batch in batches:
            place[batch.members] = self._places(mixtures, answers, batch)
        different, back = np.unique(mixture * CONDITIONS + place, return_inverse=True)
        scores, _ = self._answered(mixtures, answers, different)
        if isinstance(noise, np.ndarray):
            scores, back = scores[back] + noise, np.arange(n)
        scores = regrets(scores, self.generator.space)
        rows = np.empty((n, self.generator.space.d), dtype=np.int16)
        for batch in batches:
            rows[batch.members] = decode(batch.tables, scores, batch.limits, which=back[batch.members], cells=CELLS)
        return rows

    def _places(self, mixtures: NDArray[np.float32], answers: dict[int, _Answers], batch: Batch) -> NDArray[np.intp]:
        """Position of the condition to ask for in each scenario of a batch, (n,)."""
        low, high = np.zeros(len(batch.members), dtype=np.intp), np.full(len(batch.members), CONDITIONS - 1)
        while len(open_ := np.flatnonzero(low < high)):
            middle = (low[open_] + high[open_]) // 2
            different, back = np.unique(batch.mixture[open_] * CONDITIONS + middle, return_inverse=True)
            _, rows = self._answered(mixtures, answers, different)
            costs = np.stack([table(rows) for table in batch.tables], 1)[back]
            outgrown = (costs >= batch.limits[open_]).any(1)
            high[open_[outgrown]] = middle[outgrown]
            low[open_[~outgrown]] = middle[~outgrown] + 1
        return low

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

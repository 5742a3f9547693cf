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
"""Budgets at which the most probable architectures may be looked up, for each mixture of superclasses."""
MIXTURES = 4096
"""Of so many mixtures the most probable architectures are remembered: at most some 25 MB."""
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
        self._modes: OrderedDict[bytes, _Modes] = OrderedDict()
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
        self, mixtures: NDArray[np.float32], batches: Sequence[Batch], noise: NDArray[np.float32] | float = 0.0
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
            mixture[batch.members], place[batch.members] = batch.mixture, self._places(mixtures, batch)
        different, back = np.unique(mixture * CONDITIONS + place, return_inverse=True)
        which, places = divmod(different, CONDITIONS)
        scores = self.scores(mixtures[which], self.conditions[places])[back] + noise
        scores = regrets(scores, self.generator.space)
        rows = np.empty((n, self.generator.space.d), dtype=np.int16)
        for batch in batches:
            rows[batch.members] = decode(batch.tables, scores[batch.members], batch.limits, cells=CELLS)
        return rows

    def _places(self, mixtures: NDArray[np.float32], batch: Batch) -> NDArray[np.intp]:
        """Position of the condition to ask for in each scenario of a batch, (n,)."""
        modes = self._remembered(mixtures, np.unique(batch.mixture))
        low, high = np.zeros(len(batch.members), dtype=np.intp), np.full(len(batch.members), CONDITIONS - 1)
        while len(open_ := np.flatnonzero(low < high)):
            middle = (low[open_] + high[open_]) // 2
            different, back = np.unique(batch.mixture[open_] * CONDITIONS + middle, return_inverse=True)
            rows = self._most_probable(mixtures, modes, different)
            costs = np.stack([table(rows) for table in batch.tables], 1)[back]
            outgrown = (costs >= batch.limits[open_]).any(1)
            high[open_[outgrown]] = middle[outgrown]
            low[open_[~outgrown]] = middle[~outgrown] + 1
        return low

    def _remembered(self, mixtures: NDArray[np.float32], wanted: NDArray[np.intp]) -> dict[int, _Modes]:
        """What is known of the most probable architectures of some mixtures; those used last are kept."""
        modes = {}
        with self._guard:
            for m in wanted.tolist():
                key = mixtures[m].tobytes()
                modes[m] = self._modes.setdefault(key, _Modes(self.generator.space.d))
                self._modes.move_to_end(key)
            while len(self._modes) > MIXTURES:
                self._modes.popitem(last=False)
        return modes

    def _most_probable(
        self, mixtures: NDArray[np.float32], modes: dict[int, _Modes], different: NDArray[np.intp]
    ) -> Population:
        """The most probable architectures, (n, d), of mixtures at conditions: ``mixture * CONDITIONS + place``, (n,)."""
        wanted = [divmod(each, CONDITIONS) for each in different.tolist()]
        new = [(m, place) for m, place in wanted if not modes[m].known[place]]
        if new:
            which, places = (np.array(each) for each in zip(*new, strict=True))
            scores = regrets(self.scores(mixtures[which], self.conditions[places]), self.generator.space)
            found = decode([self.table], scores, np.full(len(new), np.inf))
            for (m, place), row in zip(new, found, strict=True):
                modes[m].rows[place] = row
                modes[m].known[place] = True  # after the row: another thread may be reading
        return np.stack([modes[m].rows[place] for m, place in wanted])


class _Modes:
    """What a generator holds most probable for one mixture of superclasses, condition by condition, as far as it was looked up."""

    def __init__(self, d: int) -> None:
        self.rows = np.zeros((CONDITIONS, d), dtype=np.int16)
        self.known = np.zeros(CONDITIONS, dtype=bool)

"""From (group, budgets) to networks: the generator's scores, decoded under the budgets; one scenario or a million."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from snugnet.costs import decode
from snugnet.errors import BudgetError, FamilyError
from snugnet.family.networks import Networks, Specialized
from snugnet.family.record import FamilyRecord, Group
from snugnet.family.scenarios import Asked, Scenario
from snugnet.generator.model import regrets
from snugnet.spaces import Population
from snugnet.training.calibration import accuracy
from snugnet.training.threads import side_by_side

CELLS = 512
"""Of the decode's grid: half of its default, which is twice as fast and changes no accuracy that we could measure."""
CONDITIONS = 65
"""Budgets at which the generator's most probable architectures may be looked up, for each mixture of superclasses."""
_AT_ONCE = 2**15  # scenarios: what is held of each while they are decoded stays below 100 MB
_PASS = 1024  # rows of one pass of the generator: half the time a row that many thousands take, as its states stay in the cache
_MIXTURES = 4096  # whose most probable architectures are remembered: at most some 25 MB


@dataclass(eq=False)
class SpecialisingFamily(FamilyRecord):
    """A family that hands out networks."""

    _modes: OrderedDict[bytes, _Modes] = field(default_factory=OrderedDict, repr=False)

    def specialize(self, group: Group, *, best_of: int = 1, seed: int = 0, **budgets: float | str) -> Specialized:
        """The network for a group of classes under budgets.

        Args:
            group: the name of a superclass, or any list of class names.
            best_of: so many architectures are tried on validation images and the best is kept (the paper's choice,
                section 3.2; without it the generator's own is taken).
            seed: of the draw of those architectures.
            **budgets: by cost, such as ``madds="40M"``, ``params=2e5`` or ``madds="40%"`` (of the way from the group's smallest
                network to its largest); without any, the largest network is allowed.

        Returns:
            A network whose costs are at most the budgets, never above.

        Raises:
            FamilyError: the group is unknown.
            BudgetError: a cost is unknown, or no network is within the budget.
        """
        return self.best((group, budgets), best_of, seed=seed)

    def network(self, group: Group, row: NDArray[np.int16], budgets: Mapping[str, float] | None = None) -> Specialized:
        """The network of an architecture that was found elsewhere.

        Args:
            group: the name of a superclass, or any list of class names.
            row: the architecture, shape (d,).
            budgets: under which it was found.

        Raises:
            FamilyError: the group is unknown.
            SpaceError: the row is no architecture of the family's space.
        """
        asked = Asked.read(self, [(group, dict(budgets or {}))])
        return self._networks(asked, self.space.rows(row))[0]

    def best(self, scenario: Scenario, best_of: int, *, seed: int = 0) -> Specialized:
        """The best on validation images of ``best_of`` draws for one scenario; see :meth:`specialize`."""
        if isinstance(best_of, bool) or not isinstance(best_of, int) or best_of < 1:
            raise BudgetError(f"best_of is a whole number of at least 1, got {best_of!r}")
        if best_of == 1:
            return self.specialize_many([scenario])[0]
        candidates = list(self.specialize_many([scenario] * best_of, noise=True, seed=seed))
        if not len(self.validation.of_classes(candidates[0].class_indices)):
            raise FamilyError(f"{self.name} holds no validation images of {candidates[0].group}; leave out best_of")
        unique = {candidate.row.tobytes(): candidate for candidate in candidates}
        return max(unique.values(), key=lambda candidate: self.validation_accuracy(candidate))

    def validation_accuracy(self, network: Specialized) -> float:
        """Accuracy of one network on its group's validation images."""
        return accuracy(
            network.module, self.batches(self.validation, network.class_indices, network.blueprint.resolution)
        )

    def specialize_many(
        self, scenarios: Sequence[Scenario], *, noise: bool = False, seed: int = 0
    ) -> Sequence[Specialized]:
        """Networks for many scenarios: the generator once for all that differ, then exact decodes.

        Args:
            scenarios: (group, budgets) each.
            noise: add Gumbel noise to the scores of all but the first, so that they are samples of the generator's
                distribution instead of its mode.
            seed: of the noise.

        Returns:
            One network a scenario, in order; each is built when its ``module`` is first used.
        """
        if not scenarios:
            return []
        asked = Asked.read(self, scenarios)
        asked.check_feasible()
        rng = np.random.default_rng(seed) if noise else None
        rows = np.zeros((len(scenarios), self.space.d), dtype=np.int16)
        for start in range(0, len(rows), _AT_ONCE):
            some = asked.part(slice(start, start + _AT_ONCE))
            scores = self._scores_under(some)
            if rng is not None:
                first = 1 if start == 0 else 0
                scores[first:] += rng.gumbel(size=scores[first:].shape).astype(np.float32)
            scores = regrets(scores, self.space)
            for batch in some.batches():
                members = batch.members
                rows[start + members] = decode(batch.tables, scores[members], batch.limits, cells=CELLS)
        return self._networks(asked, rows)

    def _networks(self, asked: Asked, rows: Population) -> Networks:
        names = list(dict.fromkeys((*self.tables, *asked.names)))
        costs = np.empty((len(rows), len(names)))
        for classes in np.unique(asked.widths):
            own = np.flatnonzero(asked.widths == classes)
            costs[own] = np.stack([self.table(name, int(classes))(rows[own]) for name in names], 1)
        groups = list(zip(asked.texts, asked.indices, strict=True))
        by_name = dict(zip(names, costs.T, strict=True))
        budgets = dict(zip(asked.names, asked.limits.T, strict=True))
        return Networks(self, groups, asked.group, rows, by_name, budgets)

    # -- the generator -------------------------------------------------------------------------------------------------

    def _scores(self, weights: NDArray[np.float32], asked: NDArray[np.float64]) -> NDArray[np.float32]:
        """The generator's log-probabilities, (n, sum of options), for mixtures of groups and budgets."""
        device = self.device

        def scores(start: int) -> NDArray[np.float32]:
            some = slice(start, start + _PASS)
            mixtures, budgets = torch.from_numpy(weights[some]), torch.from_numpy(asked[some])
            return self.generator.scores(mixtures.to(device), budgets.to(device, torch.float32)).cpu().numpy()

        starts = range(0, len(asked), _PASS)
        with side_by_side(device, len(starts)) as mapped:
            return np.concatenate(list(mapped(scores, starts)))

    def _scores_under(self, asked: Asked) -> NDArray[np.float32]:
        """The generator's scores for scenarios, (n, sum of options), at the conditions that suit their limits."""
        different, back = np.unique(asked.mixture * CONDITIONS + self._places(asked), return_inverse=True)
        mixtures, places = divmod(different, CONDITIONS)
        return self._scores(asked.mixtures[mixtures], self._conditions[places])[back]

    @cached_property
    def _conditions(self) -> NDArray[np.float64]:
        """Budgets at which the generator may be asked: evenly over those that it was trained on."""
        return np.linspace(self.generator.low, self.generator.high, CONDITIONS)

    def _places(self, asked: Asked) -> NDArray[np.intp]:
        """Place of the condition, of :data:`CONDITIONS`, to ask the generator for in each scenario, (n,).

        What the generator holds most probable there no longer fits the limits, and one place before it still does (the last place
        where all fit). The decode then trims that network down to the limits. Asking for the budget itself can leave a third of
        it unused, because the most probable architecture is often cheaper than the average one; and it says nothing about budgets
        of another cost. The place is found by bisection, so that a scenario of its own looks up seven conditions, not all.
        """
        batches = [
            (batch, self._remembered(asked, np.unique(asked.mixture[batch.members]))) for batch in asked.batches()
        ]
        low, high = np.zeros(len(asked), dtype=np.intp), np.full(len(asked), CONDITIONS - 1, dtype=np.intp)
        while (low < high).any():
            middle, open_ = (low + high) // 2, low < high
            for batch, modes in batches:
                still = open_[batch.members]
                members = batch.members[still]
                if not len(members):
                    continue
                different, back = np.unique(asked.mixture[members] * CONDITIONS + middle[members], return_inverse=True)
                rows = self._most_probable(asked, modes, different)
                costs = np.stack([table(rows) for table in batch.tables], 1)[back]
                outgrown = (costs >= batch.limits[still]).any(1)
                high[members[outgrown]] = middle[members[outgrown]]
                low[members[~outgrown]] = middle[members[~outgrown]] + 1
        return low

    def _remembered(self, asked: Asked, mixtures: NDArray[np.intp]) -> dict[int, _Modes]:
        """What is known of the most probable architectures of some mixtures; those used last are kept."""
        modes = {}
        for m in mixtures.tolist():
            key = asked.mixtures[m].tobytes()
            if key not in self._modes:
                self._modes[key] = _Modes(self.space.d)
            self._modes.move_to_end(key)
            modes[m] = self._modes[key]
        while len(self._modes) > _MIXTURES:
            self._modes.popitem(last=False)
        return modes

    def _most_probable(self, asked: Asked, modes: dict[int, _Modes], different: NDArray[np.intp]) -> Population:
        """The most probable architectures, (n, d), of mixtures at places: ``mixture * CONDITIONS + place``, (n,)."""
        wanted = [divmod(each, CONDITIONS) for each in different.tolist()]
        new = [(m, place) for m, place in wanted if not modes[m].known[place]]
        if new:
            which, places = (np.array(each) for each in zip(*new, strict=True))
            scores = regrets(self._scores(asked.mixtures[which], self._conditions[places]), self.space)
            table = self.table(self.budget_name, len(self.classes))
            for (m, place), row in zip(new, decode([table], scores, np.full(len(new), np.inf)), strict=True):
                modes[m].rows[place], modes[m].known[place] = row, True
        return np.stack([modes[m].rows[place] for m, place in wanted])


class _Modes:
    """What a generator holds most probable for one mixture of superclasses, condition by condition, as far as it was looked up."""

    def __init__(self, d: int) -> None:
        self.rows = np.zeros((CONDITIONS, d), dtype=np.int16)
        self.known = np.zeros(CONDITIONS, dtype=bool)

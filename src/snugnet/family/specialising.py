"""From (group, budgets) to networks: the generator's scores, decoded under the budgets; one scenario or a million."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from snugnet.errors import BudgetError, FamilyError, SnugnetError
from snugnet.family.networks import Networks, Specialized
from snugnet.family.record import FamilyRecord, Group
from snugnet.family.scenarios import Asked, Scenario
from snugnet.generator.conditions import ConditionedGenerator
from snugnet.spaces import Population
from snugnet.training.calibration import accuracy

_SCENARIOS_AT_ONCE = 2**15  # scenarios: what is held of each while they are decoded stays below 100 MB


@dataclass(eq=False)
class SpecialisingFamily(FamilyRecord):
    """A family that hands out networks."""

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

        Examples:
            >>> import snugnet
            >>> net = snugnet.load("runs/digits").specialize("round", madds="40%")
            >>> net.classes
            ('0', '6', '8', '9')
            >>> net.costs["madds"] <= net.budgets["madds"]
            True
            >>> sum(p.numel() for p in net.module.parameters()) == net.costs["params"]
            True
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

    def validation_accuracy(self, network: Specialized, images_of: Sequence[int] | None = None) -> float:
        """Accuracy of one network on its group's validation images, or on those of some of its classes (indices of the family's)."""
        images = self.validation if images_of is None else self.validation.of_classes(images_of)
        return accuracy(network.module, self.batches(images, network.class_indices, network.blueprint.resolution))

    def specialize_many(
        self, scenarios: Iterable[Scenario], *, noise: bool = False, seed: int = 0
    ) -> Sequence[Specialized]:
        """Networks for many scenarios: the generator once for all that differ, then exact decodes.

        Args:
            scenarios: (group, budgets) each.
            noise: add Gumbel noise to the scores of all but the first, so that they are samples of the generator's
                distribution instead of its mode.
            seed: of the noise.

        Returns:
            One network a scenario, in order; each is built when its ``module`` is first used.

        Raises:
            FamilyError: a scenario has another form, or its group is unknown.
            BudgetError: a cost is unknown, or no network is within a scenario's budgets; the message says of which group.

        Examples:
            >>> import snugnet
            >>> family = snugnet.load("runs/digits")
            >>> networks = family.specialize_many([("round", {"madds": "40%"}), (["1", "8"], {"madds": "60%", "params": "60%"})])
            >>> [network.classes for network in networks]
            [('0', '6', '8', '9'), ('1', '8')]
        """
        scenarios = list(scenarios)
        if not scenarios:
            return []
        asked = Asked.read(self, scenarios)
        asked.check_feasible()
        rng = np.random.default_rng(seed)
        rows = np.zeros((len(scenarios), self.space.d), dtype=np.int16)
        for start in range(0, len(rows), _SCENARIOS_AT_ONCE):
            some = asked.part(slice(start, start + _SCENARIOS_AT_ONCE))
            added: NDArray[np.float32] | None = None
            if noise:
                added = np.zeros((len(some), int(self.space.offsets[-1])), dtype=np.float32)
                first = 1 if start == 0 else 0
                added[first:] = rng.gumbel(size=added[first:].shape)
            try:
                rows[start : start + len(some)] = self._conditioned.decode(some.mixtures, some.batches(), added)
            except BudgetError:
                some.explain()
                raise
        return self._networks(asked, rows)

    def refusal(self, scenarios: Sequence[Scenario], place: Callable[[int], str]) -> SnugnetError | None:
        """The error of the first scenario that :meth:`specialize_many` refuses, behind what it is called; None where it takes all.

        Args:
            scenarios: as there.
            place: what a scenario is called, by its position.
        """
        start, end = 0, len(scenarios)
        while end - start > 1:
            middle = (start + end) // 2
            try:
                self.specialize_many(scenarios[start:middle])
                start = middle
            except SnugnetError:
                end = middle
        try:
            self.specialize_many(scenarios[start:end])
        except SnugnetError as error:
            return type(error)(f"{place(start)}: {error}")
        return None

    @cached_property
    def _conditioned(self) -> ConditionedGenerator:
        return ConditionedGenerator(self.generator, self.table(self.budget_name, len(self.classes)))

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

"""From (group, budgets) to networks: the generator's scores, decoded under the budgets; one scenario or a million."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snugnet.costs import exact_amount, parse_budget, resolve_budget
from snugnet.errors import BudgetError, FamilyError
from snugnet.family.networks import Networks, Specialized
from snugnet.family.record import FamilyRecord, Group
from snugnet.generator.conditions import Batch, ConditionedGenerator
from snugnet.spaces import Population
from snugnet.training.calibration import accuracy

_AT_ONCE = 2**15  # scenarios: what is held of each while they are decoded stays below 100 MB

Scenario = tuple[Group, Mapping[str, float | str]]
"""A group, and a budget for each cost that is bounded: an amount, or a share of the group's own range such as ``"40%"``."""


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
        asked = _Asked.read(self, [(group, dict(budgets or {}))])
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
        asked = _Asked.read(self, scenarios)
        asked.check_feasible()
        rng = np.random.default_rng(seed)
        rows = np.zeros((len(scenarios), self.space.d), dtype=np.int16)
        for start in range(0, len(rows), _AT_ONCE):
            some = asked.part(slice(start, start + _AT_ONCE))
            added: NDArray[np.float32] | float = 0.0
            if noise:
                added = np.zeros((len(some), int(self.space.offsets[-1])), dtype=np.float32)
                first = 1 if start == 0 else 0
                added[first:] = rng.gumbel(size=added[first:].shape)
            rows[start : start + len(some)] = self._conditioned.decode(some.mixtures, some.batches(), added)
        return self._networks(asked, rows)

    @cached_property
    def _conditioned(self) -> ConditionedGenerator:
        return ConditionedGenerator(self.generator, self.table(self.budget_name, len(self.classes)))

    def _networks(self, asked: _Asked, rows: Population) -> Networks:
        names = list(dict.fromkeys((*self.tables, *asked.names)))
        costs = np.empty((len(rows), len(names)))
        for classes in np.unique(asked.widths):
            own = np.flatnonzero(asked.widths == classes)
            costs[own] = np.stack([self.table(name, int(classes))(rows[own]) for name in names], 1)
        groups = list(zip(asked.texts, asked.indices, strict=True))
        by_name = dict(zip(names, costs.T, strict=True))
        budgets = dict(zip(asked.names, asked.limits.T, strict=True))
        return Networks(self, groups, asked.group, rows, by_name, budgets)


@dataclass(frozen=True)
class _Asked:
    """Scenarios as arrays.

    Attributes:
        family: that is asked.
        texts, indices: the different groups: as they were written, and their classes.
        mixtures: the different mixtures of superclasses, (m, groups).
        names: of all costs that some scenario bounds, and of the generator's own.
        group, mixture: of each scenario, as positions in these, (n,).
        widths: classes of each scenario's network, (n,).
        limits: (n, names); infinite where there is none.
    """

    family: FamilyRecord
    texts: list[str]
    indices: list[tuple[int, ...]]
    mixtures: NDArray[np.float32]
    names: list[str]
    group: NDArray[np.intp]
    mixture: NDArray[np.intp]
    widths: NDArray[np.intp]
    limits: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.group)

    @classmethod
    def read(cls, family: FamilyRecord, scenarios: Sequence[Scenario]) -> _Asked:
        """Check every scenario.

        Raises:
            FamilyError: one has another form, or an unknown group or class.
            BudgetError: a cost is unknown, or a budget is none.
        """
        places: dict[Any, int] = {}
        texts, indices, group = [], [], np.empty(len(scenarios), dtype=np.intp)
        columns: dict[str, int] = {}
        at, of_cost, asked = list[int](), list[int](), list[float]()
        amounts: dict[tuple[str, int, str], float] = {}
        for i, scenario in enumerate(scenarios):
            if len(scenario) != 2 or not isinstance(scenario[1], Mapping):
                raise FamilyError(f"a scenario is (group, {{cost: budget}}), got {scenario!r}")
            of, budgets = scenario
            key = of if isinstance(of, str) else tuple(map(str, of)) if isinstance(of, (list, tuple)) else None
            place = places.get(key)
            if place is None or key is None:
                indices.append(family.class_indices(of))
                texts.append(of if isinstance(of, str) else ",".join(of))
                place = places[key] = len(indices) - 1
            group[i] = place
            for name, value in budgets.items():
                if name not in columns:
                    family.table(name, len(family.classes))  # refuses what is no cost
                    columns[name] = len(columns)
                if isinstance(value, str):
                    known = (name, len(indices[place]), value)
                    if known not in amounts:
                        amounts[known] = resolve_budget(value, family.table(name, known[1]).range)
                    amount = amounts[known]
                else:
                    amount = parse_budget(value)
                at.append(i)
                of_cost.append(columns[name])
                asked.append(amount)
        names = [*columns, *({family.budget_name} - columns.keys())]
        limits = np.full((len(scenarios), len(names)), np.inf)
        limits[at, of_cost] = asked
        weights = np.stack([family.memberships[list(own)].mean(0) for own in indices])
        mixtures, of_group = np.unique(weights, axis=0, return_inverse=True)
        widths = np.array([len(own) for own in indices])
        return cls(family, texts, indices, mixtures, names, group, of_group.ravel()[group], widths[group], limits)

    def part(self, some: slice) -> _Asked:
        """Some of the scenarios."""
        arrays = (self.group[some], self.mixture[some], self.widths[some], self.limits[some])
        return _Asked(self.family, self.texts, self.indices, self.mixtures, self.names, *arrays)

    def check_feasible(self) -> None:
        """Refuse limits below the smallest network of a group.

        Raises:
            BudgetError: in the user's numbers and the range of the group's own networks.
        """
        for classes in np.unique(self.widths):
            own = self.widths == classes
            for name, limits in zip(self.names, self.limits.T, strict=True):
                low, high = self.family.table(name, int(classes)).range
                short = np.flatnonzero(own & (limits < low))
                if len(short):
                    raise BudgetError(
                        f"no network of {self.family.name} for {self.texts[self.group[short[0]]]} has {name} <= "
                        f"{exact_amount(limits[short[0]], math.floor)}; feasible: "
                        f"{exact_amount(low, math.ceil)} to {exact_amount(high, math.floor)}"
                    )

    def batches(self) -> list[Batch]:
        """Scenarios of one width have the same tables. Where what an architecture costs differs from width to width by the same whole
        number, or not at all, limits raised by it serve all of these scenarios at once; sums of fractions would be rounded anew."""
        batches: dict[Any, list[Batch]] = {}
        for classes in np.unique(self.widths):
            own = np.flatnonzero(self.widths == classes)
            tables = [self.family.table(name, int(classes)) for name in self.names]
            exact = [table.terms.whole and table.constant.is_integer() for table in tables]
            key = tuple((id(t.terms), None if whole else t.constant) for t, whole in zip(tables, exact, strict=True))
            batches.setdefault(key, []).append(Batch(own, self.mixture[own], tables, self.limits[own]))
        return [_together(parts) for parts in batches.values()]


def _together(batches: list[Batch]) -> Batch:
    """One batch of several whose tables differ by a constant each: under the first one's tables."""
    first = [table.constant for table in batches[0].tables]
    limits = [
        batch.limits + np.array([a - table.constant for a, table in zip(first, batch.tables, strict=True)])
        for batch in batches
    ]
    members = np.concatenate([batch.members for batch in batches])
    order = np.argsort(members, kind="stable")
    mixture = np.concatenate([batch.mixture for batch in batches])
    return Batch(members[order], mixture[order], batches[0].tables, np.concatenate(limits)[order])

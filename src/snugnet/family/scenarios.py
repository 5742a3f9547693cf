"""Scenarios as arrays: read and checked one by one, then handled all at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snugnet.costs import CostTable, MaximumTable, decode, exact_amount, parse_budget, resolve_budget
from snugnet.errors import BudgetError, FamilyError
from snugnet.family.record import FamilyRecord, Group
from snugnet.generator.conditions import Batch
from snugnet.texts import joined

Scenario = tuple[Group, Mapping[str, float | str]]
"""A group, and a budget for each cost that is bounded: an amount, or a share of the group's own range such as ``"40%"``."""


@dataclass(frozen=True)
class Asked:
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
    def read(cls, family: FamilyRecord, scenarios: Sequence[Scenario]) -> Asked:
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
            if (
                not isinstance(scenario, (tuple, list))
                or len(scenario) != 2
                or not isinstance(scenario[1], (dict, Mapping))
            ):
                raise FamilyError(f"a scenario is (group, {{cost: budget}}), got {scenario!r}")
            of, budgets = scenario
            key = of if isinstance(of, str) else tuple(map(_name, of)) if isinstance(of, (list, tuple)) else None
            place = places.get(key)
            if place is None:
                indices.append(family.class_indices(of))
                texts.append(of if isinstance(of, str) else joined(of))
                place = places[key] = len(indices) - 1
            group[i] = place
            for name, value in family.named(budgets).items():
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

    def part(self, some: slice) -> Asked:
        """Some of the scenarios."""
        arrays = (self.group[some], self.mixture[some], self.widths[some], self.limits[some])
        return Asked(self.family, self.texts, self.indices, self.mixtures, self.names, *arrays)

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

    def explain(self) -> None:
        """Say for which scenario no architecture is within all limits together, if there is one.

        Raises:
            BudgetError: in the user's numbers, as the tables that serve several widths do not have them.
        """
        some = self
        while len(some) > 1:
            half = some.part(slice(len(some) // 2))
            some = half if half._fault() else some.part(slice(len(some) // 2, None))
        if fault := some._fault():
            raise BudgetError(f"{self.texts[some.group[0]]}: {fault}")

    def _fault(self) -> str:
        """Why some scenario, of a single one why it, has no architecture; empty where all have one."""
        for batch in self.batches():
            try:
                decode(batch.tables, np.zeros((len(batch.limits), int(self.family.space.offsets[-1]))), batch.limits)
            except BudgetError as error:
                return str(error)
        return ""

    def batches(self) -> list[Batch]:
        """Scenarios of one width have the same tables. Where what an architecture costs differs from width to width by the same whole
        number, or not at all, limits raised by it serve all of these scenarios at once; sums of fractions would be rounded anew."""
        batches: dict[Any, list[Batch]] = {}
        for classes in np.unique(self.widths):
            own = np.flatnonzero(self.widths == classes)
            tables = [self.family.table(name, int(classes)) for name in self.names]
            key = tuple(_apart_from_whole(table) for table in tables)
            batches.setdefault(key, []).append(Batch(own, self.mixture[own], tables, self.limits[own]))
        return [_together(parts) for parts in batches.values()]


def _name(of: object) -> object:
    """A class's name as a key; what is no name is like no other, so that it is looked at."""
    return of if isinstance(of, str) else object()


def _apart_from_whole(table: CostTable | MaximumTable) -> tuple[int, float | None]:
    """What is equal for tables that differ by a whole number at most; maxima differ by none."""
    if isinstance(table, MaximumTable):
        return id(table), None
    exact = table.terms.whole and table.constant.is_integer()
    return id(table.terms), None if exact else table.constant


def _constant(table: CostTable | MaximumTable) -> float:
    return 0.0 if isinstance(table, MaximumTable) else table.constant


def _together(batches: list[Batch]) -> Batch:
    """One batch of several whose tables differ by a constant each: under the first one's tables."""
    first = [_constant(table) for table in batches[0].tables]
    limits = [
        batch.limits + np.array([a - _constant(table) for a, table in zip(first, batch.tables, strict=True)])
        for batch in batches
    ]
    members = np.concatenate([batch.members for batch in batches])
    order = np.argsort(members, kind="stable")
    mixture = np.concatenate([batch.mixture for batch in batches])
    return Batch(members[order], mixture[order], batches[0].tables, np.concatenate(limits)[order])

"""Budgets of a whole route: what the router may cost, and what is left for the specialised networks behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from snugnet.costs import PROFILED, CostTable, MaximumTable, exact_amount, resolve_budget
from snugnet.errors import BudgetError
from snugnet.family.record import FamilyRecord
from snugnet.texts import listed

ALONG = ("madds", "bitops", "activations", *PROFILED.values())
"""Costs of one image: those of the router, and of the one specialised network that it is given to."""
STORED = ("params", "weight_memory", "weight_memory_int8")
"""Costs of the files: those of the router, and of all specialised networks."""


@dataclass(frozen=True)
class CostOfRoutes:
    """A cost that has a budget.

    Attributes:
        name: of the cost.
        limit: of the whole route; of a maximum (peak memory), of each network.
        router: of the smallest and the largest router.
        groups: of the smallest and the largest network of each superclass.
        kind: ``along``, ``stored`` or ``each``.
    """

    name: str
    limit: float
    router: tuple[float, float]
    groups: tuple[tuple[float, float], ...]
    kind: str

    @property
    def rest(self) -> float:
        """What the smallest networks behind the router take."""
        return _together(self.kind, [low for low, _ in self.groups])

    def of_router(self, share: float) -> float:
        """What the router may cost, with that share of what the budget leaves above the smallest route."""
        if self.kind == "each":
            return self.limit
        low = self.router[0]
        return low + share * (self.limit - self.rest - low)

    def of_groups(self, router: float) -> list[float]:
        """What each superclass's network may cost behind a router of that cost."""
        if self.kind == "each":
            return [self.limit] * len(self.groups)
        if self.kind == "along":
            return [max(low, self.limit - router) for low, _ in self.groups]  # never below the least by rounding
        more = max(0.0, self.limit - router - self.rest) / len(self.groups)
        return [low + more for low, _ in self.groups]


@dataclass(frozen=True)
class RouteBudgets:
    """Budgets of a whole route.

    Attributes:
        costs: those that have one.
    """

    costs: tuple[CostOfRoutes, ...]

    @classmethod
    def read(
        cls, family: FamilyRecord, groups: Mapping[str, Sequence[str]], budgets: Mapping[str, float | str]
    ) -> RouteBudgets:
        """Check all budgets before any work.

        Args:
            family: whose networks they are.
            groups: superclass -> classes, of at least two superclasses.
            budgets: by cost: amounts, or shares of the range of routes such as ``"40%"``.

        Raises:
            BudgetError: a cost is unknown, or it is not known how it adds up along a route; there is none to share out; or a budget is
                below the smallest route, which is named.
        """
        found = []
        for name, value in family.named(budgets).items():
            table = family.table(name, len(family.classes))
            kind = _kind(name, table)
            router = family.table(name, sum(map(len, groups.values()))).range
            own = tuple(family.table(name, len(each)).range for each in groups.values() if len(each) > 1)
            own = own or ((0.0, 0.0),)
            rest = [_together(kind, [pair[end] for pair in own]) for end in (0, 1)]
            ends = [max(a, b) if kind == "each" else a + b for a, b in zip(router, rest, strict=True)]
            if ends[0] == ends[1] and kind != "each":
                raise BudgetError(
                    f"{name} is {ends[0]:,.10g} of every route, so there is nothing to share out; give another cost"
                )
            limit = resolve_budget(value, (ends[0], ends[1]))
            if limit < ends[0]:
                parts = (
                    f"{exact_amount(router[0], math.ceil)} for the router, {exact_amount(rest[0], math.ceil)} behind it"
                )
                raise BudgetError(
                    f"no route of {family.name} over {listed(groups)} has {name} <= {exact_amount(limit, math.floor)}; feasible: "
                    f"{exact_amount(ends[0], math.ceil)} ({parts}) to {exact_amount(ends[1], math.floor)}"
                )
            found.append(CostOfRoutes(name, limit, router, own, kind))
        if all(each.kind == "each" for each in found):
            raise BudgetError("a route shares out a budget; give one that adds up, such as madds=4M")
        return cls(tuple(found))

    @property
    def limits(self) -> dict[str, float]:
        """Of the whole route, by cost."""
        return {each.name: each.limit for each in self.costs}

    def of_router(self, share: float) -> dict[str, float]:
        """The router's budgets; see :meth:`CostOfRoutes.of_router`."""
        return {each.name: each.of_router(share) for each in self.costs}

    def of_groups(self, router: Mapping[str, float]) -> list[dict[str, float]]:
        """The budgets of each superclass of two classes or more, in order, behind a router of these costs."""
        columns = {each.name: each.of_groups(router[each.name]) for each in self.costs}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _together(kind: str, amounts: Sequence[float]) -> float:
    """What the networks behind a router take: the dearest of them along the route, all of them where they are stored."""
    return sum(amounts) if kind == "stored" else max(amounts)


def _kind(name: str, table: CostTable | MaximumTable) -> str:
    """How a cost of networks becomes one of a route.

    Raises:
        BudgetError: it is not known.
    """
    if isinstance(table, MaximumTable):
        return "each"
    cost = name.partition("@")[0]
    for kind, names in (("along", ALONG), ("stored", STORED)):
        if cost in names:
            return kind
    raise BudgetError(
        f"it is not known how {name} adds up over a route; costs along it: {', '.join(ALONG)}; of all files: {', '.join(STORED)}"
    )

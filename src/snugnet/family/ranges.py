"""What may still be asked for: the feasible range of every cost for a group, given the budgets that are set already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from snugnet.costs import ends_within, resolve_budget
from snugnet.family.record import FamilyRecord, Group
from snugnet.family.scenarios import Asked


@dataclass(frozen=True)
class CostRange:
    """A cost of a group's networks.

    Attributes:
        unit: of the numbers.
        low, high: of the group's cheapest and dearest network.
        feasible_low, feasible_high: of those within the budgets of all other costs.
        budget: what was asked for, in the unit; None where there is none.
    """

    unit: str
    low: float
    high: float
    feasible_low: float
    feasible_high: float
    budget: float | None


def feasible_ranges(
    family: FamilyRecord, group: Group, budgets: Mapping[str, float | str] | None = None
) -> dict[str, CostRange]:
    """Ranges of all costs, by name; a cost that no choice changes, such as BitOps of networks in float, is left out.

    Args:
        family: that is asked.
        group: the name of a superclass, or any list of class names.
        budgets: as :meth:`snugnet.family.SpecialisingFamily.specialize` takes them.

    Raises:
        FamilyError: the group is unknown.
        BudgetError: a cost is unknown, or no network is within the budgets.
    """
    budgets = family.named(budgets or {})
    asked = Asked.read(family, [(group, budgets)])
    asked.check_feasible()
    classes = int(asked.widths[0])
    tables = {name: family.table(name, classes) for name in family.costs}
    limits = {name: resolve_budget(budget, tables[name].range) for name, budget in budgets.items()}
    found = {}
    for name, table in tables.items():
        low, high = table.range
        if low < high or name in limits:
            others = [(tables[other], limit) for other, limit in limits.items() if other != name]
            found[name] = CostRange(table.unit, low, high, *ends_within(table, others), limits.get(name))
    return found

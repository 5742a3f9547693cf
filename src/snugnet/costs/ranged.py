"""What costs of every kind have in common: a range, and budgets that lie in it."""

from __future__ import annotations

import math
from typing import Protocol

from snugnet.costs.budget import format_amount
from snugnet.costs.exact.allowed import Allowed
from snugnet.errors import BudgetError
from snugnet.spaces import SearchSpace


class Ranged(Protocol):
    """A cost of every architecture of a space, a sum or a maximum."""

    @property
    def space(self) -> SearchSpace:
        """Whose architectures have this cost."""

    @property
    def name(self) -> str:
        """Of the cost."""

    @property
    def unit(self) -> str:
        """Of its values."""

    def bounds(self, *, allowed: Allowed | None = None) -> tuple[float, float]:
        """Cost of the cheapest and of the dearest architecture, or of those that are allowed."""


def described_range(table: Ranged, allowed: Allowed | None) -> str:
    """The range for people, such as ``121.3M to 566.2M MAdds``; the lower end is rounded up, so it is feasible."""
    low, high = table.bounds(allowed=allowed)
    among = "" if allowed is None else f" ({allowed.text})"
    return f"{format_amount(low, rounding=math.ceil)} to {format_amount(high, table.unit)}{among}"


def check_budget(table: Ranged, budget: float, where: str, allowed: Allowed | None) -> None:
    """Refuse a budget that no architecture meets.

    Raises:
        BudgetError: with the feasible range.
    """
    if not budget >= table.bounds(allowed=allowed)[0]:
        raise BudgetError(
            f"{where}no architecture of {table.space.name} has {table.name} <= {format_amount(budget, rounding=math.floor)}; "
            f"feasible: {described_range(table, allowed)}"
        )

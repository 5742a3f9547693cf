"""The look-up graph: what a derived network costs, as a function of the limit that its search was given (DCA-NAS, section 3.2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from snugnet.costs import format_amount
from snugnet.differentiable.relaxed import Limit, RelaxedCells


@dataclass(frozen=True)
class LookupGraph:
    """Points of a graph, rising in the bounds.

    The cost of a mixture of operations is not that of the cells derived from it, so a search is given another bound than the limit
    that the derived network has to keep: the one whose derived network just keeps it.

    Attributes:
        cost: name of the cost.
        bounds: that searches were given.
        derived: what the network derived from each costs.
    """

    cost: str
    bounds: tuple[float, ...]
    derived: tuple[float, ...]

    def bound(self, limit: Limit) -> float:
        """What a search is to be given.

        Between two points it is interpolated. A search draws, so the graph need not rise everywhere: of several bounds whose derived
        networks keep the limit it is the loosest below which all do. A limit that every point breaks gets the tightest bound, one that
        none does the loosest; or the limit itself, where that is looser still.
        """
        costs = np.maximum.accumulate(self.derived)
        if (
            limit.at_least
        ):  # the derived network is to cost at least so much: the tightest of the bounds beyond which all do
            costs = np.minimum.accumulate(self.derived[::-1])[::-1]
        costs, amount, bounds = np.asarray(costs, dtype=float), limit.amount, self.bounds
        if amount <= costs[0]:
            return bounds[0] if not limit.at_least else min(bounds[0], amount)
        if amount >= costs[-1]:
            return max(bounds[-1], amount) if not limit.at_least else bounds[-1]
        i = int(np.searchsorted(costs, amount, side="right"))  # costs[i - 1] <= amount < costs[i]
        share = (amount - costs[i - 1]) / (costs[i] - costs[i - 1])
        return float(bounds[i - 1] + share * (bounds[i] - bounds[i - 1]))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"cost": self.cost, "bounds": list(self.bounds), "derived": list(self.derived)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> LookupGraph:
        """What :meth:`to_json` gave."""
        return cls(content["cost"], tuple(content["bounds"]), tuple(content["derived"]))

    def figure(self, limits: Sequence[Limit], title: str) -> bytes:
        """The graph as PNG, with the limits of this cost and the bounds that they were given."""
        from snugnet.plots import line_figure

        curves = {
            "derived network": [(x, y, 0.0) for x, y in zip(self.bounds, self.derived, strict=True)],
            "bound = cost": [(x, x, 0.0) for x in self.bounds],
        }
        for limit in limits:
            if limit.table.name == self.cost:
                bound = self.bound(limit)
                curves[f"limit {format_amount(limit.amount)}: bound {format_amount(bound)}"] = [
                    (bound, limit.amount, 0.0)
                ]
        return line_figure(curves, title, f"bound of the search ({self.cost})", f"{self.cost} of the derived network")


@torch.no_grad()
def bounds_to_try(cells: RelaxedCells, limit: Limit, points: int) -> tuple[float, ...]:
    """Bounds for a graph, evenly from what the cheapest mixture is expected to cost to what the first one is, which knows nothing.

    Args:
        cells: before any step.
        limit: its table's cost is meant.
        points: how many, at least 2.
    """
    first = limit.table.expectation(cells.choices()).item()
    low = limit.table.range[0]
    return tuple(np.linspace(low, max(first, low * 1.01), points + 1)[1:].tolist())

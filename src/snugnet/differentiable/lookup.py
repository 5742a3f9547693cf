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
        bounds: that searches were given, at most so much or at least.
        derived: what the network derived from each costs.
        at_least: which of the two.
    """

    cost: str
    bounds: tuple[float, ...]
    derived: tuple[float, ...]
    at_least: bool = False

    def bound(self, limit: Limit) -> float:
        """What a search is to be given for a limit of the graph's own kind.

        Between two points it is interpolated. A search draws, so the graph need not rise everywhere: of several bounds whose derived
        networks keep the limit it is the loosest that leaves no point which breaks it on the tighter side. A limit that every point
        breaks gets the tightest bound, one that none does the loosest; or the limit itself, where that is looser still.
        """
        assert limit.at_least == self.at_least, "a graph of bounds from above says nothing of bounds from below"
        sign = limit.sign  # the least of a cost is the most of its negative
        bounds, costs = (sign * np.array(each, dtype=float)[::sign] for each in (self.bounds, self.derived))
        amount, costs = sign * limit.amount, np.maximum.accumulate(costs)
        if amount < costs[0]:
            return float(sign * bounds[0])
        if amount >= costs[-1]:
            return float(sign * max(bounds[-1], amount))
        i = int(np.searchsorted(costs, amount, side="right"))  # costs[i - 1] <= amount < costs[i]
        share = (amount - costs[i - 1]) / (costs[i] - costs[i - 1])
        return float(sign * (bounds[i - 1] + share * (bounds[i] - bounds[i - 1])))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "cost": self.cost,
            "bounds": list(self.bounds),
            "derived": list(self.derived),
            "at_least": self.at_least,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> LookupGraph:
        """What :meth:`to_json` gave."""
        return cls(content["cost"], tuple(content["bounds"]), tuple(content["derived"]), content["at_least"])

    def figure(self, limits: Sequence[Limit], title: str) -> bytes:
        """The graph as PNG, with the limits of this cost and the bounds that they were given."""
        from snugnet.plots import line_figure

        curves = {
            "derived network": [(x, y, 0.0) for x, y in zip(self.bounds, self.derived, strict=True)],
            "bound = cost": [(x, x, 0.0) for x in self.bounds],
        }
        for limit in limits:
            if (limit.table.name, limit.at_least) == (self.cost, self.at_least):
                bound = self.bound(limit)
                curves[f"limit {format_amount(limit.amount)}: bound {format_amount(bound)}"] = [
                    (bound, limit.amount, 0.0)
                ]
        return line_figure(curves, title, f"bound of the search ({self.cost})", f"{self.cost} of the derived network")


@torch.no_grad()
def bounds_to_try(cells: RelaxedCells, limit: Limit, points: int, temperature: float = 1.0) -> tuple[float, ...]:
    """Bounds for a graph, evenly between what the first mixture is expected to cost, which knows nothing, and the cheapest network; or
    the dearest one, where a cost has to be at least something. Rising; the cheapest, or dearest, itself is left out.

    Args:
        cells: before any step.
        limit: its table's cost is meant.
        points: how many, at least 2.
        temperature: as for :meth:`RelaxedCells.choices`.
    """
    first = limit.table.expectation(cells.choices(temperature)).item()
    low, high = limit.table.range
    if limit.at_least:
        return tuple(np.linspace(first, max(high, first * 1.01), points + 1)[:-1].tolist())
    return tuple(np.linspace(low, max(first, low * 1.01), points + 1)[1:].tolist())

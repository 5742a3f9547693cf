"""Architectures that are not decided yet: weights of the operations on every edge, what they cost, and the cells derived from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snugnet.costs import CostTable
from snugnet.costs.decoding import decode
from snugnet.errors import BudgetError
from snugnet.spaces import Population
from snugnet.spaces.cells import CellSpace


class RelaxedCells(nn.Module):
    """The architecture's parameters (DARTS, section 2.2).

    Attributes:
        space: of the cells.
        alpha: a number for each operation on each edge, (edges, operations).
        beta: a number for each edge, (edges,), where edges have weights of their own (PC-DARTS, section 3.2).
    """

    beta: nn.Parameter | None

    def __init__(self, space: CellSpace, *, edge_weights: bool = False, seed: int = 0) -> None:
        super().__init__()
        self.space = space
        edges, generator = space.edges, torch.Generator().manual_seed(seed)
        draw = 1e-3 * torch.randn(len(edges), len(edges[0].operations) + 1, generator=generator)
        self.alpha = nn.Parameter(draw[:, 1:].contiguous())
        self.beta = nn.Parameter(draw[:, 0].contiguous()) if edge_weights else None
        nodes = [(edge.name.rpartition(".")[0], edge.node) for edge in edges]
        self.register_buffer("_same", torch.tensor([[a == b for b in nodes] for a in nodes]), persistent=False)

    def probabilities(self) -> Tensor:
        """Of the operations on each edge: a softmax, (edges, operations)."""
        return self.alpha.softmax(1)

    def weights(self) -> Tensor:
        """Of the operations' outputs in the sum at the edge's node, (edges, operations)."""
        if self.beta is None:
            return self.probabilities()
        assert isinstance(self._same, Tensor)
        rivals = self.beta.expand(len(self.beta), -1).masked_fill(~self._same, -torch.inf)
        return self.probabilities() * rivals.softmax(1).diagonal()[:, None]

    @torch.no_grad()
    def scores(self) -> NDArray[np.float64]:
        """Of the operations on each edge: the logarithm of the weight, (edges, operations)."""
        return self.weights().double().log().cpu().numpy()

    def choices(self) -> list[Tensor]:
        """Of each choice of the space, (1, options) in float64: what a cost table takes for its expectation.

        Of a node that takes two of its edges all count here, as equation 3 of DCA-NAS says: the pairs have so much mass that each
        edge is there once, and where no operation is chosen with certainty nothing is added.
        """
        p = self.probabilities().double()
        space = self.space
        found = [torch.zeros(1, int(m), dtype=p.dtype, device=p.device) for m in space.num_options]
        for column in {edge.inputs for edge in space.edges if edge.inputs is not None}:
            edges = sum(edge.inputs == column for edge in space.edges)
            found[column] = found[column] + 1 / max(1, edges - 1)
        if "resolution" in space.column:
            found[space.column["resolution"]][0, -1] = 1.0
        for e, edge in enumerate(space.edges):
            found[edge.column] = p[e : e + 1, edge.offset :]
        return found


def one_hot_scores(space: CellSpace, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores of operations, (edges, operations), as :func:`snugnet.costs.decode` takes them, (1, sum of options)."""
    found = np.zeros((1, int(space.offsets[-1])))
    for edge, own in zip(space.edges, scores, strict=True):
        start = space.offsets[edge.column]
        found[0, start : start + len(own) - edge.offset] = own[edge.offset :]
    return found


@dataclass(frozen=True)
class Limit:
    """A cost that must not be above an amount, or not below it.

    Attributes:
        table: of the found network's cost.
        amount: of it.
        at_least: whether it is the least that is allowed, and not the most.
        never: a table that is 0 but for networks whose cost is not known; those are not derived.
    """

    table: CostTable
    amount: float
    at_least: bool = False
    never: CostTable | None = None

    @property
    def sign(self) -> int:
        """1 for the most, -1 for the least."""
        return -1 if self.at_least else 1

    def broken(self, cost: Tensor, bound: float) -> Tensor:
        """The share by which a cost is beyond a bound; negative inside."""
        return self.sign * (cost / bound - 1)

    def as_budget(self) -> tuple[CostTable, float]:
        """A table and the most that is allowed of it: for the least of a cost, of the cost taken negative."""
        if not self.at_least:
            return self.table, self.amount
        table = self.table
        values = [(scope, -value) for scope, value in table.tables]
        negative = CostTable(table.space, f"-{table.name}", table.unit, [*values, ((), np.array(-table.constant))])
        return negative, -self.amount


def derive(
    space: CellSpace,
    scores: NDArray[np.float64],
    limits: Sequence[Limit] = (),
    never: Sequence[CostTable] = (),
) -> Population:
    """The cells with the greatest sum of scores over their edges, within limits: shape (1, d).

    Without limits these are DARTS's (section 2.3): the strongest operation of each edge, and of each node the two edges whose
    strongest is strongest. With limits the decode chooses: no network costs more than it may.

    Args:
        space: whose cells.
        scores: of the operations, (edges, operations).
        limits: of the costs of the space that the tables are of, which has the same choices.
        never: tables that are 0 but for networks that are not to be derived.

    Raises:
        BudgetError: nothing is within the limits.
    """
    budgets = [limit.as_budget() for limit in limits]
    budgets += [(table, 0.0) for table in (*never, *(limit.never for limit in limits)) if table is not None]
    tables = [table for table, _ in budgets] or [_free(space)]
    amounts = [amount for _, amount in budgets] or [np.inf]
    return decode(tables, one_hot_scores(space, scores), np.array([amounts]))


def check_limits(limits: Sequence[Limit]) -> None:
    """Refuse limits that no network is within.

    Raises:
        BudgetError: names the limit, and what there is.
    """
    for limit in limits:
        table = limit.table
        if limit.at_least and limit.amount > table.range[1]:
            raise BudgetError(
                f"no network of {table.space.name} has {table.name} >= {limit.amount:g}; feasible: {table.describe_range()}"
            )
        if not limit.at_least:
            table.check_budget(limit.amount)


def _free(space: CellSpace) -> CostTable:
    """What costs nothing."""
    return CostTable(space, "nothing", "", [((), np.array(0.0))])

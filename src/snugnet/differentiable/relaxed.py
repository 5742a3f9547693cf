"""Architectures that are not decided yet: weights of the operations on every edge, what they cost, and the cells derived from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snugnet.costs import Allowed, CostTable, exact_amount
from snugnet.costs.decoding import decode
from snugnet.costs.table import nothing
from snugnet.errors import BudgetError
from snugnet.spaces import Population
from snugnet.spaces.cells import CellSpace


class RelaxedCells(nn.Module):
    """The architecture's parameters (DARTS, section 2.2).

    Attributes:
        space: of the cells.
        alpha: a number for each operation on each edge, (edges, operations).
        beta: a number for each edge, (edges,), where edges have weights of their own (PC-DARTS, section 3.3).
    """

    beta: nn.Parameter | None

    def __init__(self, space: CellSpace, *, edge_weights: bool = False, seed: int = 0) -> None:
        super().__init__()
        self.space = space
        edges, generator = space.edges, torch.Generator().manual_seed(seed)
        draw = 1e-3 * torch.randn(len(edges), len(edges[0].operations) + 1, generator=generator)
        self.alpha = nn.Parameter(draw[:, 1:].contiguous())
        self.beta = nn.Parameter(draw[:, 0].contiguous()) if edge_weights else None
        nodes = [(edge.kind, edge.node) for edge in edges]
        self.register_buffer("_same", torch.tensor([[a == b for b in nodes] for a in nodes]), persistent=False)

    def probabilities(self) -> Tensor:
        """Of the operations on each edge: a softmax, (edges, operations)."""
        return self.alpha.softmax(1)

    def weights(self) -> Tensor:
        """Of the operations' outputs in the sum at the edge's node, (edges, operations)."""
        if self.beta is None:
            return self.probabilities()
        return self.probabilities() * self._rivals(self.beta).softmax(1).diagonal()[:, None]

    @torch.no_grad()
    def scores(self) -> NDArray[np.float64]:
        """Of the operations on each edge: the logarithm of the weight, (edges, operations); finite also where a weight is 0 in float32."""
        scores = self.alpha.double().log_softmax(1)
        if self.beta is not None:
            scores = scores + self._rivals(self.beta.double()).log_softmax(1).diagonal()[:, None]
        return scores.cpu().numpy()

    def _rivals(self, beta: Tensor) -> Tensor:
        """For each edge the numbers of all edges of its node, (edges, edges); minus infinity for the others."""
        assert isinstance(self._same, Tensor)
        return beta.expand(len(beta), -1).masked_fill(~self._same, -torch.inf)

    def choices(self, temperature: float = 1.0) -> list[Tensor]:
        """Of each choice of the space, (1, options) in float64: what a cost table takes for its expectation.

        Equation 3 of DCA-NAS counts every edge, also those of a node that will take two of them. So the pairs that a node can take
        have so much mass that each edge is there once: more than 1 in all. That is right for costs of which an edge that is not
        there has none, as counted ones do. The resolution, where it is a choice, is the largest, at which the search runs.

        Args:
            temperature: of the softmax; towards 0 each edge costs what its strongest operation does.
        """
        p = (self.alpha.double() / temperature).softmax(1)
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
    """Scores of operations, (edges, operations), as :func:`snugnet.costs.decode` takes them, (1, sum of options).

    Of a choice of resolutions only the largest is allowed: it is the one that the search has seen.
    """
    found = np.zeros((1, int(space.offsets[-1])))
    if "resolution" in space.column:
        column = space.column["resolution"]
        found[0, space.offsets[column] : space.offsets[column + 1] - 1] = -np.inf
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

    def __str__(self) -> str:
        return f"{self.table.name} {'>=' if self.at_least else '<='} {exact_amount(self.amount)}"

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

    Without limits these are DARTS's (section 2.4): the strongest operation of each edge, ``none`` aside, and of each node the two edges
    whose strongest is strongest. With limits the decode chooses: no network costs more than it may.

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
    tables = [table for table, _ in budgets] or [nothing(space)]
    amounts = [amount for _, amount in budgets] or [np.inf]
    return decode(tables, one_hot_scores(space, scores), np.array([amounts]))


def check_limits(space: CellSpace, limits: Sequence[Limit], never: Sequence[CostTable] = ()) -> None:
    """Refuse limits that no network keeps, one by one or together.

    Args:
        space: whose cells.
        limits: of the costs of the space that the tables are of.
        never: as for :func:`derive`.

    Raises:
        BudgetError: names the limits, and what there is; or a cost that an edge has which is not there, of which the expected cost
            of a mixture would be wrong.
    """
    said = []
    for limit in limits:
        table = limit.table
        if not _is_of_edges(space, table):
            raise BudgetError(
                f"{table.name} cannot be limited in a search of cells: an edge that is not there has some of it, too"
            )
        excluded = [each for each in (*never, limit.never) if each is not None]
        allowed = [Allowed.at_most(each.space, each.tables, 0.0 - each.constant, each.name) for each in excluded]
        among = reduce(and_, allowed) if allowed else None
        said.append(f"{limit}: {table.describe_range(among)}")
        if not limit.at_least:
            table.check_budget(limit.amount, allowed=among)
        elif limit.amount > table.bounds(allowed=among)[1]:
            raise BudgetError(f"no network of {space.name} has {limit}; feasible: {table.describe_range(among)}")
    try:
        derive(space, np.zeros((len(space.edges), len(space.edges[0].operations))), limits, never)
    except BudgetError as error:
        together = " and ".join(str(limit) for limit in limits)
        raise BudgetError(
            f"no network of {space.name} was found that has {together}; feasible alone: {'; '.join(said)}"
        ) from error


def _is_of_edges(space: CellSpace, table: CostTable) -> bool:
    """Whether an edge that its node does not take costs nothing, as :meth:`RelaxedCells.choices` has it."""
    for edge in space.edges:
        absent = ~np.array(space.choices[edge.column].active, dtype=bool)
        for scope, values in table.tables:
            if (
                edge.inputs in scope
                and edge.column in scope
                and values.compress(absent, scope.index(edge.inputs)).any()
            ):
                return False
    return True


def operations_of_first_cell(space: CellSpace, operation: str) -> CostTable:
    """How often an operation stands in the first kind of cell: the normal one of DARTS, the only one of NAS-Bench-201."""
    tables: list[tuple[tuple[int, ...], NDArray[np.float64]]] = [((), np.array(0.0))]
    for edge in space.edges:
        if edge.kind != space.edges[0].kind or operation not in edge.operations:
            continue
        values = np.array([float(name == operation) for name in edge.operations[edge.offset :]])
        if edge.inputs is None:
            tables.append(((edge.column,), values))
        else:  # an edge that is not there has option 0, which may be the very operation
            there = np.array(space.choices[edge.column].active, dtype=float)
            tables.append(((edge.inputs, edge.column), there[:, None] * values))
    return CostTable(space, operation, "edges", tables)

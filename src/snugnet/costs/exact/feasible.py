"""Is there any architecture within several budgets at once? Exactly, for the few cases that a grid cannot tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from snugnet.costs.budget import format_amount
from snugnet.costs.exact.automaton import Floats, Plan
from snugnet.errors import BudgetError
from snugnet.spaces import Population

if TYPE_CHECKING:
    from snugnet.costs.table import CostTable

_LABELS = 50_000  # kept a state; beyond that the search is no longer a proof
_MIXTURES = 32


def find_feasible(
    tables: Sequence[CostTable], plan: Plan, scores: Floats, budgets: NDArray[np.float64], where: str = ""
) -> Population:
    """An architecture within all budgets, by label setting: for each state the cost vectors that none dominates.

    A label goes as soon as its cheapest completion breaks a budget, or a mixture of the budgets: near the edge of what
    is feasible, where this is needed, few labels are left.

    Args:
        tables: costs of one space.
        plan: one that holds all of them.
        scores: of one scenario, shape ``(sum of options,)``; the result has the best score of those found.
        budgets: shape ``(m,)``.
        where: put before the message of an error.

    Returns:
        A canonical row, shape ``(d,)``.

    Raises:
        BudgetError: there is none, or (the message says so) none was found among more labels than can be kept.
    """
    binding = [t for t, b in zip(tables, budgets, strict=True) if b < np.inf]
    limits = np.array([b - t.constant for t, b in zip(tables, budgets, strict=True) if b < np.inf])
    gains = [gain[:, 0] for gain in plan.scores(scores[None])]
    masks = [np.where(np.isneginf(gain), np.inf, 0.0) for gain in gains]
    costs = [np.stack(steps, axis=1) for steps in zip(*(plan.increments(t.tables) for t in binding), strict=True)]
    mixtures = _mixtures(np.array([t.range[1] - t.range[0] or 1.0 for t in binding]))
    ahead = _completions(plan, [c @ mixtures + mask[:, None] for c, mask in zip(costs, masks, strict=True)])
    # One part in 1e12 for the rounding of sums; the last test is on true costs.
    bounds = limits @ mixtures + 1e-12 * (np.abs(limits) @ mixtures)

    labels = [(np.zeros((1, len(binding))), np.zeros(1), np.zeros((1, plan.d), dtype=np.int16))]
    proven = True
    for step, cost, gain, mask, completion in zip(plan.steps, costs, gains, masks, ahead, strict=True):
        arriving: list[list[tuple[Floats, Floats, Population]]] = [[] for _ in range(step.targets)]
        for k in np.flatnonzero(mask == 0):
            sums, score, rows = labels[step.source[k]]
            sums = sums + cost[k]
            keep = (sums @ mixtures + completion[step.target[k]] <= bounds).all(axis=1)
            rows = rows[keep]
            rows[:, step.introduced] = step.rows[k, step.introduced]
            arriving[step.target[k]].append((sums[keep], score[keep] + gain[k], rows))
        labels = []
        for parts in arriving:
            sums, score, rows = (np.concatenate(column) for column in zip(*parts, strict=True)) if parts else (
                np.zeros((0, len(binding))), np.zeros(0), np.zeros((0, plan.d), dtype=np.int16)
            )  # fmt: skip
            front = _front(sums, score)
            if len(front) > _LABELS:
                proven = False
                room = ((limits - sums[front]) @ mixtures).min(axis=1)
                front = front[np.argsort(-room, kind="stable")[:_LABELS]]
            labels.append((sums[front], score[front], rows[front]))
    _, score, rows = labels[0]
    fits = np.all([t(rows) <= b for t, b in zip(tables, budgets, strict=True)], axis=0)
    if not fits.any():
        _refuse(tables, budgets, where, proven)
    return rows[fits][score[fits].argmax()]


def _mixtures(spans: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights for sums of costs, shape ``(m, mixtures)``: each cost alone, and some in between."""
    m = len(spans)
    between = np.random.default_rng(0).dirichlet(np.ones(m), _MIXTURES).T if m > 1 else np.ones((1, 0))
    return np.concatenate([np.eye(m), between], axis=1) / spans[:, None]


def _completions(plan: Plan, costs: Sequence[Floats]) -> list[Floats]:
    """After each step, the least that the rest can cost from each state: a list of shape ``(states, mixtures)``."""
    ahead: list[Floats] = []
    least = np.zeros((1, costs[0].shape[1]))
    for step, cost in zip(reversed(plan.steps), reversed(costs), strict=True):
        ahead.append(least)
        through = cost + least[step.target]
        least = np.full((step.sources, cost.shape[1]), np.inf)
        np.minimum.at(least, step.source, through)
    return ahead[::-1]


def _front(sums: Floats, score: Floats) -> NDArray[np.intp]:
    """Indices of the labels that no other is as cheap as in every cost; of equals, the best score."""
    order = np.lexsort((-score, *sums.T[::-1]))
    ordered = sums[order]
    if sums.shape[1] <= 2:
        least = np.minimum.accumulate(ordered[:, -1])
        return order[np.concatenate([[True], ordered[1:, -1] < least[:-1]])[: len(order)]]
    new = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)])[: len(order)]
    order, ordered = order[new], ordered[new]
    alive = np.ones(len(order), dtype=bool)
    for i in range(min(len(order), 1000)):  # the cheapest dominate most; the rest only costs time
        if alive[i]:
            alive[i + 1 :] &= (ordered[i + 1 :] < ordered[i]).any(axis=1)
    return order[alive]


def _refuse(tables: Sequence[CostTable], budgets: NDArray[np.float64], where: str, proven: bool) -> None:
    wanted = " and ".join(f"{t.name} <= {format_amount(b)}" for t, b in zip(tables, budgets, strict=True) if b < np.inf)
    ranges = "; ".join(f"{t.name}: {t.describe_range()}" for t in tables)
    verb = "has" if proven else "was found to have"
    raise BudgetError(
        f"{where}no architecture of {tables[0].space.name} {verb} {wanted} together; feasible alone: {ranges}"
    )

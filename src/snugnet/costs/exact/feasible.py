"""Is there any architecture within several budgets at once? Exactly, for the few cases that a grid cannot tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from snugnet.costs.exact.automaton import Automaton, Floats
from snugnet.spaces import Population

_LABELS = 50_000  # kept a state; beyond that the search is no longer a proof
_MIXTURES = 32


def undominated(
    automaton: Automaton,
    costs: Sequence[Floats],
    gains: Sequence[Floats],
    limits: NDArray[np.float64],
    spans: NDArray[np.float64],
) -> tuple[Population, Floats, bool]:
    """Architectures within all limits, by label setting: for each state the cost vectors that none dominates.

    A label goes as soon as its cheapest completion breaks a limit, or a mixture of the limits: near the edge of what
    is feasible, where this is needed, few labels are left.

    Args:
        automaton: of the architectures that are looked at.
        costs: what each transition costs, a list over steps of shape ``(K, m)``.
        gains: what each transition scores, a list over steps of shape ``(K,)``; minus infinity forbids it.
        limits: of the sums of costs, shape ``(m,)``.
        spans: about how much each sum varies, all above zero: shape ``(m,)``.

    Returns:
        Canonical rows, their scores, and whether nothing was left out: without any row there is then none. Rows are within
        the limits but for the rounding of sums, one part in 1e12.
    """
    masks = [np.where(np.isneginf(gain), np.inf, 0.0) for gain in gains]
    mixtures = _mixtures(spans)
    ahead = _completions(automaton, [c @ mixtures + mask[:, None] for c, mask in zip(costs, masks, strict=True)])
    bounds = limits @ mixtures + 1e-12 * (np.abs(limits) @ mixtures)

    m = len(limits)
    labels = [(np.zeros((1, m)), np.zeros(1), np.zeros((1, automaton.d), dtype=np.int16))]
    proven = True
    for step, cost, gain, mask, completion in zip(automaton.steps, costs, gains, masks, ahead, strict=True):
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
                np.zeros((0, m)), np.zeros(0), np.zeros((0, automaton.d), dtype=np.int16)
            )  # fmt: skip
            front = _front(sums, score)
            if len(front) > _LABELS:
                proven = False
                room = ((limits - sums[front]) @ mixtures).min(axis=1)
                front = front[np.argsort(-room, kind="stable")[:_LABELS]]
            labels.append((sums[front], score[front], rows[front]))
    _, score, rows = labels[0]
    return rows, score, proven


def _mixtures(spans: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights for sums of costs, shape ``(m, mixtures)``: each cost alone, and some in between."""
    m = len(spans)
    between = np.random.default_rng(0).dirichlet(np.ones(m), _MIXTURES).T if m > 1 else np.ones((1, 0))
    return np.concatenate([np.eye(m), between], axis=1) / spans[:, None]


def _completions(automaton: Automaton, costs: Sequence[Floats]) -> list[Floats]:
    """After each step, the least that the rest can cost from each state: a list of shape ``(states, mixtures)``."""
    ahead: list[Floats] = []
    least = np.zeros((1, costs[0].shape[1]))
    for step, cost in zip(reversed(automaton.steps), reversed(costs), strict=True):
        ahead.append(least)
        through = cost + least[step.target]
        least = np.full((step.sources, cost.shape[1]), np.inf)
        np.minimum.at(least, step.source, through)
    return ahead[::-1]


def _front(sums: Floats, score: Floats) -> NDArray[np.intp]:
    """Indices of the labels that no other is as cheap as in every cost; of equals, the best score."""
    order: NDArray[np.intp] = np.lexsort((-score, *sums.T[::-1]))
    ordered = sums[order]
    if sums.shape[1] <= 2:
        least = np.minimum.accumulate(ordered[:, -1])
        first: NDArray[np.bool_] = np.concatenate([[True], ordered[1:, -1] < least[:-1]])[: len(order)]
        return order[first]
    new = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)])[: len(order)]
    order, ordered = order[new], ordered[new]
    alive = np.ones(len(order), dtype=bool)
    for i in range(min(len(order), 1000)):  # the cheapest dominate most; the rest only costs time
        if alive[i]:
            alive[i + 1 :] &= (ordered[i + 1 :] < ordered[i]).any(axis=1)
    return order[alive]

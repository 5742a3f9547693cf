"""A cost above its minimum, and how finely a dynamic programme has to look at it under a given budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ROUNDING = 1e-12  # relative to the largest cost: what sums of float64 may be off by; smaller is taken as zero
_FINEST = 1e-9  # relative to the largest cost: no grid is finer, so that rounding never crosses a cell
EDGE = 1e-4  # of a cell: added before a limit is rounded down, for the same reason


@dataclass(frozen=True, eq=False)
class Excess:
    """One cost above its minimum, spread over the transitions of an automaton; what is constant is no part of it.

    Attributes:
        steps: a list over steps of shape ``(K,)``; never negative; zero along a cheapest path.
        low: cost of the cheapest architecture, less what is constant.
        span: cost of the dearest architecture above that.
        smallest: the smallest entry above zero (infinite where there is none).
        common: the greatest common divisor of all entries where they are whole numbers, else 0.
        finest: the smallest step that a grid may have.
    """

    steps: list[NDArray[np.float64]]
    low: float
    span: float
    smallest: float
    common: float
    finest: float

    @classmethod
    def make(cls, reduced: Sequence[NDArray[np.float64]], low: float, high: float, largest: float) -> Excess:
        """From the reduced increments on an automaton, the range, and what no true cost is larger than."""
        steps = [np.where(e > _ROUNDING * largest, e, 0.0) for e in reduced]
        entries = np.concatenate([np.zeros(1), *steps])
        positive = entries[entries > 0]
        whole = len(positive) > 0 and bool((positive == np.rint(positive)).all()) and positive.max() < 2**53
        common = float(np.gcd.reduce(positive.astype(np.int64))) if whole else 0.0
        smallest = float(positive.min()) if len(positive) else math.inf
        return cls(steps, low, high - low, smallest, common, max(_FINEST * largest, 1e-300))

    def level(self, left: NDArray[np.float64]) -> NDArray[np.float64]:
        """For what budgets leave above the minimum, the rung of a ladder just above it: ``span``, ``span / 4``, ...

        All budgets of a rung share a grid, which is as fine relative to a small budget as to a large one. What leaves
        less than the smallest entry leaves nothing: rung 0. The result depends on the budget alone.
        """
        left = np.clip(left, 0.0, self.span)
        with np.errstate(divide="ignore", invalid="ignore"):
            rung = np.where(left > 0, self.span * 4.0 ** -np.floor(np.log2(self.span / left) / 2), 0.0)
        rung = np.where(rung < left, 4 * rung, rung)
        return np.where(left < self.smallest * (1 - 1e-9), 0.0, rung)

    def step(self, upper: float, cells: int) -> float:
        """Width of a cell where ``cells`` of them reach up to ``upper``; the exact grid where that is coarser still."""
        if upper <= self.common * cells:
            return self.common or self.finest
        return max(upper / cells, self.finest)

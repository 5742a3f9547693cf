"""OFA's pipeline: evaluate a sample, fit an accuracy predictor, search on the predictor, evaluate its best for real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from snugnet.costs import sample
from snugnet.errors import BudgetError, SearchError
from snugnet.predictors import MINIMUM_ROWS, fit_predictor
from snugnet.search.driver import run_search
from snugnet.search.evolution import PRESETS
from snugnet.search.method import Method, Round, check_counts
from snugnet.search.optimisers.climb import climb
from snugnet.spaces import Population, SearchSpace

Predict = Callable[[Population], NDArray[np.floating]]
Fit = Callable[[SearchSpace, Population, NDArray[np.float64], int], Predict]
"""From a space, canonical rows (n, d), their scores (n,) and a seed to a function that predicts scores of rows."""

_WINDOWS = 8  # of the first cost; the sample is spread evenly over them


@dataclass(frozen=True)
class PredictorSearch(Method):
    """Search on a predictor that is fitted on the way (OFA section 3.4).

    Attributes:
        fit: makes the predictor.
        samples: architectures it is fitted on, spread over the cost.
        top: so many of its best are evaluated for real.
        optimiser: ``climb`` (:mod:`snugnet.search.optimisers.climb`), or ``evolution`` with OFA's settings.
        predictor: the predictor's name, for the checkpoint.
    """

    name: ClassVar[str] = "predictor"
    fit: Fit
    samples: int = 500
    top: int = 20
    optimiser: Literal["climb", "evolution"] = "climb"
    predictor: str = ""

    def __post_init__(self) -> None:
        check_counts(self, samples=2, top=1)
        if self.optimiser not in ("climb", "evolution"):
            raise SearchError(f"predictor: optimiser is climb or evolution, got {self.optimiser!r}")

    @property
    def rounds(self) -> int:
        return 2

    @property
    def evaluations(self) -> int:
        return self.samples + self.top

    def settings(self) -> dict[str, Any]:
        return {
            "method": self.name, "samples": self.samples, "top": self.top, "optimiser": self.optimiser,
            "predictor": self.predictor,
        }  # fmt: skip

    def propose(self, now: Round) -> Population:
        if now.number == 0:
            return spread(now, self.samples)
        if len(now.archive) < min(self.samples, MINIMUM_ROWS):  # no more are within the limits: the best is among them
            return now.archive.rows[:0]
        return self._predicted_best(now)

    def _predicted_best(self, now: Round) -> Population:
        """The best that were not evaluated yet, by the predictor: (top, d) or fewer."""
        seed = int(now.rng.integers(2**31))
        predict = self.fit(now.problem.space, now.archive.rows, now.archive.scores, seed)
        predicted = replace(now.problem, score=predict, columns=())
        searched = run_search(
            predicted, PRESETS["ofa" if self.optimiser == "evolution" else "spos"], seed=seed, progress=False
        )
        rows, scores = searched.archive.rows, searched.archive.scores
        if self.optimiser == "climb":
            climbed, heights = climb(predicted, seed=seed)
            rows, scores = np.concatenate([climbed, rows]), np.concatenate([heights, scores])
        return now.fresh(rows[np.argsort(-scores, kind="stable")], self.top, set())


def spread(now: Round, n: int) -> Population:
    """New architectures within all limits, spread evenly over the cost that is limited first (or the first cost); where
    the problem has no costs, samples.

    Uniform samples nearly all lie close to one cost; a predictor has to know the rest as well.
    """
    problem, taken = now.problem, set[bytes]()
    if not problem.tables:
        return now.samples(n)
    table = problem.tables[next(iter(problem.limits), next(iter(problem.tables)))]
    low, high = table.range
    edges = np.linspace(low, min(high, problem.limits.get(table.name, np.inf)), _WINDOWS + 1)
    found = []
    for lower, upper in pairwise(edges):
        try:
            rows = sample(table, 2 * n // _WINDOWS, now.rng, budget=upper, at_least=lower)
        except BudgetError:  # nothing lies in this window
            continue
        found.append(now.fresh(rows[problem.feasible(rows)], n // _WINDOWS, taken))
    rows = np.concatenate([*found, np.zeros((0, problem.space.d), dtype=np.int16)])
    return np.concatenate([rows, now.samples(n - len(rows), taken)])


def fitted(kind: str) -> Fit:
    """How a predictor of a kind is fitted: see :func:`snugnet.predictors.fit_predictor`."""

    def fit(space: SearchSpace, rows: Population, values: NDArray[np.float64], seed: int) -> Predict:
        return fit_predictor(kind, space, rows, values, seed=seed).predict

    return fit

"""OFA's pipeline: evaluate a sample, fit an accuracy predictor, search on the predictor, evaluate its best for real."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Self

import numpy as np

from snugnet.costs import CostTable, sample
from snugnet.errors import BudgetError, SearchError
from snugnet.extras import needs
from snugnet.predictors import PREDICTORS, fit_predictor
from snugnet.search.driver import run_search
from snugnet.search.evolution import Evolution
from snugnet.search.method import Method, Round, check_counts
from snugnet.search.optimisers.optimiser import OPTIMISERS, make_optimiser, predictor_problem
from snugnet.search.problem import Problem
from snugnet.spaces import Population

_SAMPLE_WINDOWS = 8  # of the first cost; the sample is spread evenly over them


@dataclass(frozen=True)
class PredictorSearch(Method):
    """Search on a predictor that is fitted on the way (OFA section 3.4).

    Attributes:
        samples: architectures it is fitted on, spread over the cost.
        top: so many of its best are evaluated for real.
        optimiser: of the predictor; one of :data:`snugnet.search.optimisers.optimiser.OPTIMISERS`.
        predictor: its kind; one of :data:`snugnet.predictors.PREDICTORS`.
    """

    name: ClassVar[str] = "predictor"
    sizes: ClassVar[tuple[str, ...]] = ("evaluations",)
    samples: int = 500
    top: int = 20
    optimiser: str = "climb"
    predictor: str = "best"

    def __post_init__(self) -> None:
        check_counts(self, samples=2, top=1)
        for known, name in ((OPTIMISERS, self.optimiser), (PREDICTORS, self.predictor)):
            if name not in known:
                raise SearchError(f"predictor: there is no {known.noun} {name!r}; known: {', '.join(known.names())}")

    def resized(self, **sizes: int) -> Self:
        total = sizes["evaluations"]
        top, least = max(1, total // 26), PREDICTORS[self.predictor].minimum_rows
        if total - top < least:
            raise SearchError(
                f"predictor: evaluations is at least {least + 1} ({least} to fit on, one to check), got {total}"
            )
        return replace(self, samples=total - top, top=top)

    def on(self, problem: Problem) -> Self:
        needs("scipy", "sklearn")  # before anything is evaluated that no predictor could be fitted to
        kind, optimiser = PREDICTORS[self.predictor], OPTIMISERS[self.optimiser]
        if problem.at_least:
            raise SearchError(
                "predictor: its optimisers keep limits and no least cost; take random or evolution for that"
            )
        if self.samples < kind.minimum_rows:
            raise SearchError(
                f"predictor: {self.predictor} is fitted on {kind.minimum_rows} samples at least, got {self.samples}"
            )
        if optimiser.needs_gradients and not kind.differentiable:
            raise SearchError(f"predictor: {self.optimiser} needs gradients, and {self.predictor} has none; mlp has")
        return self

    @property
    def rounds(self) -> int:
        return 2

    @property
    def evaluations(self) -> int:
        return self.samples + self.top

    def propose(self, now: Round) -> Population:
        if now.number == 0:
            return spread(now, self.samples)
        if (
            len(now.archive) < PREDICTORS[self.predictor].minimum_rows
        ):  # no more are within the limits: the best is among them
            return now.archive.rows[:0]
        return self._predicted_best(now)

    def _predicted_best(self, now: Round) -> Population:
        """The best that were not evaluated yet, by the predictor: (top, d) or fewer.

        What the optimiser finds may be few, so a short evolution finds more beside it.
        """
        seed, problem = int(now.rng.integers(2**31)), now.problem
        predictor = fit_predictor(self.predictor, problem.space, now.archive.rows, now.archive.scores, seed=seed)
        predicted = predictor_problem(predictor, problem.tables, problem.limits)
        evolved = run_search(predicted, Evolution(), seed=seed, progress=False).archive
        found = make_optimiser(self.optimiser).maximise(predicted, seed=seed)
        rows, scores = np.concatenate([found.rows, evolved.rows]), np.concatenate([found.scores, evolved.scores])
        return now.fresh(rows[np.argsort(-scores, kind="stable")], self.top, set())


def spread(now: Round, n: int) -> Population:
    """New architectures within all limits, spread evenly over the sum that is limited first (or the first sum); where
    the problem has none, samples.

    Uniform samples nearly all lie close to one cost; a predictor has to know the rest as well.
    """
    problem, taken = now.problem, set[bytes]()
    tables = (problem.tables[name] for name in (*problem.limits, *problem.tables))
    table = next((table for table in tables if isinstance(table, CostTable)), None)
    if table is None:
        return now.samples(n)
    low, high = table.range
    edges = np.linspace(low, min(high, problem.limits.get(table.name, np.inf)), _SAMPLE_WINDOWS + 1)
    found = []
    for lower, upper in pairwise(edges):
        try:
            rows = sample(
                table, 2 * n // _SAMPLE_WINDOWS, now.rng, budget=upper, at_least=lower, allowed=problem.allowed
            )
        except BudgetError:  # nothing lies in this window
            continue
        found.append(now.fresh(rows[problem.feasible(rows)], n // _SAMPLE_WINDOWS, taken))
    rows = np.concatenate([*found, np.zeros((0, problem.space.d), dtype=np.int16)])
    return np.concatenate([rows, now.samples(n - len(rows), taken)])

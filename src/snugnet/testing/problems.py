"""A small space and a cheap score, on which methods and predictors are tried."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from snugnet.costs import COSTS
from snugnet.search.problem import Problem
from snugnet.spaces import Population, SearchSpace, get_space


def small_space() -> SearchSpace:
    """Some hundred thousand architectures, with choices below others."""
    return get_space(
        "ofa-mobilenet-v3",
        width_mult=0.25, resolution=16, num_classes=10, depths=[1, 2], kernel_sizes=[3, 5], expand_ratios=[3],
    )  # fmt: skip


class Samples:
    """Proposes samples, as a family's generator proposes architectures."""

    id = "samples"

    def __call__(self, problem: Problem, n: int, rng: np.random.Generator) -> Population:
        """``n`` rows within the limits."""
        return problem.sample(n, rng)


def small_problem(space: SearchSpace | None = None, *, share: str = "60%", seed: int = 0) -> Problem:
    """A score with interactions, under a limit on multiply-adds.

    Args:
        space: that is searched; :func:`small_space` without it.
        share: of the range of multiply-adds that the limit is at.
        seed: of the score.
    """
    space = space or small_space()
    rng = np.random.default_rng(seed)
    size = int(space.offsets[-1])
    gains, pairs = rng.normal(size=size), 0.3 * rng.normal(size=(size, 4))

    def score(rows: Population) -> NDArray[np.float64]:
        code = space.one_hot(rows).astype(np.float64)
        found: NDArray[np.float64] = code @ gains + ((code @ pairs) ** 2).sum(1) / size
        return found

    tables = {name: COSTS[name].table(space) for name in ("madds", "params")}
    return Problem(space, score, tables, {"madds": share}, proposer=Samples())  # type: ignore[dict-item]

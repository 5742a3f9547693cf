"""The climb finds what brute force finds, and stays within limits."""

from __future__ import annotations

import numpy as np
import pytest
from test_searchers import problem, within
from toys import SPACES, random_table

from snugnet.costs import counted_table
from snugnet.search.optimisers.climb import Climb
from snugnet.search.problem import Problem
from snugnet.spaces import SearchSpace, get_space


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shares", [(), (0.4,), (0.5, 0.6)])
def test_finds_the_best_of_a_small_space(space: SearchSpace, seed: int, shares: tuple[float, ...]) -> None:
    case = problem(space, seed, shares, wave=False)
    rows, scores = Climb().maximise(case, seed=seed)
    assert case.feasible(rows).all()
    assert (space.canonical(rows) == rows).all()
    assert np.array_equal(scores, case.score(rows))
    assert (np.diff(scores) <= 0).all()
    assert scores[0] == case.score(within(case)).max()


def test_a_sum_over_options_is_solved_exactly() -> None:
    space = get_space("ofa-mobilenet-v3")
    weights = np.random.default_rng(0).random(int(space.offsets[-1]))
    table = counted_table(space, "madds")
    case = Problem(space, lambda rows: space.one_hot(rows) @ weights, {"madds": table}, {"madds": 3e8})
    exact = case.decode(weights[None], cells=4096)
    assert Climb().maximise(case)[1][0] >= case.score(exact)[0] - 1e-9


def test_without_costs() -> None:
    space = SPACES[0]
    table = random_table(space, np.random.default_rng(1), whole=False)
    assert Climb().maximise(Problem(space, table, {}))[1][0] == table.range[1]


def test_one_architecture_is_enough() -> None:
    space = SPACES[0]
    table = random_table(space, np.random.default_rng(1), whole=False)
    case = Problem(space, lambda rows: -table(rows), {"cost": table}, {"cost": table.range[0]})
    rows, scores = Climb().maximise(case)
    assert (table(rows) == table.range[0]).all()
    assert len(scores) == len(rows) <= 3  # of a choice that costs nothing any option will do

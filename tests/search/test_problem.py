"""The architectures within all limits: drawn uniformly, and refused before any work where there are none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_searchers import problem, within
from toys import ALL, SPACES

from snugnet.errors import BudgetError


def test_samples_under_one_limit_are_uniform() -> None:
    case = problem(SPACES[0], shares=(0.3,))
    inside = np.unique(within(case), axis=0)
    ways = case.space.ways(inside)
    n = int(40 * ways.sum() / ways.min())
    rows, counts = np.unique(case.sample(n, np.random.default_rng(0)), axis=0, return_counts=True)
    assert np.array_equal(rows, inside)
    expected = ways * (n / ways.sum())
    assert ((counts - expected) ** 2 / expected).sum() < 1.3 * len(counts)  # chi-square: mean 1 a degree of freedom


def test_limits_that_cannot_be_met_are_refused_with_the_range() -> None:
    case = problem(SPACES[0])
    low, _ = case.tables["a"].range
    for limits, words in (
        ({"a": low - 1}, "feasible: "),
        ({"c": 1.0}, "no cost 'c'; costs: a, b"),
        ({"a": float("nan")}, "a budget is a positive number"),
    ):
        with pytest.raises(BudgetError, match=words):
            replace(case, limits=limits)
    costs = np.stack([case.tables[n](ALL["toy"]) for n in "ab"], axis=1)
    lows = costs.min(0)
    assert not (costs <= lows).all(1).any()
    with pytest.raises(BudgetError, match=r"^no architecture of toy has . <= .* and . <= .* together; feasible alone"):
        replace(case, limits={"a": lows[0], "b": lows[1]})

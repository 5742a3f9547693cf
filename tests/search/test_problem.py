"""The architectures within all limits: drawn uniformly, and refused before any work where there are none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_searchers import problem, within
from toys import ALL, SPACES

from snugnet.costs import COSTS, counted_table
from snugnet.errors import BudgetError, SearchError
from snugnet.search.driver import run_search
from snugnet.search.method import make_method
from snugnet.search.problem import Problem
from snugnet.spaces import get_space


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


def test_a_least_cost_is_kept_by_samples_and_by_an_evolution() -> None:
    space = get_space("ofa-mobilenet-v3", width_mult=0.35, resolution=32, num_classes=10)
    table = counted_table(space, "madds")
    low, high = table.range
    for limit in (low + 0.3 * (high - low), 2 * high):
        problem = Problem(space, lambda rows: -table(rows), {"madds": table}, {"madds": limit}, at_least=0.95)
        least, most = 0.95 * min(limit, high), limit
        costs = table(problem.sample(200, np.random.default_rng(0)))
        assert least <= costs.min() <= costs.max() <= most
        rows = space.sample(500, np.random.default_rng(1))
        assert np.array_equal(problem.feasible(rows), (least <= table(rows)) & (table(rows) <= most))
        found = run_search(problem, make_method("evolution", {"preset": "spos", "generations": 3}), progress=False)
        archive = table(found.archive.rows)
        assert least <= archive.min() <= archive.max() <= most
        assert archive.min() < 0.96 * min(limit, high)  # the score asks for the cheapest
        with pytest.raises(SearchError, match="keeps limits and no least cost"):
            problem.decode(np.zeros((1, int(space.offsets[-1]))))
    with pytest.raises(SearchError, match="a share of a limit on a sum, and there is none"):
        Problem(space, lambda rows: -table(rows), {"madds": table}, at_least=0.95)


def test_a_least_cost_beside_limits_on_a_maximum_and_another_sum() -> None:
    """Draws are of the window, and meet the others; what nothing is in is refused before any work."""
    space = get_space("ofa-mobilenet-v3", width_mult=0.35, resolution=32, num_classes=10)
    tables = {name: COSTS[name].table(space) for name in ("madds", "params", "peak_memory")}
    limits = {name: table.range[0] + 0.5 * (table.range[1] - table.range[0]) for name, table in tables.items()}
    case = Problem(space, lambda rows: np.zeros(len(rows)), tables, limits, at_least=0.8)
    result = run_search(
        replace(case, at_least=0.0), make_method("random", {"samples": 50, "at_least": 0.8}), progress=False
    )
    for rows in (case.sample(50, np.random.default_rng(0)), result.archive.rows):
        assert len(rows) > 20
        assert (tables["madds"](rows) >= 0.8 * limits["madds"]).all()
        assert all((table(rows) <= limits[name]).all() for name, table in tables.items())
    with pytest.raises(SearchError, match="a share of a limit on a sum"):
        Problem(space, lambda rows: np.zeros(len(rows)), tables, {"peak_memory": limits["peak_memory"]}, at_least=0.8)
    with pytest.raises(BudgetError):
        replace(case, limits={"madds": tables["madds"].range[0] * 1.0001}, at_least=0.99999999999)
    low, high = tables["params"].range
    apart = replace(case, limits={"madds": "60%", "params": low + 0.001 * (high - low)}, at_least=0.95)
    assert not apart.fast_samples
    with pytest.raises(SearchError, match="costs at least 95% of its limit and is within all others; lower at_least"):
        apart.sample(10, np.random.default_rng(0))
    with pytest.raises(SearchError, match="keep limits and no least cost"):
        run_search(case, make_method("predictor"), progress=False)

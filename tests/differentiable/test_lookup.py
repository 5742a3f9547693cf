"""The look-up graph: from a limit to the bound of a search, safe wherever the graph does not rise."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snugnet.costs import CostTable, counted_table, measured_cost
from snugnet.differentiable.lookup import LookupGraph, bounds_to_try
from snugnet.differentiable.relaxed import Limit, RelaxedCells, derive
from snugnet.spaces import get_space
from snugnet.spaces.cells import CellSpace


def darts() -> CellSpace:
    space = get_space("darts", resolution=8, num_classes=3, channels=4, cells=3, nodes=2)
    assert isinstance(space, CellSpace)
    return space


PARAMS = counted_table(darts(), "params")


def limit(amount: float, at_least: bool = False, table: CostTable = PARAMS) -> Limit:
    return Limit(table, amount, at_least)


def graph(derived: list[float], at_least: bool = False) -> LookupGraph:
    return LookupGraph("params", tuple(10.0 * (i + 1) for i in range(len(derived))), tuple(derived), at_least)


@st.composite
def graphs(draw: st.DrawFn) -> LookupGraph:
    """Bounds that rise, and what was derived: whole numbers, so that equal ones are drawn."""
    n = draw(st.integers(2, 8))
    steps = draw(st.lists(st.integers(1, 20), min_size=n, max_size=n))
    derived = draw(st.lists(st.integers(1, 60), min_size=n, max_size=n))
    return LookupGraph("params", tuple(np.cumsum(steps).astype(float)), tuple(map(float, derived)), draw(st.booleans()))


amounts = st.integers(1, 240).map(lambda quarter: quarter / 4)


@given(graphs(), amounts, amounts)
def test_a_looser_limit_gets_no_tighter_bound(found: LookupGraph, a: float, b: float) -> None:
    a, b = sorted((a, b))
    assert found.bound(limit(a, found.at_least)) <= found.bound(limit(b, found.at_least)) + 1e-9


@given(graphs(), amounts)
def test_no_point_on_the_tighter_side_of_the_bound_breaks_the_limit(found: LookupGraph, amount: float) -> None:
    """Unless all of that side do: then the tightest bound is all there is."""
    bound = found.bound(limit(amount, found.at_least))
    points = zip(found.bounds, found.derived, strict=True)
    if found.at_least:
        tighter = [cost for b, cost in points if b >= bound - 1e-9]
        assert min(tighter, default=amount) >= amount or bound == found.bounds[-1]
    else:
        tighter = [cost for b, cost in points if b <= bound + 1e-9]
        assert max(tighter, default=amount) <= amount or bound == found.bounds[0]


@given(graphs(), amounts)
def test_the_next_looser_point_breaks_the_limit(found: LookupGraph, amount: float) -> None:
    """No tighter than it has to be: the bound lies before the first point, from the tight side, that breaks the limit."""
    bound = found.bound(limit(amount, found.at_least))
    points = list(zip(found.bounds, found.derived, strict=True))[:: -1 if found.at_least else 1]
    broken = [b for b, cost in points if (cost < amount if found.at_least else cost > amount)]
    if not broken:
        assert bound <= min(found.bounds[0], amount) if found.at_least else bound >= max(found.bounds[-1], amount)
    elif broken[0] != points[0][0]:
        before = points[[b for b, _ in points].index(broken[0]) - 1][0]
        assert min(before, broken[0]) - 1e-9 <= bound <= max(before, broken[0]) + 1e-9


@given(graphs())
def test_at_a_point_of_a_rising_graph_it_is_exact(found: LookupGraph) -> None:
    found = replace(found, derived=tuple(np.cumsum(found.derived)))
    inner = slice(None, -1) if not found.at_least else slice(1, None)
    for bound, cost in zip(found.bounds[inner], found.derived[inner], strict=True):
        assert found.bound(limit(cost, found.at_least)) == pytest.approx(bound)


@given(graphs(), amounts)
def test_bounds_from_below_are_bounds_from_above_seen_in_a_mirror(found: LookupGraph, amount: float) -> None:
    turned = LookupGraph(
        "params",
        tuple(100 - b for b in reversed(found.bounds)),
        tuple(100 - cost for cost in reversed(found.derived)),
        not found.at_least,
    )
    inside = found.bound(limit(amount, found.at_least))
    outside = 100 - turned.bound(limit(100 - amount, turned.at_least))
    assert inside == pytest.approx(outside, abs=1e-9)


def test_between_two_points_it_is_interpolated() -> None:
    assert graph([100, 200, 400]).bound(limit(150)) == pytest.approx(15)
    assert graph([100, 200, 400]).bound(limit(250)) == pytest.approx(22.5)
    assert graph([100, 200, 400], True).bound(limit(250, True)) == pytest.approx(22.5)


def test_a_graph_that_falls_in_between() -> None:
    dips = [100.0, 300.0, 200.0, 400.0]
    assert graph(dips).bound(limit(250)) == pytest.approx(17.5)  # the third point keeps it, the second does not
    assert graph(dips).bound(limit(300)) == pytest.approx(30)
    assert graph(dips, True).bound(limit(250, True)) == pytest.approx(32.5)
    assert graph(dips, True).bound(limit(200, True)) == pytest.approx(20)


def test_beyond_its_ends() -> None:
    assert graph([100, 200]).bound(limit(50)) == 10
    assert graph([100, 200]).bound(limit(1000)) == 1000
    assert graph([100, 100]).bound(limit(100)) == 100
    assert graph([3, 4]).bound(limit(5)) == 20
    assert graph([100, 200], True).bound(limit(1000, True)) == 20
    assert graph([100, 200], True).bound(limit(5, True)) == 5
    assert graph([100, 200], True).bound(limit(50, True)) == 10


@given(graphs())
def test_json(found: LookupGraph) -> None:
    assert LookupGraph.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_its_picture() -> None:
    limits = [limit(150), limit(150, at_least=True), Limit(counted_table(darts(), "madds"), 5.0)]
    assert graph([100, 200]).figure(limits, "a graph").startswith(b"\x89PNG")


@pytest.mark.parametrize("points", [2, 5])
@pytest.mark.parametrize("at_least", [False, True])
def test_bounds_to_try(points: int, at_least: bool) -> None:
    """From what knows nothing to what is cheapest, or dearest; that itself is not tried."""
    cells = RelaxedCells(darts())
    first = PARAMS.expectation(cells.choices()).item()
    bounds = bounds_to_try(cells, limit(1.0, at_least), points)
    assert len(bounds) == points
    assert np.allclose(np.diff(bounds), np.diff(bounds)[0])
    assert list(bounds) == sorted(bounds)
    low, high = PARAMS.range
    if at_least:
        assert bounds[0] == pytest.approx(first)
        assert bounds[-1] < high
    else:
        assert bounds[-1] == pytest.approx(first)
        assert bounds[0] > low


def test_bounds_to_try_of_what_was_measured() -> None:
    space = get_space("nas-bench-201")
    assert isinstance(space, CellSpace)
    table = measured_cost(space, "latency_ms", "pixel3").table
    cells = RelaxedCells(space)
    bounds = bounds_to_try(cells, Limit(table, 5.0), 4)
    assert (
        table.range[0]
        < bounds[0]
        < bounds[-1]
        == pytest.approx(table(space.sample(20_000, np.random.default_rng(0))).mean(), rel=0.02)
    )


def test_where_the_first_mixture_is_already_the_cheapest_bounds_still_rise() -> None:
    space = get_space("darts", resolution=8, num_classes=3, channels=4, cells=3, nodes=2, operations=["skip_connect"])
    assert isinstance(space, CellSpace)
    madds = counted_table(space, "madds")
    cells = RelaxedCells(space)
    for at_least in (False, True):
        bounds = bounds_to_try(cells, Limit(madds, 1.0, at_least), 3)
        assert (np.diff(bounds) > 0).all()
    assert derive(space, cells.scores()).shape == (1, space.d)

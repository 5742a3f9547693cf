"""Architectures that are not decided yet: what they cost by definition, and the cells derived from them against all cells."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from snugnet.costs import Cost, CostTable, counted_table, disconnected, measured_cost
from snugnet.costs.exact.automaton import all_rows
from snugnet.differentiable.relaxed import (
    Limit,
    RelaxedCells,
    check_limits,
    derive,
    nothing,
    operations_of_first_cell,
)
from snugnet.errors import BudgetError, SpaceError
from snugnet.spaces import Population, get_space
from snugnet.spaces.cells import NONE, CellSpace

SPACES: dict[str, tuple[str, dict[str, Any]]] = {
    "two nodes": ("darts", {"nodes": 2}),
    "four nodes": ("darts", {"nodes": 4, "cells": 5}),
    "a resolution": ("darts", {"nodes": 3, "resolutions": [8, 16], "resolution": 16}),
    "imagenet": ("darts", {"nodes": 2, "stem": "imagenet", "resolution": 32}),
    "one operation": ("darts", {"nodes": 3, "operations": ["sep_conv_3x3"]}),
    "nas-bench-201": ("nas-bench-201", {"cells": 2}),
    "nas-bench-201, a resolution": ("nas-bench-201", {"cells": 1, "resolutions": [8, 16], "resolution": 16}),
}
EDGES = [0, 1, 5, -1]


def make(name: str, **options: Any) -> CellSpace:
    base: dict[str, Any] = {"resolution": 8, "num_classes": 3, "channels": 4}
    space = get_space(name, **{**base, **({"cells": 3} if name == "darts" else {}), **options})
    assert isinstance(space, CellSpace)
    return space


@pytest.fixture(params=SPACES)
def space(request: pytest.FixtureRequest) -> CellSpace:
    name, options = SPACES[request.param]
    return make(name, **options)


SMALL = make("darts", nodes=2, operations=["skip_connect", "max_pool_3x3", "dil_conv_3x3"])
"""A space of two nodes: all its cells are gone through."""
BENCH = make("nas-bench-201", resolution=32, num_classes=10, channels=16, cells=5)


def relaxed(space: CellSpace, seed: int, *, edge_weights: bool = False, spread: float = 2.0) -> RelaxedCells:
    cells = RelaxedCells(space, edge_weights=edge_weights).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in cells.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return cells


def at_largest(space: CellSpace, rows: Population) -> Population:
    if "resolution" in space.column:
        rows[:, space.column["resolution"]] = -1 + space.num_options[space.column["resolution"]]
    return rows


def every_row(space: CellSpace) -> Population:
    return np.unique(space.canonical(all_rows(space, tuple(range(space.d)))), axis=0)


# -- what a mixture costs ----------------------------------------------------------------------------------------------


def expected_at(cells: RelaxedCells, table: CostTable, chosen: NDArray[np.intp]) -> float:
    with torch.no_grad():
        cells.alpha.fill_(-1e4)
        cells.alpha[torch.arange(len(chosen)), torch.from_numpy(chosen)] = 1e4
        return table.expectation(cells.choices()).item()


@pytest.mark.parametrize("cost", ["params", "madds", "activations"])
def test_a_decided_mixture_costs_what_its_network_costs(space: CellSpace, cost: str) -> None:
    table, cells = counted_table(space, cost), RelaxedCells(space).double()
    rows = at_largest(space, space.sample(12, np.random.default_rng(0)))
    for row, chosen in zip(rows, space.edge_operations(rows), strict=True):
        blueprint = space.blueprint(row)
        counted = sum(getattr(layer, cost) for block in blueprint.blocks for layer in block.all_layers)
        assert expected_at(cells, table, chosen) == counted == table(row[None])[0]


@pytest.mark.parametrize(
    ("cost", "device"), [("latency_ms", "edgetpu"), ("energy_mj", "eyeriss"), ("latency_ms", "fpga")]
)
def test_a_decided_mixture_costs_what_was_measured(cost: str, device: str) -> None:
    measured, cells = measured_cost(BENCH, cost, device), RelaxedCells(BENCH).double()
    rows = BENCH.sample(30, np.random.default_rng(1))
    for row, chosen, value in zip(rows, BENCH.edge_operations(rows), measured.of(rows), strict=True):
        assert expected_at(cells, measured.table, chosen) == pytest.approx(measured.table(row[None])[0], rel=1e-12)
        assert np.isnan(value) or value == measured.table(row[None])[0]


@pytest.mark.parametrize("cost", ["params", "madds"])
def test_equation_3_of_dca_nas(space: CellSpace, cost: str) -> None:
    """What no edge decides, and of each edge in each of its cells each operation's own cost times its softmax: all edges."""
    cells = relaxed(space, 3)
    softmax = cells.alpha.detach().softmax(1)
    blocks: dict[str, dict[str, int]] = {}
    for block in space.union.blocks:
        blocks.setdefault(block.name, {})[block.alternative] = sum(getattr(layer, cost) for layer in block.all_layers)
    on_edges = {name for positions in space.positions.values() for name in positions}
    expected = float(sum(sum(each.values()) for name, each in blocks.items() if name not in on_edges))
    for e, edge in enumerate(space.edges):
        for position in space.positions[edge.name]:
            for o, operation in enumerate(edge.operations):
                if operation != NONE:
                    expected += softmax[e, o].item() * blocks[position][operation]
    table = counted_table(space, cost)
    assert table.expectation(cells.choices()).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("darts", "params"),
        ("darts", "madds"),
        ("nas-bench-201", "madds"),
        ("nas-bench-201", "latency_ms@raspi4"),
        ("nas-bench-201", "energy_mj@edgegpu"),
    ],
)
def test_its_gradient_is_what_a_change_would_cost(name: str, of: str) -> None:
    cost, at, device = of.partition("@")
    space = BENCH if name == "nas-bench-201" else make("darts", nodes=3)
    table = measured_cost(space, cost, device).table if at else counted_table(space, cost)
    cells = relaxed(space, 4, spread=1.0)
    (gradient,) = torch.autograd.grad(table.expectation(cells.choices()).sum(), [cells.alpha])
    assert gradient.sum(1).abs().max() < 1e-9 * gradient.abs().max()  # a softmax does not see what all have in common
    for e in EDGES:
        for o in range(gradient.shape[1]):
            sides = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    cells.alpha[e, o] += step
                    sides.append(table.expectation(cells.choices()).item())
                    cells.alpha[e, o] -= step
            assert gradient[e, o].item() == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-4, abs=1e-4)


def test_the_expected_look_up_is_the_mean_over_all_cells() -> None:
    table, cells = measured_cost(BENCH, "latency_ms", "pixel3").table, relaxed(BENCH, 5)
    p = cells.probabilities().detach().numpy()
    rows = every_row(BENCH)
    mass = np.prod([p[e, rows[:, edge.column]] for e, edge in enumerate(BENCH.edges)], axis=0)
    assert mass.sum() == pytest.approx(1)
    assert table.expectation(cells.choices()).item() == pytest.approx(float(mass @ table(rows)), rel=1e-12)


@pytest.mark.parametrize("name", ["darts", "nas-bench-201"])
def test_at_a_low_temperature_an_edge_costs_what_its_strongest_operation_does(name: str) -> None:
    space = make(name)
    params, cells = counted_table(space, "params"), relaxed(space, 8)
    scores = cells.scores()
    with torch.no_grad():
        whole = [params.expectation(cells.choices(t)).item() for t in (1.0, 0.1, 1e-4)]
        assert whole[0] == params.expectation(cells.choices()).item()
        strongest = expected_at(cells, params, scores.argmax(1))
    assert whole[2] == pytest.approx(strongest, rel=1e-9)
    assert abs(whole[1] - strongest) < abs(whole[0] - strongest)


def test_temperature_divides_the_numbers_of_the_softmax() -> None:
    space = make("darts")
    cells, sharp = relaxed(space, 9), relaxed(space, 9)
    with torch.no_grad():
        sharp.alpha.div_(0.25)
    for own, other in zip(cells.choices(0.25), sharp.choices(), strict=True):
        torch.testing.assert_close(own, other)


# -- weights -----------------------------------------------------------------------------------------------------------


def test_edge_weights_are_a_softmax_over_the_edges_of_a_node(space: CellSpace) -> None:
    """PC-DARTS, equation 5."""
    cells = relaxed(space, 6, edge_weights=True)
    assert cells.beta is not None
    weights = cells.weights().detach()
    for e, edge in enumerate(space.edges):
        kind = edge.name.rpartition(".")[0]
        rivals = [
            i for i, other in enumerate(space.edges) if (other.name.rpartition(".")[0], other.node) == (kind, edge.node)
        ]
        share = cells.beta[e].exp() / sum(cells.beta[i].exp() for i in rivals)
        torch.testing.assert_close(weights[e], cells.alpha[e].softmax(0) * share)


@pytest.mark.parametrize("edge_weights", [False, True])
def test_scores_are_logarithms_of_the_weights(edge_weights: bool) -> None:
    space = make("darts")
    cells = relaxed(space, 7, edge_weights=edge_weights)
    np.testing.assert_allclose(cells.scores(), cells.weights().detach().log(), rtol=1e-12)


def test_scores_stay_finite_where_weights_vanish() -> None:
    """In float32 a weight may be 0, which must not forbid the operation: limits may leave no other."""
    cells = RelaxedCells(BENCH)
    with torch.no_grad():
        cells.alpha[:, -1] = 500.0
    assert (cells.weights() == 0).any()
    assert np.isfinite(cells.scores()).all()
    params = counted_table(BENCH, "params")
    assert params(derive(BENCH, cells.scores()))[0] == params.range[1]
    assert params(derive(BENCH, cells.scores(), [Limit(params, params.range[0])]))[0] == params.range[0]


def test_the_start_is_a_function_of_the_seed() -> None:
    space = make("darts")
    one, two, other = (RelaxedCells(space, seed=seed).alpha for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(one, RelaxedCells(space, seed=1, edge_weights=True).alpha)
    assert one.abs().max() < 0.01


# -- derived cells -----------------------------------------------------------------------------------------------------


def genotype(space: CellSpace, weights: NDArray[np.float64]) -> dict[str, Any]:
    """The derivation as DARTS publishes it (``Network.genotype`` in ``model_search.py``), on any number of nodes."""
    found: dict[str, Any] = {}
    for kind in ("normal", "reduce"):
        gene = []
        for node in range(2, 2 + space.options["nodes"]):
            edges = {}
            for edge, w in zip(space.edges, weights, strict=True):
                if edge.name == f"{kind}.edge{edge.source}{node}":
                    edges[edge.source] = dict(zip(edge.operations, w, strict=True))
            ranked = sorted(edges, key=lambda j: -max(w for name, w in edges[j].items() if name != NONE))
            for j in sorted(ranked[:2]):
                best = max((w, name) for name, w in edges[j].items() if name != NONE)[1]
                gene.append([best, j])
        found |= {kind: gene, f"{kind}_concat": list(range(2, 2 + space.options["nodes"]))}
    return found


@pytest.mark.parametrize("edge_weights", [False, True])
@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_without_limits_cells_are_derived_as_darts_derives_them(nodes: int, edge_weights: bool) -> None:
    space = make("darts", nodes=nodes)
    for seed in range(20):
        cells = relaxed(space, seed, edge_weights=edge_weights)
        row = derive(space, cells.scores())
        assert space.to_dict(row) == genotype(space, cells.weights().detach().numpy())
        assert (derive(space, cells.scores(), never=(nothing(space),)) == row).all()


@pytest.mark.parametrize("edge_weights", [False, True])
def test_an_edge_of_nas_bench_201_has_its_strongest_operation(edge_weights: bool) -> None:
    """There ``none`` is an operation like any other (Dong and Yang, ``genotype`` of their DARTS)."""
    for seed in range(20):
        cells = relaxed(BENCH, seed, edge_weights=edge_weights)
        chosen = BENCH.edge_operations(derive(BENCH, cells.scores()))[0]
        assert (chosen == cells.alpha.detach().numpy().argmax(1)).all()


@pytest.mark.parametrize("name", ["darts", "nas-bench-201"])
def test_the_resolution_is_the_one_that_was_searched_at(name: str) -> None:
    space = make(name, resolutions=[8, 12, 16], resolution=16)
    madds = counted_table(space, "madds")
    for seed in range(5):
        scores = relaxed(space, seed).scores()
        free = derive(space, scores)
        assert space.blueprint(free).resolution == 16
        tight = derive(space, scores, [Limit(madds, 0.7 * madds(free)[0])])
        assert space.blueprint(tight).resolution == 16
        assert madds(tight)[0] <= 0.7 * madds(free)[0]
    with pytest.raises(BudgetError, match=f"no network of {name} was found that has madds <= "):
        check_limits(space, [Limit(madds, madds.range[0])])  # of the smallest resolution


def sums(space: CellSpace, scores: NDArray[np.float64], rows: Population) -> NDArray[np.float64]:
    """Of the operations of the edges that are there; a node of nas-bench-201 has all its edges."""
    chosen = space.edge_operations(rows)
    each = np.take_along_axis(scores[None], chosen[..., None], axis=2)[..., 0]
    there = np.array([edge.offset for edge in space.edges]) <= chosen
    return np.where(there, each, 0.0).sum(axis=1)


ROWS = {id(space): every_row(space) for space in (SMALL, BENCH)}
PARAMS, MADDS = counted_table(SMALL, "params"), counted_table(SMALL, "madds")
LATENCY, ENERGY = measured_cost(BENCH, "latency_ms", "edgetpu"), measured_cost(BENCH, "energy_mj", "eyeriss")
BENCH_PARAMS = counted_table(BENCH, "params")


def best_of_all(
    space: CellSpace, scores: NDArray[np.float64], limits: list[Limit], never: tuple[CostTable, ...]
) -> float | None:
    rows = ROWS[id(space)]
    fine = np.ones(len(rows), dtype=bool)
    for limit in limits:
        cost = limit.table(rows)
        fine &= cost >= limit.amount if limit.at_least else cost <= limit.amount
    for table in (*never, *(limit.never for limit in limits)):
        if table is not None:
            fine &= table(rows) == 0
    return float(sums(space, scores, rows[fine]).max()) if fine.any() else None


def keeps(limits: list[Limit], never: tuple[CostTable, ...], row: Population) -> bool:
    within = all(limit.sign * (limit.table(row)[0] - limit.amount) <= 0 for limit in limits)
    return within and all(t(row)[0] == 0 for t in (*never, *(each.never for each in limits)) if t is not None)


@st.composite
def some_limits(draw: st.DrawFn, tables: list[tuple[CostTable, CostTable | None]]) -> list[Limit]:
    limits = []
    for table, never in draw(st.lists(st.sampled_from(tables), min_size=1, max_size=2, unique_by=lambda t: t[0].name)):
        low, high = table.range
        share = draw(st.floats(0, 1))
        limits.append(Limit(table, low + share * (high - low), draw(st.booleans()), never))
    return limits


def check_against_all(
    space: CellSpace, limits: list[Limit], never: tuple[CostTable, ...], seed: int, *, exact: bool
) -> None:
    scores = relaxed(space, seed).scores()
    best = best_of_all(space, scores, limits, never)
    if best is None:
        with pytest.raises(BudgetError):
            derive(space, scores, limits, never)
        with pytest.raises(BudgetError):
            check_limits(space, limits, never)
        return
    check_limits(space, limits, never)
    row = derive(space, scores, limits, never)
    assert row.shape == (1, space.d)
    assert keeps(limits, never, row)
    found = sums(space, scores, row)[0]
    assert found <= best + 1e-9
    if exact:
        assert found == pytest.approx(best, abs=1e-9)


@given(some_limits([(PARAMS, None), (MADDS, None)]), st.integers(0, 10**6))
@settings(max_examples=40)
def test_limits_on_counted_costs_against_all_cells(limits: list[Limit], seed: int) -> None:
    """One limit of whole numbers is decoded exactly; two at once to the grid of the decode."""
    check_against_all(SMALL, limits, (), seed, exact=len(limits) == 1)


@given(
    some_limits([(LATENCY.table, LATENCY.unmeasured), (ENERGY.table, ENERGY.unmeasured), (BENCH_PARAMS, None)]),
    st.integers(0, 10**6),
)
@settings(max_examples=15)
def test_limits_on_measured_costs_against_all_cells(limits: list[Limit], seed: int) -> None:
    """A look-up is over all choices, so the decode looks at all cells."""
    check_against_all(BENCH, limits, (disconnected(BENCH),), seed, exact=True)


@given(st.integers(0, 10**6), st.floats(0.05, 1), st.floats(0, 0.9))
@settings(max_examples=15)
def test_no_limit_is_ever_broken(seed: int, most: float, least: float) -> None:
    space = make("darts")
    params, madds = counted_table(space, "params"), counted_table(space, "madds")
    amounts = [t.range[0] + share * (t.range[1] - t.range[0]) for t, share in ((madds, most), (params, most * least))]
    limits = [Limit(madds, amounts[0]), Limit(params, amounts[1], at_least=True)]
    try:
        row = derive(space, relaxed(space, seed, edge_weights=True).scores(), limits)
    except BudgetError:
        return
    assert keeps(limits, (), row)


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_least", [False, True])
def test_how_far_a_limit_is_broken(at_least: bool) -> None:
    limit = Limit(PARAMS, 100.0, at_least)
    assert (limit.sign, str(limit)) == ((-1, "params >= 100") if at_least else (1, "params <= 100"))
    for cost, broken in ((150.0, 0.5), (100.0, 0.0), (50.0, -0.5)):
        assert limit.broken(torch.tensor(cost), 100.0).item() == pytest.approx(-broken if at_least else broken)
    table, budget = limit.as_budget()
    rows = SMALL.sample(20, np.random.default_rng(0))
    assert ((table(rows) <= budget) == (PARAMS(rows) >= 100 if at_least else PARAMS(rows) <= 100)).all()


def test_limits_that_nothing_keeps_are_refused_with_what_there_is() -> None:
    low, high = PARAMS.range
    check_limits(SMALL, [Limit(PARAMS, low), Limit(PARAMS, low, at_least=True)])
    for limit in (Limit(PARAMS, low - 1), Limit(PARAMS, high + 1, at_least=True)):
        with pytest.raises(BudgetError, match=r"no \w+ of darts has params [<>]= .*; feasible: .* to .* params"):
            check_limits(SMALL, [limit])
    with pytest.raises(
        BudgetError, match=r"no network of darts was found that has params <= \S+ and params >= \S+; feasible alone: "
    ) as caught:
        check_limits(SMALL, [Limit(PARAMS, low), Limit(PARAMS, high, at_least=True)])
    assert "-params" not in str(caught.value)


def test_what_is_feasible_is_what_can_be_derived() -> None:
    """Cells that look at no image, and those without a measurement, are not in the range that a refusal names."""
    measured = measured_cost(BENCH, "latency_ms", "raspi4")
    rows = ROWS[id(BENCH)]
    connected = disconnected(BENCH)(rows) == 0
    known = ~np.isnan(measured.of(rows))
    least = measured.table(rows[connected & known]).min()
    assert measured.table.range[0] < least
    never = (disconnected(BENCH),)
    check_limits(BENCH, [Limit(measured.table, least, never=measured.unmeasured)], never)
    with pytest.raises(
        BudgetError, match=r"has latency_ms@raspi4 <= \S+; feasible: \S+ to \S+ ms \(disconnected <= 0"
    ) as caught:
        check_limits(BENCH, [Limit(measured.table, least - 1e-3, never=measured.unmeasured)], never)
    named = float(str(caught.value).split("feasible: ")[1].split()[0])
    assert named == pytest.approx(least, rel=1e-3)
    assert named >= least
    with pytest.raises(BudgetError, match="latency_ms@raspi4 >= "):
        check_limits(BENCH, [Limit(measured.table, 1e6, at_least=True)], never)


@pytest.mark.parametrize("operation", ["skip_connect", "sep_conv_3x3", "max_pool_3x3"])
def test_operations_of_the_normal_cell_are_counted(operation: str) -> None:
    space = make("darts", nodes=3)
    rows = space.sample(50, np.random.default_rng(2))
    named = [sum(each == operation for each, _ in space.to_dict(row)["normal"]) for row in rows]
    assert operations_of_first_cell(space, operation)(rows).tolist() == named
    with pytest.raises(SpaceError):
        operations_of_first_cell(space, operation)(rows[:, :3])


def test_operations_of_the_only_cell_are_counted() -> None:
    rows = BENCH.sample(50, np.random.default_rng(2))
    counts = [BENCH.to_dict(row)["arch_str"].count("skip_connect") for row in rows]
    assert operations_of_first_cell(BENCH, "skip_connect")(rows).tolist() == counts


def test_pairs_of_a_node_are_all_alike() -> None:
    """The mass of the pairs of a node adds up to 1 for each of its edges."""
    space = make("darts", nodes=4)
    choices = relaxed(space, 0).choices()
    for node in range(2, 6):
        mass = choices[space.column[f"reduce.node{node}.inputs"]][0]
        pairs = list(combinations(range(node), 2))
        for source in range(node):
            assert sum(m.item() for m, pair in zip(mass, pairs, strict=True) if source in pair) == pytest.approx(1)


def test_a_cost_that_an_edge_has_which_is_not_there_is_refused() -> None:
    space = make("darts")
    blocks = Cost("blocks", "blocks", "one for each block, zeros included", lambda block, _: 1.0)
    with pytest.raises(BudgetError, match="blocks cannot be limited in a search of cells: an edge that is not there"):
        check_limits(space, [Limit(blocks.table(space), 1e6)])

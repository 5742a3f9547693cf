"""Peak memory: a maximum over the network, exact in tables, ranges, draws, decodes and searches, beside budgets on sums."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from test_every_space import FEW
from tiny_spaces import TINY_SPACES
from toys import ALL, SPACES

from snugnet.costs import COSTS, Allowed, CostTable, MaximumTable, counted_table, decode, make_sampler, sample, within
from snugnet.costs.live import peak_values
from snugnet.errors import BudgetError, SpaceError
from snugnet.search.problem import Problem
from snugnet.spaces import get_space, list_spaces

PEAK = COSTS["peak_memory"]
spaces = pytest.mark.parametrize("name", list_spaces())
toys = pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)


def every(space):
    rows = np.array(list(product(*map(range, space.num_options.tolist()))), dtype=np.int16)
    return np.unique(space.rows(rows), axis=0)


@pytest.fixture(scope="module")
def made():
    """Spaces by name and options, each with its table: made once."""
    kept = {}

    def make(name, options):
        key = (name, repr(options))
        if key not in kept:
            space = get_space(name, **options)
            kept[key] = space, PEAK.table(space)
        return kept[key]

    return make


@spaces
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), small=st.booleans())
def test_the_table_has_what_the_blueprint_holds(name, made, seed, small):
    space, table = made(name, TINY_SPACES[name] if small else {"num_classes": 10, **FEW[name]})
    rows = space.sample(20, np.random.default_rng(seed))
    assert table(rows).tolist() == [4 * peak_values(space.blueprint(row)) for row in rows]


@spaces
def test_for_other_numbers_of_classes(name, made):
    space, table = made(name, TINY_SPACES[name])
    rows = np.concatenate([space.sample(20, np.random.default_rng(0)), *space.extremes().values()])
    for classes in (2, 3000):
        other = PEAK.with_classes(table, classes)
        assert other(rows).tolist() == [PEAK.of(space.blueprint(row).with_classes(classes)) for row in rows]
    assert PEAK.with_classes(table, 3) is table


@spaces
def test_int8_takes_a_quarter(name, made):
    space, table = made(name, TINY_SPACES[name])
    rows = space.sample(20, np.random.default_rng(0))
    assert (4 * COSTS["peak_memory_int8"].table(space)(rows) == table(rows)).all()


@spaces
def test_weights_are_a_sum(name):
    space = get_space(name, **TINY_SPACES[name])
    rows = space.sample(20, np.random.default_rng(0))
    expected = [sum(layer.weight_bytes for layer in space.blueprint(row).layers()) for row in rows]
    assert counted_table(space, "weight_memory")(rows).tolist() == expected


@spaces
def test_range_draws_and_decodes_against_brute_force(name, made):
    space, table = made(name, {"num_classes": 10, **FEW[name]})
    rows, rng = every(space), np.random.default_rng(1)
    peaks = table(rows)
    assert table.range == (peaks.min(), peaks.max())
    if peaks.min() == peaks.max():
        return
    limit = float(np.quantile(np.unique(peaks)[:-1], 0.5, method="higher"))
    inside = rows[peaks <= limit]
    drawn = sample(table, 500, rng, budget=limit)
    assert (table(drawn) <= limit).all()
    assert make_sampler(table, limit).reachable == pytest.approx(space.ways(inside).sum())
    madds = counted_table(space, "madds")
    scores = rng.gumbel(size=(30, int(space.offsets[-1])))
    sums = space.one_hot(rows).astype(float) @ scores.T
    found = decode([table], scores, np.full(30, limit))
    assert np.einsum("nj,nj->n", space.one_hot(found), scores) == pytest.approx(sums[peaks <= limit].max(0))
    costs, budget = madds(rows), np.quantile(madds(inside), 0.4)
    limits = np.tile([budget, limit], (30, 1))
    limits[::2, 1] = table.range[1]
    found = decode([madds, table], scores, limits)
    assert (madds(found) <= budget).all()
    assert (table(found) <= limits[:, 1]).all()
    got = np.einsum("nj,nj->n", space.one_hot(found), scores)
    for i in range(30):
        fits = peaks <= limits[i, 1]
        nearly = fits & (costs <= budget - 0.02 * (budget - costs.min()))
        assert got[i] <= sums[fits & (costs <= budget), i].max() + 1e-5
        assert not nearly.any() or got[i] >= sums[nearly, i].max() - 1e-5


@toys
@pytest.mark.parametrize("over", ["choices", "architectures"])
@pytest.mark.parametrize("bounded", [False, True])
def test_draws_are_uniform(space, over, bounded):
    """Alone, and beside a budget on multiply-adds."""
    rows, table, madds = ALL[space.name], random_maximum(space, np.random.default_rng(3)), counted_table(space, "madds")
    limit = float(np.quantile(table(rows), 0.5))
    fits = table(rows) <= limit
    budget = float(np.quantile(madds(rows[fits]), 0.6)) if bounded else np.inf
    inside = rows[fits & (madds(rows) <= budget)]
    ways = space.ways(inside) if over == "choices" else np.ones(len(inside))
    n, rng = int(30 * ways.sum() / ways.min()), np.random.default_rng(4)
    if bounded:
        drawn = sample(madds, n, rng, budget, allowed=table.at_most(limit), over=over)
    else:
        drawn = sample(table, n, rng, limit, over=over)
    found, counts = np.unique(drawn, axis=0, return_counts=True)
    assert np.array_equal(found, inside)
    assert chisquare(counts, ways * (n / ways.sum())).pvalue > 1e-4


def test_draws_under_a_limit_on_peak_memory_are_uniform(made):
    space, table = made("ofa-mobilenet-v3", {"num_classes": 10, **FEW["ofa-mobilenet-v3"]})
    rows = every(space)
    limit = float(np.quantile(table(rows), 0.4))
    inside = rows[table(rows) <= limit]
    ways = space.ways(inside)
    n = int(30 * ways.sum() / ways.min())
    found, counts = np.unique(sample(table, n, np.random.default_rng(0), limit), axis=0, return_counts=True)
    assert np.array_equal(found, inside)
    assert chisquare(counts, ways * (n / ways.sum())).pvalue > 1e-4


def random_maximum(space, rng):
    scopes = [part.choices for part in space.parts] + [(1, space.d - 1), (3,)]
    return MaximumTable(
        space, "peak", "B", [(s, rng.integers(0, 60, [int(space.num_options[c]) for c in s])) for s in scopes]
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_maxima_against_brute_force(seed):
    """Two of them and a sum: ranges, what is allowed, and decodes under limits that differ from scenario to scenario."""
    space, rng = SPACES[seed % 2], np.random.default_rng(seed)
    rows, (a, b) = ALL[space.name], (random_maximum(space, rng) for _ in range(2))
    madds = counted_table(space, "madds")
    by_definition = np.max([np.broadcast_to(v[tuple(rows[:, c] for c in s)], len(rows)) for s, v in a.tables], axis=0)
    assert np.array_equal(a(rows), by_definition)
    assert a.range == (a(rows).min(), a(rows).max())
    limits = np.array([[t(rows)[i] for t in (a, madds, b)] for i in rng.integers(len(rows), size=12)])
    limits[rng.random(limits.shape) < 0.2] = np.inf
    scores = rng.normal(size=(12, int(space.offsets[-1])))
    found = decode([a, madds, b], scores, limits, cells=4096)
    costs = np.stack([t(rows) for t in (a, madds, b)], 1)
    sums = space.one_hot(rows).astype(float) @ scores.T
    for i, row in enumerate(found):
        place = int((rows == row).all(1).argmax())
        assert (costs[place] <= limits[i]).all()
        assert sums[place, i] == pytest.approx(sums[(costs <= limits[i]).all(1), i].max())
    both = within([(a, limits[0, 0]), (b, limits[0, 2])])
    fits = (costs[:, [0, 2]] <= limits[0, [0, 2]]).all(1)
    assert np.array_equal(np.ones(len(rows), bool) if both is None else both(rows), fits)
    if both is not None:
        assert a.bounds(allowed=both) == (a(rows[fits]).min(), a(rows[fits]).max())


@toys
def test_a_search_keeps_limits_on_maxima(space):
    rows, table, madds = ALL[space.name], random_maximum(space, np.random.default_rng(5)), counted_table(space, "madds")
    limit, budget = float(np.quantile(table(rows), 0.6)), float(np.quantile(madds(rows), 0.6))
    problem = Problem(
        space, lambda rows: rows.sum(1).astype(float), {"madds": madds, "peak": table}, {"peak": limit, "madds": budget}
    )
    fits = (table(rows) <= limit) & (madds(rows) <= budget)
    assert np.array_equal(problem.feasible(rows), fits)
    assert problem.fast_samples
    rng = np.random.default_rng(0)
    assert np.array_equal(np.unique(problem.sample(20_000, rng), axis=0), rows[fits])
    assert problem.feasible(problem.decode(rng.gumbel(size=(20, int(space.offsets[-1]))))).all()
    alone = Problem(space, problem.score, {"peak": table}, {"peak": "30%"})
    assert alone.feasible(alone.sample(100, rng)).all()
    assert alone.feasible(alone.decode(rng.gumbel(size=(20, int(space.offsets[-1]))))).all()


@toys
def test_what_is_refused(space):
    table, madds = random_maximum(space, np.random.default_rng(6)), counted_table(space, "madds")
    low, high = table.range
    scores = np.zeros((3, int(space.offsets[-1])))
    with pytest.raises(
        BudgetError, match=rf"scenario 1: no architecture of {space.name} has peak <= .*; feasible: .* B"
    ):
        decode([madds, table], scores, [[np.inf, high], [np.inf, low - 1], [np.inf, high]])
    with pytest.raises(BudgetError, match=r"scenario 2: no architecture of .* has madds <= 1; feasible: .* \(peak <= "):
        decode([madds, table], scores, [[np.inf, low], [np.inf, high], [1, low]])
    with pytest.raises(BudgetError, match=r"no architecture of .* has peak <= "):
        sample(table, 1, np.random.default_rng(0), low - 1)
    with pytest.raises(BudgetError, match="peak is a maximum; a least of it"):
        sample(table, 1, np.random.default_rng(0), high, low)
    with pytest.raises(SpaceError, match="it has none"):
        MaximumTable(space, "peak", "B", [])
    with pytest.raises(SpaceError, match="peak_memory is a maximum over a network, not a sum"):
        counted_table(space, "peak_memory")


def test_limits_between_which_nothing_lies_are_one():
    """So that what was prepared for one serves the others."""
    space = SPACES[0]
    table = MaximumTable(space, "peak", "B", [((2,), [10.0, 20.0])])
    assert table.at_most(12) is table.at_most(19.5)
    assert table.at_most(20) is None
    assert isinstance(table.at_most(10), Allowed)
    assert isinstance(table.nothing, CostTable)

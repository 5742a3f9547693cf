"""Limits that are no sums: maxima along a path and options that are forbidden, beside budgets, against brute force."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from toys import ALL, SPACES, random_table

from snugnet.costs import Allowed, CostTable, Sampler, counted_table, decode, make_sampler, sample
from snugnet.costs.decoding import find_feasible
from snugnet.costs.table import common_automaton
from snugnet.errors import BudgetError, SpaceError
from snugnet.spaces import get_space

spaces = pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
seeds = st.integers(0, 10**6)


def draw(seed):
    """Some limits on a toy space, and which of its architectures they allow by definition."""
    rng = np.random.default_rng(seed)
    space = SPACES[seed % 2]
    archs, active = ALL[space.name], space.active(ALL[space.name])
    fine, limits = np.ones(len(archs), dtype=bool), []
    if rng.random() < 0.7:
        scopes = [part.choices for part in space.parts] + ([(1, space.d - 1)] if rng.random() < 0.3 else [])
        tables = [(scope, rng.gamma(1, 10, [int(space.num_options[c]) for c in scope])) for scope in scopes]
        entries = [values[tuple(archs[:, c] for c in scope)] for scope, values in tables]
        peak = np.max(np.stack(np.broadcast_arrays(*entries)), axis=0)
        limit = np.quantile(peak, rng.random(), method="lower") if rng.random() < 0.5 else rng.uniform(0, peak.max())
        limits.append(Allowed.at_most(space, tables, limit, "peak"))
        fine &= peak <= limit
    if rng.random() < 0.7 or not limits:
        forbidden = {}
        for column in rng.choice(space.d, rng.integers(1, 4), replace=False):
            choice = space.choices[column]
            some = rng.choice(len(choice.options), rng.integers(1, len(choice.options) + 1), replace=False)
            forbidden[choice.name] = [choice.options[i] for i in some]
            fine &= ~(np.isin(archs[:, column], some) & active[:, column])
        limits.append(Allowed.without(space, forbidden))
    allowed = limits[0]
    for other in limits[1:]:
        allowed = allowed & other
    return space, rng, allowed, archs[fine]


@settings(max_examples=150, deadline=None)
@given(seed=seeds)
def test_what_is_allowed(seed):
    """Bounds, an unconstrained decode and the list of all are those of the allowed architectures; of none, a refusal."""
    space, rng, allowed, inside = draw(seed)
    assert np.array_equal(ALL[space.name][allowed(ALL[space.name])], inside)
    table = random_table(space, rng, whole=bool(rng.integers(2)))
    scores = rng.normal(size=(8, int(space.offsets[-1])))
    if not len(inside):
        for refused in (
            lambda: table.automaton(allowed),
            lambda: table.bounds(allowed=allowed),
            lambda: make_sampler(table, allowed=allowed),
            lambda: decode([table], scores, np.full(8, np.inf), allowed=allowed),
        ):
            with pytest.raises(BudgetError, match=f"no architecture of {space.name} is allowed: none is there "):
                refused()
        return
    costs = table(inside)
    assert table.bounds(allowed=allowed) == (costs.min(), costs.max())
    assert np.array_equal(np.unique(make_sampler(table, allowed=allowed)._list, axis=0), inside)
    rows = decode([table], scores, np.full(8, np.inf), allowed=allowed)
    assert allowed(rows).all()
    best = (space.one_hot(inside).astype(float) @ scores.T).max(0)
    assert np.einsum("nj,nj->n", space.one_hot(rows), scores) == pytest.approx(best, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_bounds_of_what_is_half_chosen(seed):
    space, rng, allowed, inside = draw(seed)
    assume(len(inside) > 0)
    table = random_table(space, rng, whole=False)
    partial = np.where(rng.random((8, space.d)) < 0.5, inside[rng.integers(len(inside), size=8)], np.int16(-1))
    low, high = table.bounds(partial, allowed)
    matters, costs = space.active(inside), table(inside)
    for row, least, most in zip(partial, low, high, strict=True):
        fits = ((row == -1) | (inside == row) | ~matters).all(axis=1)
        assert (costs[fits].min(), costs[fits].max()) == (least, most)
    others = ALL[space.name][~allowed(ALL[space.name])]
    if len(others):
        with pytest.raises(BudgetError, match="partial architecture 1 has no completion"):
            table.bounds(np.stack([inside[0], others[0]]), allowed)


@settings(max_examples=80, deadline=None)
@given(seed=seeds, whole=st.booleans(), low=st.floats(0, 1), width=st.floats(0, 1))
def test_windows_hold_exactly_what_they_should(seed, whole, low, width):
    space, rng, allowed, inside = draw(seed)
    assume(len(inside) > 0)
    table = random_table(space, rng, whole=whole)
    every = table(ALL[space.name])
    least = every.min() + low * np.ptp(every)
    most = least + width * np.ptp(every)
    costs = table(inside)
    expected = inside[(costs >= least) & (costs <= most)]
    if not len(expected):
        with pytest.raises(BudgetError, match="no architecture") as caught:
            make_sampler(table, most, least, allowed)
        assert table.describe_range(allowed) in str(caught.value)
        assert allowed.text in str(caught.value)
        return
    sampler = Sampler(table, most, least, allowed)
    assert np.array_equal(np.unique(sampler._list, axis=0), expected)
    assert len(sampler._list) == len(expected)
    counted = Sampler(table, most, least, allowed, listed=0)
    assert not whole or counted.reachable == space.ways(expected).sum()
    rows = counted.sample(50, rng)
    assert allowed(rows).all()
    assert ((table(rows) >= least) & (table(rows) <= most)).all()


@pytest.mark.parametrize(
    "seed", [seed for seed in range(40) if 10 < len(draw(seed)[3]) < len(ALL[draw(seed)[0].name])][:8]
)
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("listed", [0, 2**16])
@pytest.mark.parametrize("over", ["choices", "architectures"])
def test_samples_are_uniform(seed, whole, listed, over):
    space, rng, allowed, inside = draw(seed)
    table = random_table(space, rng, whole=whole)
    most = np.quantile(table(inside), 0.7, method="lower")
    expected = inside[table(inside) <= most]
    ways = space.ways(expected) if over == "choices" else np.ones(len(expected))
    n = max(2000, int(30 * ways.sum() / ways.min()))
    drawn = Sampler(table, most, -np.inf, allowed, over, listed=listed).sample(n, rng)
    rows, counts = np.unique(drawn, axis=0, return_counts=True)
    assert np.array_equal(rows, expected)
    if len(expected) > 1:
        assert chisquare(counts, ways * (n / ways.sum())).pvalue > 1e-4


@settings(max_examples=120, deadline=None)
@given(seed=seeds, m=st.integers(1, 2), forbidding=st.booleans())
def test_decoding_is_exact_where_the_grid_is(seed, m, forbidding):
    """Budgets attained by some architecture, allowed or not; scores that forbid options of their own."""
    space, rng, allowed, inside = draw(seed)
    assume(len(inside) > 0)
    tables = [random_table(space, rng, whole=True, name=f"cost{j}") for j in range(m)]
    scores = rng.normal(size=(6, int(space.offsets[-1]))).astype(np.float32)
    if forbidding:
        scores[np.arange(6), rng.integers(scores.shape[1], size=6)] = -np.inf
    archs = ALL[space.name]
    attained = archs[rng.integers(len(archs), size=6)]
    budgets = np.stack([table(attained) for table in tables], axis=1)
    costs = np.stack([table(inside) for table in tables], axis=1)
    values = space.one_hot(inside).astype(np.float64) @ np.maximum(scores, -1e30).T.astype(np.float64)
    values = np.where((costs[:, None] <= budgets).all(axis=2), values, -np.inf)
    for i in range(6):
        one = slice(i, i + 1)
        if values[:, i].max() > -1e20:
            row = decode(tables, scores[one], budgets[one], allowed=allowed, cells=1024 if m == 1 else 10**5)
            assert allowed(row).all()
            assert all((table(row) <= b).all() for table, b in zip(tables, budgets[i], strict=True))
            found = (space.one_hot(row)[0] * np.maximum(scores[i], -1e30)).sum()
            assert found == pytest.approx(values[:, i].max(), abs=1e-4)
        else:
            with pytest.raises(
                (BudgetError, SpaceError), match=r"^no architecture|^of what its scores allow|^the scores forbid"
            ):
                decode(tables, scores[one], budgets[one], allowed=allowed)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, m=st.integers(2, 3))
def test_exact_search_finds_whatever_is_feasible(seed, m):
    space, rng, allowed, inside = draw(seed)
    assume(len(inside) > 0)
    tables = [random_table(space, rng, whole=False, name=f"cost{j}") for j in range(m)]
    automaton = common_automaton(tables, allowed)
    costs = np.stack([table(inside) for table in tables], axis=1)
    scores = rng.normal(size=int(space.offsets[-1])).astype(np.float32)
    for limits in costs[rng.integers(len(inside), size=3)] * rng.choice([1, 0.95], size=(3, 1)):
        if (costs <= limits).all(axis=1).any():
            row = find_feasible(tables, automaton, scores, limits, allowed=allowed)[None]
            assert allowed(row).all()
            assert all(table(row)[0] <= limit for table, limit in zip(tables, limits, strict=True))
        else:
            with pytest.raises(BudgetError, match="together; feasible alone: ") as caught:
                find_feasible(tables, automaton, scores, limits, allowed=allowed)
            assert allowed.text in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_the_restricted_automaton_has_those_paths_alone(seed):
    space, _, allowed, inside = draw(seed)
    assume(len(inside) > 0)
    automaton = counted_table(space, "madds").automaton(allowed)
    rows, state = np.zeros((1, space.d), dtype=np.int16), np.zeros(1, dtype=int)
    for step in automaton.steps:
        assert set(step.source) == set(range(step.sources))
        assert set(step.target) == set(range(step.targets))
        i, k = np.nonzero(state[:, None] == step.source)
        rows, state = rows[i], step.target[k]
        rows[:, step.introduced] = step.rows[k][:, step.introduced]
    assert len(rows) == len(inside)
    assert np.array_equal(np.unique(rows, axis=0), inside)


def test_the_resolution_and_kernels_of_a_real_space():
    space = get_space("ofa-mobilenet-v3")
    table = counted_table(space, "madds")
    kernels = [choice.name for choice in space.choices if choice.kind == "kernel_size"]
    activations = [(part.choices, counted_part(space, i)) for i, part in enumerate(space.parts)]
    no_sevens = Allowed.without(space, {name: [7] for name in kernels})
    largest = max(values.max() for _, values in activations)
    small = Allowed.at_most(space, activations, 0.7 * largest, "largest output")
    both = no_sevens & small
    low, high = table.bounds(allowed=both)
    assert table.range[0] == low < high < table.range[1]
    rows = sample(table, 3000, np.random.default_rng(0), (low + high) / 2, allowed=both)
    assert both(rows).all()
    assert table(rows).max() <= (low + high) / 2
    columns = [space.column[name] for name in kernels]
    assert rows[:, columns].max() == 1
    for row in rows[:20]:
        assert max(layer.activations for layer in space.blueprint(row).layers()) <= 0.7 * largest
    scores = np.random.default_rng(1).normal(size=(40, int(space.offsets[-1])))
    decoded = decode([table], scores, np.full(40, (low + high) / 2), allowed=both)
    assert both(decoded).all()
    assert table(decoded).max() <= (low + high) / 2
    with pytest.raises(BudgetError, match=r"feasible: 121\.3M to .* MAdds \(without .* and largest output <= "):
        sample(table, 1, np.random.default_rng(0), low - 1, allowed=both)
    with pytest.raises(BudgetError, match=r"scenario 3: no architecture .*; feasible: 121\.3M to .* \(without .* "):
        decode([table], scores, np.where(np.arange(40) == 3, low - 1, np.inf), allowed=both)


def counted_part(space, i):
    """The largest output of a part's layers, by the options of its choices."""
    shape = [int(space.num_options[c]) for c in space.parts[i].choices]
    values = np.zeros(shape)
    for indices in np.ndindex(*shape):
        blocks = space.part_blocks(i, indices)
        values[indices] = max((layer.activations for block in blocks for layer in block.all_layers), default=0)
    return values


@spaces
def test_limits_that_make_no_sense(space):
    with pytest.raises(SpaceError, match="has no choice 'nothing'; choices: "):
        Allowed.without(space, {"nothing": [1]})
    name = space.choices[0].name
    with pytest.raises(SpaceError, match=f"{name} = 99 is not in this space; allowed: "):
        Allowed.without(space, {name: [99]})
    with pytest.raises(SpaceError, match="names columns"):
        Allowed.at_most(space, [((space.d,), np.zeros(2))], 3)
    with pytest.raises(BudgetError, match="a limit of peak is a number"):
        Allowed.at_most(space, [], np.nan, "peak")
    other = SPACES[1 - SPACES.index(space)]
    allowed = Allowed.without(space, {})
    with pytest.raises(SpaceError, match="what is allowed is of the space"):
        counted_table(other, "madds").automaton(allowed)
    with pytest.raises(SpaceError, match="of one space"):
        allowed & Allowed.without(other, {})


@spaces
def test_nothing_allowed_is_refused_before_any_work(space, monkeypatch):
    """Scores of a million scenarios are not even looked at."""
    table = counted_table(space, "madds")
    nothing = Allowed.at_most(space, table.tables, -1, "peak")
    monkeypatch.setattr("snugnet.costs.decoding._Decoder", None)
    monkeypatch.setattr("snugnet.costs.sampling.make_counts", None)
    with pytest.raises(BudgetError, match=f"no architecture of {space.name} is allowed: none is there peak <= -1"):
        decode([table], np.zeros((1, int(space.offsets[-1]))), np.full(1, np.inf), allowed=nothing)
    with pytest.raises(BudgetError, match="peak <= -1"):
        sample(table, 1, np.random.default_rng(0), allowed=nothing)


def test_a_constant_has_limits_too():
    space = SPACES[0]
    table = CostTable(space, "fixed", "units", [((), 5.0)])
    allowed = Allowed.without(space, {"k1": [1]})
    assert table.bounds(allowed=allowed) == (5, 5)
    assert (decode([table], np.zeros((2, int(space.offsets[-1]))), [5, 5], allowed=allowed)[:, 2] == 1).all()

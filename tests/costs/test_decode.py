import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import ALL, SPACES, random_table

from snugnet.costs import CostTable, counted_table, decode
from snugnet.costs.decoding import find_feasible
from snugnet.costs.exact.best import Lattice
from snugnet.costs.stairs import make_stairs
from snugnet.costs.table import common_automaton
from snugnet.errors import BudgetError, SpaceError
from snugnet.spaces import get_space

spaces = pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)


def value(space, rows, scores):
    """Sums of scores over the choices that matter: shape (len(rows), n)."""
    return space.one_hot(rows).astype(np.float64) @ scores.astype(np.float64).T


def best(space, tables, scores, budgets, margins=0.0):
    """By enumeration: the best score within the budgets less a margin, shape (n,); minus infinity where there is none."""
    archs = ALL[space.name]
    costs = np.stack([t(archs) for t in tables], axis=1)
    values = np.nan_to_num(value(space, archs, np.maximum(scores, -1e30)), neginf=-1e30)
    values = np.where((costs[:, None] <= budgets - margins).all(axis=2), values, -np.inf)
    return values.max(axis=0)


def margin(tables, budgets, cells):
    """T * delta for each scenario and table, as documented."""
    steps = len(common_automaton(tables).steps)
    return np.stack([steps * 4 * (budgets[:, m] - t.range[0]) / cells for m, t in enumerate(tables)], axis=1)


def draw(space, seed, m, n, *, whole):
    rng = np.random.default_rng(seed)
    tables = [random_table(space, rng, whole=whole, name=f"cost{j}") for j in range(m)]
    scores = rng.normal(size=(n, int(space.offsets[-1]))).astype(np.float32)
    # Every budget is feasible: attained by an architecture, or a little more.
    attained = ALL[space.name][rng.integers(len(ALL[space.name]), size=n)]
    budgets = np.stack([t(attained) for t in tables], axis=1)
    budgets += rng.exponential(1, budgets.shape) * rng.integers(0, 2, budgets.shape)
    return tables, scores, budgets


@spaces
@pytest.mark.parametrize("m", [1, 2])
def test_exact_where_the_grid_is(space, m):
    """Whole costs of a few hundred units: one cell a unit."""
    tables, scores, budgets = draw(space, 0, m, 150, whole=True)
    rows = decode(tables, scores, budgets, cells=1024 if m == 1 else 10**5)
    assert np.array_equal(rows, space.rows(rows))
    assert all((t(rows) <= budgets[:, j]).all() for j, t in enumerate(tables))
    found = np.diagonal(value(space, rows, scores))
    assert found == pytest.approx(best(space, tables, scores, budgets), abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6), m=st.integers(1, 3), whole=st.booleans(), cells=st.sampled_from([1, 7, 60, 400, 5000])
)
def test_within_budgets_and_optimal_to_the_quantisation(seed, m, whole, cells):
    space = SPACES[seed % 2]
    tables, scores, budgets = draw(space, seed, m, 12, whole=whole)
    rows = decode(tables, scores, budgets, cells=cells)
    assert np.array_equal(rows, space.rows(rows))
    assert all((t(rows) <= budgets[:, j]).all() for j, t in enumerate(tables))
    found = np.diagonal(value(space, rows, scores))
    assert (found <= best(space, tables, scores, budgets) + 1e-5).all()
    side = cells if m == 1 else min(cells, max(2, round((16 * cells) ** (1 / m))))
    assert (found >= best(space, tables, scores, budgets, margin(tables, budgets, side)) - 1e-5).all()


@pytest.mark.parametrize("seed", [58, 120])
def test_fewer_cells_than_are_traced_at_once(seed):
    """Found by the test above: a scenario out of cells was traced back from nowhere, past the start of the grid."""
    space = SPACES[seed % 2]
    tables, scores, budgets = draw(space, seed, 2, 6, whole=bool(seed // 2 % 2))
    rows = decode(tables, scores, budgets, cells=400)
    assert all((t(rows) <= budgets[:, j]).all() for j, t in enumerate(tables))


@spaces
def test_fine_grids_find_the_optimum_of_real_costs(space):
    tables, scores, budgets = draw(space, 3, 1, 200, whole=False)
    rows = decode(tables, scores, budgets, cells=20_000)
    found, optimum = np.diagonal(value(space, rows, scores)), best(space, tables, scores, budgets)
    assert (found >= optimum - 1e-5).mean() > 0.99


def looked_up(space, rng, name="cost"):
    """A real cost that is no sum: one table over all choices."""
    return CostTable(space, name, "units", [((), 7.0), (range(space.d), rng.gamma(0.6, 10, space.num_options))])


@spaces
@pytest.mark.parametrize("m", [1, 2])
def test_a_table_over_all_choices_needs_no_grid(space, m):
    """What none has to be rounded for is found exactly, however coarse the grid would be; with a sum beside it as well."""
    rng = np.random.default_rng(11)
    tables = [looked_up(space, rng), random_table(space, rng, whole=False, name="sum")][:m]
    scores = rng.normal(size=(150, int(space.offsets[-1])))
    scores[rng.random(scores.shape) < 0.05] = -np.inf
    archs = ALL[space.name]
    attained = archs[rng.integers(len(archs), size=150)]
    scores = np.where(
        space.one_hot(attained) > 0, np.maximum(scores, -3), scores
    )  # what attains the budget is not forbidden
    budgets = np.stack([t(attained) for t in tables], axis=1)
    rows = decode(tables, scores, budgets, cells=1)
    assert all((t(rows) <= budgets[:, j]).all() for j, t in enumerate(tables))
    found = np.diagonal(value(space, rows, np.maximum(scores, -1e30)))
    assert found == pytest.approx(best(space, tables, scores, budgets), abs=1e-9)


@spaces
def test_what_no_architecture_of_a_look_up_meets(space):
    rng = np.random.default_rng(12)
    table, other = looked_up(space, rng, "one"), looked_up(space, rng, "two")
    scores = np.zeros((4, int(space.offsets[-1])))
    budgets = np.full((4, 2), 1e9)
    budgets[3] = table.range[0], other.range[0]
    with pytest.raises(BudgetError, match=r"scenario 3: no architecture of \w+ has one <= .* and two <= .* together"):
        decode([table, other], scores, budgets)
    scores[2, space.offsets[0] + int(table.terms.ends(table.automaton())[0, 0])] = -np.inf
    with pytest.raises(BudgetError, match="scenario 2: of what its scores allow, no architecture has one <="):
        decode([table], scores, np.full(4, table.range[0]))


@spaces
@pytest.mark.parametrize("whole", [True, False])
def test_budget_that_only_the_cheapest_meets(space, whole):
    rng = np.random.default_rng(4)
    table = random_table(space, rng, whole=whole)
    low = table.range[0]
    budgets = np.array([low, np.nextafter(low, np.inf), low + 1e-9, low + 1e-3])
    scores = rng.normal(size=(4, int(space.offsets[-1]))).astype(np.float32)
    rows = decode([table], scores, budgets)
    assert (table(rows) <= budgets).all()
    assert np.diagonal(value(space, rows, scores)) == pytest.approx(
        best(space, [table], scores, budgets[:, None]), abs=1e-6
    )


@spaces
def test_without_bounds_the_argmax(space):
    rng = np.random.default_rng(5)
    tables = [random_table(space, rng, whole=False) for _ in range(2)]
    scores = rng.normal(size=(100, int(space.offsets[-1]))).astype(np.float32)
    budgets = np.full((100, 2), np.inf)
    rows = decode(tables, scores, budgets)
    assert np.diagonal(value(space, rows, scores)) == pytest.approx(best(space, tables, scores, budgets), abs=1e-6)


@spaces
def test_forbidden_options(space):
    rng = np.random.default_rng(6)
    table = random_table(space, rng, whole=True)
    scores = rng.normal(size=(200, int(space.offsets[-1]))).astype(np.float32)
    for i in range(200):  # all options but one of some choice
        choice = rng.integers(space.d)
        keep = rng.integers(space.num_options[choice])
        options = np.arange(space.offsets[choice], space.offsets[choice + 1])
        scores[i, np.delete(options, keep)] = -np.inf
    allowed = ~np.isneginf(scores)
    low, high = (table(table.terms.extreme(table.automaton(), allowed, sign)[0]) for sign in (-1, 1))
    budgets = np.floor(low + (high - low) * rng.random(200) * rng.integers(0, 2, 200))
    rows = decode([table], scores, budgets)
    assert (table(rows) <= budgets).all()
    assert not np.isneginf(scores[np.arange(200)[:, None], space.offsets[:-1] + rows])[space.active(rows)].any()
    found = np.array([scores[i, space.one_hot(rows[i : i + 1])[0] > 0].sum() for i in range(200)])
    assert found == pytest.approx(best(space, [table], scores, budgets[:, None]), abs=1e-5)
    worst = int(np.argmax(low - table.range[0]))
    with pytest.raises(BudgetError, match=f"scenario {worst}: of what its scores allow"):
        decode([table], scores, np.where(np.arange(200) == worst, low - 1, np.inf))
    with pytest.raises(SpaceError, match="scenario 0: the scores forbid every architecture"):
        decode([table], np.full_like(scores, -np.inf), np.full(200, np.inf))


@spaces
@pytest.mark.parametrize("seed", range(8))
def test_two_budgets_on_the_edge_of_what_is_feasible(space, seed):
    """The smallest second cost under the first budget: a point of the Pareto front, often the only one left."""
    rng = np.random.default_rng(seed)
    a, b = (random_table(space, rng, whole=seed % 2 == 0) for _ in range(2))
    archs = ALL[space.name]
    first = np.quantile(a(archs), rng.random(20) ** 2, method="lower")
    second = np.array([b(archs[a(archs) <= f]).min() for f in first])
    scores = rng.normal(size=(20, int(space.offsets[-1]))).astype(np.float32)
    rows = decode([a, b], scores, np.stack([first, second], axis=1), cells=16)
    assert (a(rows) <= first).all()
    assert (b(rows) == second).all()
    less = np.nextafter(second, -np.inf)
    i = int(np.argmax(second - b.range[0]))
    if less[i] >= b.range[0]:
        with pytest.raises(BudgetError, match=r"^no architecture of \w+ has cost <= .* and cost <= .* together"):
            decode([a, b], scores[i : i + 1], np.array([[first[i], less[i]]]), cells=16)


@spaces
@pytest.mark.parametrize("m", [2, 3])
def test_exact_search_finds_whatever_is_feasible(space, m):
    for seed in range(15):
        tables, scores, budgets = draw(space, seed, m, 3, whole=False)
        for row, limits in zip(scores, budgets * np.random.default_rng(seed).choice([1, 0.9]), strict=True):
            feasible = np.isfinite(best(space, tables, row[None], limits[None]))[0]
            plan = common_automaton(tables)
            if feasible:
                arch = find_feasible(tables, plan, row, limits)
                assert all(t(arch[None])[0] <= b for t, b in zip(tables, limits, strict=True))
            else:
                with pytest.raises(BudgetError, match="together"):
                    find_feasible(tables, plan, row, limits)


@spaces
def test_exact_search_on_the_pareto_front(space):
    """Budgets that only a point of the front meets, one after the other along it."""
    rng = np.random.default_rng(7)
    a, b = (random_table(space, rng, whole=False) for _ in range(2))
    archs, scores = ALL[space.name], np.zeros(int(space.offsets[-1]), dtype=np.float32)
    for first in np.quantile(a(archs), np.linspace(0, 1, 25), method="lower"):
        second = b(archs[a(archs) <= first]).min()
        arch = find_feasible([a, b], common_automaton([a, b]), scores, np.array([first, second]))
        assert a(arch[None])[0] <= first
        assert b(arch[None])[0] == second


def test_rounding_is_at_most_half_a_cell_a_step():
    table = random_table(SPACES[0], np.random.default_rng(0), whole=False)
    excess = table.excess(table.automaton())
    for upper in (excess.span, excess.span / 4):
        lattice = Lattice(table.automaton(), [excess], [upper], 100)
        assert lattice.deltas[0] == pytest.approx(upper / 100)
        assert (lattice.slack <= len(table.automaton().steps) * lattice.deltas[0] / 2).all()


@pytest.fixture(scope="module")
def ofa():
    space = get_space("ofa-mobilenet-v3")
    return space, counted_table(space, "madds"), counted_table(space, "params")


def scenarios(ofa, n, seed=0):
    space, madds, params = ofa
    rng = np.random.default_rng(seed)
    rising = np.concatenate([np.arange(k) for k in space.num_options])
    scores = (rng.normal(size=(n, 135)) + rising).astype(np.float32)
    budgets = np.stack([t.range[0] + rng.random(n) ** 2 * (t.range[1] - t.range[0]) for t in (madds, params)], axis=1)
    return scores, budgets


def test_ofa_budgets_are_used_well(ofa):
    space, madds, _ = ofa
    scores, budgets = scenarios(ofa, 300)
    rows = decode([madds], scores, budgets[:, 0])
    costs = madds(rows)
    assert (costs <= budgets[:, 0]).all()
    fine = decode([madds], scores, budgets[:, 0], cells=8192)
    found, better = (np.einsum("nj,nj->n", space.one_hot(r), scores) for r in (rows, fine))
    assert (better - found).mean() < 0.02
    assert (better - found).max() < 1


def test_results_do_not_depend_on_the_batch(ofa):
    _, madds, params = ofa
    scores, budgets = scenarios(ofa, 120)
    budgets[:, 1] = np.inf
    together = decode([madds, params], scores, budgets)
    assert np.array_equal(together, decode([madds, params], scores, budgets))
    for i in (0, 17, 119):
        alone = decode([madds, params], scores[i : i + 1], budgets[i : i + 1])
        assert np.array_equal(alone[0], together[i])
    assert np.array_equal(together[::-1], decode([madds, params], scores[::-1], budgets[::-1]))


@pytest.mark.parametrize("m", [1, 2])
@pytest.mark.parametrize("values", [2**16, 2**12])
def test_scenarios_that_share_scores_get_what_each_gets_alone(ofa, monkeypatch, m, values):
    _, *tables = ofa
    monkeypatch.setattr("snugnet.costs.decoding._STATE_VALUES", values)
    monkeypatch.setattr("snugnet.costs.decoding._FINAL_VALUES", 2**13)
    scores, budgets = scenarios(ofa, 200)
    which = np.random.default_rng(5).integers(0, 9, 200)
    scores[3, -1], budgets[0, 0] = -np.inf, np.inf
    if m == 1:
        budgets[:, 1] = np.inf
    shared = decode(tables, scores[:9], budgets, which=which)
    assert np.array_equal(shared, decode(tables, scores[which], budgets))
    monkeypatch.setattr("snugnet.costs.decoding._AT_A_TIME", 13)
    assert np.array_equal(shared, decode(tables, scores[:9], budgets, which=which))


@spaces
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), m=st.integers(1, 2))
def test_shared_scores_in_small_spaces(space, seed, m):
    tables, scores, budgets = draw(space, seed, m, 12, whole=False)
    which = np.random.default_rng(seed).integers(0, 3, 12)
    assert np.array_equal(
        decode(tables, scores[:3], budgets, which=which, cells=64), decode(tables, scores[which], budgets, cells=64)
    )


@pytest.mark.parametrize("which", [[0, 1], [0, 1, 3], [-1, 0, 1], [0.0, 1.0, 2.0], [[0, 1, 2]]])
def test_which_scores_a_scenario_has(ofa, which):
    _, madds, _ = ofa
    scores, budgets = scenarios(ofa, 3)
    with pytest.raises(SpaceError, match=r"which has a row of 3 scores for each scenario|budgets have shape \(2, 1\)"):
        decode([madds], scores, budgets[:, 0], which=np.array(which))


def test_many_scenarios_go_a_few_at_a_time(ofa, monkeypatch):
    _, madds, params = ofa
    scores, budgets = scenarios(ofa, 50)
    budgets[:, 1] = np.inf
    together = decode([madds, params], scores, budgets)
    monkeypatch.setattr("snugnet.costs.decoding._AT_A_TIME", 7)
    assert np.array_equal(decode([madds, params], scores, budgets), together)
    scores[44] = -np.inf
    with pytest.raises(SpaceError, match="scenario 44: the scores forbid every architecture"):
        decode([madds, params], scores, budgets)
    scores[44, 1:] = 0  # the first depth alone
    with pytest.raises(BudgetError, match="scenario 44: of what its scores allow"):
        decode([madds, params], scores, np.where(np.arange(50)[:, None] == 44, madds.range[0], budgets))


def test_ofa_two_budgets(ofa):
    space, madds, params = ofa
    scores, _ = scenarios(ofa, 60)
    attained = space.sample(60, np.random.default_rng(3))
    budgets = np.stack([madds(attained), params(attained)], axis=1)
    rows = decode([madds, params], scores, budgets)
    assert (madds(rows) <= budgets[:, 0]).all()
    assert (params(rows) <= budgets[:, 1]).all()
    assert (np.einsum("nj,nj->n", space.one_hot(rows) - space.one_hot(attained), scores) > 0).mean() > 0.9


def test_ofa_every_budget_at_the_edge(ofa):
    _, madds, params = ofa
    scores, _ = scenarios(ofa, 4)
    low = [madds.range[0], params.range[0]]
    assert (decode([madds, params], scores, np.tile(low, (4, 1))) == 0).all()
    assert (decode([madds, params], scores, np.tile([low[0] + 10, 1e9], (4, 1))) == 0).all()


def test_infeasible_budgets_name_the_scenario(ofa):
    _, madds, params = ofa
    scores, budgets = scenarios(ofa, 10)
    budgets[7, 0] = 1e6
    with pytest.raises(
        BudgetError, match=r"scenario 7: no architecture .* madds <= 1M; feasible: 121\.3M to 566\.2M MAdds"
    ):
        decode([madds, params], scores, budgets)
    budgets[7, 0] = np.nan
    with pytest.raises(BudgetError, match=r"scenario 7: .*NaN"):
        decode([madds, params], scores, budgets)


def test_bad_input(ofa):
    _, madds, params = ofa
    scores, budgets = scenarios(ofa, 3)
    for bad in (np.nan, np.inf):
        with pytest.raises(SpaceError, match="scenario 2"):
            decode([madds], np.where(np.arange(3)[:, None] == 2, bad, scores), budgets[:, 0])
    for args in (
        ([], scores, budgets),
        ([madds], scores, budgets),
        ([madds, params], scores, budgets[:, 0]),
        ([madds], scores[:, :-1], budgets[:, 0]),
        ([madds], scores[0], budgets[0]),
        ([madds, random_table(SPACES[0], np.random.default_rng(0), whole=True)], scores, budgets),
    ):
        with pytest.raises(SpaceError):
            decode(*args)
    with pytest.raises(SpaceError, match="cells"):
        decode([madds], scores, budgets[:, 0], cells=0)
    assert decode([madds], scores[:0], budgets[:0, 0]).shape == (0, 45)
    assert decode([madds], scores.astype(np.float64), budgets[:, 0]).shape == (3, 45)


def test_constant_costs_never_bind(ofa):
    space, madds, _ = ofa
    constant = CostTable(space, "fixed", "units", [((), 5.0)])
    scores, budgets = scenarios(ofa, 5)
    rows = decode([constant, madds], scores, np.stack([np.full(5, 5.0), budgets[:, 0]], axis=1))
    assert np.array_equal(rows, decode([madds], scores, budgets[:, 0]))
    with pytest.raises(BudgetError):
        decode([constant], scores, np.full(5, 4.9))


def test_budgets_that_each_rule_out_what_the_other_needs():
    """Two budgets at their minima leave no transition at some step; that is an error of the budgets, not a crash."""
    space = SPACES[0]
    rng = np.random.default_rng(0)
    tables = [random_table(space, rng, whole=True, name=name) for name in ("a", "b")]
    costs = np.stack([table(ALL[space.name]) for table in tables], axis=1)
    assert not (costs <= costs.min(0)).all(axis=1).any()
    with pytest.raises(BudgetError, match="together"):
        decode(tables, np.zeros((1, int(space.offsets[-1]))), costs.min(0)[None])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    place=st.sampled_from(SPACES),
    cells=st.sampled_from([4, 32, 512]),
    whole=st.booleans(),
    ties=st.booleans(),
)
def test_stairs_answer_what_the_decode_does(seed, place, cells, whole, ties):
    rng = np.random.default_rng(seed)
    table = random_table(place, rng, whole=whole, name="cost")
    scores = rng.normal(size=(6, int(place.offsets[-1]))).astype(np.float32)
    scores = np.round(scores) if ties else scores
    (low, high), n = table.range, len(scores)
    limits = low + (high - low) * rng.random(n) ** 3
    above, upto = limits - (high - low) * rng.random(n), limits + (high - low) * rng.random(n)
    for score, limit, stairs in zip(
        scores, limits, make_stairs(table, scores, limits, above, upto, cells=cells), strict=True
    ):
        last = min(stairs.upto, high)
        asked = np.concatenate([[limit, last], stairs.costs, stairs.above + (last - stairs.above) * rng.random(20)])
        asked = asked[(asked > stairs.above) & (asked >= low)]
        assert stairs.above < limit <= stairs.upto
        found = np.stack([stairs.row(each) for each in asked.tolist()])
        assert np.array_equal(
            found, decode([table], score[None], asked, which=np.zeros(len(asked), np.intp), cells=cells)
        )


@pytest.mark.parametrize("name", ["ofa-mobilenet-v3", "mobilenet-v2", "spos-shufflenet-v2", "nas-bench-201"])
def test_stairs_of_real_spaces(name):
    space = get_space(name)
    table, rng = counted_table(space, "madds"), np.random.default_rng(0)
    scores = rng.normal(size=(8, int(space.offsets[-1]))).astype(np.float32)
    low, high = table.range
    limits = np.geomspace(low * 1.001, high, 8)
    for score, stairs in zip(scores, make_stairs(table, scores, limits, limits * 0.9, limits * 1.1), strict=True):
        asked = np.linspace(max(np.nextafter(stairs.above, np.inf), low), min(stairs.upto, high), 50)
        wanted = decode([table], score[None], asked, which=np.zeros(50, np.intp))
        assert np.array_equal(np.stack([stairs.row(each) for each in asked.tolist()]), wanted)
        assert stairs.costs == sorted(set(stairs.costs))
        assert stairs.costs == table(stairs.rows).tolist()

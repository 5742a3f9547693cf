import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare
from toys import ALL, SPACES, random_table

from snugnet.costs import CostTable, Sampler, counted_table, make_sampler, sample
from snugnet.costs.exact import count
from snugnet.errors import BudgetError
from snugnet.spaces import get_space

spaces = pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)


@pytest.fixture(scope="module")
def madds():
    return counted_table(get_space("ofa-mobilenet-v3"), "madds")


def counted(space, rows, over):
    """How often each row counts."""
    return space.ways(rows) if over == "choices" else np.ones(len(rows))


def window(table, archs, low, high):
    """Quantiles of the cost as a window, and the architectures in it."""
    costs = table(archs)
    least = -np.inf if low is None else np.quantile(costs, low, method="lower")
    most = np.inf if high is None else np.quantile(costs, high, method="lower")
    return least, most, archs[(costs >= least) & (costs <= most)]


@spaces
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("listed", [0, 2**16])
@pytest.mark.parametrize(("low", "high"), [(None, None), (None, 0.1), (None, 0.6), (0.3, 0.4), (0.9, None), (0, 0)])
@pytest.mark.parametrize("over", ["choices", "architectures"])
def test_samples_are_uniform(space, whole, listed, low, high, over):
    table = random_table(space, np.random.default_rng(0), whole=whole)
    least, most, inside = window(table, ALL[space.name], low, high)
    sampler = Sampler(table, most, least, over=over, listed=listed)
    ways = counted(space, inside, over)
    n = max(2000, int(30 * ways.sum() / ways.min()))
    rows, counts = np.unique(sampler.sample(n, np.random.default_rng(1)), axis=0, return_counts=True)
    assert counts.sum() == n
    if whole or listed:  # on the exact grid nothing is rounded
        assert sampler.reachable == ways.sum() or listed
    assert np.array_equal(rows, inside)
    if len(inside) > 1:
        assert chisquare(counts, ways * (n / ways.sum())).pvalue > 1e-4


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), whole=st.booleans(), low=st.floats(0, 1), width=st.floats(0, 1))
def test_window_holds_exactly_what_it_should(seed, whole, low, width):
    space = SPACES[seed % 2]
    table, archs = random_table(space, np.random.default_rng(seed), whole=whole), ALL[space.name]
    costs = table(archs)
    least = costs.min() + low * np.ptp(costs)
    most = least + width * np.ptp(costs)
    inside = archs[(costs >= least) & (costs <= most)]
    if not len(inside):
        with pytest.raises(BudgetError, match="no architecture"):
            make_sampler(table, most, least)
        return
    sampler = make_sampler(table, most, least)
    assert np.array_equal(np.unique(sampler._list, axis=0), inside)
    assert len(sampler._list) == len(inside)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), low=st.floats(0, 1), width=st.floats(0, 1))
def test_a_table_over_all_choices_is_listed(seed, low, width):
    """Without counting: on a grid it would take a pass for each architecture."""
    space, rng = SPACES[seed % 2], np.random.default_rng(seed)
    table = CostTable(space, "cost", "units", [(range(space.d), rng.gamma(0.6, 10, space.num_options))])
    archs, costs = ALL[space.name], table(ALL[space.name])
    least, most = costs.min() + low * np.ptp(costs), costs.min() + (low + width**8) * np.ptp(costs)
    inside = (costs >= least) & (costs <= most)
    if inside.any():
        sampler = Sampler(table, most, least)
        assert np.array_equal(np.unique(sampler._list, axis=0), archs[inside])
        assert sampler.reachable == space.ways(archs[inside]).sum()
        return
    below, above = (f"{value:,.10g}" for value in (costs[costs < least].max(), costs[costs > most].min()))
    with pytest.raises(BudgetError, match=f"the nearest below and above have {below} and {above} units"):
        Sampler(table, most, least)


@spaces
@pytest.mark.parametrize("over", ["choices", "architectures"])
def test_counts_on_the_exact_grid(space, over):
    table, archs = random_table(space, np.random.default_rng(3), whole=True), ALL[space.name]
    for budget in np.quantile(table(archs), [0, 0.01, 0.5, 1]):
        expected = counted(space, archs[table(archs) <= budget], over).sum()
        assert Sampler(table, budget, -np.inf, over=over, listed=0).reachable == expected


def test_cheapest_alone_and_just_above(madds):
    low = madds.range[0]
    for budget in (low, np.nextafter(low, np.inf), low + 100):
        assert (sample(madds, 10, np.random.default_rng(0), budget) == 0).all()
    rows = np.unique(sample(madds, 500, np.random.default_rng(0), low + 263_424), axis=0)
    assert len(rows) == 2
    assert sorted(madds(rows)) == [low, low + 263_424]


@pytest.mark.parametrize("budget", [150e6, 200e6, 300e6, 450e6, None])
def test_budgets_on_ofa(madds, budget):
    sampler = make_sampler(madds, budget)
    rows = sampler.sample(5000, np.random.default_rng(0))
    assert rows.shape == (5000, 45)
    assert rows.dtype == np.int16
    assert np.array_equal(rows, madds.space.rows(rows))
    assert budget is None or madds(rows).max() <= budget
    assert sampler.tries < 1.05
    assert make_sampler(madds, budget) is sampler


def test_window_on_ofa(madds):
    costs = madds(sample(madds, 5000, np.random.default_rng(0), 300e6, 295e6))
    assert costs.min() >= 295e6
    assert costs.max() <= 300e6
    assert make_sampler(madds, 300e6, 295e6).tries < 1.05


def test_uniform_over_choices_every_depth_is_as_frequent(madds):
    """As the space itself draws, and the same within a budget: whatever was drawn and is in it."""
    depth = sample(madds, 40_000, np.random.default_rng(0))[:, 0]
    assert chisquare(np.bincount(depth)).pvalue > 1e-4
    drawn = madds.space.sample(400_000, np.random.default_rng(1))
    kept = drawn[madds(drawn) <= 250e6]
    within = sample(madds, len(kept), np.random.default_rng(2), 250e6)
    for column in (0, 1, 2):
        counts = np.stack([np.bincount(each[:, column], minlength=4)[:4] for each in (kept, within)])
        assert chi2_contingency(counts[:, counts.sum(0) > 0]).pvalue > 1e-4


def test_uniform_over_architectures_deep_networks_are_most(madds):
    """Of 7371 stages 81 have depth 2, 729 depth 3, 6561 depth 4."""
    depth = sample(madds, 40_000, np.random.default_rng(0), over="architectures")[:, 0]
    assert chisquare(np.bincount(depth), np.array([81, 729, 6561]) / 7371 * 40_000).pvalue > 1e-4


def test_same_seed_same_samples(madds):
    first, other, again = (sample(madds, 10_000, np.random.default_rng(seed), 250e6) for seed in (5, 6, 5))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_infeasible_budget(madds):
    with pytest.raises(BudgetError, match=r"feasible: 121\.3M to 566\.2M"):
        sample(madds, 1, np.random.default_rng(0), 1e6)
    with pytest.raises(BudgetError, match="is a number"):
        sample(madds, 1, np.random.default_rng(0), float("nan"))


@pytest.mark.parametrize(("most", "least"), [(2e8, 3e8), (7e8, 6e8)])
def test_windows_outside(madds, most, least):
    with pytest.raises(BudgetError, match="feasible"):
        sample(madds, 1, np.random.default_rng(0), most, least)


def test_empty_window_names_its_neighbours(madds):
    low = madds.range[0]
    with pytest.raises(BudgetError, match=r"nearest below and above have 121,278,672 and 121,542,096 MAdds"):
        sample(madds, 1, np.random.default_rng(0), low + 1000, low + 1)
    with pytest.raises(BudgetError, match="nearest below and above"):  # all costs are 16 apart
        sample(madds, 1, np.random.default_rng(0), low + 16 * 9_999_999 + 9, low + 16 * 9_999_999 + 3)


def test_no_samples(madds):
    assert sample(madds, 0, np.random.default_rng(0), 2e8).shape == (0, 45)


def test_a_window_too_narrow_for_real_costs_gives_up(madds):
    """Millions of architectures lie within the rounding, none in the window: this ends, and says what is near."""
    rng = np.random.default_rng(0)
    tables = [(scope, values * 1e-7 * rng.uniform(0.9, 1.1, values.shape)) for scope, values in madds.tables]
    table = CostTable(madds.space, "latency", "ms", tables)
    middle = sum(table.range) / 2
    with pytest.raises(BudgetError, match=r"was found in 1,048,576 draws .* nearest below and above have") as caught:
        sample(table, 5, rng, middle + 1e-14, middle)
    below, above = (float(x) for x in str(caught.value).split("have ")[2].split(" ms")[0].split(" and "))
    assert middle - 1e-3 < below < middle < above < middle + 1e-3


@pytest.mark.parametrize("name", ["spos-shufflenet-v2", "attentive-nas"])
def test_draws_by_groups_of_transitions_are_the_plain_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = counted_table(get_space(name), "madds")
    low, high = table.range
    drawn = {}
    for grouped in (count._GROUPED, 10**9):
        monkeypatch.setattr(count, "_GROUPED", grouped)
        count.make_counts.cache_clear()
        sampler = Sampler(table, low + 0.4 * (high - low), -np.inf)
        drawn[grouped] = sampler.sample(20_000, np.random.default_rng(1))
        assert bool(sampler._counts._sums) == (grouped < 10**9)
    one, other = drawn.values()
    assert np.array_equal(one, other)

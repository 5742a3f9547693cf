import time

import numpy as np
import pytest
import torch
from toys import ALL, SPACES, all_rows, random_table

from snugnet.costs import CostTable, counted_table, decode, sample
from snugnet.errors import BudgetError, SpaceError
from snugnet.spaces import get_space

spaces = pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
COUNTS = ["madds", "params", "activations"]


@pytest.fixture(scope="module")
def ofa():
    return get_space("ofa-mobilenet-v3")


@spaces
@pytest.mark.parametrize("count", COUNTS)
def test_counted_cost_is_the_blueprint_s(space, count):
    archs = ALL[space.name]
    assert len(archs) == space.size
    blueprints = [space.blueprint(row) for row in archs]
    expected = [sum(getattr(layer, count) for layer in blueprint.layers()) for blueprint in blueprints]
    assert counted_table(space, count)(archs).tolist() == expected


@pytest.mark.parametrize("options", [{}, {"width_mult": 1.2, "resolution": 171}, {"resolution": 32, "depths": [1, 3]}])
def test_counted_cost_on_ofa(options):
    space = get_space("ofa-mobilenet-v3", **options)
    archs = space.sample(60, np.random.default_rng(0))
    blueprints = [space.blueprint(row) for row in archs]
    assert counted_table(space, "madds")(archs).tolist() == [b.madds for b in blueprints]
    assert counted_table(space, "params")(archs).tolist() == [b.params for b in blueprints]


def test_number_of_classes_changes_the_constant_alone(ofa):
    table, other = counted_table(ofa, "params"), counted_table(ofa, "params", num_classes=6)
    same = counted_table(ofa.with_options(num_classes=6), "params")
    archs = ofa.sample(20, np.random.default_rng(0))
    assert (other(archs) == same(archs)).all()
    assert table.constant - other.constant == 994 * 1281
    assert all((a[1] == b[1]).all() for a, b in zip(table.tables, other.tables, strict=True))


def test_unknown_count(ofa):
    with pytest.raises(SpaceError, match="known: activations, bitops, madds, params"):
        counted_table(ofa, "flops")


@spaces
def test_rows_need_not_be_canonical(space):
    table = random_table(space, np.random.default_rng(1), whole=False)
    rows = all_rows(space)
    assert np.array_equal(table(rows), table(space.canonical(rows)))


def test_cost_does_not_depend_on_the_batch(ofa):
    table = counted_table(ofa, "madds")
    table = CostTable(ofa, "ms", "ms", [(scope, values * np.pi * 1e-7) for scope, values in table.tables])
    archs = ofa.sample(2500, np.random.default_rng(0))
    together = table(archs)
    assert all(table(archs[i : i + 1])[0] == together[i] for i in range(0, 2500, 97))
    assert np.array_equal(table(archs[5:300]), together[5:300])
    assert table(archs[:0]).shape == (0,)


@spaces
def test_expectation_is_the_sum_over_everything(space):
    rng = np.random.default_rng(2)
    table = random_table(space, rng, whole=False)
    probabilities = [rng.dirichlet(np.ones(k), 4) for k in space.num_options]
    rows = all_rows(space)
    weights = np.prod([p[:, rows[:, c]] for c, p in enumerate(probabilities)], axis=0)
    assert table.expectation(probabilities) == pytest.approx(weights @ table(rows), rel=1e-12)


def one_hot(space, rows, dtype=torch.float32):
    return [
        torch.eye(int(k), dtype=dtype)[torch.from_numpy(rows[:, c]).long()] for c, k in enumerate(space.num_options)
    ]


def test_expectation_at_hard_probabilities_is_exact(ofa):
    table = counted_table(ofa, "madds")
    archs = ofa.sample(64, np.random.default_rng(0))
    hard = one_hot(ofa, archs)
    assert table.expectation(hard).dtype == torch.float64
    assert table.expectation(hard).tolist() == table(archs).tolist()
    assert table.expectation([p.numpy() for p in hard]).tolist() == table(archs).tolist()


@spaces
def test_expectation_gradients(space):
    rng = np.random.default_rng(3)
    table = random_table(space, rng, whole=False)
    logits = [torch.from_numpy(rng.normal(size=(2, k))).requires_grad_() for k in space.num_options]
    assert torch.autograd.gradcheck(lambda *xs: table.expectation([x.softmax(-1) for x in xs]), logits)


def test_expectation_float32_gradients_and_shape(ofa):
    table = counted_table(ofa, "madds")
    logits = [torch.zeros(16, int(k), requires_grad=True) for k in ofa.num_options]
    table.expectation([x.softmax(-1) for x in logits]).sum().backward()
    assert all(x.grad is not None and x.grad.dtype == torch.float32 and x.grad.isfinite().all() for x in logits)
    with pytest.raises(SpaceError, match="45 choices"):
        table.expectation(logits[:3])


def test_expectation_of_a_constant(ofa):
    table = CostTable(ofa, "constant", "units", [((), 5.0)])
    assert table.expectation([np.ones((3, k)) / k for k in ofa.num_options]).tolist() == [5, 5, 5]
    assert table(ofa.largest).tolist() == [5]
    assert table.bounds() == (5, 5)


@spaces
@pytest.mark.parametrize("whole", [True, False])
def test_bounds_are_those_of_all_completions(space, whole):
    rng = np.random.default_rng(4)
    table, archs = random_table(space, rng, whole=whole), ALL[space.name]
    partial = np.where(rng.random((200, space.d)) < 0.5, all_rows(space)[rng.integers(0, 500, 200)], np.int16(-1))
    low, high = table.bounds(partial)
    matters = space.active(archs)
    for i, row in enumerate(partial):
        fits = ((row == -1) | (archs == row) | ~matters).all(axis=1)
        costs = table(archs[fits])
        assert (low[i], high[i]) == (costs.min(), costs.max())
    costs = table(archs)
    assert table.bounds() == table.range == (costs.min(), costs.max())


def test_bounds_refuse_what_is_no_partial_architecture(ofa):
    table = counted_table(ofa, "madds")
    with pytest.raises(SpaceError, match="shape"):
        table.bounds(np.full((1, 3), -1, dtype=np.int16))
    with pytest.raises(SpaceError, match="-1"):
        table.bounds(np.full((1, 45), 3, dtype=np.int16))


def test_bounds_on_ofa(ofa):
    table = counted_table(ofa, "madds")
    assert table.bounds() == (121_278_672, 566_170_656)
    assert counted_table(ofa, "params").bounds()[1] == 7_664_760
    partial = ofa.sample(50, np.random.default_rng(0))
    low, high = table.bounds(partial)
    assert (low == table(partial)).all()
    assert (high == low).all()


def test_check_budget(ofa):
    table = counted_table(ofa, "madds")
    table.check_budget(121_278_672)
    table.check_budget(np.inf)
    for budget in (121_278_671.5, 1e6, -1, 0, np.nan, -np.inf):
        with pytest.raises(BudgetError, match=r"feasible: 121\.3M to 566\.2M MAdds"):
            table.check_budget(budget)
    with pytest.raises(BudgetError, match=r"no architecture of ofa-mobilenet-v3 has madds <= 121\.2M; "):
        table.check_budget(121_278_671)


def test_shifted(ofa):
    table = counted_table(ofa, "params")
    other = table.shifted(-1000.5)
    assert (other(ofa.largest) == table(ofa.largest) - 1000.5).all()
    assert other.range == (table.range[0] - 1000.5, table.range[1] - 1000.5)


@spaces
@pytest.mark.parametrize("whole", [True, False])
def test_tables_that_differ_by_a_constant_share_everything_else(space, whole):
    table = random_table(space, np.random.default_rng(6), whole=whole)
    assert table.range == table.bounds()
    other = table.shifted(3.25)
    assert other.terms is table.terms
    assert other.automaton() is table.automaton()
    assert other.excess(other.automaton()) is table.excess(table.automaton())
    assert other.constant == table.constant + 3.25
    assert other.range == (other(ALL[space.name]).min(), other(ALL[space.name]).max())
    assert table.shifted(0) == table != other
    assert hash(table.shifted(0)) == hash(table)
    scores = np.random.default_rng(7).normal(size=(20, int(space.offsets[-1])))
    budgets = np.linspace(*table.range, 20)
    assert np.array_equal(decode([table], scores, budgets), decode([other], scores, budgets + 3.25))


def test_a_large_constant_is_rounded_as_it_has_to_be(ofa):
    """A grid finer than the last digit of true costs would tell architectures apart that cost the same."""
    table = CostTable(SPACES[0], "cost", "units", [((0,), [0, 1e-6]), ((1,), [0.0, 1e-6, 3e-6])])
    far = table.shifted(2.0**30)
    assert far.excess(far.automaton()).finest > 1e-1
    assert far.range == (2.0**30, 2.0**30 + 4e-6)
    assert far(sample(far, 50, np.random.default_rng(0), far.range[0])).tolist() == [far.range[0]] * 50


def test_shifting_takes_microseconds(ofa):
    table = counted_table(ofa, "madds")
    start = time.perf_counter()
    for delta in range(10_000):
        table.shifted(delta)
    assert time.perf_counter() - start < 0.5  # 50 us each; a few of them are needed


def test_a_table_is_a_value(ofa):
    table = counted_table(ofa, "madds")
    with pytest.raises(AttributeError):
        table.constant = 3
    with pytest.raises(AttributeError):
        table.tables = ()
    with pytest.raises(ValueError, match="read-only"):
        table.tables[0][1][:] = 0
    given = np.zeros(3)
    own = CostTable(ofa, "cost", "units", [((0,), given)])
    given[:] = 7
    assert own.range == (0, 0)


@spaces
def test_arrays_round_trip_without_pickle(space, tmp_path):
    table = random_table(space, np.random.default_rng(5), whole=False)
    np.savez(tmp_path / "table.npz", **table.arrays())
    with np.load(tmp_path / "table.npz", allow_pickle=False) as file:
        again = CostTable.from_arrays(space, dict(file))
    assert (again.name, again.unit, again.constant) == (table.name, table.unit, table.constant)
    assert np.array_equal(again(ALL[space.name]), table(ALL[space.name]))


def test_arrays_that_do_not_fit(ofa):
    arrays = counted_table(ofa, "madds").arrays()
    with pytest.raises(SpaceError, match="lacks its array 'ranks'"):
        CostTable.from_arrays(ofa, {k: v for k, v in arrays.items() if k != "ranks"})
    for change in (
        {"values": arrays["values"][:-1]},
        {"values": np.append(arrays["values"], 1.0)},
        {"choices": arrays["choices"] + 1},
        {"ranks": arrays["ranks"][:-1]},
    ):
        with pytest.raises(SpaceError):
            CostTable.from_arrays(ofa, {**arrays, **change})


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([((0, 0), np.zeros((3, 3)))], "once each"),
        ([((45,), np.zeros(3))], "0 to 44"),
        ([((0,), np.zeros(4))], "has shape"),
        ([((0,), [0, np.nan, 1])], "not finite"),
    ],
)
def test_tables_that_do_not_fit(ofa, tables, message):
    with pytest.raises(SpaceError, match=message):
        CostTable(ofa, "cost", "units", tables)


def test_population_of_the_wrong_shape(ofa):
    with pytest.raises(SpaceError, match=r"shape \(n, 45\)"):
        counted_table(ofa, "madds")(np.zeros((2, 3), dtype=np.int16))

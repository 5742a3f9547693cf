import numpy as np
import pytest
from toys import ALL, SPACES, random_table

from snugnet.costs import COSTS, MaximumCost, counted_table
from snugnet.costs.exact.automaton import _make, make_automaton
from snugnet.costs.table import common_automaton
from snugnet.spaces import get_space

spaces = pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)


def paths(plan):
    """All paths as (rows, state)."""
    rows, state = np.zeros((1, plan.d), dtype=np.int16), np.zeros(1, dtype=int)
    for step in plan.steps:
        i, k = np.nonzero(state[:, None] == step.source)
        rows, state = rows[i], step.target[k]
        rows[:, step.introduced] = step.rows[k][:, step.introduced]
    return rows


@spaces
def test_every_architecture_is_one_path(space):
    plan = random_table(space, np.random.default_rng(0), whole=True).automaton()
    rows = paths(plan)
    assert len(rows) == space.size
    assert np.array_equal(np.unique(rows, axis=0), ALL[space.name])
    assert plan.steps[-1].targets == 1


@spaces
def test_reduced_increments(space):
    """They are never negative, and add up to the cost above the minimum."""
    table = random_table(space, np.random.default_rng(1), whole=True)
    excess = table.excess(table.automaton())
    assert all((e >= 0).all() for e in excess.steps)
    total = np.zeros((1, 1))
    state, rows = np.zeros(1, dtype=int), np.zeros((1, space.d), dtype=np.int16)
    for step, e in zip(table.automaton().steps, excess.steps, strict=True):
        i, k = np.nonzero(state[:, None] == step.source)
        total, rows, state = total.ravel()[i] + e[k], rows[i], step.target[k]
        rows[:, step.introduced] = step.rows[k][:, step.introduced]
    assert np.array_equal(total + excess.low + table.constant, table(rows))


@spaces
def test_tables_share_a_plan(space):
    rng = np.random.default_rng(2)
    a, b = random_table(space, rng, whole=True), counted_table(space, "madds")
    plan = common_automaton([a, b])
    assert plan is common_automaton([b, a])
    assert len(paths(plan)) == space.size


def test_ofa_plan_stays_small():
    plan = counted_table(get_space("ofa-mobilenet-v3"), "madds").automaton()
    assert len(plan.steps) == 20
    assert max(step.targets for step in plan.steps) == 3
    assert sum(len(step.rows) for step in plan.steps) == 240


@spaces
def test_the_order_of_tables_does_not_matter(space):
    scopes = [scope for scope, _ in random_table(space, np.random.default_rng(3), whole=True).tables]
    one = make_automaton(space, scopes)
    assert make_automaton(space, scopes[::-1]) is one
    _make.cache_clear()
    again = make_automaton(space, scopes[::-1])
    assert [step.scope for step in again.steps] == [step.scope for step in one.steps]
    assert all(np.array_equal(a.rows, b.rows) for a, b in zip(one.steps, again.steps, strict=True))


def test_spaces_that_are_alike_share_an_automaton():
    sums = [name for name in COSTS.names() if not isinstance(COSTS[name], MaximumCost)]
    assert {"madds", "params", "activations", "weight_memory"} <= set(sums)
    tables = [counted_table(get_space("ofa-mobilenet-v3", num_classes=k), name) for k in (10, 20) for name in sums]
    assert len({table.automaton() for table in tables}) == 1
    assert counted_table(get_space("ofa-mobilenet-v3", depths=[2, 3]), "madds").automaton() is not tables[0].automaton()

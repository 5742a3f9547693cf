"""What is left of a cost's range under limits on others, against all architectures."""

from __future__ import annotations

import numpy as np
import pytest
from toys import ALL, SPACES, random_table

from snugnet.costs import COSTS, CostTable, MaximumTable, counted_table, ends_within
from snugnet.errors import BudgetError
from snugnet.spaces import SearchSpace


def tables_of(space: SearchSpace) -> dict[str, CostTable | MaximumTable]:
    """Sums and a maximum."""
    sums = {name: counted_table(space, name) for name in ("madds", "params", "activations")}
    return {**sums, "peak_memory": COSTS["peak_memory"].table(space)}


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
@pytest.mark.parametrize("seed", range(6))
def test_ends_are_those_of_all_architectures(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tables = tables_of(space)
    rows = ALL[space.name]
    costs = {name: table(rows) for name, table in tables.items()}
    of = list(tables)[seed % 4]
    others = rng.permutation([name for name in tables if name != of])[: 1 + seed % 3]
    # an architecture that there is, and a little room above it: so the limits are feasible together
    meant = rng.integers(len(rows))
    limits = {name: costs[name][meant] + 0.1 * rng.random() * np.ptp(costs[name]) for name in others}
    fits = np.all([costs[name] <= limit for name, limit in limits.items()], axis=0)
    low, high = ends_within(tables[of], [(tables[name], float(limit)) for name, limit in limits.items()])
    assert low == costs[of][fits].min()
    if isinstance(tables[of], MaximumTable):
        assert high >= costs[of][fits].max()
    else:
        assert high == costs[of][fits].max()


def test_limits_that_nothing_meets_are_refused() -> None:
    space = SPACES[0]
    tables = tables_of(space)
    with pytest.raises(BudgetError, match="has madds <= 1; feasible"):
        ends_within(tables["params"], [(tables["madds"], 1.0)])
    one = random_table(space, np.random.default_rng(0), whole=True)
    other = CostTable(space, "other", "", [((), -one.constant), *((scope, -values) for scope, values in one.tables)])
    assert ends_within(tables["params"], [(one, one.range[0]), (other, -one.range[0])])[0] > 0
    with pytest.raises(BudgetError, match="together"):
        ends_within(tables["params"], [(one, one.range[0]), (other, -one.range[0] - 1)])


def test_no_limit_is_the_whole_range() -> None:
    for table in tables_of(SPACES[1]).values():
        assert ends_within(table, []) == table.range

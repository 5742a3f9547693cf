"""The laws of a cost, a sum or a maximum."""

from __future__ import annotations

import math

import numpy as np

from snugnet.costs import Cost, MaximumCost, block_table, decode
from snugnet.spaces import SearchSpace
from snugnet.testing.contract import holds, works
from snugnet.testing.problems import small_space

ARCHITECTURES = 40
CLASSES = 3


def check_cost(cost: Cost | MaximumCost, space: SearchSpace | None = None, *, seed: int = 0) -> None:
    """Check that budgets on a cost are as exact as those on multiply-adds.

    Args:
        cost: to check.
        space: whose networks it is tried on; a small one of this package without it.
        seed: of the architectures that are looked at.

    Raises:
        ContractError: the first law that is broken, and what was found.
    """
    space = space or small_space()
    what, rng = f"cost {getattr(cost, 'name', cost)!r}", np.random.default_rng(seed)
    holds(
        isinstance(cost, (Cost, MaximumCost)),
        what, "is a snugnet.costs.Cost, made of name, unit, description and block, or a MaximumCost", type(cost),
    )  # fmt: skip
    for key in ("name", "unit", "description"):
        value = getattr(cost, key)
        holds(isinstance(value, str) and value.strip(), what, f"{key} is text", repr(value))
    holds(not set(cost.name) & set(" =,/%"), what, "the name can stand in --budget NAME=N", cost.name)
    made = "is the largest entry of its tables"
    if isinstance(cost, Cost):
        made = "is a sum over the blocks alone"
        with works(what, "block(block, resolution) gives a number for every block of a space"):
            block_table(space, cost.name, cost.unit, cost.block)  # its own error, as its author wants to see it
    rows = np.concatenate([*space.extremes().values(), space.sample(ARCHITECTURES, rng)])
    for classes in (None, CLASSES):
        with works(what, "has a table for networks of fewer classes"):
            table = cost.table(space, classes)
        for row, got in zip(rows, table(rows), strict=True):
            blueprint = space.blueprint(row)
            blueprint = blueprint if classes is None else blueprint.with_classes(classes)
            expected = cost.of(blueprint)
            holds(math.isfinite(expected) and expected >= 0, what, "is finite and not negative", expected)
            holds(cost.of(blueprint) == expected, what, "is the same when it is asked again (no clock, no noise)")
            holds(
                math.isclose(got, expected, rel_tol=1e-9, abs_tol=1e-9),
                what, f"{made}: the table's value is the blueprint's, {expected:,}", f"{got:,}",
            )  # fmt: skip
    table = cost.table(space)
    low, high = table.range
    holds(low < high, what, "tells architectures of the space apart", f"all cost {low:,}")
    scores = rng.gumbel(size=(8, int(space.offsets[-1])))
    budgets = rng.uniform(low, high, 8)
    found = table(decode([table], scores, budgets))
    holds((found <= budgets).all(), what, "a decode is never above a budget", found.tolist())

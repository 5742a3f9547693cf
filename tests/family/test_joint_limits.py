"""Limits that conflict only together: said in the user's numbers, with the ranges of the group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from snugnet import pipeline
from snugnet.costs import CostTable, load_cost_table
from snugnet.data import load_data
from snugnet.errors import BudgetError
from snugnet.family import Family
from snugnet.family.limits import LimitsSearch
from snugnet.family.search import FamilySearch
from snugnet.recipe import parse_recipe
from snugnet.supernets import Supernet

RECIPE = {
    "name": "digits", "output": "runs/digits", "device": "cpu",
    "data": {"source": "digits", "groups": "digits", "resolution": 16, "validation": 0.15},
    "space": {"width_mult": 0.35, "stem_stride": 1, "stage_strides": [2, 2, 1, 1, 1]},
    "training": {"stages": [{"name": "largest", "epochs": 1, "learning_rate": 0.1}]},
    "evaluation": {"calibration_images": 64, "validation_images": 64},
}  # fmt: skip


@pytest.fixture(scope="module")
def family(cases: Path) -> Family:
    """The quickstart's family, untrained, with the table as a cost."""
    recipe = parse_recipe(RECIPE)
    data = load_data(recipe.data, progress=False)
    space = pipeline.make_space(recipe, data)
    made = pipeline.make_family(recipe, data, Supernet(space), pipeline.make_generator(recipe, space, data), {})
    table = load_cost_table(cases / "latency-joint.csv", space.with_options(num_classes=1000))
    made.tables["latency_ms"] = CostTable.from_arrays(space, table.arrays())
    return made


BOTH = {"latency_ms": 0.3, "madds": 2e6}
ASKS: dict[str, Callable[[Family], object]] = {
    "specialize": lambda family: family.specialize("round", **BOTH),
    "best of": lambda family: family.specialize("round", best_of=3, **BOTH),
    "as printed": lambda family: family.specialize("round", latency_ms="0.3", madds="2,000,000"),
    "search": lambda family: FamilySearch.make(family, "round", **BOTH),
    "all groups": lambda family: FamilySearch.make(family, None, **BOTH),
    "limits": lambda family: LimitsSearch.make(family, "round", "madds", ["2M", "3M"], latency_ms=0.3),
    "many": lambda family: family.specialize_many([("curvy", {}), ("round", BOTH), (["1", "2"], {"madds": "3M"})]),
}


@pytest.mark.parametrize("ask", ASKS)
def test_limits_that_conflict_together(family: Family, ask: str) -> None:
    low, high = family.cost_range("madds", "round")
    with pytest.raises(BudgetError) as caught:
        ASKS[ask](family)
    said = str(caught.value)
    assert "latency_ms <= 0.3 and madds <= 2,000,000 together" in said
    assert f"madds {low:,.0f} to {high:,.0f} MAdds" in said
    assert (low, high) != family.cost_range("madds")
    assert "latency_ms 0.27 to 1.57 ms" in said
    assert "scenario" not in said

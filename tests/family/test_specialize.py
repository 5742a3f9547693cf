"""From (group, budget) to a network."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snugnet.costs import COSTS, Cost, exact_amount, register_cost
from snugnet.errors import BudgetError, FamilyError
from snugnet.family import Family
from snugnet.family.report import spread_budgets


def test_costs_are_those_of_the_network_handed_out(family: Family) -> None:
    low, high = family.cost_range("madds", "round")
    net = family.specialize("round", madds=(low + high) / 2)
    assert net.classes == family.groups["round"]
    assert net.module(torch.zeros(2, 3, 8, 8)).shape == (2, len(net.classes))
    assert net.costs["madds"] == net.blueprint.madds == net.module.blueprint.madds <= (low + high) / 2
    assert net.costs["params"] == net.blueprint.params == sum(p.numel() for p in net.module.parameters())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 1.1)), min_size=1, max_size=8), st.booleans())
def test_never_above_the_budget(family: Family, asked: list[tuple[int, float]], noise: bool) -> None:
    names = list(family.groups)
    scenarios = []
    for group, place in asked:
        low, high = family.cost_range("madds", names[group])
        scenarios.append((names[group], {"madds": low + place * (high - low)}))
    for net, (group, budget) in zip(family.specialize_many(scenarios, noise=noise), scenarios, strict=True):
        assert net.costs["madds"] <= budget["madds"]
        assert net.blueprint.madds == net.costs["madds"]
        assert net.group == group


def test_exactly_the_smallest_network_fits_the_smallest_budget(family: Family) -> None:
    low, _ = family.cost_range("madds", "curvy")
    net = family.specialize("curvy", madds=low)
    assert net.costs["madds"] == low
    assert (net.row == family.space.smallest[0]).all()
    with pytest.raises(BudgetError, match="feasible"):
        family.specialize("curvy", madds=low - 1)


def test_several_budgets_at_once(family: Family) -> None:
    madds, params = (sum(family.cost_range(cost, "round")) / 2 for cost in ("madds", "params"))
    net = family.specialize("round", madds=madds, params=params)
    assert net.costs["madds"] <= madds
    assert net.costs["params"] <= params
    only = family.specialize("round", params=params)
    assert only.costs["params"] <= params


def test_many_equals_one_by_one(family: Family) -> None:
    low, high = family.cost_range("madds")
    scenarios = [(g, {"madds": b}) for g in family.groups for b in np.linspace(low, high, 5)]
    together = family.specialize_many(scenarios)
    for net, (group, budget) in zip(together, scenarios, strict=True):
        assert (net.row == family.specialize(group, **budget).row).all()
    assert family.specialize_many([]) == []


def test_any_list_of_classes_is_a_group(family: Family) -> None:
    net = family.specialize(["7", "0", "3"], madds="1G")
    assert net.classes == ("7", "0", "3")
    whole = family.build(net.row)
    x = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(net.module(x), whole(x)[:, list(net.class_indices)], rtol=1e-4, atol=1e-5)


def test_budgets_are_read_with_their_suffix(family: Family) -> None:
    _, high = family.cost_range("madds")
    assert family.specialize("round", madds=f"{high / 1e6:.6f}M").costs == family.specialize("round", madds=high).costs


def test_best_of_is_at_least_as_good_on_validation(family: Family) -> None:
    budget = sum(family.cost_range("madds", "round")) / 2
    own = family.specialize("round", madds=budget)
    best = family.specialize("round", madds=budget, best_of=6, seed=1)
    assert best.costs["madds"] <= budget
    assert family.validation_accuracy(best) >= family.validation_accuracy(own)


@pytest.mark.parametrize(
    ("group", "budgets", "error", "match"),
    [
        ("oval", {"madds": 1e9}, FamilyError, "no group 'oval'.*round"),
        (["0"], {"madds": 1e9}, FamilyError, "at least two classes"),
        ([], {"madds": 1e9}, FamilyError, "at least two classes"),
        (["0", "0"], {"madds": 1e9}, FamilyError, "twice"),
        (["0", "x"], {"madds": 1e9}, FamilyError, "no class 'x'"),
        ("round", {"latency_ms": 3}, BudgetError, "no cost 'latency_ms'; costs: madds, params"),
        ("round", {"madds": "lots"}, BudgetError, "lots"),
        ("round", {"madds": float("nan")}, BudgetError, "nan"),
        ("round", {"madds": -1}, BudgetError, "-1"),
        ("round", {"params": 1}, BudgetError, "feasible"),
    ],
)
def test_what_is_refused(family: Family, group: object, budgets: dict[str, object], error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        family.specialize(group, **budgets)  # type: ignore[arg-type]


def test_specialised_networks_know_their_digits(family: Family, digits: object) -> None:
    from snugnet.family.report import evaluate

    report = evaluate(family, digits.test, 3, progress=False)  # type: ignore[attr-defined]
    assert len(report.rows) == 9
    assert all(row.costs["madds"] <= row.budget for row in report.rows)
    assert all(row.onnx_difference < 1e-4 for row in report.rows)
    # cutting the other classes' logits can only help on the group's own images
    assert all(row.accuracy >= row.accuracy_all for row in report.rows)
    assert report.mean()[-1]["accuracy"] > 0.8


def test_without_a_budget_every_choice_is_the_most_probable(family: Family) -> None:
    """Deep networks are not put at a disadvantage for having more choices that matter."""
    net = family.specialize("round")
    weights = np.array([[1.0, 0.0, 0.0]], dtype=np.float32)
    scores = family._conditioned.scores(weights, np.array([family.generator.high]))
    space = family.space
    rows = np.stack([scores[:, a:b].argmax(1) for a, b in zip(space.offsets[:-1], space.offsets[1:], strict=True)], 1)
    assert (net.row == space.rows(rows)[0]).all()


def test_most_of_a_budget_is_used(family: Family) -> None:
    for cost in ("madds", "params"):
        used = []
        for group in family.groups:
            low, high = family.cost_range(cost, group)
            top = family.specialize(group).costs[cost]
            for place in (0.2, 0.4, 0.6):
                budget = low + place * (min(high, top) - low)
                used.append((family.specialize(group, **{cost: budget}).costs[cost] - low) / (budget - low))
        assert np.mean(used) > 0.6, (cost, used)


@pytest.mark.parametrize("group", [None, 5, {"0", "1"}, [["0"], ["1"]], iter(["0", "1"])])
def test_what_is_no_group(family: Family, group: object) -> None:
    with pytest.raises(FamilyError, match="a group is the name"):
        family.specialize(group, madds=1e9)  # type: ignore[arg-type]
    with pytest.raises(FamilyError, match="a scenario is"):
        family.specialize_many([("round", 1e6)])  # type: ignore[list-item]


def test_budgets_that_no_network_meets_together_are_named_as_they_were_given(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the tables of another width serve the scenario, and whatever its place among others is."""
    monkeypatch.setattr(COSTS, "_own", dict(COSTS._own))
    kernels = register_cost(
        Cost(
            "thin",
            "u",
            "the less, the larger the kernels",
            lambda block, _: sum(9 - x.kernel for x in block.all_layers),
        )
    )
    table, params = family.table(kernels.name, 4), family.table("params", 4)
    large = family.space.rows(family.space.largest)
    asked = {"params": params.range[0] + 10, "thin": table.range[0] + 1}
    assert asked["params"] < params(large)[0]
    scenarios = [("curvy", {}), (["0", "1"], {"thin": 1e9}), ("round", asked), ("straight", {"params": "90%"})]
    for some in (scenarios, scenarios[2:3]):
        with pytest.raises(BudgetError) as caught:
            family.specialize_many(some)
        said = str(caught.value)
        assert said.startswith("round: no architecture of ")
        assert all(f"{name} <= {exact_amount(limit, math.floor)}" in said for name, limit in asked.items())


def test_scenarios_may_be_drawn_one_by_one(family: Family) -> None:
    assert len(family.specialize_many((name, {}) for name in family.groups)) == len(family.groups)
    with pytest.raises(FamilyError, match="a scenario is"):
        family.specialize_many([7])  # type: ignore[list-item]


def test_a_group_is_looked_at_whatever_came_before(family: Family) -> None:
    with pytest.raises(FamilyError, match="a list of class names"):
        family.specialize_many([(["1", "3"], {}), ([1, 3], {})])  # type: ignore[list-item]


def test_budgets_of_a_cost_in_fractions_are_spread_between_its_ends(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(COSTS, "_own", dict(COSTS._own))
    register_cost(Cost("joule", "J", "little", lambda block, _: 1e-7 * sum(layer.params for layer in block.all_layers)))
    low, high = family.cost_range("joule")
    assert np.allclose(spread_budgets(family, 3, "joule"), np.linspace(low, high, 5)[1:-1])
    assert all(limit.is_integer() for limit in spread_budgets(family, 3, "madds"))

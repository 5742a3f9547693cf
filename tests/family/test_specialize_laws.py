"""Laws of specialising: families of every space that nobody trained, random groups, budgets of every kind of cost."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_spaces import TINY_SPACES

from snugnet.costs import COSTS, Cost, CostTable, counted_table, register_cost
from snugnet.data import ImageSet
from snugnet.errors import BudgetError
from snugnet.family import Family, Networks, Scenario, specialising
from snugnet.generator import conditions
from snugnet.generator.model import ArchitectureGenerator
from snugnet.spaces import Block, get_space
from snugnet.supernets import Supernet

GROUPS = {"a": ("0", "1", "2", "3"), "b": ("4", "5"), "c": ("6", "7", "8")}
CLASSES = tuple(name for own in GROUPS.values() for name in own)
COUNTED = ("madds", "params", "activations")
BROUGHT = ("outputs", "tenths", "area")


def outputs(block: Block, resolution: int) -> float:
    """Whole numbers; a class more costs one more in every architecture."""
    return sum(layer.out_channels for layer in block.all_layers)


def tenths(block: Block, resolution: int) -> float:
    """Sums that are rounded, although what every architecture has, and a class, cost whole numbers."""
    return sum(0.1 * layer.kernel if layer.kernel > 3 else layer.out_channels for layer in block.all_layers)


def area(block: Block, resolution: int) -> float:
    """A class costs what depends on the image's resolution and on the classifier's width."""
    return sum(layer.params for layer in block.all_layers) * resolution**2 / 7


def untrained(name: str, **options: Any) -> Family:
    """A family whose generator's architectures differ a lot from one condition to the next."""
    space = get_space(name, **{**TINY_SPACES[name], "num_classes": len(CLASSES), **options})
    tables = {cost: counted_table(space, cost) for cost in ("madds", "params")}
    generator = ArchitectureGenerator(space, len(GROUPS), *tables["madds"].range, seed=1)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(3)
    images = ImageSet(torch.zeros(0, 3, space.resolution, space.resolution, dtype=torch.uint8), torch.zeros(0).long())
    family = Family(
        name="untrained", supernet=Supernet(space).eval(), generator=generator.eval(), budget_name="madds",
        classes=CLASSES, groups=GROUPS, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), tables=tables,
        calibration=images, validation=images,
    )  # fmt: skip
    measured = [(scope, np.asarray(values) * 1e-4) for scope, values in tables["madds"].tables]
    family.tables["latency_ms"] = CostTable(space, "latency_ms", "ms", [*measured, ((), 0.3)])
    return family


@pytest.fixture(scope="module", params=TINY_SPACES)
def family(request: pytest.FixtureRequest) -> Iterator[Family]:
    """One of each space; three costs that somebody brought are known beside those of the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(COSTS, "_own", dict(COSTS._own))
        for block in (outputs, tenths, area):
            register_cost(Cost(block.__name__, "units", "of a test", block))
        yield untrained(request.param)


def cost_of(family: Family, name: str, row: np.ndarray, classes: int) -> float:
    """Counted from the layers, one by one; a measured table says nothing about the classifier's width."""
    if name in COSTS:
        return COSTS[name].of(family.space.blueprint(row).with_classes(classes))
    return float(family.tables[name](row[None])[0])


groups = st.one_of(
    st.sampled_from(list(GROUPS)), st.lists(st.sampled_from(CLASSES), min_size=2, max_size=len(CLASSES), unique=True)
)
limited = st.dictionaries(st.sampled_from([*COUNTED, *BROUGHT, "latency_ms"]), st.floats(0, 0.3), max_size=3)


def scenarios_of(family: Family, asked: list[tuple[Any, dict[str, float]]], seed: int) -> list[Scenario]:
    """Budgets that some architecture meets: its own costs, exactly or with some room."""
    rows = family.space.sample(len(asked), np.random.default_rng(seed))
    scenarios = []
    for row, (group, rooms) in zip(rows, asked, strict=True):
        classes = len(family.class_indices(group))
        costs = {name: float(family.table(name, classes)(row[None])[0]) for name in rooms}
        scenarios.append((group, {name: costs[name] * (1 + max(room - 0.1, 0)) for name, room in rooms.items()}))
    return scenarios


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(groups, limited), min_size=1, max_size=8), st.integers(0, 9), st.booleans())
def test_costs_are_the_network_s_and_never_above_a_budget(
    family: Family, asked: list[tuple[Any, dict[str, float]]], seed: int, noise: bool
) -> None:
    scenarios = scenarios_of(family, asked, seed)
    networks = family.specialize_many(scenarios, noise=noise, seed=seed)
    assert len(networks) == len(scenarios)
    for net, (group, budgets) in zip(networks, scenarios, strict=True):
        assert net.class_indices == family.class_indices(group)
        assert net.budgets == budgets
        assert {"madds", "params", "latency_ms", *budgets} <= set(net.costs)
        assert all(net.costs[name] <= limit for name, limit in budgets.items())
        for name, cost in net.costs.items():
            expected = cost_of(family, name, net.row, len(net.class_indices))
            exact = name in (*COUNTED, "outputs", "latency_ms")
            assert cost == expected if exact else cost == pytest.approx(expected, rel=1e-12)
        if not noise:
            assert (net.row == family.specialize(group, **budgets).row).all()


@settings(max_examples=20)
@given(st.sampled_from([*COUNTED, *BROUGHT]), st.integers(1, len(CLASSES)), st.integers(0, 99))
def test_a_table_is_that_of_so_many_classes(family: Family, name: str, classes: int, seed: int) -> None:
    rows = family.space.sample(20, np.random.default_rng(seed))
    costs, whole = family.table(name, classes)(rows), COSTS[name].table(family.space, classes)
    expected = [cost_of(family, name, row, classes) for row in rows]
    if name in (*COUNTED, "outputs"):
        assert costs.tolist() == whole(rows).tolist() == expected
        assert family.table(name, classes).range == whole.range
    else:
        np.testing.assert_allclose(costs, expected, rtol=1e-12)


def test_rounding_is_the_same_for_every_number_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is a whole number in every architecture must not hide that the rest is none."""

    def costs(block: Block, resolution: int) -> float:
        head = [100 * layer.out_channels for layer in block.all_layers if layer.op == "linear"]
        return sum([*head, *(0.1 * layer.kernel if layer.kernel > 3 else 1 for layer in block.all_layers)])

    monkeypatch.setattr(COSTS, "_own", dict(COSTS._own))
    register_cost(Cost("rounded", "units", "of a test", costs))
    family, rng = untrained("mobilenet-v2"), np.random.default_rng(0)
    assert family.table("rounded", 9).constant.is_integer()
    scenarios: list[Scenario] = []
    for row, size in zip(family.space.sample(400, rng), rng.integers(2, 10, 400).tolist(), strict=True):
        scenarios.append((CLASSES[:size], {"rounded": float(family.table("rounded", size)(row[None])[0])}))
    for net in family.specialize_many(scenarios):
        assert net.costs["rounded"] <= net.budgets["rounded"]


@pytest.mark.parametrize("name", [*COUNTED, *BROUGHT, "latency_ms"])
@pytest.mark.parametrize("group", ["a", ["8", "0"]])
def test_any_cost_is_a_budget_as_an_amount_or_a_share(family: Family, name: str, group: Any) -> None:
    low, high = family.cost_range(name, group)
    smallest, middle = (family.specialize(group, **{name: share}) for share in ("0%", "50%"))
    assert smallest.costs[name] == low
    assert low <= middle.costs[name] <= middle.budgets[name] == pytest.approx((low + high) / 2)
    assert (middle.row == family.specialize(group, **{name: middle.budgets[name]}).row).all()
    below = low - 0.01 * (high - low)
    text = "a" if group == "a" else "8,0"
    with pytest.raises(BudgetError, match=rf"no network of untrained for {text} has {name} <= .*; feasible: "):
        family.specialize(group, **{name: below})


def test_a_measured_cost_stands_whole(family: Family) -> None:
    assert family.table("latency_ms", 2) is family.tables["latency_ms"]


def test_what_is_done_in_chunks_is_done_alike(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    lists = [sorted(rng.choice(CLASSES, size, replace=False).tolist()) for size in rng.integers(2, 8, 30)]
    asked = [(group, {"madds": 0.2} if i % 3 else {"params": 0.1, "madds": 0.3}) for i, group in enumerate(lists)]
    scenarios = scenarios_of(family, [*asked, *[("a", {"madds": place / 30}) for place in range(10)]], 3)
    expected = family.specialize_many(scenarios)
    assert isinstance(expected, Networks)
    for module, name, value in (
        (specialising, "_SCENARIOS_AT_ONCE", 7),
        (conditions, "_PASS", 5),
        (conditions, "MIXTURES", 3),
    ):
        monkeypatch.setattr(module, name, value)
    family._conditioned._answers.clear()
    found = family.specialize_many(scenarios)
    assert isinstance(found, Networks)
    assert (found.rows == expected.rows).all()
    assert len(family._conditioned._answers) <= 3


@pytest.mark.parametrize("cost", ["madds", "params", "latency_ms", "tenths"])
def test_what_was_asked_before_changes_no_answer(family: Family, cost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges of limits that are asked for again are looked up, and what is looked up is what a decode alone gives."""
    monkeypatch.setattr(conditions, "STAIRS", 3)
    rng = np.random.default_rng(2)
    groups = [*GROUPS, ["0", "8"]]
    scenarios = scenarios_of(family, [(groups[i % 4], {cost: float(rng.random())}) for i in range(80)], 3)
    alone = []
    for scenario in scenarios:
        family._conditioned._staircases.clear()
        alone.append(family.specialize_many([scenario])[0].row)
    for _ in range(3):
        assert (np.stack([network.row for network in family.specialize_many(scenarios)]) == np.stack(alone)).all()
    kept = family._conditioned._staircases
    assert len(kept) <= 3
    assert any(staircase.known for staircase in kept.values())


def test_networks_are_a_sequence(family: Family) -> None:
    scenarios: list[Scenario] = [(group, {"madds": f"{10 * i}%"}) for i, group in enumerate([*GROUPS, ["0", "8"]] * 2)]
    networks = family.specialize_many(scenarios)
    assert [net.group for net in networks] == ["a", "b", "c", "0,8"] * 2 == [net.group for net in networks[:]]
    assert [net.budgets for net in networks[-1:1:-2]] == [networks[i].budgets for i in (7, 5, 3)]
    assert (networks[-1].row == networks[7].row).all()
    assert networks[-1].costs == networks[7].costs
    assert [net.group for net in reversed(networks)] == ["0,8", "c", "b", "a"] * 2
    with pytest.raises(IndexError):
        networks[8]
    assert len(family.specialize_many([])) == 0
    assert all(isinstance(cost, int) for cost in (networks[0].costs["madds"], networks[0].costs["params"]))


def test_threads_ask_one_family_at_once(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while what is remembered is thrown away under them."""
    monkeypatch.setattr(conditions, "MIXTURES", 2)
    monkeypatch.setattr(conditions, "STAIRS", 2)
    rng = np.random.default_rng(1)
    lists = [sorted(rng.choice(CLASSES, 4, replace=False).tolist()) for _ in range(40)]
    alone = [family.specialize(group, madds="50%").row for group in lists]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda group: family.specialize(group, madds="50%").row, lists))
    assert all((a == b).all() for a, b in zip(alone, together, strict=True))

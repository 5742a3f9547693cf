"""Measured costs in a family: budgets like any other, for every width of the classifier, on several devices, and on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from measured import rows_of, write_rows

from snugnet import pipeline
from snugnet.costs import Profile
from snugnet.data import GroupedImages, load_data
from snugnet.errors import BudgetError, ConfigError, DataError
from snugnet.family import Family
from snugnet.family.disk import load_family
from snugnet.family.limits import LimitsSearch
from snugnet.family.report import evaluate
from snugnet.family.search import FamilySearch
from snugnet.profiling.measuring import import_measured, needed_widths
from snugnet.recipe import Recipe, parse_recipe


def measured(family: Family, folder: Path, device: str, unit: str = "ms") -> Profile:
    """A profile by the law of the test tables."""
    widths = needed_widths(family.groups, len(family.classes))
    table = write_rows(folder / f"{device}.csv", rows_of(family.space, widths), unit)
    made = import_measured(family.space, widths, table, device, unit)
    assert isinstance(made, Profile)
    return made


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A few steps of a small supernet: what its networks cost does not depend on them."""
    stage = {"learning_rate": 0.1, "epochs": 1}
    return parse_recipe(
        {
            "name": "tiny",
            "output": str(tmp_path_factory.mktemp("families") / "tiny"),
            "device": "cpu",
            "data": {"source": "digits", "resolution": 8, "groups": "digits", "train_rows": 200, "test_rows": 60},
            "space": {"width_mult": 0.1, "stem_stride": 1, "stage_strides": [2, 1, 1, 1, 1], "depths": [1, 2]},
            "training": {"batch_size": 64, "stages": [{"name": "largest", **stage}]},
            "generator": {"steps": 2, "pairs": 2, "images": 8, "budgets": 3},
            "evaluation": {"budgets": 2, "calibration_images": 64},
        }
    )


@pytest.fixture(scope="module")
def few(recipe: Recipe) -> GroupedImages:
    """The images of the recipe."""
    return load_data(recipe.data, progress=False)


@pytest.fixture(scope="module")
def trained(recipe: Recipe, few: GroupedImages) -> Family:
    """The family of the recipe; its folder holds its checkpoints."""
    return pipeline.train(recipe, progress=False, data=few)


@pytest.fixture
def family(recipe: Recipe, trained: Family) -> Family:
    """A family of its own for each test."""
    return load_family(recipe.output)


@pytest.fixture
def profiled(family: Family, tmp_path: Path) -> Family:
    """The family, measured on one device."""
    family.add_measured(measured(family, tmp_path, "pixel"))
    return family


def test_a_budget_in_milliseconds_is_never_exceeded(profiled: Family) -> None:
    for group in ("round", ["1", "4"], list(profiled.classes)):
        low, high = profiled.cost_range("latency_ms", group)
        assert 0 < low < high
        for limit in np.linspace(low, high, 7):
            network = profiled.specialize(group, latency_ms=float(limit))
            assert network.budgets == {"latency_ms@pixel": limit}
            assert network.costs["latency_ms@pixel"] <= limit
            profile = profiled.profiles["latency_ms@pixel"]
            assert network.costs["latency_ms@pixel"] == profile.cost.of(network.blueprint)


def test_a_narrower_classifier_costs_what_was_measured_of_it(profiled: Family) -> None:
    row = profiled.space.largest[0]
    profile = profiled.profiles["latency_ms@pixel"]
    for group in ("round", "straight"):
        network = profiled.network(group, row)
        assert network.costs["latency_ms@pixel"] == profile.cost.of(network.blueprint)
    # two classes were not measured: those of the next wider classifier, of three, stand in
    two, three = (profiled.table("latency_ms", width).range for width in (2, 3))
    assert 3 in profile.widths
    assert 2 not in profile.widths
    assert two == three


def test_many_at_once_are_those_one_by_one(profiled: Family) -> None:
    scenarios = [(group, {"latency_ms": f"{share}%"}) for group in profiled.groups for share in (0, 30, 60, 100)]
    together = profiled.specialize_many(scenarios)
    for each, (group, budgets) in zip(together, scenarios, strict=True):
        assert (each.row == profiled.specialize(group, **budgets).row).all()


def test_several_devices_and_costs_at_once(profiled: Family, tmp_path: Path) -> None:
    profiled.add_measured(measured(profiled, tmp_path, "pi"))
    profiled.add_measured(measured(profiled, tmp_path, "pi", "mJ"))
    with pytest.raises(
        BudgetError,
        match=r"latency_ms was measured on several devices; its devices: pixel, pi, such as latency_ms@pixel",
    ):
        profiled.specialize("round", latency_ms=8)
    with pytest.raises(BudgetError, match=r"latency_ms was not measured on 'phone'; its devices: pixel, pi"):
        profiled.specialize("round", **{"latency_ms@phone": 8})
    low, high = profiled.cost_range("energy_mj", "round")
    budgets = {"latency_ms@pixel": "70%", "latency_ms@pi": "50%", "energy_mj": (low + high) / 2}
    network = profiled.specialize("round", **budgets)
    assert network.budgets.keys() == {"latency_ms@pixel", "latency_ms@pi", "energy_mj@pi"}
    assert all(network.costs[name] <= limit for name, limit in network.budgets.items())
    with pytest.raises(BudgetError, match="two budgets of energy_mj@pi are given"):
        profiled.specialize("round", **{"energy_mj": low, "energy_mj@pi": high})


def test_without_a_profile_the_command_that_makes_one_is_named(family: Family) -> None:
    with pytest.raises(
        BudgetError, match=r"tiny has no cost 'latency_ms'; costs: madds, .*; 'snugnet profile' measures it"
    ):
        family.specialize("round", latency_ms=8)


def test_searches_and_reports(profiled: Family, few: GroupedImages) -> None:
    search = FamilySearch.make(profiled, "round", latency_ms="50%")
    assert search.problem.limits.keys() == {"latency_ms@pixel"}
    limits = LimitsSearch.make(profiled, "round", "latency_ms", ["30%", "60%"])
    assert limits.cost == "latency_ms@pixel"
    report = evaluate(profiled, few.test, 2, groups=["round"], cost="latency_ms", progress=False)
    assert report.budget == "latency_ms@pixel"
    assert all(row.costs["latency_ms@pixel"] <= row.budget for row in report.rows)


def test_saved_and_loaded(profiled: Family, tmp_path: Path) -> None:
    profiled.save(tmp_path / "saved")
    again = load_family(tmp_path / "saved")
    assert again.profiles == profiled.profiles
    rows = profiled.space.sample(50, np.random.default_rng(0))
    for classes in (2, 3, 4, 10):
        assert (again.table("latency_ms", classes)(rows) == profiled.table("latency_ms", classes)(rows)).all()


def test_a_generator_on_milliseconds(profiled: Family, recipe: Recipe, few: GroupedImages, tmp_path: Path) -> None:
    """A family's profile is a cost of a recipe of the same space: its generator is trained on it, and the next family has it."""
    source = profiled.save(tmp_path / "source")
    content = profiled.provenance["recipe"]
    changes = {
        "output": str(tmp_path / "next"),
        "costs": {"latency_ms@pixel": str(source)},
        "generator": {**content["generator"], "budget": "latency_ms@pixel", "steps": 2},
    }
    shutil.copy(Path(recipe.output) / "supernet.ckpt.safetensors", _made(tmp_path / "next"))
    family = pipeline.train(parse_recipe({**content, **changes}), progress=False, data=few)
    assert family.budget_name == "latency_ms@pixel"
    assert load_family(tmp_path / "next").profiles == profiled.profiles
    network = family.specialize("round", latency_ms="40%")
    assert network.costs["latency_ms@pixel"] <= network.budgets["latency_ms@pixel"]
    wrong = parse_recipe(
        {**content, **changes, "costs": {"latency_ms@pi": str(source)}, "generator": {"budget": "latency_ms@pi"}}
    )
    with pytest.raises(ConfigError, match=r"was not measured for latency_ms@pi; measured: latency_ms@pixel"):
        wrong.cost_table(family.space, "latency_ms@pi")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a@b", "-x"])
def test_names_of_devices(family: Family, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="a device's name has letters"):
        import_measured(family.space, (), tmp_path / "none.csv", name, "ms")


def test_tables_of_layers(shared_folder: Path) -> None:
    from snugnet.costs import load_ofa_latency
    from snugnet.spaces import get_space

    path = shared_folder / "data" / "ofa-mobilenet-v3" / "note10_latency.csv.gz"
    space = get_space("ofa-mobilenet-v3", width_mult=1.2, resolution=192)
    table = import_measured(space, (), path, "note10", "ms")
    assert table.name == "latency_ms@note10"
    rows = space.sample(5, np.random.default_rng(0))
    assert (table(rows) == load_ofa_latency(path, space)(rows)).all()  # type: ignore[operator]
    with pytest.raises(DataError, match="has latencies of layers in ms, not mJ"):
        import_measured(space, (), path, "note10", "mJ")


def test_columns_of_hw_nas_bench(family: Family) -> None:
    """A family of the very networks that were measured has these costs; one of others has not."""
    from dataclasses import replace

    from snugnet.costs import measured_cost
    from snugnet.spaces import get_space
    from snugnet.supernets import Supernet

    space = get_space("nas-bench-201", resolution=32, num_classes=10)
    cells = replace(family, supernet=Supernet(space), tables={}, _counted={}, _narrower={})
    rows = space.sample(20, np.random.default_rng(0))
    known = measured_cost(space, "latency_ms", "raspi4")
    for classes in (4, 10):
        assert (cells.table("latency_ms@raspi4", classes)(rows) == known.table(rows)).all()
    assert {"latency_ms@pixel3", "energy_mj@edgegpu"} <= set(cells.costs)
    with pytest.raises(
        BudgetError, match="energy_mj was measured on several devices; its devices: edgegpu, eyeriss, fpga"
    ):
        cells.cost_name("energy_mj")
    other = get_space("nas-bench-201", resolution=9, num_classes=10, channels=3, cells=1)
    assert not {"latency_ms@pixel3"} & set(replace(cells, supernet=Supernet(other)).costs)

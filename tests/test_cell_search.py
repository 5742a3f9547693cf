"""From digits to a network of cells: what is found keeps its limits, what is written belongs together, and nothing is done twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import snugnet
from snugnet.bundles import NETWORK
from snugnet.cell_search import CellSearchResult, cell_space, search_cells
from snugnet.config import read_config
from snugnet.costs import CostTable, counted_table, disconnected, measured_cost, save_cost_table
from snugnet.differentiable.config import CellRecipe
from snugnet.differentiable.lookup import LookupGraph
from snugnet.differentiable.search import CHECKPOINT
from snugnet.errors import BudgetError, ConfigError, SearchError, SnugnetError, SpaceError, TrainingError
from snugnet.family import StoredNetwork
from snugnet.yaml_content import read_yaml

DARTS: dict[str, Any] = {
    "name": "cells",
    "device": "cpu",
    "data": {"source": "digits", "resolution": 8, "train_rows": 64},
    "space": {"name": "darts", "channels": 4, "cells": 3, "nodes": 2},
    "search": {"epochs": 1, "batch_size": 16, "space": {"channels": 8}, "lookup": {"points": 0}},
    "retraining": {"scratch": {"epochs": 1, "batch_size": 16}},
}
BENCH = {**DARTS, "space": {"name": "nas-bench-201", "channels": 4, "cells": 1}}
MEASURED = {
    **DARTS,
    "data": {**DARTS["data"], "resolution": 32},
    "space": {"name": "nas-bench-201"},
    "search": {**DARTS["search"], "space": {"channels": 4, "cells": 1, "resolution": 8}},
}
"""As devices measured the cells; searched on networks that are small."""
POINTS = {"points": 2, "epochs": 1.0, "workers": 1}


def make(content: dict[str, Any], **changes: Any) -> CellRecipe:
    """A recipe; of ``search`` only what is given changes."""
    changes["search"] = {**content["search"], **changes.pop("search", {})}
    return read_config(CellRecipe, {**content, **changes})


def run(content: dict[str, Any], out: Path, *, fresh: bool = False, **changes: Any) -> CellSearchResult:
    return search_cells(make(content, **changes), out=out, fresh=fresh, progress=False)


def files(folder: Path) -> dict[str, bytes]:
    """What lies in a folder, but for the log, whose lines have times."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if "tensorboard" not in name and name != "log.jsonl"}


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "darts": (DARTS, {}),
    "darts, params": (DARTS, {"limits": {"params": "20%"}, "search": {"method": "dca", "bottleneck": 2}}),
    "darts, madds and params": (DARTS, {"limits": {"madds": "70%"}, "at_least": {"params": "10%"}}),
    "darts, as pc-darts": (DARTS, {"limits": {"params": 4000.0}, "search": {"method": "pc-darts", "partial_channels": 2}}),
    "nas-bench-201, params": (BENCH, {"limits": {"params": "5%"}, "search": {"method": "darts"}}),
    "nas-bench-201, madds": (BENCH, {"limits": {"madds": "50%"}, "at_least": {"params": "20%"}}),
    "a latency": (MEASURED, {"limits": {"latency_ms@pixel3": "40%"}}),
    "latency and energy": (
        MEASURED, {"limits": {"latency_ms@edgetpu": "60%", "energy_mj@eyeriss": "50%"}, "at_least": {"madds": "10M"}}
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_found_keeps_its_limits(tmp_path: Path, case: str) -> None:
    content, changes = CASES[case]
    result = run(content, tmp_path / "found", **changes)
    network = snugnet.load(tmp_path / "found")
    assert isinstance(network, StoredNetwork)
    space = cell_space(
        content["space"]["name"], **{k: v for k, v in content["space"].items() if k != "name"},
        resolution=content["data"]["resolution"], num_classes=10,
    )  # fmt: skip
    assert network.family.space.to_json() == space.to_json()
    blueprint = space.blueprint(network.row)
    assert network.costs["params"] == blueprint.params == sum(p.numel() for p in network.module.parameters())
    assert network.costs["madds"] == blueprint.madds
    asked = {**changes.get("limits", {}), **changes.get("at_least", {})}
    assert {limit.table.name for limit in result.limits} == set(asked)
    for limit in result.limits:
        cost, at, device = limit.table.name.partition("@")
        if at:
            measured = measured_cost(space, cost, device)
            assert (
                network.costs[limit.table.name] == measured.of(network.row[None])[0]
            )  # what was measured, and nothing that was not
        else:
            assert network.costs[cost] == getattr(blueprint, cost)
        assert limit.sign * (network.costs[limit.table.name] - limit.amount) <= 0
        assert limit.at_least or network.budgets[limit.table.name] == limit.amount
    if space.name == "nas-bench-201":
        assert disconnected(space)(network.row[None])[0] == 0
    report = json.loads((tmp_path / "found" / "search.json").read_text())
    assert report == json.loads(json.dumps(result.to_json()))
    assert report["architecture"] == network.arch
    assert len(report["history"]) == content["search"]["epochs"]
    assert [limit["bound"] for limit in report["limits"]] == [limit.amount for limit in result.limits]
    assert (tmp_path / "found" / "cells.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "found" / "lookup").exists()
    assert not any("search" in key for key in network.provenance["recipe"])


# -- look-up graphs, and going on --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with a look-up graph of its only limit."""
    folder = tmp_path_factory.mktemp("cells") / "found"
    run(DARTS, folder, limits={"params": "40%"}, search={"lookup": POINTS})
    return folder


def test_a_graph_gives_the_search_its_bound(with_graph: Path) -> None:
    report = json.loads((with_graph / "search.json").read_text())
    kept = json.loads((with_graph / "lookup" / "params.json").read_text())["graph"]
    assert report["lookup"] == {"params": kept}
    graph = LookupGraph.from_json(kept)
    assert len(graph.bounds) == 2
    (limit,) = report["limits"]
    table = counted_table(cell_space("darts", channels=4, cells=3, nodes=2, resolution=8), "params")
    assert all(table.range[0] <= cost <= table.range[1] for cost in graph.derived)
    assert limit["at_most"] == pytest.approx(table.range[0] + 0.4 * (table.range[1] - table.range[0]))
    assert graph.bounds[0] <= limit["bound"] <= max(graph.bounds[-1], limit["at_most"])
    assert (with_graph / "lookup-params.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (with_graph / "lookup").iterdir() if path.name != ".snugnet.lock"] == ["params.json"]


def test_run_again_it_finds_the_same_without_searching(with_graph: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(with_graph, folder)
    before, stamp = files(folder), (folder / "lookup" / "params.json").stat().st_mtime_ns
    run(DARTS, folder, limits={"params": "40%"}, search={"lookup": POINTS})
    after = files(folder)
    assert (folder / "lookup" / "params.json").stat().st_mtime_ns == stamp
    assert set(after) == set(before)
    for name in after:
        if name not in ("search.json", "network.json"):  # seconds
            assert after[name] == before[name], name
    assert json.loads(after["search.json"])["history"] == json.loads(before["search.json"])["history"]


def test_another_limit_is_another_search_and_has_the_same_graph(with_graph: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(with_graph, folder)
    before = files(folder)
    with pytest.raises(TrainingError, match=r"was made by another search \(not the same limits\.0\.1.*--fresh"):
        run(DARTS, folder, limits={"params": "30%"}, search={"lookup": POINTS})
    assert files(folder) == before
    (folder / CHECKPOINT).unlink()
    with pytest.raises(ConfigError, match="holds a network already; give another --out, or --fresh"):
        run(DARTS, folder, limits={"params": "30%"}, search={"lookup": POINTS})
    (folder / NETWORK.index).unlink()
    stamp = (folder / "lookup" / "params.json").stat().st_mtime_ns
    run(DARTS, folder, limits={"params": "30%"}, search={"lookup": POINTS})
    assert (folder / "lookup" / "params.json").stat().st_mtime_ns == stamp


def test_another_search_is_refused_before_a_graph_is_made_for_it(with_graph: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(with_graph, folder)
    before = files(folder)
    with pytest.raises(TrainingError, match=r"another search \(not the same limits\.0\.0, limits\.0\.1\)"):
        run(DARTS, folder, limits={"madds": "40%"}, search={"lookup": POINTS})
    with pytest.raises(TrainingError, match=r"another search \(not the same seed"):
        run(DARTS, folder, limits={"params": "40%"}, seed=1, search={"lookup": POINTS})
    assert files(folder) == before


def test_fresh_throws_all_of_it_away(with_graph: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(with_graph, folder)
    run(DARTS, folder, fresh=True, limits={"madds": "60%"})
    assert not (folder / "lookup").exists()
    assert not list(folder.glob("lookup-*"))
    assert len(list(folder.glob("weights-*"))) == 1
    assert set(json.loads((folder / "search.json").read_text())["lookup"]) == set()


def test_two_processes_make_the_graph_that_one_makes(with_graph: Path, tmp_path: Path) -> None:
    run(DARTS, tmp_path / "two", limits={"params": "40%"}, search={"lookup": {**POINTS, "workers": 2}})
    one, two = (
        json.loads((folder / "lookup" / "params.json").read_text()) for folder in (with_graph, tmp_path / "two")
    )
    assert one == two


def test_a_process_that_was_killed_is_named() -> None:
    from snugnet.cell_search import _in_processes

    with pytest.raises(SearchError, match="was killed, maybe for want of memory; run the same again with fewer"):
        _in_processes(_killed, [(0,), (1,)], 2)


def _killed(number: int) -> float:
    import os

    os._exit(9)


def test_a_damaged_graph_is_named(with_graph: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(with_graph, folder)
    for content in ("{", "[]", "{}", '{"made_with": 1'):
        (folder / "lookup" / "params.json").write_text(content)
        with pytest.raises(ConfigError, match=r"params\.json is damaged .* delete it, or --fresh"):
            run(DARTS, folder, limits={"params": "40%"}, search={"lookup": POINTS})


def test_a_graph_of_what_a_cost_has_to_be_at_least(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"limits": {"params": "90%"}, "at_least": {"params": "60%"}, "search": {"lookup": POINTS}}
    result = run(BENCH, tmp_path / "found", **changes)
    assert set(result.graphs) == {"params", "params-at-least"}
    assert not result.graphs["params"].at_least
    assert result.graphs["params-at-least"].at_least
    assert result.graphs["params"].bounds[-1] == pytest.approx(result.graphs["params-at-least"].bounds[0])
    assert {path.name for path in (tmp_path / "found").glob("lookup-*.png")} == {
        "lookup-params.png", "lookup-params-at-least.png"
    }  # fmt: skip
    low, high = (limit.amount for limit in reversed(result.limits))
    assert low <= result.network.costs["params"] <= high


# -- limits of other kinds ---------------------------------------------------------------------------------------------


def test_a_measured_cost_from_a_file(tmp_path: Path) -> None:
    space = cell_space("darts", channels=4, cells=3, nodes=2, resolution=8, num_classes=10)
    params = counted_table(space, "params")
    mine = CostTable(
        space, "my_latency", "ms", [(s, v / 100) for s, v in params.tables] + [((), params.constant / 100)]
    )
    save_cost_table(mine, tmp_path / "mine.npz")
    changes: dict[str, Any] = {"costs": {"my_latency": str(tmp_path / "mine.npz")}, "limits": {"my_latency": "30%"}}
    result = run(DARTS, tmp_path / "found", **changes)
    assert result.network.costs["my_latency"] == pytest.approx(result.network.costs["params"] / 100)
    assert result.network.costs["my_latency"] <= result.limits[0].amount


def test_limits_are_of_the_images_own_classes(tmp_path: Path) -> None:
    """Ten classes, as the space has without images, would not fit."""
    low = {
        n: counted_table(
            cell_space("darts", channels=4, cells=3, nodes=2, resolution=8, num_classes=n), "params"
        ).range[0]
        for n in (2, 10)
    }
    data = {**DARTS["data"], "groups": {"a": ["3"], "b": ["7"]}, "ungrouped": "drop", "train_rows": 40}
    limits = {"params": (low[2] + low[10]) / 2}
    result = run(DARTS, tmp_path / "found", data=data, limits=limits)
    assert result.network.classes == ("3", "7")
    with pytest.raises(BudgetError, match="feasible: "):
        run(DARTS, tmp_path / "ten", limits=limits)
    assert not (tmp_path / "ten").exists()


@pytest.mark.parametrize("content", [DARTS, BENCH], ids=["darts", "nas-bench-201"])
def test_a_tight_limit_takes_no_more_skip_connections_than_are_allowed(tmp_path: Path, content: dict[str, Any]) -> None:
    result = run(
        content,
        tmp_path / "found",
        limits={"params": "0%"} if content is DARTS else {"params": "5%"},
        search={"max_skips": 1},
    )
    arch = result.network.arch
    skips = (
        sum(name == "skip_connect" for name, _ in arch["normal"])
        if content is DARTS
        else arch["arch_str"].count("skip_connect")
    )
    assert skips <= 1


def test_selection_by_perturbation(tmp_path: Path) -> None:
    search = {"selection": "perturbation", "perturbation_batches": 1}
    result = run(DARTS, tmp_path / "found", limits={"params": "50%"}, search=search)
    assert result.network.costs["params"] <= result.limits[0].amount
    plain = run(DARTS, tmp_path / "found", limits={"params": "50%"})  # the same search, and its checkpoint
    assert plain.found.history == result.found.history


# -- wrong input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"limits": {"params": 10}}, BudgetError, r"has params <= 10; feasible: \S+ to \S+ params$"),
        ({"at_least": {"params": "9M"}}, BudgetError, r"has params >= 9,000,000; feasible: \S+ to \S+ params$"),
        (
            {"limits": {"params": 3000}, "at_least": {"params": 4000}},
            BudgetError,
            "has params <= 3,000 and params >= 4,000; feasible alone: ",
        ),
        ({"limits": {"params": 0}}, BudgetError, "params: a budget is a positive number"),
        ({"limits": {"params": "lots"}}, BudgetError, "params: a budget is a positive number"),
        ({"limits": {"joules": 5}}, SpaceError, "unknown cost 'joules'; known: activations"),
        ({"limits": {"latency_ms": 5}}, ConfigError, "latency_ms is measured on a device; say on which"),
        ({"limits": {"latency_ms@nokia": 5}}, SpaceError, "unknown device 'nokia'; known: edgegpu"),
        ({"limits": {"latency_ms@raspi4": 5}}, SpaceError, "measured of the cells of nas-bench-201, got darts"),
        ({"space": {"name": "mobilenet-v2"}}, ConfigError, "mobilenet-v2 is no space of cells"),
        ({"space": {"name": "darts", "channel": 3}}, SpaceError, "unknown option 'channel'"),
        ({"search": {"space": {"nodes": 3}}}, ConfigError, "changes what can be chosen"),
        ({"search": {"bottleneck": 3}}, ConfigError, "8 to 8 channels, which 3 does not divide"),
        ({"search": {"bottleneck": 2, "partial_channels": 2}}, ConfigError, "two ways to one thing"),
        ({"search": {"space": {"num_classes": 3}}}, ConfigError, "num_classes of the search network follows"),
        ({"search": {"method": "enas"}}, ConfigError, "search.method is 'enas': input should be 'dca', 'darts' or"),
        ({"search": {"lookup": {"points": 1}}}, ConfigError, "at least 2 points, or 0 for none"),
        ({"search": {"epochs": 2, "warmup_epochs": 2}}, ConfigError, "leave no epoch of 2"),
        ({"data": {"source": "gone.parquet", "resolution": 8}}, SnugnetError, r"gone\.parquet"),
    ],
)
def test_wrong_input_writes_nothing(tmp_path: Path, changes: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        run(DARTS, tmp_path / "found", **changes)
    assert not (tmp_path / "found").exists()


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"energy_mj@raspi4": 5}, "raspi4 has no 'energy_mj'; measured: latency_ms"),
        ({"latency_ms@raspi4": 0.01}, r"has latency_ms@raspi4 <= 0.01; feasible: .* ms \(disconnected <= 0"),
    ],
)
def test_wrong_measured_limits_write_nothing(tmp_path: Path, limits: dict[str, Any], says: str) -> None:
    with pytest.raises(SnugnetError, match=says):
        run(MEASURED, tmp_path / "found", limits=limits)
    assert not (tmp_path / "found").exists()


def test_folders_of_other_things_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "family").mkdir()
    (tmp_path / "family" / "family.json").write_text("{}")
    with pytest.raises(ConfigError, match="is a file, not a folder"):
        run(DARTS, tmp_path / "file")
    with pytest.raises(ConfigError, match="holds a family; give the network another folder"):
        run(DARTS, tmp_path / "family", fresh=True)


# -- recipes -----------------------------------------------------------------------------------------------------------

RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("dca-*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_read(path: Path) -> None:
    recipe = read_config(CellRecipe, read_yaml(path), str(path))
    config = recipe.search.resolved()
    assert (config.weight_sharing, config.derived_cells) == (True, True)
    space = cell_space(recipe.space.name, **recipe.space.options, resolution=recipe.data.resolution)
    assert space.with_options(**config.space).choices == space.choices


def test_the_paper_s_settings() -> None:
    """DCA-NAS, appendix D."""
    recipe = read_config(CellRecipe, read_yaml(RECIPES / "dca-darts.yaml"))
    search, scratch = recipe.search.resolved(), recipe.retraining.scratch.resolved(recipe.batch_size)
    assert search.space == {"channels": 16, "cells": 8}
    assert (search.epochs, search.batch_size, search.learning_rate, search.momentum) == (50, 512, 0.2, 0.9)
    assert (search.method, search.bottleneck, search.weight_sharing, search.derived_cells) == ("dca", 4, True, True)
    assert search.augment is not None
    assert search.augment.cutout == 0
    assert recipe.space.options == {"channels": 36, "cells": 20}
    assert (scratch.epochs, scratch.batch_size, scratch.learning_rate, scratch.momentum) == (600, 96, 0.025, 0.9)
    assert (scratch.schedule, scratch.clip, scratch.weight_decay, scratch.nesterov) == ("cosine", 5.0, 3e-4, False)
    assert (scratch.drop_path, scratch.auxiliary, scratch.label_smoothing) == (0.2, 0.4, 0)
    assert (recipe.augment.cutout, recipe.augment.crop_padding, recipe.augment.flip) == (16, 4, True)


def test_settings_of_nas_bench_201() -> None:
    """Dong and Yang, table 1 of the supplement: how its networks were trained."""
    recipe = read_config(CellRecipe, read_yaml(RECIPES / "dca-nas-bench-201.yaml"))
    search, scratch = recipe.search, recipe.retraining.scratch
    assert recipe.space.options == {"channels": 16, "cells": 5}
    assert (search.epochs, search.batch_size, search.learning_rate) == (50, 512, 0.2)
    assert (scratch.epochs, scratch.batch_size, scratch.learning_rate, scratch.schedule) == (200, 256, 0.1, "cosine")
    assert (scratch.weight_decay, scratch.nesterov, scratch.label_smoothing) == (5e-4, True, 0)

"""``snugnet train`` and ``quickstart``: from a recipe to a family, results and files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interrupted import interrupt

from snugnet.files import LOCK
from snugnet.recipe import load_recipe


def test_train_evaluate_specialize(snugnet: Any, recipe: Path, tmp_path: Path) -> None:
    done = snugnet("train", recipe, "output=runs/a", "evaluation.export=true", "--json").json
    folder = tmp_path / "runs" / "a"
    assert done["folder"] == "runs/a"
    assert len(done["rows"]) == 6
    assert done["files"] == {kind: f"runs/a/results.{kind}" for kind in ("json", "md", "png")}
    assert json.loads((folder / "results.json").read_text())["rows"] == done["rows"]
    assert done["networks"] == {group: f"runs/a/onnx/{group}.onnx" for group in ("round", "straight", "curvy")}
    assert sorted(path.name for path in (folder / "onnx").iterdir()) == ["curvy.onnx", "round.onnx", "straight.onnx"]
    assert done["context"]["recipe"]["output"] == "runs/a"
    assert snugnet("specialize", folder, "--group", "round", "--madds", "10M", "--out", "net.onnx").code == 0

    again = snugnet("train", recipe, "output=runs/a")  # nothing is left to train
    assert again.code == 0
    assert "going on with the run in runs/a" in again.err
    assert "accuracy" in again.out
    assert "6 networks in" in again.err

    other = snugnet("train", recipe, "output=runs/a", "seed=1")
    assert "was made by another recipe" in other.err
    assert other.code == 2
    fresh = snugnet("train", recipe, "output=runs/a", "seed=1", "--fresh")
    assert fresh.code == 0
    assert "going on" not in fresh.err


def test_two_runs_do_not_share_a_folder(snugnet: Any, recipe: Path, tmp_path: Path, busy: int) -> None:
    for fresh in ([], ["--fresh"]):
        done = snugnet("train", recipe, "output=runs/a", *fresh)
        assert done.code == 2
        line = done.err.splitlines()[-1]
        assert f"runs/a is in use by process {busy} on " in line
        assert "since 20" in line
    assert {path.name for path in (tmp_path / "runs" / "a").iterdir()} == {LOCK}


def test_a_run_has_its_folder_to_the_end(
    snugnet: Any, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snugnet.family.report import Report

    save, there = Report.save, []
    monkeypatch.setattr(
        Report, "save", lambda self, folder: there.append((folder / LOCK).exists()) or save(self, folder)
    )
    assert snugnet("train", recipe, "output=runs/a").code == 0
    assert there == [True]
    assert not (tmp_path / "runs" / "a" / LOCK).exists()


def test_it_shows_the_data_and_the_space_before_it_trains(snugnet: Any, recipe: Path) -> None:
    done = snugnet("train", recipe, "evaluation.budgets=[1]")
    assert done.code == 2
    assert "has madds <= 1; feasible" in done.err
    done = snugnet("train", recipe)
    assert "200 train" in done.err
    assert "MAdds min / centroid / max" in done.err


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["training.batchsize=64"], "no key 'training.batchsize'; did you mean 'batch_size'?"),
        (["batch_size"], "settings are key=value"),
        (["training.stages.1.elastic={kernel: 2}"], "'kernel' is no kind of choice in ofa-mobilenet-v3"),
        (["generator.budget=latency_ms"], "'latency_ms'"),
        (
            ["evaluation.budgets=[1M, 10]"],
            "evaluation.budgets: no architecture of ofa-mobilenet-v3 has madds <= 10; feasible: ",
        ),
        (["space.name=ofa"], "unknown space 'ofa'"),
        (["space.width=2"], "unknown option 'width'"),
        (["space.cls=2"], "unknown option 'cls'"),
        (["space.stage_strides=[1]"], "stage_strides has 5 entries"),
        (["data.source=nowhere.parquet"], "nowhere.parquet"),
        (["data.groups={all: ['0']}"], "class"),
        (["output=tiny.yaml"], "tiny.yaml is a file, not a folder"),
        (["output=tiny.yaml/deep"], "tiny.yaml is a file, not a folder"),
    ],
)
def test_wrong_input_before_any_work(
    snugnet: Any, recipe: Path, tmp_path: Path, overrides: list[str], says: str
) -> None:
    done = snugnet("train", recipe, *overrides, "--json")
    assert says in done.error
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_run_that_cannot_begin_throws_nothing_away(snugnet: Any, recipe: Path, family: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a"
    shutil.copytree(family, folder)
    own = folder / "supernet.ckpt.safetensors"
    own.write_bytes(b"hours of work")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    asks = ["training.stages.1.elastic=all", "training.stages.1.sampling=best-up"]
    for overrides, says in (
        ([f"training.start={tmp_path / 'typo.safetensors'}"], "training.start: cannot read"),
        ([f"training.start={own}"], "is this run's own checkpoint; give another output"),
        ([*asks, "training.predictor=nowhere"], "nowhere"),
        (
            ["evaluation.best_of=2", "evaluation.validation_images=0"],
            "of 0 evaluation.validation_images none is of group",
        ),
    ):
        done = snugnet("train", recipe, "output=runs/a", *overrides, "--fresh")
        assert done.code == 2
        assert says in done.err.splitlines()[-1]
        assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("name", ["supernet-*.safetensors", "costs-*.npz", "family.json"])
def test_what_is_no_start_is_not_to_be_deleted(snugnet: Any, recipe: Path, family: Path, name: str) -> None:
    (path,) = family.glob(name)
    done = snugnet("train", recipe, f"training.start={path}")
    assert done.code == 2
    line = done.err.splitlines()[-1]
    assert (
        f"{path.name} is no checkpoint of a supernet's training; such a file is named supernet.ckpt.safetensors" in line
    )
    assert "delete" not in line


def test_a_predictor_of_another_space_is_refused_by_what_differs(snugnet: Any, recipe: Path, tmp_path: Path) -> None:
    from snugnet.predictors import fit_predictor
    from snugnet.spaces import get_space

    space = get_space("ofa-mobilenet-v3", width_mult=0.5)
    rows = space.sample(20, np.random.default_rng(0))
    fit_predictor("forest", space, rows, np.arange(20.0)[:, None], targets=("top1",)).save(tmp_path / "one")
    targets = ("top1", "top5")
    fit_predictor("forest", space, rows, np.arange(40.0).reshape(20, 2), targets=targets).save(tmp_path / "two")
    asks = ["training.stages.1.elastic=all", "training.stages.1.sampling=best-up"]
    line = snugnet("train", recipe, *asks, "training.predictor=one").err.splitlines()[-1]
    assert "width_mult is 0.5 there and 0.1 in the recipe" in line
    assert "num_classes is 1000 there and 10 in the recipe" in line
    assert "in_channels" not in line
    line = snugnet("train", recipe, *asks, "training.predictor=two").err.splitlines()[-1]
    assert "predicts top1, top5; needed: one accuracy" in line


def measured(recipe: Path, path: Path, name: str = "latency_ms", scale: float = 1e-6) -> None:
    """Write a table that a device might have given: a cost like the multiply-adds, and something that always comes."""
    from snugnet import pipeline
    from snugnet.costs import CostTable, counted_table, save_cost_table
    from snugnet.data import load_data

    made = load_recipe(recipe)
    space = pipeline.make_space(made, load_data(made.data, progress=False))
    madds = counted_table(space, "madds")
    terms = [(columns, np.asarray(values) * scale) for columns, values in madds.tables]
    save_cost_table(CostTable(space, name, "ms", [*terms, ((), 0.5)]), path)


def test_budgets_of_a_measured_cost(snugnet: Any, recipe: Path, tmp_path: Path) -> None:
    """The recipe names a table: training draws by it, the generator learns budgets of it, the family has it."""
    measured(recipe, tmp_path / "device.npz")
    asks = [
        "costs={latency_ms: device.npz}", "generator.budget=latency_ms", "training.cost=latency_ms",
        "training.stages.1.elastic=all", "training.stages.1.sampling=cost", "evaluation.budgets=['50%']",
    ]  # fmt: skip
    done = snugnet("train", recipe, *asks, "output=runs/a", "--json").json
    assert done["budget"] == "latency_ms"
    assert all(row["costs"]["latency_ms"] <= row["budget"] for row in done["rows"])
    given = snugnet(
        "specialize", "runs/a", "--group", "round", "--latency-ms", done["rows"][0]["budget"], "--json"
    ).json
    assert given["costs"]["latency_ms"] <= done["rows"][0]["budget"]
    assert snugnet("train", recipe, *asks, "output=runs/a").code == 0
    measured(recipe, tmp_path / "device.npz", scale=2e-6)  # under the same name
    other = snugnet("train", recipe, *asks, "output=runs/a")
    assert other.code == 2
    assert "not the same training.cost" in other.err.splitlines()[-1]
    rest = [each for each in asks if not each.startswith(("training.cost", "training.stages.1.sampling"))]
    assert snugnet("train", recipe, *rest, "output=runs/b").code == 0
    measured(recipe, tmp_path / "device.npz")
    other = snugnet("train", recipe, *rest, "output=runs/b")
    assert "another generator recipe or supernet (not the same costs)" in other.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("costs", "says"),
    [
        ("{latency_ms: none.npz}", "cannot read the cost table none.npz"),
        ("{energy_mj: device.npz}", "costs.energy_mj: device.npz is a table of latency_ms; name it so"),
        ("{madds: device.npz}", "madds is counted from the architecture; a measured cost has another name"),
        ("{latency_ms: tiny.yaml}", "tiny.yaml is no latency table of once-for-all"),
    ],
)
def test_measured_costs_that_are_none(snugnet: Any, recipe: Path, tmp_path: Path, costs: str, says: str) -> None:
    measured(recipe, tmp_path / "device.npz")
    assert says in snugnet("train", recipe, f"costs={costs}").error
    assert not (tmp_path / "runs").exists()


def test_a_cost_that_a_package_brings_is_trained_on(
    snugnet: Any, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snugnet.costs import COSTS, Cost

    layers = Cost("layers", "layers", "layers of the network", lambda block, _: len(block.all_layers))
    monkeypatch.setitem(COSTS._own, "layers", layers)
    asks = ["generator.budget=layers", "training.cost=layers", "training.stages.1.elastic=all"]
    done = snugnet(
        "train", recipe, *asks, "training.stages.1.sampling=cost", "evaluation.budgets=['60%']", "--json"
    ).json
    assert all(row["costs"]["layers"] <= row["budget"] for row in done["rows"])


def test_stopped_by_the_keyboard(recipe: Path, tmp_path: Path) -> None:
    """Ctrl-C: one line, code 130; the same command then goes on."""
    endless = ["train", str(recipe), "training.stages.0.epochs=1000", "training.checkpoint_seconds=0"]
    interrupt(endless, tmp_path, tmp_path / "runs" / "tiny" / "supernet.ckpt.safetensors")


def test_quickstart_runs_the_recipe_that_the_repository_shows(snugnet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from snugnet.cli import quickstart
    from snugnet.family.report import MeasuredRow, Report

    ran = []

    def run(recipe: Any, **options: bool) -> Report:
        ran.append((recipe, options))
        rows = [MeasuredRow("round", budget, 1.0, {}, {}, 1.0, 1.0, 0.0, 1) for budget in (1e6, 3e6, 2e6)]
        return Report("digits", "madds", rows, 1.0)

    monkeypatch.setattr(quickstart, "run", run)
    done = snugnet("quickstart", "--output", "1e3", "--fresh")
    assert done.code == 0
    shown = load_recipe(Path(__file__).resolve().parents[2] / "recipes" / "quickstart.yaml")
    assert ran == [(shown.model_copy(update={"output": "1e3"}), {"fresh": True, "as_json": False})]
    assert shown.output == "runs/digits"
    assert shown.evaluation.export
    assert "snugnet specialize 1e3 --group curvy --madds 2M --out curvy.onnx" in done.err


def test_quickstart_says_when_its_recipe_is_gone(snugnet: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from importlib import metadata

    from snugnet.cli import common

    monkeypatch.setattr(common, "__file__", str(tmp_path / "a" / "b" / "c" / "common.py"))
    monkeypatch.setattr(metadata, "files", lambda _: [])
    assert "no recipe 'quickstart' is installed" in snugnet("quickstart").error

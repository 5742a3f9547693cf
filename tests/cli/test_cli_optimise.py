"""``snugnet optimise``: a predictor's best architecture within budgets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snugnet.costs import counted_table
from snugnet.predictors import MLPPredictor, load_predictor
from snugnet.search.optimisers.climb import Climb
from snugnet.search.optimisers.optimiser import OPTIMISERS, predictor_problem
from snugnet.spaces import get_space

OPTIONS = {"depths": [1, 2], "kernel_sizes": [3, 5], "resolution": 32}


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLP with random weights, of two targets."""
    import torch

    torch.manual_seed(0)
    space = get_space("ofa-mobilenet-v3", **OPTIONS)
    size = int(space.offsets[-1])
    module = torch.nn.Sequential(torch.nn.Linear(size, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    return MLPPredictor(space, module, ("top1", "loss")).save(tmp_path_factory.mktemp("predictor") / "p")


@pytest.mark.parametrize("optimiser", OPTIMISERS.names())
def test_every_optimiser_stays_within_all_budgets(snugnet: Any, predictor: Path, optimiser: str) -> None:
    few = {"climb": ("rounds", 1), "ascent": ("rounds", 1), "evolution": ("preset", "spos")}[optimiser]
    found = snugnet(
        "optimise", predictor, "--target", "loss", "--optimiser", optimiser, "--set", f"{few[0]}={few[1]}",
        "--budget", "madds=40%", "--budget", "params=3M", "--out", "new/best.json", "--json",
    ).json  # fmt: skip
    assert json.loads(Path("new/best.json").read_text()) == found
    assert found["settings"]["optimiser"] == optimiser
    assert found["settings"][few[0]] == few[1]
    space = get_space(found["space"]["name"], **found["space"]["options"])
    row = space.from_dict(found["architecture"])
    assert found["predicted"] == pytest.approx(float(load_predictor(predictor).predict(row)[0, 1]), abs=1e-6)
    low, high = counted_table(space, "madds").range
    assert found["budgets"] == pytest.approx({"madds": low + 0.4 * (high - low), "params": 3e6})
    assert set(found["costs"]) == {
        "activations",
        "madds",
        "params",
        "peak_memory",
        "peak_memory_int8",
        "weight_memory",
        "weight_memory_int8",
    }
    for name, budget in found["budgets"].items():
        assert found["costs"][name] == counted_table(space, name)(row)[0] <= budget


def test_it_gives_what_the_optimiser_gives(snugnet: Any, predictor: Path) -> None:
    found = snugnet("optimise", predictor, "--target", "top1", "--optimiser", "climb", "--seed", "3", "--json").json
    loaded = load_predictor(predictor)
    tables = {name: counted_table(loaded.space, name) for name in ("activations", "madds", "params")}
    rows, scores = Climb().maximise(predictor_problem(loaded, tables, {}, "top1"), seed=3)
    assert found["architecture"] == json.loads(json.dumps(loaded.space.to_dict(rows[0])))
    assert found["predicted"] == scores[0]


def test_people_get_tables(snugnet: Any, predictor: Path) -> None:
    done = snugnet("optimise", predictor, "--target", "top1", "--budget", "madds=20%", "--set", "rounds=1")
    assert done.code == 0
    for text in ("top1", "by ascent", "madds", "budget", "kernel_size"):  # this predictor has gradients
        assert text in done.out
    shown = snugnet("optimise", "--optimisers")
    for text in (*OPTIMISERS.names(), "starts=12", "patience=None"):
        assert text in shown.out


def test_a_measured_table(snugnet: Any, shared_folder: Path, tmp_path: Path) -> None:
    data = shared_folder / "data" / "ofa-mobilenet-v3"
    space = get_space("ofa-mobilenet-v3", width_mult=1.2)
    MLPPredictor.from_ofa(data / "accuracy_predictor_w1.2.safetensors", space).save(tmp_path / "ofa")
    table = ("--table", data / "note10_latency.csv.gz")
    found = snugnet(
        "optimise", "ofa", *table, "--budget", "latency_ms=30", "--set", "rounds=2", "--json"
    ).json  # fmt: skip
    assert 28 < found["costs"]["latency_ms"] <= 30
    assert found["predicted"] > 82
    assert "a table of latency_ms already" in snugnet("optimise", "ofa", *table, *table).error
    assert "no cost 'latency_ms'" in snugnet("optimise", "ofa", "--budget", "latency_ms=30").error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "the predictor predicts top1, loss; say which one is wanted"),
        (["--target", "f1"], "no target 'f1'; targets: top1, loss"),
        (["--target", "top1", "--optimiser", "luck"], "unknown optimiser 'luck'; known: ascent, climb, evolution"),
        (
            ["--target", "top1", "--optimiser", "climb", "--set", "patience=3"],
            "climb takes no patience; it takes starts",
        ),
        (["--target", "top1", "--set", "starts=0"], "ascent: starts is a whole number of at least 1, got 0"),
        (["--target", "top1", "--set", "probability=0"], "ascent: probability is above 0 and at most 1, got 0"),
        (["--target", "top1", "--optimiser", "evolution", "--set", "preset=x"], "no preset 'x'"),
        (["--target", "top1", "--budget", "madds=1"], "feasible"),
        (["--target", "top1", "--budget", "watts=1"], "no cost 'watts'; costs: activations, madds, params"),
        (["--target", "top1", "--table", "no.csv"], "no.csv"),
        (["--target", "top1", "--out", "."], "is a folder"),
    ],
)
def test_wrong_input_is_one_line(snugnet: Any, predictor: Path, arguments: list[str], says: str) -> None:
    assert says in snugnet("optimise", predictor, *arguments, "--json").error


def test_a_predictor_without_gradients(snugnet: Any, tmp_path: Path) -> None:
    from snugnet.predictors import fit_predictor

    space = get_space("ofa-mobilenet-v3", **OPTIONS)
    rows = space.sample(30, np.random.default_rng(0))
    fit_predictor("forest", space, rows, rows.sum(1), trees=2).save(tmp_path / "forest")
    assert "ascent: the score has no gradients" in snugnet("optimise", "forest", "--optimiser", "ascent").error
    found = snugnet("optimise", "forest", "--set", "rounds=0", "--json").json
    assert found["settings"] == {"optimiser": "climb", "starts": 12, "rounds": 0, "probability": 0.2}

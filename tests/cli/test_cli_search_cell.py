"""``snugnet search-cell``: from a space and limits to a network that other commands take, or one line that says why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interrupted import interrupt

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "data.resolution=8", "data.validation=0.1", "data.train_rows=64", "augment={}", "search.augment={}", "device=cpu", "threads=1",
    "search.epochs=1", "search.batch_size=16", "search.lookup.points=0", "retraining.scratch.epochs=1", "retraining.scratch.batch_size=16",
]  # fmt: skip
DARTS = [
    "darts",
    "--data",
    "digits",
    *SMALL,
    "space={name: darts, channels: 4, cells: 3, nodes: 2}",
    "search.space={channels: 8}",
]
BENCH = [
    "nas-bench-201",
    "--data",
    "digits",
    *SMALL,
    "space={name: nas-bench-201, channels: 4, cells: 1}",
    "search.space={}",
]
MEASURED = [
    "nas-bench-201", "--data", "digits", *SMALL, "data.resolution=32",
    "search.space={channels: 4, cells: 1, resolution: 8}",
]  # fmt: skip


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_limits_of_the_command_line(snugnet: Any, tmp_path: Path) -> None:
    limits = ["--params", "60%", "--budget", "madds=80%", "--at-least", "params=10%"]
    done = snugnet("search-cell", *DARTS, *limits, "--out", "runs/found", "--json").json
    assert done["folder"] == "runs/found"
    asked = {(limit["cost"], "at_most" in limit) for limit in done["limits"]}
    assert asked == {("params", True), ("madds", True), ("params", False)}
    for limit in done["limits"]:
        cost = done["costs"][limit["cost"]]
        assert cost <= limit["at_most"] if "at_most" in limit else cost >= limit["at_least"]
    written = json.loads((tmp_path / "runs" / "found" / "search.json").read_text())
    assert {"folder": "runs/found", **written} == done
    stored = json.loads((tmp_path / "runs" / "found" / "network.json").read_text())
    assert stored["architecture"] == done["architecture"]
    assert stored["costs"] == done["costs"]

    again = snugnet("search-cell", *DARTS, *limits, "--out", "runs/found")
    assert again.code == 0
    assert "going on with the search in runs/found (--fresh starts anew)" in again.err
    assert "params <= " in again.err
    assert "kept" in again.err
    assert "train it with: snugnet retrain runs/found --from scratch --out DIR" in again.err
    assert "normal: [[" in again.out
    assert f"params: {done['costs']['params']:,}" in again.out
    before = files(tmp_path / "runs")
    other = snugnet("search-cell", *DARTS, "--params", "50%", "--out", "runs/found")
    assert other.code == 2
    assert "was made by another search (not the same limits" in other.err.splitlines()[-1]
    assert files(tmp_path / "runs") == before
    fresh = snugnet("search-cell", *DARTS, "--params", "50%", "--out", "runs/found", "--fresh", "--json").json
    assert [limit["cost"] for limit in fresh["limits"]] == ["params"]


@pytest.mark.parametrize(
    "given", [["--latency-ms", "50%", "--device", "raspi4"], ["--budget", "latency_ms@raspi4=50%"]]
)
def test_a_limit_on_a_device(snugnet: Any, given: list[str]) -> None:
    from snugnet.costs import measured_cost
    from snugnet.spaces import get_space

    done = snugnet("search-cell", *MEASURED, *given, "--out", "found", "--json").json
    (limit,) = done["limits"]
    assert limit["cost"] == "latency_ms@raspi4"
    assert done["costs"]["latency_ms@raspi4"] <= limit["at_most"]
    space = get_space("nas-bench-201")
    row = space.from_dict(done["architecture"])
    assert done["costs"]["latency_ms@raspi4"] == measured_cost(space, "latency_ms", "raspi4").of(row)[0]


@pytest.mark.parametrize("arguments", [DARTS, BENCH], ids=["darts", "nas-bench-201"])
def test_the_network_is_one_that_other_commands_take(snugnet: Any, tmp_path: Path, arguments: list[str]) -> None:
    import onnxruntime
    import torch

    from snugnet.family import load_network

    snugnet("search-cell", *arguments, "--params", "70%", "--out", "found")
    done = snugnet("export", "found", "--out", "x.onnx", "--json").json
    assert done["classes"] == [str(i) for i in range(10)]
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
    (logits,) = session.run(None, {"image": x})
    found = load_network(tmp_path / "found")
    np.testing.assert_allclose(logits, found.module(torch.from_numpy(x)).numpy(), atol=1e-4)

    before = files(tmp_path / "found")
    trained = snugnet("retrain", "found", "--from", "scratch", "--out", "trained", "--json").json
    assert trained["architecture"] == found.arch
    assert trained["costs"]["params"] == found.costs["params"]
    assert trained["start"] == "scratch"
    assert 0 <= trained["validation"]["accuracy"] <= 1
    assert files(tmp_path / "found") == before
    (row,) = snugnet("evaluate", "trained", "--json").json["rows"]
    assert 0 <= row["accuracy"] <= 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([*DARTS, "--params", "10"], "no architecture of darts has params <= 10; feasible: "),
        ([*DARTS, "--at-least", "params=9M"], "no network of darts has params >= 9,000,000; feasible: "),
        ([*DARTS, "--params", "3000", "--at-least", "params=4000"], "params <= 3,000 and params >= 4,000; feasible alone: "),
        ([*DARTS, "--params", "0"], "--params: a budget is a positive number"),
        ([*DARTS, "--params", "lots"], "--params: a budget is a positive number"),
        ([*DARTS, "--budget", "params"], "--budget: a budget is given as NAME=VALUE"),
        ([*DARTS, "--at-least", "params=-1"], "a budget is a positive number"),
        ([*DARTS, "limits={params: 0}"], "params: a budget is a positive number"),
        ([*DARTS, "limits=5"], "limits is 5: input should be a valid dictionary"),
        ([*DARTS, "limits=5", "--params", "4k"], "limits is 5; amounts stand there by the names of their costs"),
        ([*DARTS, "--budget", "joules=4k"], "unknown cost 'joules'; known: activations, bitops, madds, params"),
        ([*DARTS, "search.bottleneck=3"], "8 to 8 channels, which 3 does not divide"),
        ([*DARTS, "search.method=enas"], "search.method is 'enas': input should be 'dca', 'darts' or 'pc-darts'"),
        ([*DARTS, "search.epoch=3"], "did you mean 'epochs'?"),
        ([*DARTS, "--params", "4k", "--device", "raspi4"], "--device says what latency or energy are of"),
        ([*DARTS, "--latency-ms", "4", "--device", "raspi4"], "measured of the cells of nas-bench-201, got darts"),
        ([*MEASURED, "--latency-ms", "4"], "latency_ms is measured on a device; say on which"),
        ([*MEASURED, "--latency-ms", "4", "--device", "nokia"], "unknown device 'nokia'; known: edgegpu, raspi4"),
        ([*MEASURED, "--energy-mj", "4", "--device", "raspi4"], "raspi4 has no 'energy_mj'; measured: latency_ms"),
        ([*MEASURED, "--latency-ms", "0.01", "--device", "raspi4"], "has latency_ms@raspi4 <= 0.01; feasible: "),
        ([*BENCH, "--latency-ms", "4", "--device", "raspi4"], "got resolution 8, channels 4, cells 1; networks were measured with"),
        (["mobilenet-v2"], "mobilenet-v2 is no space of cells and no YAML file; the spaces: darts, nas-bench-201"),
        (["gone.yaml"], "cannot read recipe gone.yaml"),
        (["other.yaml"], "mobilenet-v2 is no space of cells; a differentiable search has darts or nas-bench-201"),
        ([*DARTS, "--out", "other.yaml"], "other.yaml is a file, not a folder"),
    ],
)  # fmt: skip
def test_wrong_input_writes_nothing(snugnet: Any, tmp_path: Path, arguments: list[str], says: str) -> None:
    content = {"data": {"source": "digits", "resolution": 8}, "space": {"name": "mobilenet-v2"}}
    (tmp_path / "other.yaml").write_text(json.dumps(content))
    before = files(tmp_path)
    given = arguments if "--out" in arguments else [*arguments, "--out", "found"]
    assert says in snugnet("search-cell", *given, "--json").error
    assert files(tmp_path) == before
    assert not (tmp_path / "found").exists()


def test_a_recipe_of_one_s_own(snugnet: Any, tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "name": "mine",
        "device": "cpu",
        "data": {"source": "digits", "resolution": 8, "train_rows": 64},
        "space": {"name": "nas-bench-201", "channels": 4, "cells": 1},
        "search": {"epochs": 2, "batch_size": 16, "lookup": {"points": 0}},
        "limits": {"params": "80%", "madds": "90%"},
    }
    (tmp_path / "mine.yaml").write_text(json.dumps(content))
    done = snugnet(
        "search-cell", "mine.yaml", "search.method=darts", "--params", "50%", "--out", "found", "--json"
    ).json
    assert len(done["history"]) == 2
    assert {limit["cost"] for limit in done["limits"]} == {"params", "madds"}
    stored = json.loads((tmp_path / "found" / "network.json").read_text())
    assert stored["family"]["name"] == "mine"


def test_stopped_by_the_keyboard_it_says_how_to_go_on(tmp_path: Path) -> None:
    """Ctrl-C: one line, code 130, no network yet."""
    endless = ["search-cell", *BENCH, "search.epochs=100", "search.checkpoint_seconds=0", "--out", "found"]
    interrupt(endless, tmp_path, tmp_path / "found" / "search.ckpt.safetensors")
    assert not (tmp_path / "found" / "network.json").exists()

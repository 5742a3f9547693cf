"""A training by graphs is the training without them; here with a stand-in for the graphs. (On a GPU: tests/gpu.)"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from stand_in import StandIn
from torch import Tensor

from snugnet.data import GroupedImages, load_data
from snugnet.errors import TrainingError
from snugnet.pipeline import train_supernet
from snugnet.recipe import Recipe, parse_recipe
from snugnet.training import supernet as supernet_training
from snugnet.training.ahead import ahead
from snugnet.training.device import make_fabric
from snugnet.training.loop import RunLog

LARGEST = {"name": "largest", "epochs": 0.2, "learning_rate": 0.05}
ALL = {"name": "all", "epochs": 0.4, "learning_rate": 0.05, "elastic": "all"}
ELASTIC = {"name": "kernel", "epochs": 0.2, "learning_rate": 0.05, "elastic": {"kernel_size": 2}, "subnets": 2}
WAYS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "shrinking, no teacher": ([LARGEST, ELASTIC, {**ALL, "subnets": 2, "average": 0.9}], {"distillation": 0.0}),
    "sandwich, best up, all that draws": (
        [{**ALL, "sandwich": True, "sampling": "best-up", "candidates": 2}],
        {"dropout": 0.2, "drop_connect": 0.3, "drop_connect_stages": 2, "superclass_dropout": 0.5, "clip_value": 0.1},
    ),
}


def recipe(output: Path, *stages: dict[str, Any], **training: Any) -> Recipe:
    return parse_recipe(
        {
            "name": "tiny", "output": str(output), "device": "cpu", "threads": 1,
            "data": {"source": "digits", "resolution": 8, "groups": "digits", "validation": 0.2, "train_rows": 160},
            "space": {"width_mult": 0.1, "stem_stride": 1, "stage_strides": [2, 1, 1, 1, 1]},
            "training": {"batch_size": 16, "superclass_dropout": 0.0, "log_every": 1, "weight_decay": 1e-2, "stages": list(stages),
                         **training},
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> GroupedImages:
    return load_data(recipe(tmp_path_factory.mktemp("unused"), ALL).data, progress=False)


def trained(made: Recipe, data: GroupedImages) -> dict[str, Tensor]:
    """All that the checkpoint of a training holds."""
    with RunLog(Path(made.output)) as log:
        train_supernet(made, data, make_fabric(made), log, progress=False)
    return load_file(Path(made.output) / "supernet.ckpt.safetensors")


@pytest.fixture
def graphed(monkeypatch: pytest.MonkeyPatch) -> Callable[[StandIn], StandIn]:
    """Have trainings record with a stand-in, and make draws ahead, as on a GPU."""

    def use(recorder: StandIn) -> StandIn:
        monkeypatch.setattr(supernet_training, "recorder_for", lambda device: recorder)
        monkeypatch.setattr(supernet_training, "ahead", lambda make, total, _: ahead(make, total, torch.device("meta")))
        return recorder

    return use


def notes(folder: Path) -> list[str]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["note"] for line in lines if "note" in line]


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("way", WAYS)
def test_weights_are_the_same_bit_for_bit(way: str, data: GroupedImages, tmp_path: Path, graphed: Any) -> None:
    """Skipped blocks included: neither weight decay nor momentum moves them."""
    stages, training = WAYS[way]
    plain = trained(recipe(tmp_path / "plain", *stages, **training), data)
    recorder = graphed(StandIn())
    assert_same(plain, trained(recipe(tmp_path / "graphs", *stages, **training), data))
    assert recorder.repeated > 0
    said = notes(tmp_path / "graphs")
    assert "graphs for 183 of 183 sizes of blocks" in said[-1]
    assert len(said) == len(stages)
    assert notes(tmp_path / "plain") == []


def test_the_teacher_is_one_graph(data: GroupedImages, tmp_path: Path, graphed: Any) -> None:
    stages = (LARGEST, {**ELASTIC, "elastic": {"depth": 2}})
    plain = trained(recipe(tmp_path / "plain", *stages), data)
    graphed(StandIn())
    ours = trained(recipe(tmp_path / "graphs", *stages), data)
    assert plain.keys() == ours.keys()
    for name, tensor in plain.items():  # its folded batch norm is rounded once more
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
        if name.startswith("teacher"):
            assert torch.equal(ours[name], tensor)


def test_switched_off_nothing_is_recorded_and_a_run_goes_on_so(
    data: GroupedImages, tmp_path: Path, graphed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, training = [LARGEST, ELASTIC], {"distillation": 0.0}
    recorder = graphed(StandIn())
    whole = trained(recipe(tmp_path / "off", *stages, graphs="off", **training), data)
    assert recorder.recorded == 0
    made = recipe(tmp_path / "half", *stages, checkpoint_seconds=0.0, **training)
    taught, calls = supernet_training.SupernetTraining._taught, []

    def broken(*args: Any) -> Any:
        calls.append(0)
        if len(calls) == 4:
            raise TrainingError("the cable")
        return taught(*args)

    with monkeypatch.context() as patch:
        patch.setattr(supernet_training.SupernetTraining, "_taught", broken)
        with pytest.raises(TrainingError, match="the cable"):
            trained(made, data)
    assert recorder.recorded > 0
    assert_same(whole, trained(recipe(tmp_path / "half", *stages, graphs="off", **training), data))


def test_what_does_not_fit_runs_without(data: GroupedImages, tmp_path: Path, graphed: Any) -> None:
    stages, training = [LARGEST, ELASTIC], {"distillation": 0.0}
    plain = trained(recipe(tmp_path / "plain", *stages, **training), data)
    recorder = graphed(StandIn(free=40 << 20))
    assert_same(plain, trained(recipe(tmp_path / "few", *stages, **training), data))
    assert any(
        "more than 60% of that they do not get, the others run without" in note for note in notes(tmp_path / "few")
    )
    assert 2 < recorder.recorded < 2 * 43
    graphed(StandIn(capacity=1))
    assert_same(plain, trained(recipe(tmp_path / "none", *stages, **training), data))
    first, *_, last = notes(tmp_path / "none")
    assert first.startswith("the largest network runs without a graph: CUDA out of memory")
    assert last.startswith("no graph, and none after it, could be made of stem: CUDA out of memory")


def test_ahead_gives_what_the_function_gives() -> None:
    asked: list[int] = []

    def square(step: int) -> int:
        asked.append(step)
        if step == 9:
            raise ValueError("nine")
        return step * step

    with ahead(square, 10, torch.device("meta")) as found:
        assert [found(step) for step in (0, 1, 2, 5, 5, 8)] == [0, 1, 4, 25, 25, 64]
        with pytest.raises(ValueError, match="nine"):
            found(9)
    assert max(asked) == 9  # none after the last
    with ahead(square, 10, torch.device("cpu")) as found:
        assert found is square

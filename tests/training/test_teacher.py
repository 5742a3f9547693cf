"""Which stage trains the teacher, and what a run that starts from a checkpoint does with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_training_policies import ALL, recipe, run, training_of

from snugnet.data import GroupedImages, load_data
from snugnet.study.teacher import teacher_recipe, with_training
from snugnet.supernets import Supernet
from snugnet.training import step as training_step
from snugnet.training.checkpoint import load_checkpoint
from snugnet.training.loop import RunLog

ALONE = {**ALL, "name": "largest", "elastic": {}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> GroupedImages:
    return load_data(recipe(tmp_path_factory.mktemp("unused"), ALL).data, progress=False)


def test_a_second_stage_of_the_largest_alone_is_not_the_first_in_a_study_either(
    data: GroupedImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has superclass dropout, and the teacher stays the one of the first stage, as in a training of all stages in one run."""
    whole = recipe(tmp_path / "whole", ALONE, {**ALONE, "name": "again"}, superclass_dropout=0.6)
    alone = teacher_recipe(whole)
    assert alone is not None
    with RunLog(tmp_path / "teacher") as log:
        run(alone, data, log)
    start = tmp_path / "teacher" / "supernet.ckpt.safetensors"
    rest = with_training(whole, stages=whole.training.stages[1:], start=str(start))
    masked: list[float] = []
    draw = training_step.superclass_mask
    spy = lambda labels, groups, rate: masked.append(rate) or draw(labels, groups, rate)  # noqa: E731
    monkeypatch.setattr(training_step, "superclass_mask", spy)
    with RunLog(tmp_path / "rest") as log:
        training = training_of(rest, data, log)
        training.run()
    assert set(masked) == {0.6}
    assert training.teacher is not None
    taught, now = training.teacher.state_dict(), training.supernet.extract(training.supernet.space.largest).state_dict()
    first = training_of(alone, data, RunLog(tmp_path / "other"))
    first._take(*load_checkpoint(start))
    expected = first.supernet.extract(first.supernet.space.largest).state_dict()
    assert all(torch.equal(taught[name], tensor) for name, tensor in expected.items())
    assert not all(torch.equal(taught[name], tensor) for name, tensor in now.items())


def test_sub_networks_run_under_autocast(data: GroupedImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Called as Fabric set it up, a supernet runs in bfloat16; through a marked method of its own it would not, on one device."""
    types: set[torch.dtype] = set()
    forward = Supernet.forward

    def spy(self: Supernet, *arguments: Any, **others: Any) -> torch.Tensor:
        logits = forward(self, *arguments, **others)
        types.add(logits.dtype)
        return logits

    monkeypatch.setattr(Supernet, "forward", spy)
    made = recipe(tmp_path, {**ALL, "subnets": 2}).model_copy(update={"precision": "bf16-mixed"})
    with RunLog(tmp_path) as log:
        run(made, data, log)
    assert types == {torch.bfloat16}

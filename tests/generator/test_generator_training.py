"""The generator learns what its objective asks for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from snugnet.costs import CostTable, counted_table
from snugnet.data import load_data
from snugnet.errors import DataError
from snugnet.generator.model import ArchitectureGenerator
from snugnet.generator.training import GeneratorTraining, budget_loss
from snugnet.pipeline import make_generator, make_space
from snugnet.recipe import Recipe, parse_recipe
from snugnet.supernets import Supernet
from snugnet.training.device import make_fabric
from snugnet.training.loop import Metrics, RunLog


def recipe(folder: Path, space: dict[str, object] | None = None, **generator: object) -> Recipe:
    return parse_recipe(
        {
            "name": "tiny", "output": str(folder), "device": "cpu",
            "data": {"source": "digits", "resolution": 8, "groups": "digits", "validation": 0.2},
            "space": {"width_mult": 0.1, "stem_stride": 1, "stage_strides": [2, 1, 1, 1, 1], **(space or {})},
            "training": {"stages": [{"name": "largest", "epochs": 1, "learning_rate": 0.1}]},
            "generator": {"steps": 60, "pairs": 8, "images": 2, "budgets": 4, "learning_rate": 0.03, **generator},
        }
    )  # fmt: skip


def training(folder: Path, **generator: object) -> GeneratorTraining:
    torch.manual_seed(0)
    r = recipe(folder, **generator)
    data = load_data(r.data, progress=False)
    space = make_space(r, data)
    log = RunLog(folder).__enter__()
    table = counted_table(space, r.generator.budget)
    made = make_generator(r, space, data)
    return GeneratorTraining(r, Supernet(space), made, table, data, make_fabric(r), folder, log, progress=False)


def test_budget_loss_is_zero_at_the_budget_and_free_of_scale() -> None:
    costs, budgets = torch.tensor([2.0, 4.0]), torch.tensor([2.0, 5.0])
    assert budget_loss(budgets, budgets) == 0
    torch.testing.assert_close(budget_loss(costs, budgets), budget_loss(costs * 1e6, budgets * 1e6))
    assert budget_loss(costs, budgets) == pytest.approx(0.5 * 0.2**2)


@pytest.mark.parametrize(
    ("encoding", "budget", "steps"),
    [("single-path", "madds", 60), ("single-path", "params", 60), ("multi-path", "madds", 25)],
)
def test_it_learns_to_meet_budgets(tmp_path: Path, encoding: str, budget: str, steps: int) -> None:
    """With a heavy budget loss, architectures drawn from the generator end up near the budget that was asked for."""
    run = training(tmp_path, budget_weight=20.0, budget=budget, encoding=encoding, steps=steps)
    before = off_budget(run)
    frozen = {name: tensor.clone() for name, tensor in run.supernet.state_dict().items()}
    run.run()
    assert off_budget(run) < 0.6 * before
    for name, tensor in run.supernet.state_dict().items():
        assert torch.equal(tensor, frozen[name]), name  # W is frozen, batch-norm statistics included
    assert all(p.requires_grad for p in run.supernet.parameters())


@pytest.mark.parametrize("encoding", ["single-path", "multi-path"])
def test_a_space_of_one_architecture_is_trained_on_as_well(tmp_path: Path, encoding: str) -> None:
    one = {"depths": [1], "kernel_sizes": [3], "expand_ratios": [3]}
    run = training(tmp_path, encoding=encoding, steps=2, space=one)
    run.run()
    assert off_budget(run) == 0


def off_budget(run: GeneratorTraining) -> float:
    """Mean relative distance between budgets and the most probable architectures' costs."""
    budgets = torch.linspace(run.generator.low, run.generator.high, 9)
    groups = torch.eye(3)[torch.arange(9) % 3]
    scores = run.generator.scores(groups, budgets).numpy()
    space = run.generator.space
    rows = np.stack([scores[:, a:b].argmax(1) for a, b in zip(space.offsets[:-1], space.offsets[1:], strict=True)], 1)
    costs = run.table(space.rows(rows))
    return float(np.abs(costs / budgets.numpy() - 1).mean())


def test_a_group_without_validation_images(tmp_path: Path) -> None:
    run = training(tmp_path)
    keep = run.class_to_group[run.data.validation.labels] != 1
    run.data = dataclasses.replace(run.data, validation=run.data.validation.take(torch.nonzero(keep).flatten()))
    with pytest.raises(DataError, match="straight"):
        run.__post_init__()


def test_budgets_of_any_table(tmp_path: Path) -> None:
    """A table that is not counted, such as a measured latency, conditions and trains the generator like any other."""
    run = training(tmp_path, budget_weight=20.0)
    madds = counted_table(run.generator.space, "madds")
    scaled = [(scope, np.asarray(values) * 1e-6) for scope, values in madds.tables]
    run.table = CostTable(madds.space, "latency_ms", "ms", [*scaled, ((), 0.5)])
    run.generator = ArchitectureGenerator(madds.space, 3, *run.table.range, budgets=4)
    before = off_budget(run)
    run.run()
    assert off_budget(run) < 0.6 * before


def test_a_run_killed_before_its_first_checkpoint_leaves_no_step_twice_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the log is the generator's alone, as in a study."""
    run = training(tmp_path, steps=4)
    run.recipe = run.recipe.model_copy(
        update={"training": run.recipe.training.model_copy(update={"log_every": 1, "checkpoint_seconds": 1e9})}
    )
    made, step = [], run._step

    def killed(*arguments: Any) -> Metrics:
        made.append(1)
        if len(made) == 3:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(run, "_step", killed)
    with pytest.raises(KeyboardInterrupt), run.log:
        run.run()
    monkeypatch.setattr(run, "_step", step)
    with run.log:
        run.run()
    lines = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [1, 2, 3, 4]

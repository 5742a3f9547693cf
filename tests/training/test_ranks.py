"""Several processes that train one supernet."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from snugnet.data import Batches, load_data
from snugnet.errors import ConfigError, TrainingError
from snugnet.generator.training import GENERATOR_PHASE, GeneratorTraining
from snugnet.nn.gated import GatedSupernet
from snugnet.pipeline import make_generator, make_space, train
from snugnet.recipe import Recipe, parse_recipe
from snugnet.study.config import load_study
from snugnet.supernets import Supernet
from snugnet.training import joining
from snugnet.training.device import make_fabric
from snugnet.training.joining import join_ranks
from snugnet.training.loop import RunLog, seed_step
from snugnet.training.ranks import ALONE, Ranks
from snugnet.training.supernet import SupernetTraining

SOURCE = Path(__file__).resolve().parents[2] / "src"
STEPS = {"largest": 3, "all": 5, "generator": 3}
BEFORE, KILLED = 2, 5  # steps that one process does alone; the step, of those of two ranks, in which one is killed

SCRIPT = """
import os, shutil, signal, sys
from pathlib import Path
import torch.distributed as dist
from safetensors.torch import save_file
import snugnet
from snugnet.training.ranks import Ranks

recipe, folder = sys.argv[1], Path(sys.argv[2])
rank, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
reduced = steps = 0
reduce, averaging = dist.all_reduce, Ranks.averaging

def counted(*args, **named):
    global reduced
    reduced += 1
    return reduce(*args, **named)

def recorded(self, module):
    average = averaging(self, module)
    def gradients():
        return {name: p.grad.clone(memory_format=__import__("torch").contiguous_format)
                for name, p in module.named_parameters() if p.grad is not None}
    def over_ranks(metrics):
        global steps
        steps += 1
        own, before = gradients(), reduced
        means = average(metrics)
        assert reduced == before + 1
        if attempt == 0:
            save_file(own, folder / f"own-{rank}-{steps}")
            save_file(gradients(), folder / f"mean-{rank}-{steps}")
            if steps == KILLED:
                if rank == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                shutil.copy(folder / "supernet.ckpt.safetensors", folder / "midway")
        return means
    return over_ranks

dist.all_reduce, Ranks.averaging = counted, recorded
family = snugnet.train(recipe, progress=False, fresh=attempt > 0)  # a run that was started again does not start anew
save_file({**family.supernet.state_dict(), **family.generator.state_dict()}, folder / f"final-{rank}")
(folder / f"steps-{rank}-{attempt}").write_text(str(steps))
"""


def content(output: Path, **more: object) -> dict[str, Any]:
    elastic = {"kernel_size": 3, "depth": 3, "expand_ratio": 3}
    return {
        "name": "tiny", "output": str(output), "device": "cpu", "threads": 1, **more,
        "data": {"source": "digits", "resolution": 8, "groups": "digits", "validation": 0.2, "train_rows": 320},
        "augment": {"crop_padding": 1, "flip": True},
        "space": {"width_mult": 0.1, "stem_stride": 1, "stage_strides": [2, 1, 1, 1, 1]},
        "training": {
            "batch_size": 32, "superclass_dropout": 0.5, "checkpoint_seconds": 0.0, "log_every": 1,
            "stages": [
                {"name": "largest", "epochs": STEPS["largest"] / 10, "learning_rate": 0.1},
                {"name": "all", "epochs": STEPS["all"] / 10, "learning_rate": 0.05, "elastic": elastic, "subnets": 2,
                 "average": 0.9},
            ],
        },
        "generator": {"steps": STEPS["generator"], "pairs": 3, "images": 4, "budgets": 3},
        "evaluation": {"calibration_images": 64, "budgets": 1},
    }  # fmt: skip


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done


def begun(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one process leaves that broke after a few steps."""
    taught, calls = SupernetTraining._taught, []

    def broken(*args: Any) -> Any:
        calls.append(0)
        if len(calls) > BEFORE:
            raise KeyboardInterrupt
        return taught(*args)

    with monkeypatch.context() as patch:
        patch.setattr(SupernetTraining, "_taught", broken)
        with pytest.raises(KeyboardInterrupt):
            train(parse_recipe(content(folder)), progress=False)


def steps_of(folder: Path) -> list[tuple[str, int]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["phase"].removeprefix("supernet: "), line["step"]) for line in lines]


def test_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun by one process, gone on with by two, one of which is killed: the same as two that nobody kills; then by one again."""
    whole, killed, alone = tmp_path / "whole", tmp_path / "killed", tmp_path / "alone"
    begun(whole, monkeypatch)
    shutil.copytree(whole, killed)
    recipes = {}
    for folder in (whole, killed):
        recipes[folder] = tmp_path / f"{folder.name}.json"
        recipes[folder].write_text(json.dumps(content(folder, devices=2)))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("KILLED", str(KILLED)))

    done = run("snugnet", "train", recipes[whole], "--json")
    assert json.loads(done.stdout)["folder"] == str(whole)  # one document, whatever the number of processes
    flags = ("--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    run("torch.distributed.run", *flags, script, recipes[killed], killed)

    everything = [(phase, step + 1) for phase, count in STEPS.items() for step in range(count)]
    assert steps_of(whole) == steps_of(killed) == everything
    final = [load_file(killed / f"final-{rank}") for rank in (0, 1)]
    undisturbed: dict[str, Tensor] = {}
    for part in ("supernet", "generator"):
        undisturbed |= load_file(next(whole.glob(f"{part}-*.safetensors")))
    for name, tensor in final[0].items():
        assert torch.equal(tensor, final[1][name]), name
        assert torch.equal(tensor, undisturbed[name]), name
    again = {(killed / f"steps-{rank}-1").read_text() for rank in (0, 1)}
    left = len(everything) - BEFORE - KILLED
    assert again <= {str(left), str(left + 1)}  # a checkpoint a step: one is lost at most

    without = 0
    for step in range(1, KILLED + 1):
        own, means = ([load_file(killed / f"{kind}-{rank}-{step}") for rank in (0, 1)] for kind in ("own", "mean"))
        assert own[0].keys() == own[1].keys() == means[0].keys() == means[1].keys()
        without += len(own[0].keys() ^ load_file(killed / "own-0-1").keys())
        for name, mean in means[0].items():
            assert torch.equal(mean, means[1][name]), name
            torch.testing.assert_close(mean, (own[0][name] + own[1][name]) / 2, msg=name)
    assert without  # blocks that were skipped have none, and get none

    alone.mkdir()
    shutil.copy(killed / "midway", alone / "supernet.ckpt.safetensors")
    train(parse_recipe(content(alone)), progress=False)
    first = steps_of(alone)[0]
    assert first in everything[BEFORE + KILLED - 1 : BEFORE + KILLED + 1]
    assert steps_of(alone) == everything[everything.index(first) :]


class Recorded(Exception):
    """The step is over; what follows is of no interest."""


def recorder(found: dict[str, Tensor], module: torch.nn.Module) -> Callable[[Any], Any]:
    def over_ranks(metrics: Any) -> Any:
        found.update({n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None} | metrics)
        raise Recorded

    return over_ranks


def test_a_generators_step_is_that_of_one_process(tmp_path: Path) -> None:
    """Pairs are shared out, each with its own batch norm: the mean of what the ranks find is what one finds, also of more ranks than pairs."""
    recipe = parse_recipe(content(tmp_path))
    data = load_data(recipe.data, progress=False)
    supernet = Supernet(make_space(recipe, data), seed=0)
    generator = make_generator(recipe, supernet.space, data)
    table = recipe.cost_table(supernet.space, "madds")
    training = GeneratorTraining(
        recipe, supernet, generator, table, data, make_fabric(recipe), tmp_path, RunLog(tmp_path)
    )
    gated = GatedSupernet(supernet.space, supernet.network)

    def found(place: Ranks) -> dict[str, Tensor]:
        training.ranks, step = place, {}
        seed_step(0, GENERATOR_PHASE, 0)
        generator.zero_grad()
        with pytest.raises(Recorded):
            training._step(gated, torch.optim.Adam(generator.parameters()), 0.0, recorder(step, generator))
        return step

    one = found(ALONE)
    for count in (2, 4):
        several = [found(Ranks(index, count)) for index in range(count)]
        for name, value in one.items():
            mean = torch.stack([each[name] for each in several]).mean(0)
            torch.testing.assert_close(mean, value, rtol=1e-3, atol=1e-5, msg=name)


def test_shards_are_the_batch() -> None:
    images = load_data(parse_recipe(content(Path("out"))).data, progress=False).train
    whole = Batches(images, 24, seed=3)
    shards = [Batches(images, 24, seed=3, shard=(index, 3)) for index in range(3)]
    for step in (0, 1, whole.steps_per_epoch, 40):
        parts = [each.batch(step) for each in shards]
        for kind in (0, 1):
            assert torch.equal(torch.cat([part[kind] for part in parts]), whole.batch(step)[kind])
        assert {len(labels) for _, labels in parts} == {8}
    with pytest.raises(ConfigError, match=r"320 images does not divide by 3 devices"):
        Batches(images, 330, seed=3, shard=(0, 3))


def test_draws_differ_by_rank_alone() -> None:
    def draw(index: int) -> float:
        seed_step(1, 0, 7)
        Ranks(index, 3).own_draws()
        return float(torch.rand(()))

    plain = [float(torch.rand(())) for _ in [seed_step(1, 0, 7)]]
    drawn = [draw(index) for index in range(3)]
    assert drawn[0] == plain[0]
    assert len(set(drawn)) == 3
    assert drawn == [draw(index) for index in range(3)]


def test_shares_cover_everything() -> None:
    for total, count in ((8, 1), (8, 3), (3, 8)):
        shares = [Ranks(index, count).share(total) for index in range(count)]
        assert [i for share in shares for i in range(total)[share]] == list(range(total))


def recipe_of(tmp_path: Path, **more: object) -> Recipe:
    return parse_recipe(content(tmp_path, **more))


@pytest.mark.parametrize(("devices", "num_nodes"), [(3, 1), (1, 5), (32, 1)])
def test_a_batch_that_cannot_be_shared_out(tmp_path: Path, devices: int, num_nodes: int) -> None:
    with pytest.raises(ConfigError, match=r"batch_size is of all devices together: 32 images .* each of \d+ devices"):
        recipe_of(tmp_path, devices=devices, num_nodes=num_nodes)


def test_processes_that_nobody_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with pytest.raises(TrainingError, match="torchrun --nnodes 2 --nproc-per-node 4 -m snugnet train"):
        join_ranks(recipe_of(tmp_path, devices=4, num_nodes=2))


def test_another_number_of_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for devices in (1, 4):
        with pytest.raises(
            TrainingError, match=f"torchrun started 2 processes, and the recipe has devices {devices} x"
        ):
            join_ranks(recipe_of(tmp_path, devices=devices))


def test_more_devices_than_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "resolve_device", lambda recipe: ("gpu", "32-true"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    joining.check_devices(recipe_of(tmp_path, devices=2))
    with pytest.raises(TrainingError, match=r"devices is 4, and .* has 2 GPUs; give devices=2 or fewer"):
        joining.check_devices(recipe_of(tmp_path, devices=4))


def test_a_machine_that_does_not_answer(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(content(tmp_path / "out", devices=1, num_nodes=2, rank_timeout=1)))
    store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)  # torchrun's
    environment = {
        **os.environ, "PYTHONPATH": str(SOURCE), "TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_USE_AGENT_STORE": "True",
        "MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port), "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0",
    }  # fmt: skip
    command = [sys.executable, "-m", "snugnet", "train", str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("error: rank 0 of 2 on "), done.stderr
    assert "another rank has ended, or does not answer" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_study_has_one_device(tmp_path: Path) -> None:
    path = next(Path(__file__).resolve().parents[2].glob("recipes/study-*-cpu.yaml"))
    with pytest.raises(ConfigError, match="a study trains on one device"):
        load_study(path, ["recipe.devices=2"])

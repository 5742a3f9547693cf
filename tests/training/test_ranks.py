"""Several processes that train one supernet."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from interrupted import interrupt
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

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
EVERYTHING = [(phase, step + 1) for phase, count in STEPS.items() for step in range(count)]
BEFORE, KILLED = 2, 5  # steps that one process does alone; the step, of those of two ranks, in which one is killed


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


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.contiguous().clone() for n, p in module.named_parameters() if p.grad is not None}


def watch(folder: Path, killed: int = 0) -> None:
    """In a process that is a rank: count the all-reduces of a step, keep its gradients, or end in it."""
    rank, reduced, steps = int(os.environ["RANK"]), [0], [0]
    reduce, averaging = torch.distributed.all_reduce, Ranks.averaging

    def counted(*args: Any, **named: Any) -> Any:
        reduced[0] += 1
        return reduce(*args, **named)

    def watched(self: Ranks, module: nn.Module) -> Any:
        average = averaging(self, module)

        def over_ranks(metrics: Any) -> Any:
            steps[0] += 1
            own, before = gradients(module), reduced[0]
            means = average(metrics)
            assert reduced[0] == before + 1
            if not killed:
                save_file(own, folder / f"own-{rank}-{steps[0]}")
                save_file(gradients(module), folder / f"mean-{rank}-{steps[0]}")
            elif steps[0] == killed and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
                if rank == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                shutil.copy(folder / "supernet.ckpt.safetensors", folder / "midway")
            return means

        return over_ranks

    torch.distributed.all_reduce, Ranks.averaging = counted, watched  # type: ignore[method-assign]


def be_rank(index: int, port: int, folder: Path) -> None:
    """What torchrun and the command do, in a process that has torch already."""
    place = {"WORLD_SIZE": 2, "RANK": index, "LOCAL_RANK": index, "GROUP_RANK": 0, "MASTER_ADDR": "localhost"}
    started = {"TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in {**place, **started}.items()})
    watch(folder)
    family = train(parse_recipe(content(folder, devices=2)), progress=False)
    save_file({**family.supernet.state_dict(), **family.generator.state_dict()}, folder / f"final-{index}")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process leaves that broke after a few steps."""
    folder = tmp_path_factory.mktemp("begun")
    taught, calls = SupernetTraining._taught, []

    def broken(*args: Any) -> Any:
        calls.append(0)
        if len(calls) > BEFORE:
            raise KeyboardInterrupt
        return taught(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SupernetTraining, "_taught", broken)
        with pytest.raises(KeyboardInterrupt):
            train(parse_recipe(content(folder)), progress=False)
    return folder


@pytest.fixture(scope="module")
def whole(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, gone on with by two processes that nobody disturbs."""
    folder = tmp_path_factory.mktemp("two") / "whole"
    shutil.copytree(begun, folder)
    store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    clean = multiprocessing.get_context("forkserver")
    clean.set_forkserver_preload(["snugnet.pipeline"])
    processes = [clean.Process(target=be_rank, args=(index, store.port, folder)) for index in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [0, 0]
    return folder


def steps_of(folder: Path) -> list[tuple[str, int]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["phase"].removeprefix("supernet: "), line["step"]) for line in lines]


def weights(folder: Path) -> dict[str, Tensor]:
    parts = [load_file(next(folder.glob(f"{part}-*.safetensors"))) for part in ("supernet", "generator")]
    return {**parts[0], **parts[1]}


def test_ranks_hold_the_same(whole: Path) -> None:
    """To the bit, running statistics and generator included; and each step is logged once, those of one process before them too."""
    assert steps_of(whole) == EVERYTHING
    saved = weights(whole)
    for index in (0, 1):
        held = load_file(whole / f"final-{index}")
        assert all(torch.equal(tensor, held[name]) for name, tensor in saved.items())


def test_gradients_are_the_mean_of_the_shards(whole: Path) -> None:
    without = set()
    first = load_file(whole / "own-0-1").keys()
    for step in range(1, len(EVERYTHING) - BEFORE - STEPS["generator"] + 1):
        own, means = ([load_file(whole / f"{kind}-{rank}-{step}") for rank in (0, 1)] for kind in ("own", "mean"))
        assert own[0].keys() == own[1].keys() == means[0].keys() == means[1].keys()
        without |= first - own[0].keys()
        for name, mean in means[0].items():
            assert torch.equal(mean, means[1][name]), name
            torch.testing.assert_close(mean, (own[0][name] + own[1][name]) / 2, msg=name)
    assert without  # blocks that were skipped have none, and get none


def test_a_killed_rank(begun: Path, whole: Path, tmp_path: Path) -> None:
    """torchrun starts both anew: a step is lost at most, and it ends as if nothing had been; one process can go on with it as well."""
    killed, alone = tmp_path / "killed", tmp_path / "alone"
    shutil.copytree(begun, killed)
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(content(killed, devices=2)))
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys\nfrom pathlib import Path\nsys.path[:0] = {[str(SOURCE), *sys.path, str(Path(__file__).parent)]}\n"
        f"from test_ranks import watch\nfrom snugnet.cli.main import main\n"
        f"watch(Path({str(killed)!r}), {KILLED})\nmain(['train', {str(recipe)!r}, '--json'])\n"
    )
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        "1",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(script)], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["folder"] == str(killed)  # one document, whatever the number of processes
    assert "another rank has ended, or does not answer" in done.stderr
    assert "Traceback" not in done.stderr
    assert steps_of(killed) == EVERYTHING
    saved = weights(whole)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in weights(killed).items())

    alone.mkdir()
    shutil.copy(killed / "midway", alone / "supernet.ckpt.safetensors")
    train(parse_recipe(content(alone)), progress=False)
    first = steps_of(alone)[0]
    assert (
        first in EVERYTHING[BEFORE + KILLED - 1 : BEFORE + KILLED + 1]
    )  # the checkpoint was of the step itself, or the one before
    assert steps_of(alone) == EVERYTHING[EVERYTHING.index(first) :]


def test_stopped_from_the_keyboard(tmp_path: Path) -> None:
    """The processes that the command itself has started stop after a step, and the first one says what to do."""
    (tmp_path / "recipe.json").write_text(json.dumps(content(Path("out"), devices=2)))
    interrupt(["train", "recipe.json"], tmp_path, tmp_path / "out" / "supernet.ckpt.safetensors")


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


def test_a_machine_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)  # torchrun's
    place = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0", "MASTER_ADDR": "localhost"}
    started = {"TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_PORT": str(store.port)}
    for name, value in {**place, **started}.items():
        monkeypatch.setenv(name, value)
    recipe = recipe_of(tmp_path, num_nodes=2, rank_timeout=1)
    with pytest.raises(TrainingError, match=r"rank 0 of 2 on .*: another rank has ended, or does not answer"):
        join_ranks(recipe)
    monkeypatch.setenv("RANK", "1")
    store.set("snugnet/first", "1")  # of a first rank that has ended; the next one does not come
    with pytest.raises(TrainingError, match=r"rank 1 of 2 on .*: another rank has ended, or does not answer"):
        join_ranks(recipe)


def test_a_study_has_one_device(tmp_path: Path) -> None:
    path = next(Path(__file__).resolve().parents[2].glob("recipes/study-*-cpu.yaml"))
    with pytest.raises(ConfigError, match="a study trains on one device"):
        load_study(path, ["recipe.devices=2"])

"""Training that is stopped goes on; training that breaks stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from snugnet.errors import TrainingError
from snugnet.pipeline import train
from snugnet.recipe import Recipe, load_recipe, parse_recipe


def content(output: Path, rate: float = 0.1, epochs: float = 1) -> dict[str, object]:
    elastic = {"kernel_size": 3, "depth": 3, "expand_ratio": 3}
    return {
        "name": "tiny", "output": str(output), "device": "cpu", "threads": 1,
        "data": {"source": "digits", "resolution": 8, "groups": "digits", "validation": 0.2, "train_rows": 320},
        "augment": {"crop_padding": 1, "flip": True},
        "space": {"width_mult": 0.1, "stem_stride": 1, "stage_strides": [2, 1, 1, 1, 1]},
        "training": {
            "batch_size": 32, "superclass_dropout": 0.5, "checkpoint_seconds": 0.0,
            "stages": [
                {"name": "largest", "epochs": epochs, "learning_rate": rate},
                {"name": "all", "epochs": 2 * epochs, "learning_rate": 0.05, "elastic": elastic, "subnets": 2,
                 "average": 0.9, "floor": 0.05},
            ],
        },
        "generator": {"steps": 8, "pairs": 3, "images": 4, "budgets": 3},
        "evaluation": {"calibration_images": 64},
    }  # fmt: skip


def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    """Killed again and again, at any moment: bit for bit the same family in the end."""
    whole = train(parse_recipe(content(tmp_path / "whole")), progress=False)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(content(tmp_path / "killed")))  # JSON is YAML
    command = [sys.executable, "-c", f"import snugnet; snugnet.train({str(recipe)!r}, progress=False)"]
    checkpoints = [tmp_path / "killed" / f"{part}.ckpt.safetensors" for part in ("supernet", "generator")]
    kills = 0
    for checkpoint in checkpoints:
        process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
        deadline = time.monotonic() + 120
        while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.15)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 1
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    resumed = load_file(next((tmp_path / "killed").glob("supernet-*.safetensors")))
    for name, tensor in whole.supernet.state_dict().items():
        assert torch.equal(tensor, resumed[name]), name
    resumed = load_file(next((tmp_path / "killed").glob("generator-*.safetensors")))
    for name, tensor in whole.generator.state_dict().items():
        assert torch.equal(tensor, resumed[name]), name


def test_a_stopped_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    """Ctrl-C in the first second, long before a checkpoint is due: the last whole step is kept. (SIGTERM: test_loop.py)"""
    parts = ("supernet", "generator")

    def recipe_of(folder: Path) -> str:
        held = content(folder)
        held["training"]["checkpoint_seconds"] = 1e6  # type: ignore[index]
        path = tmp_path / f"{folder.name}.yaml"
        path.write_text(json.dumps(held))
        return str(path)

    train(load_recipe(recipe_of(tmp_path / "whole")), progress=False)
    stopping = f"""
import os, signal, sys, snugnet
from snugnet.generator.training import GeneratorTraining
from snugnet.training.supernet import SupernetTraining
owner, name, at = {{"supernet": (SupernetTraining, "_taught", 3), "generator": (GeneratorTraining, "_step", 3)}}[sys.argv[1]]
step, calls = getattr(owner, name), 0
def stopped(*args, **named):
    global calls
    calls += 1
    if calls == at:
        os.kill(os.getpid(), {int(signal.SIGINT)})
    return step(*args, **named)
setattr(owner, name, stopped)
try:
    snugnet.train({recipe_of(tmp_path / "stopped")!r}, progress=False)
except KeyboardInterrupt:
    sys.exit(77)
"""
    for part in parts:
        done = subprocess.run(
            [sys.executable, "-c", stopping, part],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        assert done.returncode == 77
        with safe_open(tmp_path / "stopped" / f"{part}.ckpt.safetensors", framework="pt") as file:
            assert json.loads(file.metadata()["state"])["step"] == 3
    train(load_recipe(str(tmp_path / "stopped.yaml")), progress=False)
    for part in parts:
        whole, resumed = (
            load_file(next((tmp_path / folder).glob(f"{part}-*.safetensors"))) for folder in ("whole", "stopped")
        )
        assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    lines = [
        [{**json.loads(line), "seconds": 0} for line in (tmp_path / folder / "log.jsonl").read_text().splitlines()]
        for folder in ("whole", "stopped")
    ]
    assert lines[0] == lines[1]


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="not finite at step"):
        train(parse_recipe(content(tmp_path, rate=1e30)), progress=False)
    saved = load_file(tmp_path / "supernet.ckpt.safetensors")
    assert all(tensor.isfinite().all() for name, tensor in saved.items() if name.startswith("supernet."))
    assert not (tmp_path / "family.json").exists()


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    train(parse_recipe(content(tmp_path, epochs=0.2)), progress=False)
    with pytest.raises(TrainingError, match="another recipe"):
        train(parse_recipe(content(tmp_path, 0.07, 0.2)), progress=False)
    train(parse_recipe(content(tmp_path, 0.07, 0.2)), fresh=True, progress=False)


def test_the_log_has_every_phase(tmp_path: Path) -> None:
    train(parse_recipe(content(tmp_path, epochs=0.2)), progress=False)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(line["phase"] for line in lines)) == ["supernet: largest", "supernet: all", "generator"]
    assert all(line["loss"] == pytest.approx(line["loss"]) for line in lines)
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_checkpoint_that_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "supernet.ckpt.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingError, match="no checkpoint that can be read"):
        train(parse_recipe(content(tmp_path)), progress=False)


def test_groups_that_changed_under_the_same_name_are_noticed(tmp_path: Path) -> None:
    groups = {"round": ["0", "6", "8", "9"], "straight": ["1", "4", "7"], "curvy": ["2", "3", "5"]}
    file = tmp_path / "groups.json"
    file.write_text(json.dumps(groups))
    made = content(tmp_path / "run", epochs=0.2)
    made["data"] = {**made["data"], "groups": str(file)}  # type: ignore[dict-item]
    train(parse_recipe(made), progress=False)
    groups["round"].remove("9")
    groups["curvy"].append("9")
    file.write_text(json.dumps(groups))
    with pytest.raises(TrainingError, match="another recipe"):
        train(parse_recipe(made), progress=False)


def images_in(folder: Path, seed: int) -> None:
    """Four classes of a few pictures each, as a folder of images."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", 12), ("test", 2)):
        for group, name in (("x", "a"), ("x", "b"), ("y", "c"), ("y", "d")):
            place = folder / split / group / name
            place.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(place / f"{i}.png")


def test_the_same_images_under_another_path_go_on(tmp_path: Path) -> None:
    """What the images are counts, and not where they lie; other images are refused, and named."""
    images_in(tmp_path / "here", 0)
    images_in(tmp_path / "other", 1)

    def recipe(source: str, **changes: object) -> Recipe:
        base = content(tmp_path / "run", epochs=0.2)
        data = {"source": str(tmp_path / source), "resolution": 8, "validation": 0.3, **changes}
        return parse_recipe({**base, "data": data, "training": {**base["training"], "batch_size": 8}})  # type: ignore[dict-item]

    whole = train(recipe("here"), progress=False)
    (tmp_path / "here").rename(tmp_path / "moved")
    again = train(recipe("moved"), progress=False)
    assert all(
        torch.equal(tensor, again.supernet.state_dict()[name]) for name, tensor in whole.supernet.state_dict().items()
    )
    with pytest.raises(TrainingError, match=r"another recipe \(not the same images\)"):
        train(recipe("other"), progress=False)
    with pytest.raises(TrainingError, match=r"another recipe \(not the same data\.seed, images\)"):
        train(recipe("moved", seed=3), progress=False)

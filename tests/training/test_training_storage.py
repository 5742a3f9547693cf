"""Trainings do not notice where their images lie; those of a stream go on bit for bit."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from snugnet.data import load_data
from snugnet.errors import TrainingError
from snugnet.pipeline import train_supernet
from snugnet.recipe import parse_recipe
from snugnet.training import ranks
from snugnet.training.device import make_fabric
from snugnet.training.loop import RunLog


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 training and 8 test images of 4 classes in 2 superclasses."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 2)):
        for group, name in (("a", "one"), ("a", "two"), ("b", "three"), ("b", "four")):
            folder = root / split / group / name
            folder.mkdir(parents=True)
            for number in range(count):
                small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
                small.resize((50, 40), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg")
    return root


def supernet(photos: Path, tmp_path: Path, output: str, storage: str, crop: bool = True) -> dict[str, torch.Tensor]:
    """Train, or go on with, a tiny supernet; its weights."""
    elastic = {"kernel_size": 3, "depth": 3, "expand_ratio": 3}
    content: dict[str, Any] = {
        "name": "tiny", "output": str(tmp_path / output), "device": "cpu", "threads": 1,
        "data": {"source": str(photos), "resolution": 16, "validation": 0.25, "storage": storage, "workers": 1,
                 "cache": str(tmp_path / "cache")},
        "augment": {"flip": True, **({"random_resized_crop": (0.2, 1.0)} if crop else {})},
        "space": {"width_mult": 0.1, "stem_stride": 1, "stage_strides": [2, 1, 1, 1, 1]},
        "training": {
            "batch_size": 9, "checkpoint_seconds": 0.0, "superclass_dropout": 0.5,
            "stages": [
                {"name": "largest", "epochs": 0.5, "learning_rate": 0.05},
                {"name": "all", "epochs": 1, "learning_rate": 0.05, "elastic": elastic},
            ],
        },
    }  # fmt: skip
    recipe = parse_recipe(content)
    data = load_data(recipe.data, progress=False)
    with RunLog(Path(recipe.output)) as log:
        trained, _ = train_supernet(recipe, data, make_fabric(recipe), log, progress=False)
    assert not multiprocessing.active_children()
    return trained.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Stops the first training after its fifth checkpoint."""
    save, saved = ranks.save_checkpoint, [0]

    def save_and_stop(*given: Any) -> None:
        save(*given)
        saved[0] += 1
        if saved[0] == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(ranks, "save_checkpoint", save_and_stop)
    return monkeypatch


def test_a_streamed_training_goes_on_bit_for_bit(photos: Path, tmp_path: Path, stopped: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        supernet(photos, tmp_path, "stopped", "stream")
    assert not multiprocessing.active_children()
    with pytest.raises(TrainingError, match=r"not the same images"):
        supernet(photos, tmp_path, "stopped", "memory")
    resumed = supernet(photos, tmp_path, "stopped", "stream")
    assert same(resumed, supernet(photos, tmp_path, "whole", "stream"))


def test_a_training_from_memory_goes_on_from_the_disk_bit_for_bit(
    photos: Path, tmp_path: Path, stopped: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        supernet(photos, tmp_path, "stopped", "memory")
    resumed = supernet(photos, tmp_path, "stopped", "disk")
    whole = supernet(photos, tmp_path, "whole", "memory")
    assert same(resumed, whole)


def test_without_crops_a_stream_trains_as_memory_does(photos: Path, tmp_path: Path) -> None:
    memory, streamed = (supernet(photos, tmp_path, each, each, crop=False) for each in ("memory", "stream"))
    assert same(memory, streamed)

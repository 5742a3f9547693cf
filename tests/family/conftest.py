"""A small family, trained once a run on the handwritten digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from snugnet.data import GroupedImages, load_data
from snugnet.family import Family
from snugnet.pipeline import train
from snugnet.recipe import Recipe, parse_recipe


def tiny_recipe(output: Path, **changes: Any) -> Recipe:
    """The quickstart, as small as it can be and still learn."""
    content: dict[str, Any] = {
        "name": "tiny",
        "output": str(output),
        "device": "cpu",
        "data": {"source": "digits", "resolution": 8, "groups": "digits", "validation": 0.2},
        "space": {"width_mult": 0.1, "stem_stride": 1, "stage_strides": [2, 1, 1, 1, 1]},
        "training": {
            "batch_size": 64,
            "superclass_dropout": 0.3,
            "stages": [
                {"name": "largest", "epochs": 8, "learning_rate": 0.1},
                {
                    "name": "all",
                    "epochs": 8,
                    "learning_rate": 0.05,
                    "elastic": {"kernel_size": 3, "depth": 3, "expand_ratio": 3},
                },
            ],
        },
        "generator": {"steps": 30, "pairs": 6, "images": 8, "budgets": 4},
        "evaluation": {"budgets": 2, "calibration_images": 128},
    }
    return parse_recipe({**content, **changes})


@pytest.fixture(scope="session")
def digits() -> GroupedImages:
    """The digits at 8 pixels, with their three groups."""
    return load_data(tiny_recipe(Path("unused")).data, progress=False)


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory: pytest.TempPathFactory, digits: GroupedImages, worker_id: str) -> Path:
    """Where the trained family is saved; tests copy it before they change it. It is trained once for all processes of a run."""
    own = tmp_path_factory.getbasetemp()
    run = own if worker_id == "master" else own.parent  # of several processes each has a folder of its own in the run's
    folder = run / "trained-family"
    with FileLock(run / "trained-family.lock"):
        if not (folder / "family.json").exists():
            train(tiny_recipe(folder), progress=False, data=digits)
    return folder


@pytest.fixture(scope="session")
def family(family_folder: Path) -> Family:
    """The trained family, loaded from disk."""
    from snugnet.family.disk import load_family

    return load_family(family_folder)

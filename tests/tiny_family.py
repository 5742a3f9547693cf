"""A family that takes no time to make: on the handwritten digits, untrained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

TINY = {
    "name": "tiny",
    "output": "runs/tiny",
    "device": "cpu",
    "data": {"source": "digits", "groups": "digits", "resolution": 8, "train_rows": 200, "test_rows": 60},
    "space": {
        "width_mult": 0.1,
        "stem_stride": 1,
        "stage_strides": [2, 2, 1, 1, 1],
        "depths": [1, 2],
        "kernel_sizes": [3, 5],
        "expand_ratios": [2, 3],
    },
    "training": {
        "batch_size": 64,
        "stages": [
            {"name": "largest", "epochs": 1, "learning_rate": 0.1},
            {
                "name": "all",
                "epochs": 1,
                "learning_rate": 0.1,
                "elastic": {"kernel_size": 2, "depth": 2, "expand_ratio": 2},
            },
        ],
    },
    "generator": {"steps": 2, "pairs": 2, "images": 8, "budgets": 3},
    "evaluation": {"budgets": 2, "calibration_images": 64},
}


def tiny_family(folder: Path, changes: dict[str, Any] | None = None, classes: Sequence[str] | None = None) -> Path:
    """Save a family of the tiny recipe whose weights are those of the start."""
    from snugnet import pipeline
    from snugnet.data import load_data
    from snugnet.recipe import parse_recipe
    from snugnet.supernets import Supernet

    recipe = parse_recipe({**TINY, **(changes or {})})
    data = load_data(recipe.data, progress=False)
    space = pipeline.make_space(recipe, data)
    generator = pipeline.make_generator(recipe, space, data)
    return pipeline.make_family(recipe, data, Supernet(space), generator, {}).save(folder)

"""Augmentation of a batch against the same from kornia's modules, in turn in one run; and what one colour step leaves out.

    python benchmarks/augmentation.py [TRAIN.parquet]

Medians of CPU time (use one thread), normalising included (kornia's by the two passes that it needs). With a parquet file of images (of tiny-imagenet-10), also
how far colour jitter is from kornia's for the same factors, which clamps after each of its three steps. Writes docs/results/benchmark-augmentation.json.
"""

from __future__ import annotations

import io
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import torch
from kornia import augmentation as kornia
from PIL import Image
from torch import Tensor

from snugnet.data import Augment, AugmentConfig, draws, normalise
from snugnet.data.transforms import _recoloured
from snugnet.pipeline import machine

OUT = Path(__file__).parents[1] / "docs" / "results" / "benchmark-augmentation.json"
MEAN, STD = (0.48, 0.45, 0.4), (0.28, 0.27, 0.28)
CONFIGS = {
    "tiny-imagenet-10": AugmentConfig(random_resized_crop=(0.35, 1.0), flip=True, color_jitter=0.2),
    "spos-cifar-10-cpu": AugmentConfig(crop_padding=4, flip=True),
    "quickstart": AugmentConfig(crop_padding=1),
    "flip": AugmentConfig(flip=True),
    "random_resized_crop": AugmentConfig(random_resized_crop=(0.35, 1.0)),
    "rotate": AugmentConfig(rotate=15),
    "color_jitter": AugmentConfig(color_jitter=0.2),
    "erase": AugmentConfig(erase=0.25),
}
SIZES = ((64, 16), (128, 32), (256, 64))
FACTORS = ("brightness_factor", "contrast_factor", "saturation_factor")


def of_kornia(config: AugmentConfig, size: int) -> Callable[[Tensor], Tensor]:
    """The same changes by kornia's modules, and normalised."""
    strength = config.color_jitter
    modules: list[Callable[[Tensor], Tensor]] = []
    if config.crop_padding:
        modules.append(kornia.RandomCrop((size, size), config.crop_padding, p=1.0, cropping_mode="slice"))
    if config.random_resized_crop:
        area = config.random_resized_crop
        modules.append(kornia.RandomResizedCrop((size, size), scale=area, p=1.0, cropping_mode="resample"))
    if config.flip:
        modules.append(kornia.RandomHorizontalFlip(p=0.5))
    if config.rotate:
        modules.append(kornia.RandomRotation(config.rotate, p=1.0))
    if strength:
        modules.append(kornia.ColorJitter(strength, strength, strength, 0.0, p=1.0))
    if config.erase:
        modules.append(kornia.RandomErasing(p=config.erase))
    mean, scale = torch.tensor(MEAN).view(3, 1, 1), 1 / torch.tensor(STD).view(3, 1, 1)

    def augment(images: Tensor) -> Tensor:
        x = images.to(torch.float32).div_(255)
        for module in modules:
            x = module(x)
        return x.to(memory_format=torch.channels_last).mul(scale).sub_(mean * scale)

    return augment


def milliseconds(batch: int, size: int, config: AugmentConfig, repeats: int = 11) -> dict[str, float]:
    """Medians of both, taken in turn."""
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    own = Augment(config, MEAN)
    calls = {
        "kornia": of_kornia(config, size),
        "snugnet": lambda images: normalise(own(images), MEAN, STD, channels_last=True),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.process_time()
            call(images)
            if turn:
                times[name].append(1e3 * (time.process_time() - start))
    return {name: round(statistics.median(each), 2) for name, each in times.items()}


def left_out(path: str, strength: float, n: int = 1024, seeds: int = 12) -> dict[str, float]:
    """How far the first ``n`` images jittered in one step are from kornia's."""
    rows = parquet.read_table(path, columns=["image"]).slice(0, n).column("image").to_pylist()
    decoded = np.stack([np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB")) for row in rows])
    images = torch.from_numpy(decoded).permute(0, 3, 1, 2).contiguous() / 255
    differences, moved = [], []
    for seed in range(seeds):
        torch.manual_seed(seed)
        theirs = kornia.ColorJitter(strength, strength, strength, 0.0, p=1.0)
        want = theirs(images)
        factors = torch.stack([theirs._params[name] for name in FACTORS])
        differences.append((_recoloured(images, *draws.colour_matrices(factors)) - want).abs())
        moved.append((want - images).abs().mean().item())
    all_of_them = torch.stack(differences)
    return {
        "mean": round(all_of_them.mean().item(), 5),
        "share_above_a_level": round((all_of_them > 1 / 255).double().mean().item(), 4),
        "largest": round(all_of_them.max().item(), 3),
        "jitter_itself": round(statistics.mean(moved), 4),
    }


def main(path: str = "") -> dict[str, Any]:
    """Everything, as one report."""
    torch.manual_seed(0)
    report: dict[str, Any] = {"machine": machine(), "threads": torch.get_num_threads()}
    report["milliseconds"] = {
        f"{batch} of {size}": {name: milliseconds(batch, size, config) for name, config in CONFIGS.items()}
        for batch, size in SIZES
    }
    if path:
        report["jitter"] = {str(strength): left_out(path, strength) for strength in (0.2, 0.4)}
    return report


if __name__ == "__main__":
    result = main(*sys.argv[1:])
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))

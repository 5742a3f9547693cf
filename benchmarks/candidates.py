"""Accuracy of one candidate on images: ours beside set_active_subnet, set_running_statistics and validate of `ofa`.

    pip install --no-deps ofa tqdm
    SNUGNET_SHARED=../shared python benchmarks/candidates.py [images] [threads]

The same architectures on the same weights (random, the supernet of `ofa` copied into ours), the same calibration images for
batch norm (2,000, the package's default) and the same validation images of tiny-imagenet-10, which the package gets as
normalised batches in memory; ours normalises its own, from uint8. The package calibrates in batches of 200, its default, and
validates in batches of 100, as its evaluation script does, and of 250, as its tutorial does; the faster counts. Ours
calibrates in batches of 64, as a family does, and of 200: that both are then right about the same images shows that they
compute the same. Four candidates, as a search has them: the package judges one after the other, ours side by side. In turn,
each once uncounted, medians of the seconds a candidate (beside them of CPU time, which others on the machine disturb less). Writes docs/results/benchmark-candidates.json, with one thread
benchmark-candidates-one-thread.json.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from peers import SHARED, import_ofa
from PIL import Image
from torch import Tensor, nn

from snugnet.data import ImageSet, normalise
from snugnet.family.record import CALIBRATION_BATCH as FAMILY_BATCH
from snugnet.pipeline import machine
from snugnet.search.image_scorer import ImageScorer
from snugnet.spaces import SearchSpace, get_space
from snugnet.supernets import Supernet
from snugnet.training.memory import keep_freed_memory

OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "benchmark-candidates.json"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = 60
CALIBRATION_BATCH = 200
OURS, ALIKE = "ours", "ours, calibrated in batches of 200"
VALIDATION_BATCHES = (100, 250)


def load_images(n: int, resolution: int) -> tuple[Tensor, Tensor]:
    """Images (n, 3, r, r) as uint8, spread over the training file, and their labels (n,)."""
    table = pq.read_table(SHARED / "tiny-imagenet-10" / "train.parquet", columns=["image", "label"])
    rows = np.random.default_rng(0).choice(len(table), n, replace=False)
    names = sorted(set(table["label"].to_pylist()))
    images, labels = [], []
    for row in rows.tolist():
        picture = Image.open(BytesIO(table["image"][row]["bytes"].as_py())).convert("RGB")
        picture = picture.resize((resolution, resolution), Image.Resampling.BILINEAR)
        images.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1))
        labels.append(names.index(table["label"][row].as_py()))
    return torch.stack(images).contiguous(), torch.tensor(labels)


def copy_weights(peer: nn.Module, supernet: Supernet) -> None:
    """The weights of the package's supernet into ours: the same layers in the same order.

    Its matrices that make small kernels out of large ones stay out: untrained they are identities, which is what ours does.
    """
    theirs = [tensor for name, tensor in peer.named_parameters() if "matrix" not in name]
    ours = list(supernet.parameters())
    if [tuple(t.shape) for t in theirs] != [tuple(t.shape) for t in ours]:
        raise SystemExit("the two supernets do not have the same layers in the same order")
    with torch.no_grad():
        for source, target in zip(theirs, ours, strict=True):
            target.copy_(source)


class Peer:
    """The package's supernet, its recalibration and its validation."""

    def __init__(self, width_mult: float) -> None:
        networks = import_ofa("ofa.imagenet_classification.elastic_nn.networks")
        self._set_running_statistics = import_ofa("ofa.imagenet_classification.elastic_nn.utils").set_running_statistics
        manager = import_ofa("ofa.imagenet_classification.run_manager").RunManager
        self.net = networks.OFAMobileNetV3(
            n_classes=CLASSES, dropout_rate=0, width_mult=width_mult, ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6],
            depth_list=[2, 3, 4],
        )  # fmt: skip
        # What validate reads of a run manager; making a whole one would build data loaders of ImageNet.
        self._manager = object.__new__(manager)
        self._manager.device = torch.device("cpu")
        self._manager.test_criterion = nn.CrossEntropyLoss()

    def score(
        self, arch: dict[str, Any], calibration: list[tuple[Tensor, Tensor]], validation: list[tuple[Tensor, Tensor]]
    ) -> float:
        """Top-1 in per cent of one architecture."""
        slots = {
            kind: [value for stage in arch[kind] for value in [*stage, *[3] * (4 - len(stage))]]
            for kind in ("kernel_size", "expand_ratio")
        }
        self.net.set_active_subnet(ks=slots["kernel_size"], e=slots["expand_ratio"], d=arch["depth"])
        self._set_running_statistics(self.net, calibration)
        _, (top1, _) = self._manager.validate(net=self.net, data_loader=validation, no_logs=True)
        return float(top1)


def compare(
    space: SearchSpace, resolution: int, calibration_images: int, validation_images: int, repeats: int, archs: int
) -> dict[str, Any]:
    """Seconds a candidate of both at one resolution."""
    images, labels = load_images(calibration_images + validation_images, resolution)
    peer, supernet = Peer(space.options["width_mult"]), Supernet(space).eval()
    copy_weights(peer.net, supernet)
    normalised = normalise(images, MEAN, STD)
    split = calibration_images
    calibration = list(
        zip(normalised[:split].split(CALIBRATION_BATCH), labels[:split].split(CALIBRATION_BATCH), strict=True)
    )
    batches = {
        size: list(zip(normalised[split:].split(size), labels[split:].split(size), strict=True))
        for size in VALIDATION_BATCHES
    }

    rows = space.sample(archs, np.random.default_rng(1))

    def ours(batch: int) -> Callable[[], list[float]]:
        uint8 = images[:split].split(batch)
        scorer = ImageScorer(
            supernet,
            lambda: (normalise(part, MEAN, STD, channels_last=True) for part in uint8),
            ImageSet(images[split:], labels[split:]),
            [list(range(CLASSES))],
            MEAN,
            STD,
        )
        return lambda: (100 * scorer(rows)[:, 0]).tolist()

    tasks = {OURS: ours(FAMILY_BATCH), ALIKE: ours(CALIBRATION_BATCH)}
    for size, validation in batches.items():
        tasks[f"ofa, batches of {size}"] = lambda v=validation: [  # type: ignore[misc]
            peer.score(space.to_dict(row), calibration, v) for row in rows
        ]
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    cpu: dict[str, list[float]] = {name: [] for name in tasks}
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(1 + repeats):
        for name, task in tasks.items():
            start, started = time.perf_counter(), time.process_time()
            accuracies = task()
            if turn:
                seconds[name].append((time.perf_counter() - start) / archs)
                cpu[name].append((time.process_time() - started) / archs)
                found[name] += accuracies
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    batches_of_ofa = [name for name in tasks if name.startswith("ofa")]
    fastest = min(medians[name] for name in batches_of_ofa)
    return {
        "resolution": resolution,
        "calibration_images": calibration_images,
        "validation_images": validation_images,
        "candidates": archs,
        "median_seconds": medians,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "ratio_of_cpu_seconds": min(statistics.median(cpu[name]) for name in batches_of_ofa)
        / statistics.median(cpu[OURS]),
        "ratio": fastest / medians[OURS],
        "ratio_in_batches_alike": fastest / medians[ALIKE],
        "top1": found,
        "greatest_difference_in_images_right": max(
            abs(a - b) * validation_images / 100
            for name in batches_of_ofa
            for a, b in zip(found[ALIKE], found[name], strict=True)
        ),
    }


def main() -> None:
    """Measure, print, write."""
    keep_freed_memory()
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    torch.set_num_threads(int(sys.argv[2]) if len(sys.argv) > 2 else 2)
    report: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]), "seed": 0, "threads": torch.get_num_threads(), "machine": machine(),
        "weights": "random, the same in both",
    }  # fmt: skip
    runs = []
    for resolution, calibration, validation in ((64, images, images), (160, images // 5, images // 5)):
        space = get_space("ofa-mobilenet-v3", resolution=resolution, num_classes=CLASSES)
        result = compare(space, resolution, calibration, validation, repeats=5, archs=4)
        print(
            json.dumps(
                {key: value for key, value in result.items() if key not in ("seconds", "cpu_seconds", "top1")}, indent=1
            )
        )
        runs.append(result)
    report["runs"] = runs
    report["machine_after"] = machine()
    out = OUT if torch.get_num_threads() > 1 else OUT.with_stem(f"{OUT.stem}-one-thread")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

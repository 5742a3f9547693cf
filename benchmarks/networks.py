"""Speed of supernets and of specialising: python benchmarks/networks.py [FAMILY]

Prints ratios measured in one run and writes docs/results/benchmark-networks.json. FAMILY is a trained family for the last
part (default runs/digits, made by `make quickstart`).
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import snugnet
from snugnet.pipeline import machine
from snugnet.spaces import get_space
from snugnet.supernets import Supernet
from snugnet.training.memory import keep_freed_memory

OUT = Path(__file__).parents[1] / "docs" / "results" / "benchmark-networks.json"


def median_ms(task: Callable[[], object], repeats: int) -> float:
    """Median time of a task in milliseconds, after one run that does not count."""
    task()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        task()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def training_step() -> dict[str, float]:
    """A step of a sub-network in the supernet against a step of the same architecture as a static network, in turn."""
    space = get_space(
        "ofa-mobilenet-v3", width_mult=0.5, resolution=32, num_classes=60, stem_stride=1, stage_strides=[2, 2, 2, 1, 2]
    )
    supernet = Supernet(space).train().to(memory_format=torch.channels_last)
    images = torch.randn(128, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(60, (128,))
    result = {}
    for name, arch in space.extremes().items():
        static = supernet.extract(arch).train().to(memory_format=torch.channels_last)
        runs: list[tuple[Callable[[], torch.Tensor], torch.optim.SGD]] = [
            (lambda a=arch: supernet(images, a), torch.optim.SGD(supernet.parameters(), 0.01, 0.9)),
            (lambda s=static: s(images), torch.optim.SGD(static.parameters(), 0.01, 0.9)),
        ]
        times: list[list[float]] = [[], []]
        for _ in range(12):
            for i, (forward, optimizer) in enumerate(runs):
                start = time.perf_counter()
                optimizer.zero_grad()
                F.cross_entropy(forward(), labels).backward()
                optimizer.step()
                times[i].append(time.perf_counter() - start)
        ratios = [a / b for a, b in zip(times[0][2:], times[1][2:], strict=True)]
        result[f"{name}: step of the supernet over step of the static network"] = statistics.median(ratios)
        result[f"{name}: images a second in the supernet"] = 128 / statistics.median(times[0][2:])
    return result


def extraction() -> dict[str, float]:
    """Extract at width 1.0."""
    space = get_space("ofa-mobilenet-v3")
    supernet = Supernet(space).eval()
    archs = iter(space.sample(40, np.random.default_rng(0)))
    return {
        "extract a random architecture at width 1.0, ms": median_ms(lambda: supernet.extract(next(archs)), 30),
        "extract the largest architecture at width 1.0, ms": median_ms(lambda: supernet.extract(space.largest), 20),
    }


def specialising(path: str) -> dict[str, float]:
    """From a trained family to architectures, and to a checked ONNX file."""
    family = snugnet.load(path)
    low, high = family.cost_range("madds")
    rng = np.random.default_rng(0)
    groups = list(family.groups)

    def scenarios(n: int) -> list[tuple[str, dict[str, float]]]:
        budgets = rng.uniform(low, high, n)
        return [(groups[i % len(groups)], {"madds": budget}) for i, budget in enumerate(budgets)]

    fifty, many = [scenarios(50) for _ in range(16)], scenarios(10_000)
    turns = iter(fifty)
    result = {
        "50 new scenarios to architectures, ms": median_ms(lambda: family.specialize_many(next(turns)), 15),
        "10,000 scenarios to architectures, ms": median_ms(lambda: family.specialize_many(many), 3),
    }
    with tempfile.TemporaryDirectory() as folder:
        middle = (low + high) / 2
        file = Path(folder) / "net.onnx"
        result["specialise, calibrate batch norm, write and check ONNX, ms"] = median_ms(
            lambda: family.specialize(groups[0], madds=middle).export(file), 10
        )
    return result


def main() -> None:
    """Run everything."""
    keep_freed_memory()
    torch.set_num_threads(2)
    report = {"machine": machine(), "command": " ".join(["python", *sys.argv]), "seed": 0}
    for part in (training_step, extraction):
        report[part.__name__] = part()
    report["specialising"] = specialising(sys.argv[1] if len(sys.argv) > 1 else "runs/digits")
    report["machine_after"] = machine()
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()

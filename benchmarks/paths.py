"""A training step of a single path in a supernet of choice blocks: python benchmarks/paths.py

Time and memory against a step of the same architecture as a static network, in turn, in one run; how both depend on the
number of alternatives; and how many architectures a second are counted. Writes docs/results/benchmark-paths.json.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile

from snugnet.costs import counted_table, sample
from snugnet.pipeline import machine
from snugnet.spaces import SearchSpace, get_space
from snugnet.supernets import Supernet
from snugnet.training.memory import keep_freed_memory
from snugnet.training.optimizer import make_optimizer

OUT = Path(__file__).parents[1] / "docs" / "results" / "benchmark-paths.json"
SPACE, QUANTISED = "spos-shufflenet-v2", "resnet-mixed-precision"
ALTERNATIVES = ([0], [0, 1], [0, 1, 2, 3])


def small_space(**changes: object) -> SearchSpace:
    """The published space for images of 32 x 32 pixels."""
    return get_space(SPACE, **{"resolution": 32, "num_classes": 10, "stem_stride": 1, **changes})


def make_step(module: nn.Module, forward: Callable[[], Tensor], labels: Tensor) -> Callable[[], None]:
    """One step of training: forward, backward, SGD with momentum."""
    optimizer = make_optimizer(module, 0.9, 4e-5)
    for group in optimizer.param_groups:
        group["lr"] = 0.01

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(forward(), labels).backward()
        optimizer.step()

    return run


def seconds(run: Callable[[], object]) -> float:
    """How long something takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_bytes(run: Callable[[], object]) -> int:
    """Most memory that something has allocated at any time and not freed yet, beyond what was there before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    assert profiled.profiler is not None
    changes, events = [], list(profiled.profiler.kineto_results.experimental_event_tree())
    while events:
        event = events.pop()
        events += event.children
        if event.typed[0] == _EventType.Allocation:  # of memory, or, below zero, its end
            changes.append((event.start_time_ns, event.typed[1].alloc_size))
    return peak([size for _, size in sorted(changes, key=lambda change: change[0])])


def peak(changes: Sequence[int]) -> int:
    """The highest sum of the first changes."""
    return int(np.cumsum([0, *changes]).max())


def a_step(space: SearchSpace, batch: int, repeats: int, archs: int) -> dict[str, float]:
    """Steps of drawn paths in the supernet over those of their static networks: medians of ratios."""
    supernet = Supernet(space).train().to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, space.resolution, space.resolution).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(space.options["num_classes"], (batch,))
    times, memory = [], []
    for row in sample(counted_table(space, "madds"), archs, np.random.default_rng(0)):
        static = supernet.extract(row).train().to(memory_format=torch.channels_last)
        ours = make_step(supernet, lambda r=row: supernet(images, r), labels)
        theirs = make_step(static, lambda s=static: s(images), labels)
        for step in (ours, theirs):
            step()  # momentum is allocated once
        times += [seconds(ours) / seconds(theirs) for _ in range(repeats)]
        memory.append(peak_bytes(ours) / peak_bytes(theirs))
    return {
        "time of a step over the static network's": statistics.median(times),
        "peak memory of a step over the static network's": max(memory),
    }


def counting(space: SearchSpace, rows: int, costs: Sequence[str]) -> dict[str, float]:
    """Architectures a second, and of drawing them under a limit."""
    archs, result = space.sample(rows, np.random.default_rng(0)), {}
    for name in costs:
        table = counted_table(space, name)
        low, high = table.range
        limit = (low + high) / 2
        sample(table, 100, np.random.default_rng(0), limit)
        for what, task in (
            ("counted", lambda t=table: t(archs)),
            ("drawn under a limit", lambda t=table, b=limit: sample(t, rows // 10, np.random.default_rng(0), b)),
        ):
            task()
            start = time.perf_counter()
            done = len(task())
            result[f"{name}: architectures {what} a second"] = done / (time.perf_counter() - start)
    return result


def main() -> None:
    """Run everything."""
    keep_freed_memory()
    torch.set_num_threads(2)
    report: dict[str, object] = {"machine": machine(), "command": " ".join(["python", *sys.argv])}
    for choices in ALTERNATIVES:
        name = f"step with {len(choices)} alternatives a block"
        report[name] = a_step(small_space(block_choices=choices, channel_scales=[1.0]), 64, 6, 5)
    report["step with 4 alternatives a block, each of 8 widths"] = a_step(small_space(), 64, 6, 5)
    report["costs"] = counting(get_space(SPACE), 1_000_000, ("madds", "params"))
    report[f"costs of {QUANTISED}"] = counting(get_space(QUANTISED), 1_000_000, ("madds", "params", "bitops"))
    report["machine_after"] = machine()
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()

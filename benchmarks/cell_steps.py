"""A step of differentiable search: DCA-NAS and its parts against plain DARTS and PC-DARTS of this program, and DARTS's own code.

    python benchmarks/cell_steps.py [PEER] [batch] [cells] [channels]

Time and peak memory of one step (architecture, then weights; CIFAR-size images, the space of DARTS), all in one run, medians of
steps taken in turn. PEER is a checkout of DARTS's public code (github.com/quark0/darts, Apache 2.0), which is not part of this project;
it asks for a GPU by name, so calls of ``cuda`` give back what they are called on. Writes docs/results/benchmark-cell-steps.json.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from paths import peak_bytes, seconds

from snugnet.costs import counted_table
from snugnet.data import AugmentConfig, ImageSet
from snugnet.differentiable.config import CellSearchConfig
from snugnet.differentiable.relaxed import Limit
from snugnet.differentiable.search import CellSearch, SearchImages
from snugnet.pipeline import machine
from snugnet.spaces import get_space
from snugnet.spaces.cells import CellSpace
from snugnet.training.loop import RunLog, seed_step
from snugnet.training.memory import keep_freed_memory

OUT = Path(__file__).parents[1] / "docs" / "results" / "benchmark-cell-steps.json"
OURS: dict[str, dict[str, Any]] = {
    "darts": {"method": "darts"},
    "pc-darts": {"method": "pc-darts"},
    "dca": {"method": "dca"},
    "dca without weight sharing": {"method": "dca", "weight_sharing": False},
    "dca without derived cells": {"method": "dca", "derived_cells": False},
    "dca without bottleneck": {"method": "dca", "bottleneck": 1},
    "darts with weight sharing": {"method": "darts", "weight_sharing": True},
    "darts with derived cells": {"method": "darts", "derived_cells": True},
    "darts with bottleneck": {"method": "darts", "bottleneck": 4},
}
PEER = "DARTS's public code"


def our_step(
    folder: Path, batch: int, cells: int, channels: int, limited: bool, **options: Any
) -> Callable[[], object]:
    """A step of this program's search; with ``limited`` under a limit on params of the network of 20 cells and 36 channels."""
    space, target = (get_space("darts", channels=c, cells=n) for c, n in ((channels, cells), (36, 20)))
    assert isinstance(space, CellSpace)
    assert isinstance(target, CellSpace)
    table = counted_table(target, "params")
    limits = [Limit(table, 3.5e6)] if limited else []
    config = CellSearchConfig(batch_size=batch, learning_rate=0.025, **options).resolved()
    images = torch.randint(0, 256, (4 * batch, 3, 32, 32), dtype=torch.uint8)
    halves = SearchImages.of(ImageSet(images, torch.randint(10, (4 * batch,))), 0.5, (0.5,) * 3, (0.25,) * 3, 0)
    search = CellSearch(
        config, space, target, limits, [limit.amount for limit in limits], halves, AugmentConfig(), 0, Fabric(accelerator="cpu", devices=1), folder,
        {}, RunLog(folder), False,
    )  # fmt: skip
    search._rederive()
    return lambda: search._step(0, seed_step(0, 0, 0))


def peer_step(peer: Path, batch: int, cells: int, channels: int) -> Callable[[], object]:
    """A step of the public code, as its own script takes it (first order)."""
    for kind in (torch.Tensor, torch.nn.Module):
        kind.cuda = lambda self, *_: self  # type: ignore[method-assign,assignment]
    sys.path.insert(0, str(peer / "cnn"))
    from architect import Architect  # type: ignore[import-not-found]
    from model_search import Network  # type: ignore[import-not-found]

    loss = torch.nn.CrossEntropyLoss()
    model = Network(channels, 10, cells, loss).train()
    architect = Architect(
        model, Namespace(momentum=0.9, weight_decay=3e-4, arch_learning_rate=3e-4, arch_weight_decay=1e-3)
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.025, momentum=0.9, weight_decay=3e-4)
    (images, labels), (others, theirs) = (
        (torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))) for _ in range(2)
    )

    def run() -> None:
        architect.step(images, labels, others, theirs, 0.025, optimizer, unrolled=False)
        optimizer.zero_grad()
        loss(model(images), labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5)
        optimizer.step()

    return run


def main(peer: str = "", batch: str = "32", cells: str = "8", channels: str = "16", repeats: int = 3) -> dict[str, Any]:
    """Run everything."""
    keep_freed_memory()
    torch.set_num_threads(1)
    size = (int(batch), int(cells), int(channels))
    report: dict[str, Any] = {
        "command": " ".join(["python benchmarks/cell_steps.py", *sys.argv[1:]]),
        "machine": machine(),
        "batch, cells, channels": size,
        "threads": 1,
    }
    with tempfile.TemporaryDirectory() as folder:
        made = {
            name: our_step(Path(folder) / name, *size, limited=options["method"] == "dca", **options)
            for name, options in OURS.items()
        }
        if peer:
            made[PEER] = peer_step(Path(peer), *size)
        times: dict[str, list[float]] = {name: [] for name in made}
        for turn in range(repeats + 1):
            for name, step in made.items():
                taken = seconds(step)
                if turn:  # the first allocates momentum
                    times[name].append(taken)
        memory = {name: peak_bytes(step) for name, step in made.items()}
    base = statistics.median(times["darts"]), memory["darts"]
    report["steps"] = {
        name: {
            "seconds": round(statistics.median(each), 4),
            "peak_mb": round(memory[name] / 2**20, 1),
            "times_as_fast_as_darts": round(base[0] / statistics.median(each), 2),
            "memory_over_darts": round(memory[name] / base[1], 3),
        }
        for name, each in times.items()
    }
    report["machine_after"] = machine()
    return report


if __name__ == "__main__":
    result = main(*sys.argv[1:])
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))

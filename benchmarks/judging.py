"""How candidates are judged: does bfloat16 rank them as float32 does, and how long do both take.

    python benchmarks/judging.py FAMILY [candidates]

Random architectures of a trained family, each judged in both precisions in turn, on the device where a search would run. Kendall's tau
(tau-b) of the two lists of mean accuracies; a setting is fit to be a default where it is at least 0.99. Beside it the tau of float32 in
batches of another size, which differ by rounding alone: what no precision can exceed. Writes docs/results/benchmark-judging.json.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import snugnet
from snugnet.pipeline import machine
from snugnet.predictors.agreement import agreement
from snugnet.search.image_scorer import ImageScorer
from snugnet.training.memory import keep_freed_memory

OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "benchmark-judging.json"
GOOD = 0.99


def main() -> None:
    """Measure, print, write."""
    keep_freed_memory()
    folder, candidates = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200
    family = snugnet.load(folder).to("cuda" if torch.cuda.is_available() else "cpu")
    groups = [family.class_indices(name) for name, own in family.groups.items() if len(own) > 1]
    rows = family.space.sample(candidates, np.random.default_rng(0))

    def judged_by(**options: Any) -> ImageScorer:
        return ImageScorer(
            family.supernet.eval(), family.calibration_batches, family.validation, groups, family.mean, family.std, **options
        )  # fmt: skip

    scorers = {
        "float32": judged_by(),
        "float32, batches of 100": judged_by(batch=100),
        "bfloat16": judged_by(precision="bfloat16"),
    }
    values: dict[str, list[float]] = {name: [] for name in scorers}
    cpu = dict.fromkeys(scorers, 0.0)
    clock = dict.fromkeys(scorers, 0.0)
    for part in np.array_split(rows, max(1, candidates // 8)):
        for name, scorer in scorers.items():
            start, started = time.perf_counter(), time.process_time()
            values[name] += scorer(part)[:, 0].tolist()
            clock[name] += time.perf_counter() - start
            cpu[name] += time.process_time() - started
    expected = np.array(values["float32"])
    alike = {name: agreement(np.array(each), expected) for name, each in values.items()}
    report = {
        "command": f"python benchmarks/judging.py FAMILY {candidates}",
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "seed": 0,
        "family": family.name,
        "validation_images": len(family.validation),
        "candidates": candidates,
        "accuracy": {"least": float(expected.min()), "mean": float(expected.mean()), "most": float(expected.max())},
        "seconds_a_candidate": {name: each / candidates for name, each in clock.items()},
        "cpu_seconds_a_candidate": {name: each / candidates for name, each in cpu.items()},
        "against_float32": alike,
        "fit_to_be_a_default": {name: each["kendall_tau"] >= GOOD for name, each in alike.items()},
    }
    print(json.dumps(report, indent=1))
    OUT.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""The published AttentiveNAS predictor, searched at the cost of each published model.

    SNUGNET_SHARED=../shared python benchmarks/attentive_forest.py

For a0, a2 and a6: architectures of at most the model's multiply-adds, by the climb and by evolution with AttentiveNAS's
settings, five seeds each. The predictor is a random forest on accuracies early in training: it ranks, its outputs are no final
accuracies. Writes docs/results/benchmark-attentive-forest.json.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from peers import SHARED

from snugnet.costs import CostTable, counted_table, make_sampler
from snugnet.pipeline import machine
from snugnet.predictors import ForestPredictor
from snugnet.search.driver import run_search
from snugnet.search.evolution import PRESETS
from snugnet.search.optimisers.climb import Climb
from snugnet.search.problem import Problem
from snugnet.spaces import SearchSpace, get_space

OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "benchmark-attentive-forest.json"
FOLDER = SHARED / "attentive-nas"
SEEDS = range(5)


def load_forest(space: SearchSpace, folder: Path = FOLDER) -> ForestPredictor:
    """The published forest; its inputs are the options of all choices, kind after kind."""
    kinds = ("resolution", "width", "depth", "kernel_size", "expand_ratio")
    names = [choice.name for kind in kinds for choice in space.choices if choice.kind == kind]
    with np.load(folder / "accuracy_forest.npz") as file:
        return ForestPredictor.from_arrays(space, dict(file), names)


def beat(model: dict[str, Any], forest: ForestPredictor, table: CostTable) -> dict[str, Any]:
    """Search at the cost of one published model."""
    space = table.space
    row = space.from_dict(model)
    budget, own = float(table(row)[0]), float(forest.predict(row)[0])
    assert abs(own - model["predictor_output"]) < 1e-5
    problem = Problem(space, forest.predict, {table.name: table}, {table.name: budget})
    result: dict[str, Any] = {
        "madds": budget,
        "predicted": own,
        "architectures_within": make_sampler(table, budget).reachable,
    }
    for name in ("climb", "evolution"):
        scores, seconds, best = [], [], None
        for seed in SEEDS:
            start = time.perf_counter()
            if name == "climb":
                rows, values = Climb().maximise(problem, seed=seed)
                found, value = rows[0], float(values[0])
            else:
                run = run_search(problem, PRESETS["attentive-nas"], seed=seed, progress=False)
                found, value = run.row, run.score
            seconds.append(time.perf_counter() - start)
            scores.append(value)
            assert table(found[None])[0] <= budget
            best = found if value == max(scores) else best
        assert best is not None
        result[name] = {
            "predicted": scores,
            "seconds": seconds,
            "madds": float(table(best[None])[0]),
            "architecture": space.to_dict(best),
        }
    return result


def main() -> None:
    """Search, print, write."""
    space = get_space("attentive-nas")
    table, forest = counted_table(space, "madds"), load_forest(space)
    models = json.loads((FOLDER / "models.json").read_text())["models"]
    report: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]), "seeds": list(SEEDS), "machine": machine(), "models": {},
    }  # fmt: skip
    for name, model in models.items():
        report["models"][name] = result = beat(model, forest, table)
        print(
            f"{name}: {result['madds'] / 1e6:.0f} M multiply-adds, predicted {result['predicted']:.3f}; "
            + "; ".join(
                f"{way} {min(result[way]['predicted']):.3f} to {max(result[way]['predicted']):.3f} in "
                f"{statistics.median(result[way]['seconds']):.2f} s"
                for way in ("climb", "evolution")
            )
        )
        assert min(result["climb"]["predicted"]) >= result["predicted"] - 1e-9, name
    report["machine_after"] = machine()
    OUT.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

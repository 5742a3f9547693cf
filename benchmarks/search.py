"""The climb against an evolution of 50,100 evaluations, on the published OFA accuracy predictor under MAdds budgets.

    SNUGNET_SHARED=../shared python benchmarks/search.py [seeds]

Predicted accuracy (%) and seconds of both, for each budget and seed. Writes docs/results/benchmark-search.json.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from peers import OFA_DATA

from snugnet.costs import counted_table
from snugnet.pipeline import machine
from snugnet.predictors import MLPPredictor
from snugnet.search.driver import run_search
from snugnet.search.evolution import PRESETS
from snugnet.search.optimisers.climb import Climb
from snugnet.search.problem import Problem
from snugnet.spaces import get_space

OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "benchmark-search.json"
BUDGETS = (230e6, 300e6, 400e6, 500e6, 600e6)


def main() -> None:
    """Measure, print, write."""
    space = get_space("ofa-mobilenet-v3", width_mult=1.2)  # at its resolution, 224
    table = counted_table(space, "madds")
    predict = MLPPredictor.from_ofa(OFA_DATA / "accuracy_predictor_w1.2.safetensors", space).predict
    before = machine()
    results = []
    for budget in BUDGETS:
        problem = Problem(space, predict, {"madds": table}, {"madds": budget})
        Climb().maximise(problem)  # the first call also prepares the tables
        for seed in range(int(sys.argv[1]) if len(sys.argv) > 1 else 5):
            started = time.perf_counter()
            _, scores = Climb().maximise(problem, seed=seed)
            between = time.perf_counter()
            evolved = run_search(problem, PRESETS["ofa"], seed=seed, progress=False)
            results.append(
                {
                    "budget": budget,
                    "seed": seed,
                    "climb": float(scores[0]),
                    "climb_seconds": between - started,
                    "evolution": evolved.score,
                    "evolution_seconds": time.perf_counter() - between,
                    "evaluations": len(evolved.archive),
                }
            )
        own = [row for row in results if row["budget"] == budget]
        means = {key: sum(row[key] for row in own) / len(own) for key in own[0] if key != "seed"}
        print(json.dumps(means), flush=True)
    report = {
        "command": " ".join(["python", *sys.argv]),
        "machine": before,
        "machine_after": machine(),
        "results": results,
    }
    OUT.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""The climb against an evolution of 50,100 evaluations, on the published OFA accuracy predictor under MAdds budgets.

    OMP_NUM_THREADS=1 SNUGNET_SHARED=../shared python benchmarks/search.py [seeds]

Prints JSON: predicted accuracy and seconds of both, for each budget and seed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from snugnet.costs import counted_table
from snugnet.search.climb import climb
from snugnet.search.driver import run_search
from snugnet.search.evolution import PRESETS
from snugnet.search.predicted import Predict
from snugnet.search.problem import Problem
from snugnet.spaces import Population, SearchSpace, get_space

BUDGETS = (230e6, 300e6, 400e6, 500e6, 600e6)
RESOLUTION = 7  # of the predictor's eight: 224 pixels


def predictor(space: SearchSpace, path: Path) -> Predict:
    """The published MLP, its first layer's inputs in the order of the space's one-hot code."""
    weights = load_file(path)
    first = torch.zeros(int(space.offsets[-1]), len(weights["0.bias"]))
    for column, choice in enumerate(space.choices):
        if choice.kind != "depth":
            stage, block, kind = choice.name.split(".")
            slot = 3 * (4 * (int(stage[5:]) - 1) + int(block[5:]) - 1) + (60 if kind == "expand_ratio" else 0)
            start = int(space.offsets[column])
            first[start : start + 3] = weights["0.weight"][:, slot : slot + 3].T
    bias = weights["0.bias"] + weights["0.weight"][:, 120 + RESOLUTION]

    @torch.inference_mode()
    def predict(rows: Population) -> np.ndarray:
        x = torch.addmm(bias, torch.from_numpy(space.one_hot(rows)), first).relu_()
        for layer in ("2", "4"):
            x = torch.addmm(weights[f"{layer}.bias"], x, weights[f"{layer}.weight"].T).relu_()
        return torch.addmm(weights["6.bias"], x, weights["6.weight"].T)[:, 0].double().numpy()

    return predict


def main() -> None:
    """Measure and print."""
    shared = Path(os.environ.get("SNUGNET_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    space = get_space("ofa-mobilenet-v3", width_mult=1.2)
    table = counted_table(space, "madds")
    predict = predictor(space, shared / "data" / "ofa-mobilenet-v3" / "accuracy_predictor_w1.2.safetensors")
    results = []
    for budget in BUDGETS:
        problem = Problem(space, predict, {"madds": table}, {"madds": budget})
        climb(problem)  # the first call also prepares the tables
        for seed in range(int(sys.argv[1]) if len(sys.argv) > 1 else 5):
            started = time.perf_counter()
            _, scores = climb(problem, seed=seed)
            between = time.perf_counter()
            evolved = run_search(problem, PRESETS["ofa"], seed=seed, progress=False)
            results.append(
                {
                    "budget": budget,
                    "seed": seed,
                    "climb": 100 * float(scores[0]),
                    "climb_seconds": between - started,
                    "evolution": 100 * evolved.score,
                    "evolution_seconds": time.perf_counter() - between,
                    "evaluations": len(evolved.archive),
                }
            )
    load, threads = os.getloadavg(), torch.get_num_threads()
    print(json.dumps({"threads": threads, "load_average": load, "results": results}, indent=1))


if __name__ == "__main__":
    main()

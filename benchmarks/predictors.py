"""How good and how fast the accuracy predictors are, beside a support vector regression, in one run.

    OMP_NUM_THREADS=1 SNUGNET_SHARED=../shared python benchmarks/predictors.py

Five random splits of the 1,600 sub-networks (827 to fit, 773 held out), and five folds in which no architecture stands on
both sides (about 1,280 to fit). Writes docs/results/benchmark-predictors.json.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peers import OFA_DATA
from sklearn.model_selection import GroupKFold
from sklearn.svm import SVR

from snugnet.predictors import fit_predictor, list_predictors, read_table
from snugnet.predictors.agreement import agreement
from snugnet.spaces import Population, get_space

OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "benchmark-predictors.json"
TARGET = "imagenet_top1"
SPLITS, HELD_OUT = 5, 773
SPACE = get_space("ofa-mobilenet-v3")

Predict = Callable[[Population], NDArray[np.float64]]


def support_vectors(epsilon: float) -> Callable[[Population, NDArray[np.float64]], Predict]:
    """SVR on one-hot codes; 0.1 is scikit-learn's default, 0.01 suits values whose noise is of that size."""

    def fit(rows: Population, values: NDArray[np.float64]) -> Predict:
        model = SVR(epsilon=epsilon).fit(SPACE.one_hot(rows), values)
        return lambda rows: model.predict(SPACE.one_hot(rows))

    return fit


def method(kind: str) -> Callable[[Population, NDArray[np.float64]], Predict]:
    """A predictor of ours with its defaults."""
    return lambda rows, values: fit_predictor(kind, SPACE, rows, values).predict


def rate(predict: Predict, n: int) -> float:
    """Architectures a second in batches of ``n``, the best of five."""
    rows = SPACE.sample(n, np.random.default_rng(1))
    predict(rows)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        predict(rows)
        times.append(time.perf_counter() - start)
    return n / min(times)


def main() -> None:
    """Measure, print and write."""
    table = read_table(OFA_DATA / "imagenet_accuracy_w1.0.csv.gz", SPACE)
    rows, values = table.rows, table.values([TARGET])[:, 0]
    orders = [np.random.default_rng(seed).permutation(len(rows)) for seed in range(SPLITS)]
    _, group = np.unique(rows, axis=0, return_inverse=True)
    cuts = {
        "random splits": [(order[HELD_OUT:], order[:HELD_OUT]) for order in orders],
        "folds of unseen architectures": list(GroupKFold(SPLITS).split(rows, groups=group.ravel())),
    }
    methods = {"svr": support_vectors(0.1), "svr, epsilon 0.01": support_vectors(0.01)}
    methods |= {kind: method(kind) for kind in list_predictors()}
    result: dict[str, Any] = {
        "command": "python benchmarks/predictors.py",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(),
                    "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")},
        "seeds": list(range(SPLITS)),
        "methods": {},
    }  # fmt: skip
    for name, fit in methods.items():
        own: dict[str, Any] = {}
        for cut, pairs in cuts.items():
            scores = [agreement(fit(rows[a], values[a])(rows[b]), values[b]) for a, b in pairs]
            own[cut] = {
                key: {"mean": float(np.mean([s[key] for s in scores])), "std": float(np.std([s[key] for s in scores], ddof=1))}
                for key in scores[0]
            }  # fmt: skip
        start = time.perf_counter()
        predict = fit(rows, values)
        own["fit_seconds_1600_rows"] = time.perf_counter() - start
        own["per_second_batch_100"], own["per_second_batch_5000"] = rate(predict, 100), rate(predict, 5_000)
        result["methods"][name] = own
        print(name, json.dumps(own), flush=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

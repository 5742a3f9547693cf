"""The real ImageNet case: the published OFA predictor under measured latency on a Samsung Note 10, beside EvolutionFinder.

    pip install --no-deps ofa tqdm
    SNUGNET_SHARED=../shared python benchmarks/ofa_note10.py

Budgets of 15, 20, 25, 30 and 40 ms. EvolutionFinder of the `ofa` package runs with its defaults (population 100, 500 rounds)
on the same predictor and the same table, in the same run. Ours: the ascent (snugnet.search.optimisers.ascent) with its defaults, and
one that stops after 3 rounds without anything better, sixteen seeds, each after one run that does not count; a plain evolution of
50,100 evaluations; and the architecture generator, trained against the predictor alone, one forward pass and one exact decode
for all budgets. Every architecture found is judged once more by the `ofa` package's own predictor and latency code. Writes
docs/results/benchmark-ofa-note10.json and .png.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peers import OFA_DATA, OFASearch

from snugnet.costs import CostTable, load_ofa_latency
from snugnet.generator.model import ArchitectureGenerator
from snugnet.generator.on_predictor import generate, search_front, train_by_gates, train_on_front
from snugnet.pipeline import machine
from snugnet.predictors import MLPPredictor
from snugnet.search.driver import run_search
from snugnet.search.evolution import PRESETS
from snugnet.search.optimisers.ascent import Ascent
from snugnet.search.optimisers.optimiser import predictor_problem
from snugnet.spaces import get_space

OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "benchmark-ofa-note10"
BUDGETS = (15.0, 20.0, 25.0, 30.0, 40.0)
LEVELS = (78.73, 80.68, 82.10, 83.03, 84.01)
"""What a plain vectorised evolution finds; the level to pass."""
RESOLUTIONS = [160, 176, 192, 208, 224]
SEEDS = range(16)
RANGE = (12.0, 48.0)  # of the generator's budgets, ms
PATIENCE = 3  # rounds without a better architecture, after which a shorter ascent stops
MAY_BE_OFF = 1e-4  # points of accuracy between their float32 and ours


def timed(task: Callable[[], Any]) -> tuple[Any, float]:
    """What a task gives, and its seconds."""
    start = time.perf_counter()
    return task(), time.perf_counter() - start


def search(
    predictor: MLPPredictor, table: CostTable, budget: float, peer: OFASearch, rounds: int = 500
) -> dict[str, Any]:
    """One budget, all three ways."""
    space = table.space
    problem = predictor_problem(predictor, {table.name: table}, {table.name: budget})
    _, cold = timed(lambda: Ascent().maximise(problem, seed=len(SEEDS)))
    cpu = time.process_time()
    runs = [timed(lambda s=seed: Ascent().maximise(problem, seed=s)) for seed in SEEDS]  # type: ignore[misc]
    our_cpu = (time.process_time() - cpu) / len(runs)
    cpu = time.process_time()
    short = [timed(lambda s=seed: Ascent(patience=PATIENCE).maximise(problem, seed=s)) for seed in SEEDS]  # type: ignore[misc]
    short_cpu = (time.process_time() - cpu) / len(short)
    evolutions = [
        timed(lambda s=seed: run_search(problem, PRESETS["ofa"], seed=s, progress=False))  # type: ignore[misc]
        for seed in SEEDS
    ]
    cpu = time.process_time()
    (theirs, their_latency, _), their_seconds = timed(lambda: peer.run(budget, 0, rounds))
    their_cpu = time.process_time() - cpu
    judged = [peer.judge(space.to_dict(rows[0])) for (rows, _), _ in runs]
    assert all(latency <= budget for _, latency in judged)
    assert all(
        abs(accuracy - scores[0]) < MAY_BE_OFF for (accuracy, _), ((_, scores), _) in zip(judged, runs, strict=True)
    )
    seconds = statistics.median(each for _, each in runs)
    return {
        "budget_ms": budget,
        "ours": {
            "accuracy": [accuracy for accuracy, _ in judged],
            "latency_ms": [latency for _, latency in judged],
            "seconds": [each for _, each in runs],
            "seconds_first_run": cold,
            "cpu_seconds": our_cpu,
            "scored": [len(rows) for (rows, _), _ in runs],
            "architecture_of_seed_0": space.to_dict(runs[0][0][0][0]),
        },
        "ours_short": {
            "patience": PATIENCE,
            "accuracy": [float(scores[0]) for (_, scores), _ in short],
            "seconds": [each for _, each in short],
            "cpu_seconds": short_cpu,
            "ratio_of_seconds": their_seconds / statistics.median(each for _, each in short),
            "ratio_of_cpu_seconds": their_cpu / short_cpu,
        },
        "evolution_50100": {
            "accuracy": [result.score for result, _ in evolutions],
            "seconds": [each for _, each in evolutions],
        },
        "ofa_evolution_finder": {
            "accuracy": theirs,
            "latency_ms": their_latency,
            "seconds": their_seconds,
            "cpu_seconds": their_cpu,
        },
        "ratio_of_seconds": their_seconds / seconds,
        "ratio_of_cpu_seconds": their_cpu / our_cpu,
    }


def generated(
    predictor: MLPPredictor, table: CostTable, peer: OFASearch, steps: int = 1500, searches: int = 80
) -> dict[str, Any]:
    """The generator, trained against the predictor alone by both ways; judged by the peer's code."""
    space, result = table.space, {}
    for way in ("front", "gates"):
        generator = ArchitectureGenerator(
            space, 1, *RANGE, budgets=64, hidden_size=128, encoding="multi-path", seed=0
        )  # fmt: skip
        seconds: dict[str, float] = {}
        if way == "front":
            front, seconds["searching_the_front"] = timed(
                lambda: search_front(predictor, table, *RANGE, searches=searches, seed=1000)
            )
            _, seconds["training"] = timed(lambda g=generator, f=front: train_on_front(g, f, steps=steps))  # type: ignore[misc]
        else:
            _, seconds["training"] = timed(
                lambda g=generator: train_by_gates(g, predictor, table, steps=steps)  # type: ignore[misc]
            )
        generate(generator, predictor, table, BUDGETS)
        rows, seconds["all_budgets"] = timed(lambda g=generator: generate(g, predictor, table, BUDGETS))  # type: ignore[misc]
        one = [timed(lambda b=b, g=generator: generate(g, predictor, table, [b]))[1] for b in BUDGETS]  # type: ignore[misc]
        seconds["one_budget"] = statistics.median(one)
        judged = [peer.judge(space.to_dict(row)) for row in rows]
        assert all(latency <= budget for (_, latency), budget in zip(judged, BUDGETS, strict=True))
        result[way] = {
            "accuracy": [accuracy for accuracy, _ in judged],
            "latency_ms": [latency for _, latency in judged],
            "seconds": seconds,
        }
    return result


def agreement(predictor: MLPPredictor, table: CostTable, peer: OFASearch) -> dict[str, float]:
    """Greatest differences between their predictor and latency code and ours, on 100 architectures."""
    rows = table.space.sample(100, np.random.default_rng(0))
    judged = np.array([peer.judge(table.space.to_dict(row)) for row in rows])
    return {
        "accuracy_points": float(np.abs(judged[:, 0] - predictor.predict(rows)).max()),
        "latency_ms": float(np.abs(judged[:, 1] - table(rows)).max()),
    }


def plot(report: dict[str, Any], path: Path) -> None:
    """Accuracy over budgets, and seconds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    rows = report["budgets"]
    theirs = [row["ofa_evolution_finder"]["accuracy"] for row in rows]
    lines = {
        "ascent, worst to best of 5 seeds": [row["ours"]["accuracy"] for row in rows],
        "evolution, 50,100 evaluations, 5 seeds": [row["evolution_50100"]["accuracy"] for row in rows],
        "generator (front)": [[a] for a in report["generator"]["front"]["accuracy"]],
        "generator (gates)": [[a] for a in report["generator"]["gates"]["accuracy"]],
    }
    for label, values in lines.items():
        over = [np.array(each) - other for each, other in zip(values, theirs, strict=True)]
        middle = [np.mean(each) for each in over]
        bars = [[m - min(each) for m, each in zip(middle, over, strict=True)],
                [max(each) - m for m, each in zip(middle, over, strict=True)]]  # fmt: skip
        left.errorbar(BUDGETS, middle, bars, marker="o", capsize=3, label=label)
    left.axhline(0, color="black", lw=0.8)
    left.set(xlabel="budget, ms on Note 10", ylabel="predicted top-1 over EvolutionFinder's, points")
    left.legend(fontsize=7)
    right.semilogy(
        BUDGETS, [row["ofa_evolution_finder"]["seconds"] for row in rows], "o-", label="EvolutionFinder (ofa)"
    )
    for name, label in (("evolution_50100", "evolution, 50,100 evaluations"), ("ours", "ascent")):
        right.semilogy(BUDGETS, [np.median(row[name]["seconds"]) for row in rows], "o-", label=label)
    right.axhline(report["generator"]["front"]["seconds"]["one_budget"], ls="--", label="generator, one budget")
    right.set(xlabel="budget, ms on Note 10", ylabel="seconds a search")
    right.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Search, train, print, write."""
    space = get_space("ofa-mobilenet-v3", width_mult=1.2, resolutions=RESOLUTIONS)
    table = load_ofa_latency(OFA_DATA / "note10_latency.csv.gz", space)
    predictor = MLPPredictor.from_ofa(OFA_DATA / "accuracy_predictor_w1.2.safetensors", space)
    peer = OFASearch()
    report: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]), "seeds": list(SEEDS), "seed_of_evolution_finder": 0,
        "machine": machine(), "agreement": agreement(predictor, table, peer),
    }  # fmt: skip
    report["budgets"] = [search(predictor, table, budget, peer) for budget in BUDGETS]
    report["generator"] = generated(predictor, table, peer)
    for i, row in enumerate(report["budgets"]):
        best = max(*row["ours"]["accuracy"], *row["evolution_50100"]["accuracy"])
        row["best_found"] = best
        for result in report["generator"].values():
            result.setdefault("gap_to_best_found", []).append(best - result["accuracy"][i])
        print(
            f"{row['budget_ms']:.0f} ms: ours {min(row['ours']['accuracy']):.2f} to {max(row['ours']['accuracy']):.2f} "
            f"(level {LEVELS[i]}) in {statistics.median(row['ours']['seconds']):.3f} s; short {min(row['ours_short']['accuracy']):.2f} to "
            f"{max(row['ours_short']['accuracy']):.2f}, ratio {row['ours_short']['ratio_of_seconds']:.0f} "
            f"({row['ours_short']['ratio_of_cpu_seconds']:.0f} in CPU seconds); EvolutionFinder "
            f"{row['ofa_evolution_finder']['accuracy']:.2f} in {row['ofa_evolution_finder']['seconds']:.1f} s, ratio "
            f"{row['ratio_of_seconds']:.0f} ({row['ratio_of_cpu_seconds']:.0f} in CPU seconds); evolution of 50,100 {np.mean(row['evolution_50100']['accuracy']):.2f} in "
            f"{statistics.median(row['evolution_50100']['seconds']):.2f} s; generator "
            + ", ".join(
                f"{way} {r['gap_to_best_found'][i]:+.3f} below the best" for way, r in report["generator"].items()
            )
        )
    print(json.dumps({way: r["seconds"] for way, r in report["generator"].items()}, indent=1))
    report["machine_after"] = machine()
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    plot(report, OUT.with_suffix(".png"))


if __name__ == "__main__":
    main()

"""Speed of cost tables on the width-1.0 OFA space: population costs, exact sampling, decoding.

    python benchmarks/costs.py

Ratios are against the plain way of doing the same, measured in the same run: counting blueprint by blueprint, and
drawing until the budget is met. Writes docs/results/benchmark-costs.json.
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
import torch

from snugnet.costs import Allowed, CostTable, counted_table, decode, make_sampler
from snugnet.spaces import SearchSpace, get_space

OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "benchmark-costs.json"
SEED = 0


def best_time(job: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest of some runs, after one that is not counted."""
    job()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        job()
        times.append(time.perf_counter() - start)
    return min(times)


def population_costs(space: SearchSpace, table: CostTable, rng: np.random.Generator) -> dict[str, float]:
    """Architectures a second: by gather, and one blueprint after the other."""
    archs = space.sample(1_000_000, rng)
    fast = len(archs) / best_time(lambda: table(archs), 5)
    few = archs[:300]
    naive = len(few) / best_time(lambda: [space.blueprint(row).madds for row in few], 3)
    fresh = get_space(space.name, **space.options)
    start = time.perf_counter()
    counted_table(fresh, "madds")
    built = time.perf_counter() - start
    return {
        "per_second": fast,
        "blueprint_by_blueprint_per_second": naive,
        "ratio": fast / naive,
        "table_build_ms": built * 1e3,
    }


def sampling(space: SearchSpace, table: CostTable, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Exact uniform samples a second under budgets and in windows, beside rejection.

    Rejection as NAS code has it draws each choice on its own, which favours shallow networks and is not uniform; of
    uniform draws, ``uniform_rejection_tries`` would be needed.
    """
    results = []
    for budget, at_least in [
        (150e6, None), (200e6, None), (250e6, None), (300e6, None), (400e6, None), (500e6, None),
        (200e6, 198e6), (300e6, 295e6), (400e6, 399e6),
    ]:  # fmt: skip
        start = time.perf_counter()
        sampler = make_sampler(table, budget, at_least)
        built = time.perf_counter() - start
        seconds = best_time(lambda sampler=sampler: sampler.sample(200_000, rng), 2)  # type: ignore[misc]
        start = time.perf_counter()
        costs = table(space.sample(1_000_000, rng))
        naive_seconds = time.perf_counter() - start
        hits = int(((costs <= budget) & (costs >= (at_least or 0))).sum())
        results.append(
            {
                "budget": budget,
                "at_least": at_least,
                "per_second": 200_000 / seconds,
                "tries": sampler.tries,
                "build_ms": built * 1e3,
                "uniform_rejection_tries": space.size * sampler.tries / sampler.reachable,
                "rejection_tries": 1_000_000 / hits if hits else "> 1,000,000",
                "rejection_per_second": hits / naive_seconds,
                "ratio": 200_000 / seconds / (hits / naive_seconds) if hits else None,
            }
        )
    return results


def decoding(space: SearchSpace, tables: list[CostTable], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Seconds for scenarios that each have their own scores and budgets."""
    rising = np.concatenate([np.arange(k) for k in space.num_options])
    results = []
    for n, m, bias, repeats in [(50, 1, 0, 40), (50, 1, 1, 40), (50, 2, 1, 10), (10_000, 1, 0, 3), (10_000, 1, 1, 3)]:
        scores = (rng.standard_normal((n, int(space.offsets[-1]))) + bias * rising).astype(np.float32)
        low, high = np.array([table.range for table in tables[:m]]).T
        # Two budgets are those of one architecture, and so feasible together.
        some = space.sample(n, rng)
        budgets = low + rng.random((n, m)) * (high - low) if m == 1 else np.stack([t(some) for t in tables[:m]], axis=1)
        rows = decode(tables[:m], scores, budgets)
        costs = np.stack([table(rows) for table in tables[:m]], axis=1)
        results.append(
            {
                "scenarios": n,
                "budgets_each": m,
                "scores": "normal, rising with size" if bias else "normal",
                "ms": best_time(lambda s=scores, b=budgets, m=m: decode(tables[:m], s, b), repeats) * 1e3,  # type: ignore[misc]
                "violations": int((costs > budgets).sum()),
            }
        )
    return results


def limits(space: SearchSpace, table: CostTable, rng: np.random.Generator) -> dict[str, float]:
    """Milliseconds of 50 scenarios with and without limits that are no sums, and of tables that differ by a constant."""
    forbidden = {choice.name: [7] for choice in space.choices if choice.kind == "kernel_size"}
    largest = max(values.max() for _, values in table.tables)
    start = time.perf_counter()
    allowed = Allowed.without(space, forbidden) & Allowed.at_most(space, table.tables, 0.7 * largest, "largest block")
    low, high = table.bounds(allowed=allowed)
    made = time.perf_counter() - start
    scores = rng.standard_normal((50, int(space.offsets[-1]))).astype(np.float32)
    budgets = low + rng.random(50) * (high - low)
    return {
        "restricted_automaton_ms": made * 1e3,
        "decode_ms": best_time(lambda: decode([table], scores, budgets), 20) * 1e3,
        "decode_under_limits_ms": best_time(lambda: decode([table], scores, budgets, allowed=allowed), 20) * 1e3,
        "shifted_table_us": best_time(lambda: [table.shifted(k) for k in range(1000)], 5) * 1e3,
    }


def expectation(space: SearchSpace, table: CostTable) -> dict[str, float]:
    """Forward and backward in torch, 32 rows of probabilities."""
    logits = [torch.zeros(32, int(k), requires_grad=True) for k in space.num_options]
    probabilities = [x.softmax(-1) for x in logits]
    forward = best_time(lambda: table.expectation(probabilities), 50)
    both = best_time(lambda: torch.autograd.grad(table.expectation(probabilities).sum(), probabilities), 50)
    return {"forward_ms": forward * 1e3, "forward_and_backward_ms": both * 1e3}


def main() -> None:
    """Measure, print, write."""
    rng = np.random.default_rng(SEED)
    space = get_space("ofa-mobilenet-v3")
    tables = [counted_table(space, "madds"), counted_table(space, "params")]
    result = {
        "command": "python benchmarks/costs.py",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seed": SEED,
        "machine": {
            "cpus": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "load_average_before": os.getloadavg(),
            "platform": platform.platform(),
            "numpy": np.__version__,
            "torch": torch.__version__,
        },
        "space": space.to_json(),
        "population_costs": population_costs(space, tables[0], rng),
        "sampling": sampling(space, tables[0], rng),
        "decoding": decoding(space, tables, rng),
        "limits": limits(space, tables[0], rng),
        "expectation": expectation(space, tables[0]),
    }
    text = json.dumps(result, indent=2)
    print(text)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(text + "\n")


if __name__ == "__main__":
    main()

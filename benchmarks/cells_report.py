"""What came of benchmarks/cells.py, as far as it has been run: docs/results/benchmark-cells.json and .png."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import cells
import numpy as np
from cells import DEVICES, OUT, QUANTILES, SEEDS, TABLE_METHODS, TESTS
from jobs import spread

MAX_SKIPS = 2


def report() -> None:
    """Gather what there is, print it, write it."""
    jobs = cells.jobs()
    found = jobs.results()
    content: dict[str, Any] = {
        "command": "python benchmarks/cells.py", "seeds": SEEDS, "search": cells.SEARCH, "rows": cells.ROWS,
        "missing": [job.name for job in jobs.each if job.name not in found],
        "graphs": graphs(found), "limits": under_limits(found), "seconds": seconds(found), "ablation": ablation(found), "collapse": collapse(found),
        "trap": {"changes": cells.TRAP, **collapse(found, "trap-", cells.TRAP["warmup_epochs"])},
    }  # fmt: skip
    print(json.dumps({key: value for key, value in content.items() if key != "jobs"}, indent=1))
    each = ",\n".join(f"  {json.dumps(name)}: {json.dumps(result)}" for name, result in found.items())  # a line a job
    OUT.with_suffix(".json").write_text(f'{json.dumps(content, indent=1)[:-2]},\n "jobs": {{\n{each}\n }}\n}}\n')
    OUT.with_suffix(".png").write_bytes(figure(content))


def graphs(found: dict[str, Any]) -> dict[str, Any]:
    """Bounds, and latencies of the cells derived from their searches."""
    made = {}
    for device in DEVICES:
        points = [found[f"graph-{device}-{i}"] for i in range(cells.POINTS) if f"graph-{device}-{i}" in found]
        made[device] = {key: [point[key] for point in points] for key in ("bound", "derived", "seconds")}
    return made


def under_limits(found: dict[str, Any]) -> dict[str, Any]:
    """For each device and limit: what each method's cells are worth, the best there is, and whether the limit was kept."""
    made: dict[str, Any] = {}
    for device in DEVICES:
        for place, (quantile, limit) in enumerate(zip(QUANTILES, cells.limits(device), strict=True)):
            inside = cells.within(device, limit)
            table = {name: cells.accuracies()[name] for name in (*TESTS, "cifar10_valid_12")}
            best_valid = int(np.where(inside, table["cifar10_valid_12"], -1).argmax())
            own: dict[str, Any] = {
                "quantile": quantile, "limit_ms": limit, "cells": int(inside.sum()),
                "best": {name: float(table[name][inside].max()) for name in TESTS},
                "best by 12-epoch validation": {name: float(table[name][best_valid]) for name in TESTS},
                "drawn at random, expected": {name: float(table[name][inside].mean()) for name in TESTS},
            }  # fmt: skip
            runs = {
                method: [cells.on_the_table(method, device, place, s)["found"] for s in SEEDS]
                for method in TABLE_METHODS
            }
            runs = {f"{method}, 100 on the table": each for method, each in runs.items()}
            runs["dca"] = [found[n]["found"] for s in SEEDS if (n := f"dca-{device}-{place}-{s}") in found]
            for method in ("dca", "darts", "pc-darts"):
                names = [f"{method}-free-{s}" for s in SEEDS]
                runs[f"{method}, limit in the decode alone"] = [
                    found[name]["found"][f"{device}-{place}"] for name in names if name in found
                ]
            for method, each in runs.items():
                if each:
                    own[method] = {name: spread([run[name] for run in each]) for name in TESTS}
                    own[method]["kept"] = sum(run[f"latency_ms@{device}"] <= limit for run in each) / len(each)
                    own[method]["latency_ms"] = spread([run[f"latency_ms@{device}"] for run in each])
            made[f"{device} {quantile:.0%}"] = own
    return made


def seconds(found: dict[str, Any]) -> dict[str, Any]:
    """Of a search, by method."""
    kinds = {
        kind: [r for n, r in found.items() if n.startswith(kind)]
        for kind in ("darts-free", "pc-darts-free", "dca-free")
    }
    kinds["dca, under a limit"] = [r for n, r in found.items() if n.startswith(tuple(f"dca-{d}" for d in DEVICES))]
    return {kind: spread([r["seconds"] for r in runs]) for kind, runs in kinds.items() if runs}


def ablation(found: dict[str, Any]) -> dict[str, Any]:
    """Searches without limits: what their cells are worth under the ten limits, on average, and the seconds they took."""
    made = {}
    for kind in ("darts-free", "dca-free", *(f"dca-without-{part}" for part in cells.PARTS), "dca-long", "darts-long"):
        runs = [found[f"{kind}-{s}"] for s in SEEDS if f"{kind}-{s}" in found]
        if runs:
            made[kind] = {
                name: spread([float(np.mean([cell[name] for cell in run["found"].values()])) for run in runs])
                for name in TESTS
            }
            made[kind]["seconds"] = spread([run["seconds"] for run in runs])
    return made


def collapse(found: dict[str, Any], prefix: str = "", warmup: int = cells.SEARCH["warmup_epochs"]) -> dict[str, Any]:
    """Skip connections and worth, epoch by epoch, of searches that go on for long; and what each remedy hands out at the end.

    Args:
        found: results by job.
        prefix: of the searches' names: ``trap-``, or none for those of 30 epochs.
        warmup: their epochs in which only the weights learn.
    """
    long = "" if prefix else "-long"
    runs = {
        kind: [found[name] for s in SEEDS if (name := f"{prefix}{kind}-{s}") in found]
        for kind in (f"darts{long}", f"dca{long}", "from-below")
    }
    made: dict[str, Any] = {
        f"{prefix}{kind}": {
            "skips": [[epoch["skips"] for epoch in run["history"]] for run in each],
            "worth": [[round(epoch["worth"][TESTS[0]], 2) for epoch in run["history"]] for run in each],
            "last": spread([run["without_limit"][TESTS[0]] for run in each]),
            "last_skips": [run["history"][-1]["skips"] for run in each],
            "seconds": spread([run["seconds"] for run in each]),
        }
        for kind, each in runs.items()
        if each
    }
    remedies = {}
    if longs := runs[f"darts{long}"]:
        remedies[f"at most {MAX_SKIPS} skips"] = spread([stopped(run["history"], warmup) for run in longs])
        remedies["selection by perturbation"] = spread([run["by_perturbation"][TESTS[0]] for run in longs])
    if below := runs["from-below"]:
        remedies["limit from below"] = spread([run["found"][TESTS[0]] for run in below])
    return made | ({"remedies": remedies} if remedies else {})


def stopped(history: Sequence[dict[str, Any]], warmup: int) -> float:
    """What a search hands out that ends before more skips: the epoch before the first that has them."""
    after = [i for i, epoch in enumerate(history) if epoch["skips"] > MAX_SKIPS and i >= warmup]
    last = history[max(0, after[0] - 1)] if after else history[-1]
    return float(last["worth"][TESTS[0]])


def figure(content: dict[str, Any]) -> bytes:
    """Accuracy over the limit, for the first device."""
    from snugnet.plots import line_figure

    curves: dict[str, list[tuple[float, float, float]]] = {}
    for name, own in content["limits"].items():
        if name.startswith(DEVICES[1]):
            for method in ("best", "dca", "darts, limit in the decode alone", "pc-darts, limit in the decode alone"):
                if method in own:
                    value = own[method][TESTS[0]]
                    mean, std = (value, 0.0) if method == "best" else (value["mean"], value["std"] or 0.0)
                    curves.setdefault(method, []).append((own["limit_ms"], mean, std))
            curves.setdefault("drawn at random, expected", []).append(
                (own["limit_ms"], own["drawn at random, expected"][TESTS[0]], 0.0)
            )
    return line_figure(
        curves, "NAS-Bench-201: cells found on CIFAR-10", f"latency on {DEVICES[1]} (ms), at most", "test accuracy (%)"
    )

"""Measured costs of nas-bench-201: how near a sum over edges comes, what is known of the data, and how fast the look-up is.

    SNUGNET_SHARED=../shared python benchmarks/hardware.py

Writes docs/results/hardware-nas-bench-201.json and the table in docs/hardware.md. Milliseconds are of one thread's CPU time, so that
other work on the machine does not count.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from peers import SHARED
from pyarrow import csv

from snugnet.costs import DEVICES, CostTable, decode, disconnected, make_sampler, measured_cost
from snugnet.costs.hardware import DATASETS, numbers_of
from snugnet.pipeline import machine
from snugnet.spaces import get_space

DOCS = Path(__file__).resolve().parents[1] / "docs"
COMMAND = "SNUGNET_SHARED=../shared python benchmarks/hardware.py"
BEGIN, END = "<!-- the table of benchmarks/hardware.py -->\n", "<!-- its end -->\n"
SPACE = get_space("nas-bench-201")
CELLS = np.array(list(np.ndindex(*SPACE.num_options)), dtype=np.int16)


def fits() -> list[dict[str, Any]]:
    """The additive fit of each cost: cells measured, and how far it is off."""
    found = []
    for dataset, options in DATASETS.items():
        for device, costs in DEVICES.items():
            for cost in costs:
                measured = measured_cost(SPACE.with_options(**options), cost, device)
                there = len(measured.values) - measured.missing
                about = {"dataset": dataset, "device": device, "cost": cost, "measured": there}
                found.append({**about, **asdict(measured.fit)})
    return found


def within_5_percent(values: NDArray[np.float64], among: NDArray[np.bool_]) -> float:
    """Of a fit to some cells alone, the share of these cells that it is within 5% of."""
    code = SPACE.one_hot(CELLS[among]).astype(np.float64)
    weights = np.linalg.lstsq(code, values[among], rcond=None)[0]
    return float((np.abs(code @ weights - values[among]) <= 0.05 * values[among]).mean())


def greatest_ratio(values: NDArray[np.float64], classes: NDArray, among: NDArray[np.bool_]) -> float:
    """Of the slowest to the fastest among cells that compute the same."""
    order = np.lexsort((values[among], classes[among]))
    names, sorted_values = classes[among][order], values[among][order]
    starts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]]))
    return float((np.maximum.reduceat(sorted_values, starts) / sorted_values[starts]).max())


def facts() -> dict[str, Any]:
    """What to know before these numbers are used; CIFAR-10."""
    table = csv.read_csv(SHARED / "nas-bench-201" / "accuracy.csv.gz")
    rows = np.concatenate([SPACE.from_str(text) for text in table["arch_str"].to_pylist()])
    table = table.take(pa.array(np.argsort(numbers_of(SPACE, rows))))
    path, everything = disconnected(SPACE)(CELLS) == 0, np.ones(len(CELLS), dtype=bool)
    alive = path & (table["no_dead_edges"].to_numpy() == 1)
    classes, accuracy = table["iso_string"].to_numpy().astype(str), table["cifar10_test_200"].to_numpy()
    found: dict[str, Any] = {"cells": {"a path": int(path.sum()), "a path and no dead operation": int(alive.sum())}}
    for device in ("edgegpu", "raspi4", "pixel3", "fpga"):
        values = measured_cost(SPACE, "latency_ms", device).values
        quarters = {"all": np.quantile(values, 0.25), "a path": np.quantile(values[path], 0.25)}
        found[device] = {
            "fit within 5%": {
                "all": within_5_percent(values, everything),
                "a path": within_5_percent(values, path),
                "a path and no dead operation": within_5_percent(values, alive),
            },
            "isomorphic cells, slowest over fastest": {
                "a path": greatest_ratio(values, classes, path),
                "a path and no dead operation": greatest_ratio(values, classes, alive),
            },
            "median ms": {"no path": float(np.median(values[~path])), "a path": float(np.median(values[path]))},
            "best accuracy of the fastest quarter of": {
                among: float(accuracy[path & (values <= limit)].max()) for among, limit in quarters.items()
            },
        }
    missing = np.isnan(measured_cost(SPACE, "latency_ms", "edgetpu").values)
    found["edgetpu, not measured"] = {
        "no path": int((missing & ~path).sum()),
        "a path, dead operations": int((missing & path & ~alive).sum()),
        "a path and no dead operation": int((missing & alive).sum()),
    }
    return found


def milliseconds(job: Callable[[], Any], repeats: int) -> float:
    """CPU time of the fastest of some runs."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        job()
        times.append(time.process_time() - start)
    return min(times) * 1e3


def speed() -> dict[str, float]:
    """Milliseconds of the look-up's table: made, in expectation, decoded, drawn from."""
    rng = np.random.default_rng(0)
    found = {"reading a cost": milliseconds(lambda: measured_cost(SPACE, "latency_ms", "raspi4"), 1)}
    one, two = measured_cost(SPACE, "latency_ms", "raspi4"), measured_cost(SPACE, "energy_mj", "edgegpu")
    found["table"] = milliseconds(lambda: CostTable(SPACE, "t", "ms", [(range(6), one.table.tables[0][1])]), 20)
    found["automaton, once a process"] = milliseconds(one.table.automaton, 1)
    logits = [torch.zeros(1, 5, dtype=torch.float64, requires_grad=True) for _ in range(6)]
    tensors = [x.softmax(-1) for x in logits]
    arrays = [x.detach().numpy() for x in tensors]
    found["expectation of one, numpy"] = milliseconds(lambda: one.table.expectation(arrays), 500)
    found["expectation of one, torch"] = milliseconds(lambda: one.table.expectation(tensors), 500)
    found["expectation of one and gradient, torch"] = milliseconds(
        lambda: torch.autograd.grad(one.table.expectation(tensors).sum(), tensors), 500
    )
    for n in (1, 50):
        scores, attained = rng.standard_normal((n, 30)).astype(np.float32), rng.integers(len(CELLS), size=n)
        budgets = np.stack([one.values[attained], two.values[attained]], axis=1)
        found[f"decode {n} under one"] = milliseconds(lambda s=scores, b=budgets: decode([one.table], s, b[:, 0]), 20)
        found[f"decode {n} under two"] = milliseconds(
            lambda s=scores, b=budgets: decode([one.table, two.table], s, b), 20
        )
    limit = float(np.quantile(one.values, 0.3))
    found["sampler"] = milliseconds(lambda: make_sampler(one.table, limit), 1)
    return found


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table of fits."""
    lines = [
        "| data set | device | cost | measured | rmse | mean relative error | within 5% | Kendall tau | Spearman |",
        "| --- | --- | --- | --: | --: | --: | --: | --: | --: |",
    ]
    for row in rows:
        percent = [f"{100 * row[key]:.1f}%" for key in ("mean_relative_error", "within_5_percent")]
        ranks = [f"{row[key]:.3f}" for key in ("kendall_tau", "spearman")]
        values = [
            row["dataset"],
            row["device"],
            row["cost"],
            f"{row['measured']:,}",
            f"{row['rmse']:.3f}",
            *percent,
            *ranks,
        ]
        lines.append(f"| {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    times = speed()  # first: what is read and made once a process is not there yet
    report = {"command": COMMAND, "machine": machine(), "fits": fits(), "facts": facts(), "cpu_ms": times}
    text = json.dumps(report, indent=1)
    print(text)
    (DOCS / "results" / "hardware-nas-bench-201.json").write_text(text + "\n")
    page = DOCS / "hardware.md"
    before, rest = page.read_text().split(BEGIN)
    page.write_text(before + BEGIN + markdown(report["fits"]) + END + rest.split(END)[1])


if __name__ == "__main__":
    main()

"""Differentiable search in the space of NAS-Bench-201, on real CIFAR-10 images, judged by the benchmark's tables.

    python benchmarks/cells.py            all of it, about an hour of two quiet cores; it goes on where it was stopped
    python benchmarks/cells.py report     the results so far

Five seeds each: DCA-NAS under five latency limits on each of two devices; DARTS and PC-DARTS, whose cells are derived under the same limits;
and DARTS's collapse with what is done against it. All searches are on the same images (3,072 of CIFAR-10's training images, 16 pixels)
and for as many steps. What a found cell is worth is read off the table (200 epochs of training, not seen by any search). For
comparison: the best cell of the table within a limit, the expected cell drawn at random, and methods that search the table of 12-epoch
validation accuracies. Writes docs/results/benchmark-cells.json and .png.
"""

from __future__ import annotations

import csv
import gzip
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jobs import ROOT, Job, Jobs

SHARED = Path(os.environ.get("SNUGNET_SHARED", ROOT.parent / "shared"))
OUT = ROOT / "docs" / "results" / "benchmark-cells"
SEEDS = (0, 1, 2, 3, 4)
DEVICES = ("raspi4", "pixel3")
QUANTILES = (0.1, 0.25, 0.4, 0.6, 0.8)
POINTS = 8
TESTS = ("cifar10_test_200", "cifar100_test_200", "in16_test_200")
SEARCH: dict[str, Any] = {
    "space": {"channels": 16, "cells": 1, "resolution": 16}, "epochs": 12, "warmup_epochs": 2, "batch_size": 64,
    "learning_rate": 0.1, "weight_decay": 5e-4, "architecture_learning_rate": 6e-3, "bottleneck": 2,
    "lookup": {"points": POINTS, "epochs": 0.34},
}  # fmt: skip
"""Of DCA-NAS; the others are without its bottleneck."""
ROWS = 3072
PARAMS = (30_000, 50_000, 70_000, 90_000)
DARTS_SEEDS = (0,)
PARTS: dict[str, dict[str, Any]] = {
    "weight-sharing": {"weight_sharing": False}, "derived-cells": {"derived_cells": False}, "bottleneck": {"bottleneck": None},
}  # fmt: skip
"""What DCA-NAS adds to DARTS, each switched off by itself."""
LONG = 30
"""Epochs of searches that go on for longer."""
TRAP: dict[str, Any] = {"space": {**SEARCH["space"], "cells": 2}, "epochs": 42, "warmup_epochs": 36}
"""What is different where DARTS collapses: two cells a stage, whose weights are well ahead when the architecture begins to learn."""
TABLE_METHODS: dict[str, dict[str, int]] = {
    "random": {"evaluations": 100}, "evolution": {"population": 20, "rounds": 5}, "nsga2": {"population": 20, "rounds": 5},
}  # fmt: skip
"""Methods that search the table, with a hundred evaluations each."""
AT_LEAST = 0.3
"""Of the range of params."""


# -- tables ------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def target() -> Any:
    from snugnet.spaces import get_space

    return get_space("nas-bench-201")


@lru_cache(maxsize=1)
def accuracies() -> dict[str, np.ndarray]:
    """Columns of the benchmark's table, in the order of the space's rows; and which cells reach their output."""
    from snugnet.costs.hardware import numbers_of

    wanted = (*TESTS, "cifar10_valid_12", "io_connected")
    columns = {name: np.empty(5**6) for name in wanted}
    with gzip.open(SHARED / "data/nas-bench-201/accuracy.csv.gz", "rt") as file:
        for line in csv.DictReader(file):
            place = numbers_of(target(), target().from_str(line["arch_str"]))[0]
            for name in wanted:
                columns[name][place] = float(line[name])
    return columns


@cache
def latency(device: str) -> Any:
    from snugnet.costs.hardware import measured_cost

    return measured_cost(target(), "latency_ms", device)


def limits(device: str) -> list[float]:
    """Five latencies, over cells that reach their output."""
    values = latency(device).values[accuracies()["io_connected"] == 1]
    return [round(float(np.nanquantile(values, q)), 6) for q in QUANTILES]


def within(device: str, limit: float) -> np.ndarray:
    """Which cells may be found: (15625,)."""
    return (latency(device).values <= limit) & (accuracies()["io_connected"] == 1)


def worth(row: Any) -> dict[str, float]:
    """What the table says of one cell."""
    from snugnet.costs.hardware import numbers_of

    place = numbers_of(target(), row)[0]
    found = {name: float(accuracies()[name][place]) for name in TESTS}
    return {**found, **{f"latency_ms@{d}": float(latency(d).values[place]) for d in DEVICES}}


# -- searches ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def images() -> Any:
    from snugnet.data import DataConfig, load_split, mean_std

    config = DataConfig(source=str(SHARED / "data/cifar-10"), resolution=32, validation=2500, train_rows=ROWS)
    train, _ = load_split(config, "train", progress=False)
    return train, *mean_std(train.images)


def searched(
    method: str,
    seed: int,
    held: Sequence[tuple[Any, float]] = (),
    *,
    epochs: int | None = None,
    perturb: bool = False,
    changes: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """One search: its scores, its history without them, and how long it took.

    Args:
        method: of the search.
        seed: of all that it draws.
        held: limits, and the bounds that the search is given for them.
        epochs: where they are others.
        perturb: whether the scores by perturbation are wanted as well.
        changes: of the configuration.
    """
    import tempfile

    from lightning_fabric import Fabric

    from snugnet.costs.hardware import disconnected
    from snugnet.data import AugmentConfig
    from snugnet.differentiable.config import CellSearchConfig
    from snugnet.differentiable.search import CellSearch, SearchImages
    from snugnet.training.loop import RunLog
    from snugnet.training.memory import keep_freed_memory

    keep_freed_memory()
    content = {**SEARCH, **({} if method == "dca" else {"bottleneck": None}), "method": method}
    if epochs is not None:
        share = min(1.0, epochs / SEARCH["epochs"])
        content |= {"epochs": epochs, "warmup_epochs": min(round(share * SEARCH["warmup_epochs"]), epochs - 1)}
    content |= changes
    config = CellSearchConfig.model_validate(content).resolved()
    train, mean, std = images()
    with tempfile.TemporaryDirectory() as folder, RunLog(Path(folder)) as log:
        search = CellSearch(
            config, target().with_options(**config.space), target(), [limit for limit, _ in held], [bound for _, bound in held],
            SearchImages.of(train, 0.5, mean, std, seed), AugmentConfig(flip=True, crop_padding=4), seed, Fabric(accelerator="cpu", devices=1),
            Path(folder), {}, log, False, [] if config.method == "darts" else [disconnected(target())],
        )  # fmt: skip
        found = search.run()
        other = {"perturbation": search.perturbation_scores().tolist()} if perturb else {}
    history = [
        {key: value for key, value in epoch.items() if key != "scores"}
        | {"worth": {TESTS[0]: worth(target().from_dict(epoch["architecture"]))[TESTS[0]]}}
        for epoch in found.history
    ]
    return {"scores": found.scores.tolist(), "history": history, "seconds": round(found.seconds, 1), **other}


def limit_of(device: str, amount: float) -> Any:
    from snugnet.differentiable.relaxed import Limit

    return Limit(latency(device).table, amount, never=latency(device).unmeasured)


def derived(scores: Any, device: str | None = None, amount: float = 0.0) -> dict[str, Any]:
    """The cell derived from scores, within a limit if one is given, and what it is worth."""
    from snugnet.costs.hardware import disconnected
    from snugnet.differentiable.relaxed import derive

    held = [] if device is None else [limit_of(device, amount)]
    row = derive(target(), np.array(scores), held, [disconnected(target())] if device else [])
    return {"architecture": target().to_dict(row), **worth(row)}


def graph_point(device: str, place: int) -> dict[str, Any]:
    """A point of a device's look-up graph: the bound, and what the network costs that is derived from its search."""
    from snugnet.differentiable.lookup import bounds_to_try
    from snugnet.differentiable.relaxed import RelaxedCells

    bound = bounds_to_try(RelaxedCells(target()), limit_of(device, 1.0), POINTS)[place]
    epochs = round(SEARCH["lookup"]["epochs"] * SEARCH["epochs"])
    found = searched("dca", 0, [(limit_of(device, bound), bound)], epochs=epochs)
    within = derived(found["scores"], device, latency(device).table.range[1])  # no limit, but a path
    return {"bound": bound, "derived": within[f"latency_ms@{device}"], "seconds": found["seconds"]}


def under_limit(device: str, place: int, seed: int, *points: dict[str, Any]) -> dict[str, Any]:
    """DCA-NAS under one limit, with the bound that the look-up graph gives."""
    from snugnet.differentiable.lookup import LookupGraph

    amount = limits(device)[place]
    graph = LookupGraph(device, tuple(p["bound"] for p in points), tuple(p["derived"] for p in points))
    limit = limit_of(device, amount)
    bound = graph.bound(limit)
    found = searched("dca", seed, [(limit, bound)])
    free = derived(found["scores"])
    return {**found, "bound": bound, "found": derived(found["scores"], device, amount), "without_limit": free}


def unlimited(
    method: str, seed: int, epochs: int | None = None, perturb: bool = False, without: str | None = None
) -> dict[str, Any]:
    """A search without limits, and the cells derived from it under each."""
    found = searched(method, seed, epochs=epochs, perturb=perturb, changes=PARTS[without] if without else {})
    cells = {f"{d}-{i}": derived(found["scores"], d, a) for d in DEVICES for i, a in enumerate(limits(d))}
    if perturb:
        found["by_perturbation"] = derived(found["perturbation"])
    return {**found, "found": cells, "without_limit": derived(found["scores"])}


def trapped(method: str, seed: int) -> dict[str, Any]:
    """A search in the trap, and what is derived from it by weights and, of DARTS, by perturbation."""
    found = searched(method, seed, perturb=method == "darts", changes=TRAP)
    if method == "darts":
        found["by_perturbation"] = derived(found["perturbation"])
    return {**found, "without_limit": derived(found["scores"])}


def from_below(
    seed: int, epochs: int | None = LONG, changes: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """DARTS with a limit from below on params, to its collapse or not."""
    from snugnet.costs import counted_table
    from snugnet.differentiable.relaxed import Limit, derive

    table = counted_table(target(), "params")
    low, high = table.range
    amount = low + AT_LEAST * (high - low)
    limit = Limit(table, amount, at_least=True)
    found = searched("darts", seed, [(limit, amount)], epochs=epochs, changes=changes)
    row = derive(target(), np.array(found["scores"]), [limit])
    return {
        **found,
        "found": {"architecture": target().to_dict(row), **worth(row)},
        "without_limit": derived(found["scores"]),
    }


def trapped_from_below(seed: int) -> dict[str, Any]:
    """The same in the trap."""
    return from_below(seed, None, TRAP)


def on_the_table(method: str, device: str, place: int, seed: int) -> dict[str, Any]:
    """A method that is told 12-epoch validation accuracies, under a limit."""
    from snugnet.costs.hardware import numbers_of
    from snugnet.search.driver import run_search
    from snugnet.search.method import make_method
    from snugnet.search.problem import Problem

    valid = accuracies()["cifar10_valid_12"]
    tables = {"latency": latency(device).table}
    problem = Problem(
        target(), lambda rows: valid[numbers_of(target(), rows)], tables, {"latency": limits(device)[place]}
    )
    found = run_search(problem, make_method(method, TABLE_METHODS[method]), seed=seed, progress=False)
    return {"found": {"architecture": target().to_dict(found.row), **worth(found.row)}}


# -- the space of DARTS ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def darts_search(seed: int, method: str = "dca") -> Any:
    """The CPU recipe of the space of DARTS with its images."""
    from snugnet.cell_search import Search
    from snugnet.differentiable.config import CellRecipe
    from snugnet.yaml_content import read_yaml

    changes = [f"seed={seed}", "threads=1", f"data.source={SHARED / 'data/cifar-10'}", f"search.method={method}"]
    changes += [] if method == "dca" else ["search.bottleneck=null"]
    content = read_yaml(ROOT / "recipes" / "dca-darts-cpu.yaml", changes)
    return Search.of(CellRecipe.model_validate(content), progress=False)


def darts_limit(amount: float) -> Any:
    from snugnet.costs import counted_table
    from snugnet.differentiable.relaxed import Limit

    return Limit(counted_table(darts_search(0).target, "params"), amount)


def darts_run(search: Any, held: Sequence[tuple[Any, float]], config: Any) -> Any:
    import tempfile

    from snugnet.training.loop import RunLog

    with tempfile.TemporaryDirectory() as folder, RunLog(Path(folder)) as log:
        return search.search(
            Path(folder), log, [limit for limit, _ in held], [bound for _, bound in held], config
        ).run()


def darts_point(place: int) -> dict[str, Any]:
    """A point of the look-up graph of params."""
    from snugnet.differentiable.lookup import bounds_to_try
    from snugnet.differentiable.relaxed import RelaxedCells, derive

    search = darts_search(0)
    bound = bounds_to_try(RelaxedCells(search.target), darts_limit(1.0), POINTS)[place]
    found = darts_run(search, [(darts_limit(bound), bound)], search.point_config())
    row = derive(search.target, found.scores)
    return {"bound": bound, "derived": float(darts_limit(1.0).table(row)[0]), "seconds": found.seconds}


def darts_found(amount: int, seed: int, *points: dict[str, Any]) -> dict[str, Any]:
    """DCA-NAS under one limit on params."""
    from snugnet.differentiable.lookup import LookupGraph
    from snugnet.differentiable.relaxed import derive

    graph = LookupGraph("params", tuple(p["bound"] for p in points), tuple(p["derived"] for p in points))
    limit, search = darts_limit(amount), darts_search(seed)
    found = darts_run(search, [(limit, bound := graph.bound(limit))], search.config)
    forms = [search.target.to_dict(derive(search.target, found.scores, held)) for held in ([limit], [])]
    return {"architecture": forms[0], "without_limit": forms[1], "bound": bound, "seconds": found.seconds}


def darts_plain(seed: int) -> dict[str, Any]:
    """First-order DARTS without a limit, and the cells derived from it under each."""
    from snugnet.differentiable.relaxed import derive

    search = darts_search(seed, "darts")
    found = darts_run(search, [], search.config)
    forms = {
        str(amount): search.target.to_dict(derive(search.target, found.scores, [darts_limit(amount)]))
        for amount in PARAMS
    }
    return {
        "found": forms,
        "without_limit": search.target.to_dict(derive(search.target, found.scores)),
        "seconds": found.seconds,
    }


def darts_trained(kind: str, amount: int, seed: int, found: dict[str, Any]) -> dict[str, Any]:
    """The network that was found, or one drawn at random within the limit, trained from fresh weights and tested."""
    import shutil

    from snugnet.costs import sample
    from snugnet.data import load_data
    from snugnet.differentiable.search import Found
    from snugnet.retraining import retrain
    from snugnet.training.calibration import accuracy, network_batches

    search = darts_search(seed)
    space, limit = search.target, darts_limit(amount)
    form = found["architecture"] if kind == "dca" else found["found"][str(amount)]
    row = space.from_dict(form)
    if kind == "random":
        row = sample(limit.table, 1, np.random.default_rng((seed, amount)), budget=amount)
    folder = ROOT / "runs" / "cells" / f"darts-{kind}-{amount}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    search.network(row, Found(np.zeros(0), (), 0.0)).save(folder)
    network = retrain(folder, start="scratch", out=folder / "trained", progress=False)
    test = load_data(search.recipe.data, progress=False).test
    origin = network.family
    batches = network_batches(test, origin.mean, origin.std, network.blueprint.resolution)
    return {"test": accuracy(network.module, batches), "params": network.blueprint.params, "madds": network.blueprint.madds,
            "validation": network.validation_accuracy, "architecture": network.arch}  # fmt: skip


def darts_jobs() -> list[Job]:
    """Of the space of DARTS."""
    points = tuple(f"darts-graph-{i}" for i in range(POINTS))
    made = [Job(name, darts_point, (i,)) for i, name in enumerate(points)]
    for s in DARTS_SEEDS:
        made += [Job(f"darts-plain-{s}", darts_plain, (s,))]
        made += [Job(f"darts-found-{a}-{s}", darts_found, (a, s), points) for a in PARAMS]
        for a in PARAMS:
            needs = {"dca": f"darts-found-{a}-{s}", "darts": f"darts-plain-{s}", "random": f"darts-plain-{s}"}
            made += [Job(f"darts-trained-{k}-{a}-{s}", darts_trained, (k, a, s), (n,)) for k, n in needs.items()]
    return made


def jobs() -> Jobs:
    """Graphs, then seed by seed; the space of DARTS after the first."""
    made = [Job(f"graph-{d}-{i}", graph_point, (d, i)) for d in DEVICES for i in range(POINTS)]
    for s in SEEDS:
        made += [
            Job(f"dca-{d}-{i}-{s}", under_limit, (d, i, s), tuple(f"graph-{d}-{p}" for p in range(POINTS)))
            for d in DEVICES
            for i in range(len(QUANTILES))
        ]
        made += [Job(f"{method}-free-{s}", unlimited, (method, s)) for method in ("darts", "pc-darts", "dca")]
        if s == 0:
            made += darts_jobs()
        made += [
            Job(f"darts-long-{s}", unlimited, ("darts", s, LONG, True)),
            Job(f"dca-long-{s}", unlimited, ("dca", s, LONG)),
        ]
        made += [Job(f"from-below-{s}", from_below, (s,))]
        made += [Job(f"trap-{method}-{s}", trapped, (method, s)) for method in ("darts", "dca")]
        made += [Job(f"trap-from-below-{s}", trapped_from_below, (s,))]
        made += [Job(f"dca-without-{part}-{s}", unlimited, ("dca", s, None, False, part)) for part in PARTS]
    return Jobs(made, ROOT / "runs" / "cells", OUT.with_suffix(".json"))


if __name__ == "__main__":
    if sys.argv[1:] != ["report"]:
        jobs().run()
    from cells_report import report

    report()

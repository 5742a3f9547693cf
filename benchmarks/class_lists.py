"""Class lists and unions of superclasses against the architecture for all classes: python benchmarks/class_lists.py [FAMILY ...]

For 20 random class lists (seeded; of 2 to half of the classes) and every union of some superclasses, but not of all: the generator's
network for the list, and the generator's architecture for all classes with the list's classes in its head, both within the same budget
of a network for the list; top-1 on the list's test images. Under two budgets, for each family (of one recipe and several seeds). Then the mean
difference over lists with its standard error: of a list, the mean over budgets and families counts once. Writes docs/results/class-lists-digits.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

import snugnet
from snugnet.cli.evaluate import test_images
from snugnet.files import json_text
from snugnet.pipeline import machine
from snugnet.training.calibration import accuracy

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "results" / "class-lists-digits.json"
LISTS = 20
SEED = 0
SHARES = ("30%", "60%")
"""Budgets, of the range of networks for the list."""


def class_lists(classes: tuple[str, ...], count: int, seed: int) -> list[list[str]]:
    """Random class lists, no two alike, of 2 to half of the classes."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        size = int(rng.integers(2, len(classes) // 2 + 1))
        places = sorted(rng.choice(len(classes), size, replace=False).tolist())
        if (names := [classes[i] for i in places]) not in found:
            found.append(names)
    return found


def unions(groups: dict[str, tuple[str, ...]]) -> list[list[str]]:
    """The classes of every union of two superclasses or more, but not of all."""
    several = chain.from_iterable(combinations(groups.values(), n) for n in range(2, len(groups)))
    return [list(chain.from_iterable(each)) for each in several]


def measured(family: Any, test: Any, classes: list[str], share: str) -> dict[str, Any]:
    """Both networks for one list under one budget."""
    own = family.specialize(classes, madds=share)
    wider, narrow = (family.table("madds", n) for n in (len(family.classes), len(classes)))
    more = float(wider(family.space.smallest)[0] - narrow(family.space.smallest)[0])
    whole = family.specialize(list(family.classes), madds=own.budgets["madds"] + more)
    other = own if (whole.row == own.row).all() else family.network(classes, whole.row)
    about: dict[str, Any] = {"budget": own.budgets["madds"], "same_architecture": other is own}
    for name, network in (("list", own), ("all_classes", other)):
        batches = family.batches(test, network.class_indices, network.blueprint.resolution)
        about[name] = {"top1": accuracy(network.module, batches), "madds": network.costs["madds"]}
    about["points"] = 100 * (about["list"]["top1"] - about["all_classes"]["top1"])
    return about


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean difference, and its standard error over lists; a list's own is the mean over budgets and families."""
    by_list: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        by_list.setdefault(tuple(row["classes"]), []).extend(each["points"] for each in row["budgets"])
    points = [statistics.mean(each) for each in by_list.values()]
    budgets = [each for row in rows for each in row["budgets"]]
    return {
        "lists": len(points),
        "points": round(statistics.mean(points), 3),
        "standard_error": round(statistics.stdev(points) / len(points) ** 0.5, 3),
        "top1_of_lists": statistics.mean(each["list"]["top1"] for each in budgets),
        "top1_of_all_classes": statistics.mean(each["all_classes"]["top1"] for each in budgets),
        "madds_of_lists": statistics.mean(each["list"]["madds"] for each in budgets),
        "madds_of_all_classes": statistics.mean(each["all_classes"]["madds"] for each in budgets),
        "same_architecture": statistics.mean(each["same_architecture"] for each in budgets),
        "better_alike_worse": [sum(int(np.sign(each)) == sign for each in points) for sign in (1, 0, -1)],
    }


def main() -> None:
    """Measure all, write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", type=Path, default=[ROOT / "runs" / "digits"])
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    load = os.getloadavg()[0]
    for folder in asked.families:
        family = snugnet.load(folder)
        test = test_images(family, family.provenance, {})
        lists = [("random", each) for each in class_lists(family.classes, LISTS, SEED)]
        lists += [("union", each) for each in unions(family.groups)]
        for kind, classes in lists:
            budgets = [measured(family, test, classes, share) for share in SHARES]
            rows.append({"family": folder.name, "kind": kind, "classes": classes, "budgets": budgets})
            print(folder.name, kind, ",".join(classes), [round(each["points"], 2) for each in budgets], flush=True)
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in ("random", "union")}
    report = {
        "command": " ".join(["python", *sys.argv]),
        "seed": SEED,
        "machine": machine(),
        "load_before_and_after": [load, os.getloadavg()[0]],
        "date": time.strftime("%Y-%m-%d"),
        "summary": {kind: summary(own) for kind, own in kinds.items() if len(own) > 1},
        "rows": rows,
    }
    asked.out.write_text(json_text(report) + "\n")


if __name__ == "__main__":
    main()

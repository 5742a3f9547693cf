"""Networks of a family, retrained for its superclasses: what it gains on validation images, with which batch norm, in how many seconds.

    python benchmarks/retraining.py runs/digits [seeds]

Batch norm with the running averages of the training, against statistics recalibrated on the family's calibration images: of all classes,
and of the group's alone. Writes docs/results/benchmark-retraining.json.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import snugnet
from snugnet.data import load_data
from snugnet.family import Family, StoredNetwork
from snugnet.pipeline import machine
from snugnet.recipe import parse_recipe
from snugnet.training.calibration import accuracy, calibrate

OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "benchmark-retraining.json"
SHARES = ("15%", "40%")
SETTINGS: tuple[tuple[Any, float], ...] = (("inherited", 3), ("inherited", 10), ("scratch", 40))
MEASURED = ("start", "averages", "recalibrated", "recalibrated_on_group", "seconds")


def measure(family: Family, network: StoredNetwork, validation: Any) -> dict[str, float | None]:
    """Validation accuracies of one retrained network; its statistics are replaced."""
    resolution = network.blueprint.resolution

    def judge() -> float:
        return accuracy(network.module, family.batches(validation, network.class_indices, resolution))

    found: dict[str, float | None] = {"start": network.provenance["validation"]["start"], "averages": judge()}
    everything = range(len(family.classes))
    for name, classes in (("recalibrated", everything), ("recalibrated_on_group", network.class_indices)):
        calibrate(network.module, (x for x, _ in family.batches(family.calibration, classes, resolution, 64)))
        found[name] = judge()
    return found


def main() -> None:
    """Measure, print, write."""
    family = snugnet.load(sys.argv[1])
    if not isinstance(family, Family):
        sys.exit(f"{sys.argv[1]} holds no family")
    data = load_data(parse_recipe(family.provenance["recipe"]).data, progress=False)
    before, results, means = machine(), [], []
    for start, epochs in SETTINGS:
        own = []
        for group in family.groups:
            for share in SHARES:
                for seed in range(int(sys.argv[2]) if len(sys.argv) > 2 else 1):
                    with tempfile.TemporaryDirectory() as folder:
                        network = snugnet.retrain(
                            family, group=group, madds=share, start=start, epochs=epochs, out=folder, data=data,
                            overrides=[f"seed={seed}"], progress=False,
                        )  # fmt: skip
                    seconds = network.provenance["seconds"]
                    measured = {**measure(family, network, data.validation), "seconds": seconds}
                    about = {"start_from": start, "epochs": epochs, "group": group, "madds": share, "seed": seed}
                    own.append({**about, **measured})
        mean = {key: sum(row[key] for row in own) / len(own) for key in MEASURED if own[0][key] is not None}
        means.append({"start_from": start, "epochs": epochs, "networks": len(own), **mean})
        results += own
        print(json.dumps(means[-1]), flush=True)
    report = {
        "command": " ".join(["python", *sys.argv]), "machine": before, "machine_after": machine(),
        "recipe": family.provenance["recipe"], "means": means, "results": results,
    }  # fmt: skip
    OUT.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

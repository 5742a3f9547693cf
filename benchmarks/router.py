"""Routes beside one network for all classes at equal MAdds: python benchmarks/router.py [FAMILY ...] [--budgets 4.5M,6M,8M]

For each family (of one recipe and several seeds) and each budget of the whole route: the route as `snugnet router` makes it, the
generator's network for all classes, and the best of a search with as many evaluations as the routers had; top-1 over all classes on validation
and on test images, and expected multiply-adds. Then means over the families, and of the differences on test images with
their standard error. Rows of other families that the result file holds stay. Writes docs/results/router-digits.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

import snugnet
from snugnet.cli.evaluate import test_images
from snugnet.files import json_text
from snugnet.pipeline import machine
from snugnet.routing.making import EVALUATIONS, make_route

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "results" / "router-digits.json"


def measured(folder: Path, budget: str, evaluations: int) -> dict[str, Any]:
    """One route of one family."""
    family = snugnet.load(folder)
    seed = family.provenance["recipe"]["seed"]
    load = os.getloadavg()[0]
    made = make_route(family, evaluations=evaluations, seed=seed, progress=False, madds=budget)
    images = {"validation": family.validation, "test": test_images(family, family.provenance, {})}
    about = made.to_json()
    return {
        "family": folder.name,
        "seed": seed,
        "budget": made.limits["madds"],
        "evaluations": evaluations,
        "router_share": about["router_share"],
        "over": about["router"]["over"],
        "router_madds": about["router"]["madds"],
        **{split: made.measured(each) for split, each in images.items()},
        "tried": about["tried"],
        "seconds": about["seconds"],
        "load": round(load, 2),
        "on": machine(),
    }


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over families, a budget each, and differences of the route to each of the others, paired by family."""
    found = []
    for budget in sorted({row["budget"] for row in rows}):
        own = [row for row in rows if row["budget"] == budget]
        about: dict[str, Any] = {"budget": budget, "families": len(own)}
        for split in ("validation", "test"):
            route = [row[split]["route"]["top1"] for row in own]
            about[split] = {
                "route": statistics.mean(route),
                "router": statistics.mean(row[split]["route"]["router"] for row in own),
                "known_superclass": statistics.mean(row[split]["route"]["known_superclass"] for row in own),
                "route_madds": statistics.mean(row[split]["route"]["madds"] for row in own),
            }
            for name in own[0][split]["one_network"]:
                other = [row[split]["one_network"][name]["top1"] for row in own]
                points = [100 * (a - b) for a, b in zip(route, other, strict=True)]
                about[split][name] = statistics.mean(other)
                about[split][f"{name}_madds"] = statistics.mean(row[split]["one_network"][name]["madds"] for row in own)
                about[split][f"points_over_{name}"] = mean_and_error(points)
        found.append(about)
    return found


def mean_and_error(values: list[float]) -> dict[str, float]:
    """Mean, and its standard error where there are several."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return {"mean": round(statistics.mean(values), 3), "standard_error": round(error, 3)}


def main() -> None:
    """Measure all, write it down after each family."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", type=Path, default=[ROOT / "runs" / "digits"])
    parser.add_argument("--budgets", default="4.5M,6M,8M")
    parser.add_argument("--evaluations", type=int, default=EVALUATIONS)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.exists() else {"commands": [], "rows": []}
    for folder in asked.families:
        rows = []
        for budget in asked.budgets.split(","):
            rows.append(measured(folder, budget, asked.evaluations))
            one = {name: round(each["top1"], 4) for name, each in rows[-1]["test"]["one_network"].items()}
            print(folder, budget, rows[-1]["test"]["route"], one, rows[-1]["seconds"], flush=True)
        report["rows"] = [row for row in report["rows"] if row["family"] != folder.name] + rows
        report["summary"] = summary(report["rows"])
        command = " ".join(["python", *sys.argv])
        report["commands"] = [each for each in report["commands"] if each != command] + [command]
        report["date"] = time.strftime("%Y-%m-%d")
        asked.out.write_text(json_text(report) + "\n")


if __name__ == "__main__":
    main()

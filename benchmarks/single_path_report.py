"""What came of benchmarks/single_path.py, as far as it has been run.

    python benchmarks/single_path_report.py

Writes docs/results/benchmark-single-path.json and .png.
"""

from __future__ import annotations

import json
from typing import Any

from jobs import spread
from single_path import (
    BITOPS,
    FINE_TUNED_EPOCHS,
    MADDS,
    OUT,
    POPULATION,
    ROUNDS,
    SEEDS,
    TAU_ARCHITECTURES,
    UNITS,
    all_jobs,
    jobs,
)


def report() -> None:
    """Gather what there is, print it, write it."""
    found = all_jobs().results()
    content: dict[str, Any] = {
        "command": "python benchmarks/single_path.py", "seeds": SEEDS, "limit": {"madds": MADDS, "bitops": BITOPS},
        "missing": [job.name for job in jobs() if job.name not in found],
        "trained": trained(found), "curves": curves(found), "ranking": ranking(found), "fine_tuning": fine_tuning(found),
        "onnx": onnx(found), "jobs": found,
    }  # fmt: skip
    for key in ("trained", "ranking", "fine_tuning", "onnx"):
        print(key, json.dumps(content[key], indent=1))
    print(
        {key: {n: [round(100 * v, 2) for v in at] for n, at in each.items()} for key, each in content["curves"].items()}
    )
    OUT.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    figure(found)


def trained(found: dict[str, Any]) -> dict[str, Any]:
    """Test accuracy, in seeds' order, and costs of what was trained from fresh weights."""
    names = {"blocks found": "found-blocks", "blocks and channels found": "found-channels"}
    names |= {f"all {unit}": f"unit-{i}" for i, unit in enumerate(UNITS)}
    names |= {f"{name}, found": f"found-{name}" for name in BITOPS} | {
        f"{name}, all blocks": f"bits-{name}" for name in BITOPS
    }
    made = {}
    for title, name in names.items():
        cost = "bitops" if "W" in name else "madds"
        runs = [found[f"{name}-{s}"] for s in SEEDS if f"{name}-{s}" in found]
        if runs:
            made[title] = {
                "test": spread([run["test"] for run in runs]),
                cost: [run["costs"].get(cost) for run in runs],
            }
    return made


def curves(found: dict[str, Any]) -> dict[str, Any]:
    """Best validation accuracy after so many evaluations, a seed each."""
    return {
        method: {
            str(n): [found[f"{method}-{s}"]["curves"][0][n - 1] for s in SEEDS if f"{method}-{s}" in found]
            for n in (POPULATION, 2 * POPULATION, 4 * POPULATION, ROUNDS * POPULATION)
        }
        for method in ("evolution", "random")
    }


def ranking(found: dict[str, Any]) -> dict[str, Any]:
    """Kendall's tau between accuracies with a supernet's weights (validation) and after training from fresh ones (test)."""
    from scipy.stats import kendalltau

    places = [i for i in range(TAU_ARCHITECTURES) if f"drawn-{i}" in found]
    alone = [found[f"drawn-{i}"]["test"] for i in places]
    cost = [found[f"drawn-{i}"]["costs"]["madds"] for i in places]
    shared = {str(s): found[f"inherited-{s}"]["accuracies"] for s in SEEDS if f"inherited-{s}" in found}
    if "apart-0" in found:
        shared["0, apart"] = found["apart-0"]["accuracies"]
    return {
        "architectures": len(places), "retrained": alone, "madds": cost,
        "inherited": {s: sum(each) / len(each) for s, each in shared.items()},
        "tau": {s: tuple(map(float, kendalltau([each[i] for i in places], alone))) for s, each in shared.items()},
        "tau_of_madds": tuple(map(float, kendalltau(cost, alone))),
        "tau_between_supernets": [
            float(kendalltau(shared[a], shared[b])[0]) for a in shared for b in shared if a < b
        ],
    }  # fmt: skip


def fine_tuning(found: dict[str, Any]) -> dict[str, Any]:
    """Points gained on test by superclass and seed, and the seconds that it took."""
    runs = {name: each for name, each in found.items() if name.startswith("fine-")}
    groups = sorted({name[5:].rsplit("-", 1)[0] for name in runs})
    rows = {}
    for group in groups:
        own = [each for name, each in runs.items() if name[5:].rsplit("-", 1)[0] == group]
        rows[group] = {
            "inherited": own[0]["inherited"], "fine_tuned": spread([each["test"] for each in own]),
            "seconds": spread([each["wall_seconds"] for each in own]),
        }  # fmt: skip
    if not rows:
        return {}
    gains = [[each["test"] - each["inherited"] for name, each in runs.items() if name.endswith(f"-{s}")] for s in SEEDS]
    means = [sum(each) / len(each) for each in gains if each]
    return {"epochs": FINE_TUNED_EPOCHS, "groups": rows, "gain": spread(means),
            "seconds": spread([each["wall_seconds"] for each in runs.values()])["mean"]}  # fmt: skip


def onnx(found: dict[str, Any]) -> dict[str, Any]:
    """Accuracies on test of torch and of both files, and bytes."""
    keys = ("accuracy", "other answers", "bytes", "images")
    return {name: {key: each[key] for key in keys} for name, each in found.items() if name.startswith("onnx-")}


def figure(found: dict[str, Any]) -> None:
    """Evolution beside random search, and the ranking."""
    import numpy as np
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(10, 4), layout="constrained")
    left, right = canvas.subplots(1, 2)
    for method, colour in (("evolution", "tab:blue"), ("random", "tab:orange")):
        runs = [found[f"{method}-{s}"]["curves"][0] for s in SEEDS if f"{method}-{s}" in found]
        if not runs:
            continue
        each = 100 * np.array(runs)
        x = np.arange(1, each.shape[1] + 1)
        left.plot(x, each.mean(0), color=colour, label=method)
        left.fill_between(x, each.min(0), each.max(0), color=colour, alpha=0.2)
    left.set(xlabel="architectures evaluated", ylabel="best validation accuracy (%)")
    left.legend()
    rank = ranking(found)
    for s in SEEDS:
        if f"inherited-{s}" in found:
            shared = found[f"inherited-{s}"]["accuracies"][: rank["architectures"]]
            right.plot(100 * np.array(shared), 100 * np.array(rank["retrained"]), ".", label=f"supernet {s}")
    right.set(xlabel="with the supernet's weights, validation (%)", ylabel="trained from fresh weights, test (%)")
    right.legend()
    canvas.savefig(OUT.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    report()

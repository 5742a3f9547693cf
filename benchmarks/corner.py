"""The generator's networks beside the best of many of equal cost: python benchmarks/corner.py STUDY.yaml --supernet "p 0" [--seeds 0]

On a supernet of a study that has been run (its output folder is read; nothing is trained). For each budget of the study some 300 architectures that cost
95 to 100% of it, uniform by choice, are judged for every superclass on the images that the study searches on; the best of each superclass,
what the study's generator handed out and the mean of all are then judged on images that nothing was trained or searched on. Some of
the 300, drawn before anything was looked at, are judged on both sets of images: their covariance is what architectures really differ
by, the rest of the variance is noise of the images. Writes docs/results/study-tiny-imagenet-10-cpu/corner.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snugnet.costs import sample
from snugnet.family.report import check_groups, spread_budgets
from snugnet.files import json_text
from snugnet.pipeline import machine
from snugnet.progress import progress_bar
from snugnet.search.image_scorer import ImageScorer
from snugnet.spaces import Population, SearchSpace
from snugnet.study.config import Entry, load_study
from snugnet.study.images import StudyImages
from snugnet.study.job import Job
from snugnet.study.outcomes import find
from snugnet.study.supernet import train_supernet
from snugnet.study.teacher import train_teacher

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "results" / "study-tiny-imagenet-10-cpu" / "corner.json"
AT_LEAST = 0.95
"""Of the budget."""

Accuracies = NDArray[np.float64]
"""A row for each architecture, a column for each superclass; per cent."""


def looks(space: SearchSpace, rows: Population) -> dict[str, float]:
    """The mean option of each kind of choice, over the choices that are active."""
    active = space.active(rows)
    found: dict[str, list[float]] = {}
    for column, choice in enumerate(space.choices):
        options = np.array(choice.options)[rows[active[:, column], column]]
        found.setdefault(choice.kind, []).extend(options.tolist())
    return {kind: round(float(np.mean(options)), 2) for kind, options in found.items()}


def variances(searched: Accuracies, unseen: Accuracies) -> dict[str, float]:
    """Standard deviations, in points: of means over superclasses as measured, and what two sets of images agree on.

    Args:
        searched, unseen: of the same architectures on two disjoint sets of images.
    """
    a, b = searched.mean(1), unseen.mean(1)
    shared = float(np.cov(a, b)[0, 1])
    # what is left of a superclass's accuracy when the architecture's mean and the superclass's are taken out
    own = [each - each.mean(1, keepdims=True) - each.mean(0) + each.mean() for each in (searched, unseen)]
    of_superclass = float((own[0] * own[1]).sum() / ((len(a) - 1) * (searched.shape[1] - 1)))
    return {
        "measured_on_searched": round(float(a.std(ddof=1)), 3),
        "measured_on_unseen": round(float(b.std(ddof=1)), 3),
        "architectures": round(float(np.sign(shared) * abs(shared) ** 0.5), 3),
        "architecture_and_superclass": round(float(np.sign(of_superclass) * abs(of_superclass) ** 0.5), 3),
        "correlation": round(float(np.corrcoef(a, b)[0, 1]), 3),
    }


def measured(job: Job, entry: Entry, count: int, both: int, which: list[int]) -> list[dict[str, Any]]:
    """A budget each; of the study's budgets those in these places, or all where none is named."""
    trained = train_supernet(job, train_teacher(job))
    found = find(trained, entry, None)
    family = trained.family()
    names, cost = list(check_groups(family)), family.budget_name
    groups = [family.class_indices(name) for name in names]
    table = family.table(cost, max(len(group) for group in groups))

    def scorer(images: Any, of: list[Any] = groups) -> ImageScorer:
        return ImageScorer(family.supernet, family.calibration_batches, images, of, family.mean, family.std)

    judged_on = job.judged_on()
    search, unseen = scorer(family.validation), scorer(judged_on)
    unseen_of = [scorer(judged_on, [group]) for group in groups]

    def judged(by: ImageScorer, rows: Population, title: str) -> Accuracies:
        with progress_bar(title, len(rows)) as advance:
            accuracies = []
            for row in rows:
                accuracies.append(100 * by.accuracies(row[None])[0])
                advance()
        return np.array(accuracies)

    result = []
    budgets = spread_budgets(family, job.config.budgets)
    for budget in [budgets[i] for i in which] or budgets:
        started, rng = time.perf_counter(), np.random.default_rng((job.seed, 7))
        rows = sample(table, count, rng, budget, AT_LEAST * budget)
        on_search = judged(search, rows, f"{cost} <= {budget:g}: {count} architectures")
        on_unseen = judged(unseen, rows[:both], f"{cost} <= {budget:g}: {both} on unseen images")
        best = rows[on_search.argmax(0)]
        own = {row["group"]: np.array(row["arch"], dtype=np.int16) for row in found["rows"] if row["budget"] == budget}
        generated = np.stack([own[name] for name in names])
        diagonal = {  # each superclass's own network on its own images
            name: np.array([100 * by.accuracies(row[None])[0, 0] for by, row in zip(unseen_of, own_rows, strict=True)])
            for name, own_rows in {"best": best, "generator": generated}.items()
        }
        result.append(
            {
                "budget": float(budget),
                "architectures": {
                    "random": looks(family.space, rows),
                    "best": looks(family.space, best),
                    "generator": looks(family.space, generated),
                },
                "costs": {
                    name: round(float(table(rows_of).mean()))
                    for name, rows_of in {"random": rows, "best": best, "generator": generated}.items()
                },
                "unseen": {
                    "random": round(float(on_unseen.mean()), 3),
                    **{name: round(float(values.mean()), 3) for name, values in diagonal.items()},
                },
                "ahead_of_random": {
                    name: np.round(values - on_unseen.mean(0), 2).tolist() for name, values in diagonal.items()
                },
                "deviations": variances(on_search[:both], on_unseen),
                "seconds": round(time.perf_counter() - started, 1),
                "load": round(os.getloadavg()[0], 2),
            }
        )
        print(json.dumps(result[-1]), flush=True)
    return result


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--supernet", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--architectures", type=int, default=300)
    parser.add_argument("--both", type=int, default=100, help="of them judged on unseen images as well")
    parser.add_argument("--budgets", type=int, nargs="+", default=[], help="their places, from 0 up; by default all")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args(arguments)
    config, images = load_study(asked.study), StudyImages(progress=True)
    entry = next(
        each
        for each in config.methods
        if each.supernet == asked.supernet and each.search == "generator" and each.per_superclass and not each.generator
    )
    known = json.loads(asked.out.read_text()) if asked.out.exists() else {"rows": []}
    rows = [
        row for row in known["rows"] if (row["supernet"], row["seed"]) not in [(asked.supernet, s) for s in asked.seeds]
    ]
    for seed in asked.seeds:
        job = Job.make(config, asked.supernet, seed, images, progress=True)
        budgets = measured(job, entry, asked.architectures, asked.both, asked.budgets)
        rows.append(
            {"supernet": asked.supernet, "seed": seed, "method": entry.name, "budgets": budgets, "on": machine()}
        )
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json_text({"study": config.name, "rows": rows}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

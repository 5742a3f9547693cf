"""The last step: what every entry finds on a supernet, and how well its networks do; each result is kept."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from snugnet.family.report import Row
from snugnet.fingerprint import digest, file_digest
from snugnet.progress import progress_bar
from snugnet.study.config import Entry, slug
from snugnet.study.job import Job
from snugnet.study.kept import keep, kept
from snugnet.study.predictor import FittedPredictor, make_predictor
from snugnet.study.results import Outcome, Sampled
from snugnet.study.sampled import measure_sampled, read_sampled
from snugnet.study.searches import Found, search
from snugnet.study.supernet import TrainedSupernet, train_supernet
from snugnet.study.teacher import train_teacher
from snugnet.training.calibration import accuracy
from snugnet.training.supernet import made_with


def find_outcomes(job: Job) -> tuple[list[Outcome], list[Sampled]]:
    """What every entry gives on a supernet: teacher, supernet, predictor where one is asked, searches, accuracies.

    What an earlier run has kept is read. Where nothing is missing, nothing is trained and no supernet is loaded.

    Returns:
        An outcome for each entry, and how good the supernet's random architectures are, where the study asks for that.
    """
    read = [_read(job, entry) for entry in job.entries]
    sampled = [read_sampled(job)] if job.config.sampled else []
    if all(read) and all(sampled):
        return [each for each in read if each is not None], [each for each in sampled if each is not None]
    trained = train_supernet(job, train_teacher(job))
    asked = any(entry.asks_predictor and _found(job, entry) is None for entry in job.entries)
    predictor = make_predictor(trained) if asked else None
    judge = Judge(trained)
    result = []
    for entry in job.entries:
        found = find(trained, entry, predictor)
        result.append(_outcome(job, entry, found, judge.accuracies(entry, found)))
    return result, [measure_sampled(trained)] if job.config.sampled else []


def find(trained: TrainedSupernet, entry: Entry, predictor: FittedPredictor | None) -> Found:
    """What an entry's search finds: once for all splits."""
    found = _found(trained.job, entry)
    if found is None:
        path, made_with = _path(trained.job, entry, "searches"), _made_with(trained.job, entry)
        unfinished = path.with_name(f"{path.stem}-{made_with}")
        found = search(trained, entry, predictor if entry.asks_predictor else None, unfinished)
        keep(path, made_with, found)
        shutil.rmtree(unfinished, ignore_errors=True)
    return found


@dataclass
class Judge:
    """Measures networks of a supernet on the images of the split that is reported; the same network once.

    Attributes:
        trained: the supernet.
        known: accuracies by superclass and architecture.
    """

    trained: TrainedSupernet
    known: dict[tuple[str, tuple[int, ...]], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.family = self.trained.family()
        self.images = self.trained.job.judged_on()

    def accuracies(self, entry: Entry, found: Found) -> list[float]:
        """Of each network that was found, on its superclass's images."""
        job = self.trained.job
        accuracies = _accuracies(job, entry, found)
        if accuracies is None:
            accuracies, title = [], f"{entry.name}: {job.config.report} accuracy"
            with progress_bar(title, len(found["rows"]), shown=job.progress) as advance:
                for row in found["rows"]:
                    accuracies.append(self._accuracy(row["group"], tuple(row["arch"])))
                    advance()
            keep(_path(job, entry, job.config.report), _judged_with(job, entry, found), accuracies)
        return accuracies

    def _accuracy(self, group: str, arch: tuple[int, ...]) -> float:
        if (group, arch) not in self.known:
            network = self.family.network(group, np.array(arch, dtype=np.int16))
            batches = self.family.batches(self.images, network.class_indices, network.blueprint.resolution)
            self.known[group, arch] = accuracy(network.module, batches)
        return self.known[group, arch]


# -- what is kept ------------------------------------------------------------------------------------------------------


def _read(job: Job, entry: Entry) -> Outcome | None:
    found = _found(job, entry)
    accuracies = None if found is None else _accuracies(job, entry, found)
    return None if found is None or accuracies is None else _outcome(job, entry, found, accuracies)


def _outcome(job: Job, entry: Entry, found: Found, accuracies: list[float]) -> Outcome:
    rows = [Row.from_json({"accuracy": a, **row}) for a, row in zip(accuracies, found["rows"], strict=True)]
    return Outcome(entry.name, job.seed, found["seconds"], rows, found["predictor"])


def _found(job: Job, entry: Entry) -> Found | None:
    found: Found | None = kept(_path(job, entry, "searches"), _made_with(job, entry))
    return found


def _accuracies(job: Job, entry: Entry, found: Found) -> list[float] | None:
    answer: list[float] | None = kept(_path(job, entry, job.config.report), _judged_with(job, entry, found))
    return answer


def _path(job: Job, entry: Entry, kind: str) -> Path:
    return job.shared / kind / f"{slug(entry.name)}.json"


def _made_with(job: Job, entry: Entry) -> str:
    """What a search depends on: the supernet, the budgets, the entry, and the predictor where that is asked."""
    of_study = job.config.model_dump(mode="json", include={"budgets"})
    if entry.asks_predictor:
        of_study |= job.config.model_dump(mode="json", include={"predictor"})
    recipe = job.recipe.model_dump(mode="json", exclude_defaults=True, exclude={"name", "output", "device", "threads"})
    own: dict[str, Any] = entry.model_dump(mode="json", exclude={"supernet"})
    measured = [file_digest(job.recipe.cost_file(name)) for name in job.recipe.costs]
    return digest(of_study, recipe, own, measured, made_with(job.recipe, job.data))


def _judged_with(job: Job, entry: Entry, found: Found) -> str:
    return digest(_made_with(job, entry), found["rows"])

"""The first step: the largest network alone, trained once a seed for all supernets that begin with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from snugnet import pipeline
from snugnet.bundles import FAMILY
from snugnet.fingerprint import digest
from snugnet.recipe import Recipe
from snugnet.study.job import Job
from snugnet.study.kept import keep, kept
from snugnet.training.loop import RunLog
from snugnet.training.supernet import SHAPING, made_with


@dataclass(frozen=True)
class Teacher:
    """A trained teacher.

    Attributes:
        checkpoint: of its training, which supernets start from.
        seconds: that its training took.
    """

    checkpoint: Path
    seconds: float


def teacher_recipe(recipe: Recipe) -> Recipe | None:
    """The first stage alone, where it trains the largest network and others follow: what supernets of a seed may share."""
    stages = recipe.training.stages
    if len(stages) == 1 or not recipe.training.trains_teacher(0):
        return None
    return with_training(
        recipe,
        stages=stages[:1],
        sort_channels=True,
        superclass_dropout=0.0,
        distillation=0.0,
        distillation_dropout=None,
        temperature=1.0,
        gradients="mean",
        dropout=0.0,
        drop_connect=0.0,
        drop_connect_stages=None,
        predictor=None,
    )


def teacher_folder(alone: Recipe) -> str:
    """The name of the folder that a teacher is kept in; others have others."""
    return f"teacher-{digest(alone.model_dump(mode='json', exclude_defaults=True, include=set(SHAPING)))[:8]}"


def train_teacher(job: Job) -> Teacher | None:
    """Train the teacher of a supernet, or take the one that another supernet of the seed began with; None if it has none."""
    alone = teacher_recipe(job.recipe)
    if alone is None:
        return None
    folder = job.shared / teacher_folder(alone)
    own = digest(made_with(alone, job.data))
    seconds = kept(folder / "done.json", own)
    if seconds is None:
        with RunLog(folder) as log:
            _, seconds = pipeline.train_supernet(alone, job.data, job.fabric, log, progress=job.progress)
        keep(folder / "done.json", own, seconds)
    return Teacher(folder / FAMILY.checkpoint, seconds)


def with_training(recipe: Recipe, **changes: object) -> Recipe:
    """A recipe whose training section is another in some keys."""
    training = recipe.training
    return recipe.model_copy(update={"training": type(training)(**{**dict(training), **changes})})

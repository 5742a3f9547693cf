"""How good a supernet is as a whole: random architectures, the smallest and the largest, over all classes; kept once measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from snugnet.fingerprint import digest
from snugnet.pipeline import some
from snugnet.progress import progress_bar
from snugnet.study.job import Job
from snugnet.study.kept import keep, kept
from snugnet.study.results import Sampled
from snugnet.study.supernet import TrainedSupernet
from snugnet.training.calibration import accuracy, network_batches
from snugnet.training.supernet import made_with

IMAGES = 3000
"""At most so many judge an architecture, drawn evenly over the classes: the same for all of a seed."""


def read_sampled(job: Job) -> Sampled | None:
    """What an earlier run has kept; None where there is nothing."""
    found = kept(_path(job), _made_with(job))
    return None if found is None else Sampled(**found)


def measure_sampled(trained: TrainedSupernet) -> Sampled:
    """Measure the study's number of random architectures, uniform over choices, or take what is kept of that.

    Supernets of one space and seed are measured on the same architectures.
    """
    job = trained.job
    known = read_sampled(job)
    if known is not None:
        return known
    family, images = trained.family(), some(job.judged_on(), IMAGES, job.seed)
    space = family.space
    drawn = space.sample(job.config.sampled, np.random.default_rng((job.seed, 3)))
    accuracies = []
    with progress_bar(f"{job.name}: random architectures", 2 + len(drawn), shown=job.progress) as advance:
        for row in np.concatenate([space.smallest, space.largest, drawn]):
            network = family.build(row)
            batches = network_batches(images, family.mean, family.std, network.blueprint.resolution)
            accuracies.append(accuracy(network, batches))
            advance()
    smallest, largest, *random = accuracies
    result = Sampled(job.name, job.seed, trained.seconds, smallest, largest, random)
    keep(_path(job), _made_with(job), result.to_json())
    return result


def _path(job: Job) -> Path:
    return job.own / f"sampled-{job.config.report}.json"


def _made_with(job: Job) -> str:
    calibrated_on = job.recipe.evaluation.calibration_images
    return digest(job.config.sampled, IMAGES, calibrated_on, made_with(job.recipe, job.data))

"""The second step: a supernet, trained from its teacher."""

from __future__ import annotations

from dataclasses import dataclass

from snugnet import pipeline
from snugnet.family import Family
from snugnet.generator.model import ArchitectureGenerator
from snugnet.recipe import Recipe
from snugnet.study.job import Job
from snugnet.study.teacher import Teacher, with_training
from snugnet.supernets import Supernet
from snugnet.training.loop import RunLog


@dataclass(frozen=True)
class TrainedSupernet:
    """A trained supernet.

    Attributes:
        job: that it was trained for.
        recipe: that was run.
        supernet: in eval mode, on the device.
        seconds: that its training took, and its ``teacher``'s if it has one.
    """

    job: Job
    recipe: Recipe
    supernet: Supernet
    seconds: dict[str, float]

    def family(self, generator: ArchitectureGenerator | None = None) -> Family:
        """The family of this supernet and a generator: of one that has learned nothing, where none is given."""
        if generator is None:
            generator = pipeline.make_generator(self.recipe, self.supernet.space, self.job.data)
        made = pipeline.make_family(self.recipe, self.job.data, self.supernet, generator, {})
        return made.to(self.job.fabric.device)


def train_supernet(job: Job, teacher: Teacher | None) -> TrainedSupernet:
    """Train a supernet from its teacher, or go on where its checkpoint stands.

    Args:
        job: the supernet's.
        teacher: of the seed; without one the whole recipe is run.
    """
    recipe, before = job.recipe, {}
    if teacher is not None:
        recipe = with_training(recipe, stages=recipe.training.stages[1:], start=str(teacher.checkpoint))
        before = {"teacher": teacher.seconds}
    with RunLog(job.own) as log:
        supernet, seconds = pipeline.train_supernet(recipe, job.data, job.fabric, log, progress=job.progress)
    return TrainedSupernet(job, recipe, supernet.eval(), {**before, "supernet": seconds})

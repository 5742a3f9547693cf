"""A line of a study as a family: its supernet under one seed, with the generator that its search trained."""

from __future__ import annotations

from pathlib import Path

from snugnet import pipeline
from snugnet.errors import ConfigError
from snugnet.family import Family
from snugnet.files import locked
from snugnet.study.config import StudyConfig
from snugnet.study.images import StudyImages
from snugnet.study.job import Job
from snugnet.study.searches import train_generator
from snugnet.study.supernet import train_supernet
from snugnet.study.teacher import train_teacher


def family_of(config: StudyConfig, method: str, seed: int | None = None, *, progress: bool = True) -> Family:
    """The family of a line whose networks a generator hands out; what the study has not trained yet is trained.

    Its validation images are those that the study searched on.

    Args:
        config: the study.
        method: name of the line.
        seed: of the study; by default its first.
        progress: whether to show bars.

    Raises:
        ConfigError: there is no such line, or its networks come from another search; the study has no such seed.
        SnugnetError: a recipe, the data or a training cannot go on.
    """
    of_generators = {entry.name: entry for entry in config.methods if entry.search == "generator"}
    if method not in of_generators:
        searched = {entry.name: entry.search for entry in config.methods}.get(method)
        wrong = (
            f"{method} is searched by {searched}: nothing learns to hand out networks"
            if searched
            else f"no method {method!r}"
        )
        raise ConfigError(f"{wrong}; methods with a generator: {', '.join(of_generators) or 'none'}")
    seed = config.seeds[0] if seed is None else seed
    if seed not in config.seeds:
        raise ConfigError(f"the study has no seed {seed}; seeds: {', '.join(map(str, config.seeds))}")
    entry = of_generators[method]
    with locked(Path(config.output)):
        job = Job.make(config, entry.supernet, seed, StudyImages(progress), progress=progress)
        trained = train_supernet(job, train_teacher(job))
        generator, seconds = train_generator(trained, entry)
    section = config.recipe_of(entry.supernet, seed, entry).generator
    recipe = trained.recipe.model_copy(update={"generator": section})
    return pipeline.make_family(
        recipe, job.data, trained.supernet, generator, {**trained.seconds, "generator": seconds}
    )

"""From a recipe to a family: images, supernet, generator, saved product."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from snugnet._version import __version__
from snugnet.bundles import FAMILY
from snugnet.costs import COSTS, additive_cost, resolve_budget
from snugnet.data import GroupedImages, ImageSet, load_data
from snugnet.errors import ConfigError, DataError
from snugnet.family import Family
from snugnet.files import locked
from snugnet.generator.model import ArchitectureGenerator
from snugnet.generator.training import GeneratorTraining
from snugnet.recipe import Recipe, load_recipe
from snugnet.spaces import SearchSpace, get_space
from snugnet.supernets import Supernet
from snugnet.training.joining import join_ranks, started_again
from snugnet.training.loop import RunLog
from snugnet.training.policies import Estimate, make_policy
from snugnet.training.supernet import SupernetTraining

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def train(
    recipe: Recipe | str | Path,
    overrides: Sequence[str] = (),
    *,
    fresh: bool = False,
    progress: bool = True,
    data: GroupedImages | None = None,
) -> Family:
    """Train a family, or go on with a training that was stopped.

    Args:
        recipe: a recipe, or the path of one.
        overrides: ``key=value`` texts applied to the recipe read from a path.
        fresh: throw away checkpoints and what else the output folder holds of an earlier run.
        progress: whether to show progress bars.
        data: the recipe's images if they are loaded already.

    Returns:
        The family, saved in the recipe's output folder and on the CPU. Of several ranks each has it, and the first one saves it.

    Raises:
        SnugnetError: the recipe, the data or the training cannot go on; the message says why and what to do.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, overrides)
    elif overrides:
        raise ConfigError("overrides are for a recipe that is read from a path")
    started = time.monotonic()
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    fabric = join_ranks(recipe)
    data = load_data(recipe.data, progress=progress) if data is None else data
    space = make_space(recipe, data)
    check_recipe(recipe, space, data, fresh=fresh)
    folder = Path(recipe.output)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output {folder} is a file, not a folder")
    times = {"data": time.monotonic() - started}
    if not fabric.is_global_zero:
        return _train(recipe, data, fabric, progress, times)
    with locked(folder):
        if fresh and not started_again():
            _clear(folder)
        family = _train(recipe, data, fabric, progress, times)
        family.save(folder)
        return family


def _clear(folder: Path) -> None:
    """Throw away what an earlier run left."""
    for name in (FAMILY.checkpoint, "generator.ckpt.safetensors", "log.jsonl", FAMILY.index):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)


def _train(recipe: Recipe, data: GroupedImages, fabric: Fabric, progress: bool, times: dict[str, float]) -> Family:
    """Both trainings, which keep their checkpoints and the log in the recipe's folder."""
    with RunLog(Path(recipe.output)) as log:
        supernet, times["supernet"] = train_supernet(recipe, data, fabric, log, progress=progress)
        generator, times["generator"] = train_generator(recipe, data, supernet, fabric, log, progress=progress)
    return make_family(recipe, data, supernet, generator, times)


def train_supernet(
    recipe: Recipe, data: GroupedImages, fabric: Fabric, log: RunLog, *, progress: bool = True
) -> tuple[Supernet, float]:
    """Train the recipe's supernet, or go on where its checkpoint beside the log stands.

    Returns:
        The supernet, and the seconds that its training took in all.
    """
    supernet = Supernet(make_space(recipe, data), seed=recipe.seed)
    training = SupernetTraining(
        recipe, supernet, data, fabric, log.folder, log, progress, read_predictor(recipe, supernet.space)
    )
    training.run()
    return supernet, training.spent


def read_predictor(recipe: Recipe, space: SearchSpace) -> Estimate | None:
    """The accuracy predictor that the recipe's training asks, if it names one.

    Raises:
        ConfigError: it is of another space, or predicts more than one number.
        PredictorError: the folder holds no predictor.
    """
    if recipe.training.predictor is None:
        return None
    from snugnet.predictors import load_predictor

    folder = recipe.training.predictor
    predictor = load_predictor(Path(folder))
    if len(predictor.targets) != 1:
        raise ConfigError(f"training.predictor: {folder} predicts {', '.join(predictor.targets)}; needed: one accuracy")
    there, here = ({"name": each.name, **each.options} for each in (predictor.space, space))
    if there != here:
        differ = [key for key in {**there, **here} if there.get(key) != here.get(key)]
        raise ConfigError(
            f"training.predictor: {folder} is of another space: "
            + "; ".join(f"{key} is {there.get(key)!r} there and {here.get(key)!r} in the recipe" for key in differ)
        )
    return predictor.predict


def train_generator(
    recipe: Recipe, data: GroupedImages, supernet: Supernet, fabric: Fabric, log: RunLog, *, progress: bool = True
) -> tuple[ArchitectureGenerator, float]:
    """Train the recipe's generator against a frozen supernet, or go on where its checkpoint beside the log stands.

    Returns:
        The generator, and the seconds that its training took in all.
    """
    table = recipe.cost_table(supernet.space, recipe.generator.budget)
    generator = make_generator(recipe, supernet.space, data)
    search = GeneratorTraining(recipe, supernet, generator, table, data, fabric, log.folder, log, progress)
    search.run()
    return generator, search.spent


def make_space(recipe: Recipe, data: GroupedImages) -> SearchSpace:
    """The recipe's space for these images and classes."""
    return get_space(
        recipe.space.name, **recipe.space.options, resolution=recipe.data.resolution, num_classes=len(data.classes)
    )


def check_recipe(recipe: Recipe, space: SearchSpace, data: GroupedImages, *, fresh: bool = False) -> None:
    """Refuse, before any training, what only shows once the space is known.

    Args:
        recipe: to check.
        space: of the recipe.
        data: of the recipe.
        fresh: whether what an earlier run left will be thrown away.

    Raises:
        ConfigError: a stage names a kind of choice that the space does not have, or there is nothing to start from.
        PredictorError: there is no such predictor.
        SpaceError: a cost is unknown, or its table of another space.
        DataError: a cost table cannot be read.
        BudgetError: no network is within a budget of the evaluation.
        DataError: no group has two classes.
    """
    table = recipe.cost_table(space, recipe.training.cost)
    for stage in recipe.training.stages:
        make_policy(stage, table)
    largest = max(len(classes) for classes in data.groups.values())
    if largest < 2:
        raise DataError("no group has two classes or more; there is nothing to specialise to")
    labels = data.class_to_group[data.validation.labels].tolist()
    for g, name in enumerate(data.groups):
        if labels.count(g) < 2:
            raise DataError(f"group {name!r} has {labels.count(g)} validation images; the generator needs at least 2")
    for name in recipe.costs:
        recipe.cost_table(space, name)
    budget_name = recipe.generator.budget
    table = whole = recipe.cost_table(space, budget_name)
    if profile := recipe.profile(budget_name):
        table = profile.cost.with_classes(whole, largest)
    elif budget_name in COSTS:  # of a measured table it is not known what a narrower classifier saves
        table = additive_cost(budget_name).with_classes(whole, largest)
    asked = recipe.evaluation.budgets
    for budget in () if isinstance(asked, int) else asked:
        table.check_budget(resolve_budget(budget, whole.range), "evaluation.budgets: ")
    if recipe.evaluation.best_of > 1:
        kept = some(data.validation, recipe.evaluation.validation_images, recipe.seed).labels
        with_images = set(data.class_to_group[kept].tolist())
        for g, (name, classes) in enumerate(data.groups.items()):
            if len(classes) > 1 and g not in with_images:
                raise ConfigError(
                    f"evaluation.best_of: of {recipe.evaluation.validation_images} evaluation.validation_images none is of "
                    f"group {name!r}; keep more, or leave out best_of"
                )
    read_predictor(recipe, space)
    if recipe.training.start is not None:
        start, own = Path(recipe.training.start), Path(recipe.output) / FAMILY.checkpoint
        if start.resolve() == own.resolve():
            raise ConfigError(f"training.start: {start} is this run's own checkpoint; give another output")
        if not start.is_file() and (fresh or not own.exists()):
            raise ConfigError(f"training.start: cannot read {start}: no such file")


def make_generator(recipe: Recipe, space: SearchSpace, data: GroupedImages) -> ArchitectureGenerator:
    """A fresh generator for budgets between the space's smallest and largest cost."""
    config = recipe.generator
    low, high = recipe.cost_table(space, config.budget).bounds()
    return ArchitectureGenerator(
        space,
        len(data.groups),
        float(np.min(low)),
        float(np.max(high)),
        budgets=config.budgets,
        embedding_size=config.embedding_size,
        hidden_size=config.hidden_size,
        encoding=config.encoding,
        shared=config.shared,
        seed=recipe.seed,
    )


def make_family(
    recipe: Recipe,
    data: GroupedImages,
    supernet: Supernet,
    generator: ArchitectureGenerator,
    times: dict[str, float],
) -> Family:
    """Put the trained parts together, with the images that specialising needs."""
    few = recipe.evaluation.calibration_images
    family = Family(
        name=recipe.name,
        supernet=supernet.eval(),
        generator=generator.eval(),
        budget_name=recipe.generator.budget,
        classes=tuple(data.classes),
        groups={name: tuple(classes) for name, classes in data.groups.items()},
        mean=data.mean,
        std=data.std,
        tables={
            name: recipe.cost_table(supernet.space, name)
            for name in dict.fromkeys(("madds", "params", recipe.generator.budget, *recipe.costs))
        },
        calibration=some(data.train, few, recipe.seed),
        validation=some(data.validation, recipe.evaluation.validation_images, recipe.seed),
        provenance={
            "recipe": recipe.to_json(),
            "data": data.report,
            "seconds": {name: round(seconds, 1) for name, seconds in times.items()},
            "machine": machine(),
        },
        profiles={name: profile for name in recipe.costs if (profile := recipe.profile(name))},
    )
    return family.to("cpu")


def some(images: ImageSet, count: int, seed: int) -> ImageSet:
    """At most ``count`` images, drawn evenly over the classes, in memory."""
    if len(images) <= count:
        return images.load()
    order = np.random.default_rng(seed).permutation(len(images))
    labels = images.labels.cpu().numpy()[order]
    rank = np.empty(len(order), dtype=np.int64)  # how many images of the same class stand before
    for label in np.unique(labels):
        rank[labels == label] = np.arange(int((labels == label).sum()))
    first = order[np.argsort(rank, kind="stable")[:count]]
    return images.take(torch.from_numpy(np.random.default_rng(seed).permutation(first))).load()


def machine() -> dict[str, Any]:
    """What a number was measured on."""
    return {
        "snugnet": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d"),
    }

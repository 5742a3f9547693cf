"""From a family to a network of its own: an architecture that was found, trained by itself."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from snugnet.bundles import FAMILY, NETWORK
from snugnet.data import GroupedImages, ImageSet, load_split
from snugnet.errors import ConfigError, DataError, SpaceError
from snugnet.family import Family, Group, Origin, Specialized, StoredNetwork
from snugnet.family.disk import TRAINING, load_family
from snugnet.files import locked
from snugnet.fingerprint import Fingerprint, digest, fingerprint
from snugnet.nn.network import build
from snugnet.pipeline import machine
from snugnet.recipe import SPLITTING, Recipe, ScratchConfig, parse_recipe
from snugnet.training.device import make_fabric, resolve_device
from snugnet.training.loop import RunLog
from snugnet.training.retraining import CHECKPOINT, ClassImages, NetworkTraining
from snugnet.yaml_content import put, read_assignment

Start = Literal["inherited", "scratch"]
"""What a retraining begins from: the supernet's weights, or fresh ones."""

SECTIONS = ("seed", "device", "precision", "threads", "data", "augment", "retraining")
"""Sections and keys of a family's recipe that a retraining may change; what the family is stands fast."""


def retrain(
    family: Family | str | Path,
    *,
    out: str | Path,
    arch: Mapping[str, Any] | None = None,
    group: Group | None = None,
    start: Start = "inherited",
    epochs: float | None = None,
    overrides: Sequence[str] = (),
    best_of: int = 1,
    fresh: bool = False,
    progress: bool = True,
    data: GroupedImages | None = None,
    **budgets: float | str,
) -> StoredNetwork:
    """Train one network of a family by itself, or go on with a training that was stopped.

    Args:
        family: a family, or its folder.
        out: folder for the network, its checkpoint and its log.
        arch: the architecture, in the space's JSON form; without it, what the family hands out for the group and the budgets.
        group: the name of a superclass, or a list of class names; with an ``arch`` all classes without it.
        start: from the supernet's weights with the family's largest network as teacher (``inherited``), or from fresh ones (``scratch``).
        epochs: over the training images of the classes; the recipe's without it.
        overrides: ``key=value`` texts that change the family's recipe: :data:`SECTIONS`.
        best_of: architectures to try on validation images where none is given.
        fresh: throw away what the folder holds of an earlier retraining.
        progress: whether to show progress bars.
        data: the recipe's images if they are loaded already.
        **budgets: by cost, as for :meth:`Family.specialize`.

    Returns:
        The network, saved in the folder, and on the CPU. Neither its training nor its accuracies saw a test image.

    Raises:
        SnugnetError: something cannot be done; the message says why and what to do.
    """
    family = family if isinstance(family, Family) else load_family(family)
    recipe = retraining_recipe(family, start, epochs, overrides)
    found = find_network(family, arch, group, best_of=best_of, **budgets)
    folder = check_output(Path(out), fresh)
    images = class_images(family, found, recipe, data, progress=progress)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    with locked(folder):
        if fresh:
            for name in (CHECKPOINT, "log.jsonl", NETWORK.index):
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        network = _train(family, found, recipe, start, images, folder, progress)
        network.save(folder)
    return network


def retraining_recipe(family: Family, start: Start, epochs: float | None, overrides: Sequence[str]) -> Recipe:
    """The family's recipe, changed.

    Raises:
        ConfigError: a change is not allowed, or the family does not say how it was made.
    """
    if start not in ("inherited", "scratch"):
        raise ConfigError(f"a retraining starts from inherited or scratch, got {start!r}")
    content = copy.deepcopy(family.provenance.get("recipe"))
    if not isinstance(content, dict):
        raise ConfigError(
            f"{family.name} does not say which recipe it was made by; train it anew to retrain networks of it"
        )
    of_family = parse_recipe(content, f"recipe of {family.name}")
    for text in overrides:
        key, value = read_assignment(text)
        if key.partition(".")[0] not in SECTIONS:
            raise ConfigError(f"{key} cannot be changed for a network of {family.name}; allowed: {', '.join(SECTIONS)}")
        put(content, key, value)
    if epochs is not None:
        put(content, f"retraining.{start}.epochs", epochs)
    recipe = parse_recipe(content, f"recipe of {family.name}")
    for key in SPLITTING:
        if getattr(recipe.data, key) != getattr(of_family.data, key):
            raise ConfigError(f"data.{key} cannot be changed: images that were trained on could become test images")
    if recipe.data.resolution != family.space.resolution:
        raise ConfigError(
            f"data: {family.name} takes images of {family.space.resolution} pixels, not {recipe.data.resolution}"
        )
    return recipe


def find_network(
    family: Family, arch: Mapping[str, Any] | None, group: Group | None, *, best_of: int = 1, **budgets: float | str
) -> Specialized:
    """The network to be trained: of a given architecture, or what the family hands out.

    Raises:
        ConfigError: neither an architecture nor a group is given, or an architecture and what is to find one.
        SpaceError: the architecture is none of the family's space.
        FamilyError: the group is unknown.
        BudgetError: a cost is unknown, or no network is within the budgets.
    """
    if arch is None:
        if group is None:
            raise ConfigError("give an architecture, or a group of classes whose network is to be found")
        return family.best((group, budgets), best_of)
    if budgets or best_of > 1:
        given = next(iter(budgets), "best_of")
        raise ConfigError(f"an architecture is given, so nothing is to be found under {given}; leave one of them out")
    try:
        row = family.space.from_dict(arch)[0]
    except SpaceError as error:
        raise SpaceError(f"this is no architecture of {family.name}'s space {family.space.name}: {error}") from error
    return family.network(list(family.classes) if group is None else group, row)


def check_output(folder: Path, fresh: bool = False) -> Path:
    """The folder, if a network may be kept there.

    Args:
        folder: need not be there.
        fresh: whether what it holds of an earlier retraining is thrown away.

    Raises:
        ConfigError: it is a file, a family's, or that of a network without the checkpoint that it came from.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file, not a folder")
    if any((folder / name).exists() for name in (FAMILY.index, TRAINING)):
        raise ConfigError(f"{folder} holds a family; give the network another folder")
    if not fresh and (folder / NETWORK.index).exists() and not (folder / CHECKPOINT).exists():
        raise ConfigError(f"{folder} holds a network already; give another --out, or --fresh to throw that away")
    return folder


def class_images(
    family: Family, found: Specialized, recipe: Recipe, data: GroupedImages | None, *, progress: bool
) -> ClassImages:
    """Training and validation images of a network's classes, labels in its order; no test image is decoded.

    Raises:
        ConfigError: the images are not of the family's classes.
        DataError: they cannot be read, or there are too few.
    """
    sets: list[ImageSet] = []
    for name in ("train", "validation"):
        if data is not None:
            images, classes = getattr(data, name), tuple(data.classes)
        else:
            try:
                images, classes = load_split(recipe.data, name, progress=progress)
            except DataError as error:
                raise DataError(f"{error}; if the images lie elsewhere now, say where with data.source=...") from error
        if sorted(classes) != sorted(family.classes):
            strange = sorted(set(classes) ^ set(family.classes))
            raise ConfigError(
                f"data: these are not the classes of {family.name}; in one of the two only: {', '.join(strange)}"
            )
        sets.append(images.among([classes.index(name) for name in found.classes]))
    return ClassImages(sets[0], sets[1], family.mean, family.std)


def _train(
    family: Family,
    found: Specialized,
    recipe: Recipe,
    start: Start,
    images: ClassImages,
    folder: Path,
    progress: bool,
) -> StoredNetwork:
    config: ScratchConfig = getattr(recipe.retraining, start).resolved(recipe.training.batch_size)
    inherited = start == "inherited"
    taught = config.distillation > 0
    fabric = make_fabric(recipe)
    with RunLog(folder) as log:
        training = NetworkTraining(
            recipe,
            config,
            family.build(found.row, found.class_indices) if inherited else build(found.blueprint, seed=recipe.seed),
            family.build(family.space.largest[0], found.class_indices) if taught else None,
            images,
            _made_with(family, found, recipe, config, start, images),
            fabric,
            folder,
            log,
            progress,
        )
        before = training.validation_accuracy() if inherited else math.nan
        module = training.run()
    accuracy = training.validation_accuracy()
    return StoredNetwork(
        family=Origin(family.name, family.space, family.classes, family.mean, family.std),
        group=found.group,
        class_indices=found.class_indices,
        row=found.row,
        costs=found.costs,
        budgets=found.budgets,
        weights={name: tensor.cpu() for name, tensor in module.state_dict().items()},
        provenance={
            "recipe": recipe.to_json(),
            "start": start,
            "settings": config.model_dump(mode="json"),
            "images": {"train": len(images.train), "validation": len(images.validation)},
            "validation": {"start": _number(before), "accuracy": _number(accuracy)},
            "seconds": round(training.spent, 1),
            "machine": machine(),
        },
    )


def _made_with(
    family: Family, found: Specialized, recipe: Recipe, config: ScratchConfig, start: Start, images: ClassImages
) -> Fingerprint:
    """All that shapes the network's weights; the family's own where the network begins with them or learns from them."""
    device, precision = resolve_device(recipe)
    uses_family = start == "inherited" or config.distillation > 0
    calibration = family.calibration.images, family.calibration.labels
    return fingerprint(
        start=start,
        settings=config.model_dump(mode="json", exclude={"checkpoint_seconds", "log_every"}),
        seed=recipe.seed,
        augment=recipe.augment.model_dump(mode="json"),
        device=device,
        precision=precision,
        space=family.space.to_json(),
        architecture=found.arch,
        classes=list(found.classes),
        images=images.digest(),
        family=digest(*family.supernet.state_dict().values(), *calibration) if uses_family else None,
    )


def _number(value: float) -> float | None:
    """As JSON has it: what is no number is null."""
    return None if math.isnan(value) else value

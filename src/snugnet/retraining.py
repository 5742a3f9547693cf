"""An architecture that was found, trained by itself: of a family, or of a network on disk."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch

from snugnet.bundles import FAMILY, NETWORK
from snugnet.data import GroupedImages, ImageSet, load_split
from snugnet.errors import ConfigError, DataError, SnugnetError, SpaceError
from snugnet.family import Family, Group, Origin, Specialized, StoredNetwork
from snugnet.family.stored import load
from snugnet.files import locked
from snugnet.fingerprint import Fingerprint, digest, fingerprint
from snugnet.nn.network import Network, build
from snugnet.pipeline import machine
from snugnet.recipe import SPLITTING, NetworkRecipe, parse_network_recipe
from snugnet.retraining_config import ScratchConfig
from snugnet.spaces import SearchSpace, read_architecture
from snugnet.spaces.space import SPACES
from snugnet.texts import listed
from snugnet.training.device import make_fabric, resolve_device
from snugnet.training.loop import RunLog
from snugnet.training.retraining import ClassImages, NetworkTraining
from snugnet.yaml_content import put, read_assignment

Start = Literal["inherited", "scratch"]
"""What a retraining begins from: the weights of the supernet, or of the network; or fresh ones."""

SECTIONS = ("seed", "device", "precision", "threads", "data", "augment", "retraining")
"""Sections and keys of a recipe that a retraining may change; what the family is stands fast."""


def retrain(
    source: Family | StoredNetwork | str | Path,
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
    """Train one network of a family, or a network on disk, by itself, or go on with a training that was stopped.

    Args:
        source: a family or a network, or the folder of one. A network is trained as it is, with its architecture and classes: what
            chooses a network of a family is not for it, and there is no teacher.
        out: folder for the network, its checkpoint and its log.
        arch: the architecture, in the space's JSON form; without it, what the family hands out for the group and the budgets.
        group: the name of a superclass, or a list of class names; with an ``arch`` all classes without it.
        start: from the weights that there are (``inherited``; of a family with its largest network as teacher), or from fresh ones
            (``scratch``).
        epochs: over the training images of the classes; the recipe's without it.
        overrides: ``key=value`` texts that change the recipe of the family or network: :data:`SECTIONS`.
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
    if isinstance(source, (str, Path)):
        if Path(source).resolve() == Path(out).resolve():
            raise ConfigError(f"{out} is what would be retrained; give the network another folder")
        source = load(source)
    recipe = retraining_recipe(source, start, epochs, overrides)
    found = find_network(source, arch, group, best_of=best_of, **budgets)
    folder = check_output(Path(out), fresh)
    images = class_images(found, recipe, data, progress=progress)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    with locked(folder):
        if fresh:
            for name in (NETWORK.checkpoint, "log.jsonl", NETWORK.index):
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        network = _train(found, recipe, start, images, folder, progress)
        network.save(folder)
    return network


def retraining_recipe(
    source: Family | StoredNetwork, start: Start, epochs: float | None, overrides: Sequence[str]
) -> NetworkRecipe:
    """The recipe of a family or network, changed. That of a network distils nothing.

    Raises:
        ConfigError: a change is not allowed, the source does not say how it was made, or it has no weights, teacher or auxiliary
            block to do what is asked for.
    """
    if start not in ("inherited", "scratch"):
        raise ConfigError(f"a retraining starts from inherited or scratch, got {start!r}")
    origin = source if isinstance(source, Family) else source.family
    name, alone = origin.name, isinstance(source, StoredNetwork)
    if alone and start == "inherited" and source.provenance.get("start") == "untrained":
        raise ConfigError(f"{name} is a network that was never trained; train it --from scratch")
    content = copy.deepcopy(source.provenance.get("recipe"))
    if not isinstance(content, dict):
        raise ConfigError(f"{name} does not say which recipe it was made by; train it anew to retrain networks of it")
    before = parse_network_recipe(content, f"recipe of {name}")
    if alone:
        put(content, f"retraining.{start}.distillation", 0.0)
    for text in overrides:
        key, value = read_assignment(text)
        if key.partition(".")[0] not in SECTIONS:
            raise ConfigError(f"{key} cannot be changed for a network of {name}; allowed: {', '.join(SECTIONS)}")
        put(content, key, value)
    if epochs is not None:
        put(content, f"retraining.{start}.epochs", epochs)
    recipe = parse_network_recipe(content, f"recipe of {name}")
    for key in SPLITTING:
        if getattr(recipe.data, key) != getattr(before.data, key):
            raise ConfigError(f"data.{key} cannot be changed: images that were trained on could become test images")
    if recipe.data.resolution != origin.space.resolution:
        raise ConfigError(
            f"data: {name} takes images of {origin.space.resolution} pixels, not {recipe.data.resolution}"
        )
    config: ScratchConfig = getattr(recipe.retraining, start)
    if alone and config.distillation:
        raise ConfigError(
            f"{name} is one network, without a teacher: retraining.{start}.distillation=0 is what it takes"
        )
    if config.auxiliary and origin.space.auxiliary_block is None:
        raise ConfigError(
            f"retraining.{start}.auxiliary: no place for a second classifier is known in {origin.space.name}, but in "
            f"{', '.join(_with_auxiliary_blocks())}; give 0"
        )
    return recipe


def _with_auxiliary_blocks() -> Iterator[str]:
    """Names of the spaces that know a place for an auxiliary classifier."""
    for name in SPACES.names():
        with suppress(SnugnetError):  # what somebody else's package brings may be broken
            if SPACES[name].auxiliary_block is not SearchSpace.auxiliary_block:
                yield name


def find_network(
    source: Family | StoredNetwork,
    arch: Mapping[str, Any] | None,
    group: Group | None,
    *,
    best_of: int = 1,
    **budgets: float | str,
) -> Specialized | StoredNetwork:
    """The network to be trained: of a given architecture, or what the family hands out; or the one that is given itself.

    Raises:
        ConfigError: neither an architecture nor a group is given, or an architecture and what is to find one; or something to
            find one where there is one network.
        SpaceError: the architecture is none of the family's space.
        FamilyError: the group is unknown.
        BudgetError: a cost is unknown, or no network is within the budgets.
    """
    if isinstance(source, StoredNetwork):
        if arch is not None or group is not None or budgets or best_of > 1:
            raise ConfigError(
                f"{source.family.name} is one network; architectures, classes, budgets and --best-of choose a network of a family"
            )
        return source
    family = source
    if arch is None:
        if group is None:
            raise ConfigError("give an architecture, or a group of classes whose network is to be found")
        return family.best((group, budgets), best_of)
    if budgets or best_of > 1:
        given = next(iter(budgets), "best_of")
        raise ConfigError(f"an architecture is given, so nothing is to be found under {given}; leave one of them out")
    try:
        row = read_architecture(family.space, arch)[0]
    except SpaceError as error:
        raise SpaceError(f"this is no architecture of {family.name}'s space {family.space.name}: {error}") from error
    return family.network(list(family.classes) if group is None else group, row)


def check_output(folder: Path, fresh: bool = False, checkpoint: str = NETWORK.checkpoint) -> Path:
    """The folder, if a network may be kept there.

    Args:
        folder: need not be there.
        fresh: whether what it holds of an earlier run is thrown away.
        checkpoint: the file by which a run of the same kind is known.

    Raises:
        ConfigError: it is a file, a family's, or that of a network without the checkpoint that it came from.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file, not a folder")
    if any((folder / name).exists() for name in (FAMILY.index, FAMILY.checkpoint)):
        raise ConfigError(f"{folder} holds a family; give the network another folder")
    if not fresh and (folder / NETWORK.index).exists() and not (folder / checkpoint).exists():
        raise ConfigError(f"{folder} holds a network already; give another --out, or --fresh to throw that away")
    return folder


def class_images(
    found: Specialized | StoredNetwork, recipe: NetworkRecipe, data: GroupedImages | None, *, progress: bool
) -> ClassImages:
    """Training and validation images of a network's classes, labels in its order; no test image is decoded.

    Raises:
        ConfigError: the images are not of the family's classes.
        DataError: they cannot be read, or there are too few.
    """
    family = found.family
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
                f"data: these are not the classes of {family.name}; in one of the two only: {listed(strange)}"
            )
        sets.append(images.among([classes.index(name) for name in found.classes]))
    return ClassImages(sets[0], sets[1], family.mean, family.std)


def _train(
    found: Specialized | StoredNetwork,
    recipe: NetworkRecipe,
    start: Start,
    images: ClassImages,
    folder: Path,
    progress: bool,
) -> StoredNetwork:
    config: ScratchConfig = getattr(recipe.retraining, start).resolved(recipe.batch_size)
    origin, inherited = found.family, start == "inherited"
    fabric = make_fabric(recipe)
    with RunLog(folder) as log:
        training = NetworkTraining(
            recipe,
            config,
            _with_own_weights(found) if inherited else build(found.blueprint, seed=recipe.seed),
            _teacher(found) if config.distillation else None,
            images,
            _made_with(found, recipe, config, start, images),
            fabric,
            folder,
            log,
            progress,
            origin.space.auxiliary_block,
        )
        before = training.validation_accuracy() if inherited else math.nan
        module = training.run()
    accuracy = training.validation_accuracy()
    return StoredNetwork(
        family=Origin(origin.name, origin.space, origin.classes, origin.mean, origin.std),
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
            **({"network": found.provenance} if isinstance(found, StoredNetwork) else {}),
        },
    )


def _with_own_weights(found: Specialized | StoredNetwork) -> Network:
    """The network as it is, with a copy of its weights to be trained."""
    return build(found.blueprint, {name: tensor.clone() for name, tensor in found.module.state_dict().items()})


def _teacher(found: Specialized | StoredNetwork) -> Network:
    """The largest network of the family, over the classes of the one that was found."""
    assert isinstance(found, Specialized)
    return found.family.build(found.family.space.largest[0], found.class_indices)


def _made_with(
    found: Specialized | StoredNetwork, recipe: NetworkRecipe, config: ScratchConfig, start: Start, images: ClassImages
) -> Fingerprint:
    """All that shapes the network's weights; the family's or the network's own where it begins with them or learns from them."""
    device, precision = resolve_device(recipe)
    if start == "scratch" and not config.distillation:
        weights = {}
    elif isinstance(found, StoredNetwork):
        weights = {"network": digest(*found.module.state_dict().values())}
    else:
        calibration = found.family.calibration.images, found.family.calibration.labels
        weights = {"family": digest(*found.family.supernet.state_dict().values(), *calibration)}
    return fingerprint(
        start=start,
        settings=config.model_dump(mode="json", exclude={"checkpoint_seconds", "log_every"}),
        seed=recipe.seed,
        augment=recipe.augment.model_dump(mode="json"),
        device=device,
        precision=precision,
        space=found.family.space.to_json(),
        architecture=found.arch,
        classes=list(found.classes),
        images=images.digest(),
        **weights,
    )


def _number(value: float) -> float | None:
    """As JSON has it: what is no number is null."""
    return None if math.isnan(value) else value

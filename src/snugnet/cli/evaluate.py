"""``snugnet evaluate``: accuracy and cost of a family's networks, or of one network, on test images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snugnet.cli.common import MOST_TRIED, Json, check_folder, emit, load_family, out, read_assignments, say
from snugnet.errors import ConfigError, DataError
from snugnet.extras import needs
from snugnet.texts import listed

if TYPE_CHECKING:
    from snugnet.data import ImageSet
    from snugnet.family import Family, Origin, StoredNetwork
    from snugnet.family.report import Report

MOST_BUDGETS = 100
SPREAD_BUDGETS = "4"


def evaluate(
    source: Annotated[
        str,
        typer.Argument(metavar="DIR", help="Folder of a family, or of a network; or USER/NAME of a family on the hub."),
    ],
    group: Annotated[
        list[str] | None, typer.Option(help="Superclass to evaluate; may be given several times. All without it.")
    ] = None,
    budgets: Annotated[
        str | None,
        typer.Option(
            metavar="N|A,B,...",
            help=f"Budgets such as 40M,60M or 20%,80%; or how many (a whole number up to {MOST_BUDGETS}), spread evenly. "
            f"{SPREAD_BUDGETS} without it.",
        ),
    ] = None,
    cost: Annotated[
        str | None, typer.Option(metavar="NAME", help="Cost that budgets are of; the generator's own without it.")
    ] = None,
    best_of: Annotated[
        int,
        typer.Option(min=1, max=MOST_TRIED, help="For each network, try so many architectures on validation images."),
    ] = 1,
    data: Annotated[
        list[str] | None,
        typer.Option("-d", "--data", metavar="KEY=VALUE", help="Where the data lies now: -d source=../images."),
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write results.json, results.md and results.png here.")
    ] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="Make each network's int8 file too: its accuracy and time beside the float file's."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Specialise a family to groups and budgets, and measure every network on the family's test images; or measure one network."""
    asked = read_budget_list(SPREAD_BUDGETS if budgets is None else budgets, cost)
    changes = read_changes(data)
    if out_folder is not None:
        check_folder(out_folder)
        needs("matplotlib")
    if int8:
        needs("onnxruntime")
    from snugnet.family.stored import holds_network

    if holds_network(source):
        if group or budgets is not None or cost is not None or best_of > 1:
            raise ConfigError(
                f"{source} is one network; --group, --budgets, --cost and --best-of choose networks of a family"
            )
        report = evaluate_network(source, changes, int8)
    else:
        report = evaluate_family(source, changes, asked, group, best_of, cost, int8)
    files = [] if out_folder is None else report.save(out_folder)
    if as_json:
        emit({**report.to_json(), "files": [str(path) for path in files]})
        return
    out().print(report.table())
    for path in files:
        say(f"wrote {path}")


def evaluate_family(
    source: str,
    changes: dict[str, Any],
    budgets: int | list[float | str],
    group: list[str] | None,
    best_of: int,
    cost: str | None,
    int8: bool,
) -> Report:
    """Specialised networks of a family on its test images."""
    loaded = load_family(source)

    import torch

    from snugnet import pipeline
    from snugnet.family import report as reports

    cost = cost or loaded.budget_name
    limits = reports.spread_budgets(loaded, budgets, cost)
    groups = reports.check_groups(loaded, group)
    loaded.specialize_many([(name, {cost: limit}) for name in groups for limit in limits])
    images = test_images(loaded, loaded.provenance, changes)
    loaded.to("cuda" if torch.cuda.is_available() else "cpu")
    report = reports.evaluate(loaded, images, limits, groups=groups, best_of=best_of, cost=cost, int8=int8)
    report.context = {**loaded.provenance, "evaluated": {"best_of": best_of, "on": pipeline.machine()}}
    return report


def evaluate_network(source: str, changes: dict[str, Any], int8: bool) -> Report:
    """One network on disk on the test images of its classes."""
    import torch

    from snugnet import pipeline
    from snugnet.family import report as reports
    from snugnet.family.stored import load_network

    network = load_network(source, "cuda" if torch.cuda.is_available() else "cpu")
    ranges = images_for_ranges(network, changes) if int8 else None
    report = reports.evaluate_network(network, test_images(network.family, network.provenance, changes), ranges)
    report.context = {**network.provenance, "evaluated": {"on": pipeline.machine()}}
    return report


def read_changes(texts: list[str] | None) -> dict[str, Any]:
    """What ``-d`` changes of a recipe's data section.

    Raises:
        ConfigError: a text is no assignment, or changes which images are test images.
    """
    changes = read_assignments(texts, "-d")
    from snugnet.recipe import SPLITTING

    moved = [key for key in changes if key in SPLITTING]
    if moved:
        raise ConfigError(f"-d cannot change {moved[0]}: images that were trained on could become test images")
    return changes


def read_budget_list(text: str, cost: str | None = None) -> int | list[float | str]:
    """How many budgets, or the budgets themselves (of ``cost``, in its unit), each checked to be an amount or a share.

    Raises:
        ConfigError: neither.
    """
    from snugnet.costs import resolve_budget, split_amounts, without_unit

    if re.fullmatch(r"\s*\d{1,3}\s*", text) and int(text) <= MOST_BUDGETS:
        if int(text) == 0:
            raise ConfigError("--budgets: at least one budget is evaluated, got 0")
        return int(text)
    amounts = split_amounts(text)
    budgets: list[float | str] = [*(amounts if cost is None else (without_unit(cost, each) for each in amounts))]
    for budget in budgets:
        resolve_budget(budget, (0.0, 1.0))
    return budgets


def test_images(family: Family | Origin, provenance: dict[str, Any], changes: dict[str, Any]) -> ImageSet:
    """The test images of a family; see :func:`split_images`."""
    return split_images(family, provenance, changes, "test")


def images_for_ranges(network: StoredNetwork, changes: dict[str, Any]) -> ImageSet:
    """Training images of a network's own recipe, for its int8 file, spread over all there are: a network on disk holds none."""
    import numpy as np

    from snugnet.family.int8 import JUDGED

    images = split_images(network.family, network.provenance, changes, "train")
    return images.take(np.arange(len(images))[:: max(1, len(images) // JUDGED)])


def split_images(family: Family | Origin, provenance: dict[str, Any], changes: dict[str, Any], split: str) -> ImageSet:
    """The images of a family's split, labels in the order of its classes; no other image is decoded.

    Args:
        family: whose classes they are of.
        provenance: its recipe says where the images are.
        changes: of the recipe's data section.
        split: such as ``"test"``.

    Raises:
        ConfigError: a key or value is wrong, or the images do not have the family's size or classes.
        DataError: they cannot be read.
    """
    import torch

    from snugnet.data import DataConfig, ImageSet, load_split, read_config
    from snugnet.recipe import PLACES

    recipe = provenance.get("recipe")
    section = recipe.get("data") if isinstance(recipe, dict) else None
    # where the machine that trained kept them is not where this one does
    kept = {key: value for key, value in (section if isinstance(section, dict) else {}).items() if key not in PLACES}
    config = read_config(DataConfig, {**kept, **changes}, "data")
    if config.resolution != family.space.resolution:
        raise ConfigError(
            f"data: {family.name} takes images of {family.space.resolution} pixels, not {config.resolution}"
        )
    try:
        images, classes = load_split(config, split)
    except DataError as error:
        hint = "" if "source" in changes else "; if the images lie elsewhere now, say where with -d source=..."
        raise DataError(f"{error}{hint}") from error
    if sorted(classes) != sorted(family.classes):
        strange = sorted(set(classes) ^ set(family.classes))
        raise ConfigError(
            f"data: these are not the classes of {family.name}; in one of the two only: {listed(strange)}"
        )
    index = torch.tensor([family.classes.index(name) for name in classes])
    return ImageSet(images.images, index[images.labels])

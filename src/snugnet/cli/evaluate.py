"""``snugnet evaluate``: accuracy and cost of a family's networks on its test images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snugnet.cli.common import Json, check_folder, emit, load_family, out, read_assignments, read_names, say
from snugnet.cli.specialize import FamilyArgument
from snugnet.errors import ConfigError, DataError

if TYPE_CHECKING:
    from snugnet.data import ImageSet
    from snugnet.family import Family

MOST_BUDGETS = 100


SPLITTING = ("seed", "test", "validation", "train_split", "test_split", "validation_split")
"""Keys of the data section that decide which rows are test images: with others, trained-on images could be among them."""


def evaluate(
    family: FamilyArgument,
    group: Annotated[
        list[str] | None, typer.Option(help="Superclass to evaluate; may be given several times. All without it.")
    ] = None,
    budgets: Annotated[
        str,
        typer.Option(
            metavar="N|A,B,...",
            help=f"Budgets such as 40M,60M or 20%,80%; or how many (a whole number up to {MOST_BUDGETS}), spread evenly.",
        ),
    ] = "4",
    cost: Annotated[
        str | None, typer.Option(metavar="NAME", help="Cost that budgets are of; the generator's own without it.")
    ] = None,
    best_of: Annotated[
        int, typer.Option(min=1, help="For each network, try so many architectures on validation images.")
    ] = 1,
    data: Annotated[
        list[str] | None,
        typer.Option("-d", "--data", metavar="KEY=VALUE", help="Where the data lies now: -d source=../images."),
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write results.json, results.md and results.png here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Specialise a family to groups and budgets, and measure every network on the family's test images."""
    asked = read_budget_list(budgets)
    changes = read_assignments(data, "-d")
    moved = [key for key in changes if key in SPLITTING]
    if moved:
        raise ConfigError(f"-d cannot change {moved[0]}: images that were trained on could become test images")
    if out_folder is not None:
        check_folder(out_folder)
    loaded = load_family(family)

    import torch

    from snugnet import pipeline
    from snugnet.family import report as reports

    cost = cost or loaded.budget_name
    limits = reports.spread_budgets(loaded, asked, cost)
    groups = reports.check_groups(loaded, group)
    loaded.specialize_many([(name, {cost: limit}) for name in groups for limit in limits])
    images = test_images(loaded, changes)
    loaded.to("cuda" if torch.cuda.is_available() else "cpu")
    report = reports.evaluate(loaded, images, limits, groups=groups, best_of=best_of, cost=cost)
    report.context = {**loaded.provenance, "evaluated": {"best_of": best_of, "on": pipeline.machine()}}
    files = [] if out_folder is None else report.save(out_folder)
    if as_json:
        emit({**report.to_json(), "files": [str(path) for path in files]})
        return
    out().print(report.table())
    for path in files:
        say(f"wrote {path}")


def read_budget_list(text: str) -> int | list[float | str]:
    """How many budgets, or the budgets themselves, each checked to be an amount or a share.

    Raises:
        ConfigError: neither.
    """
    from snugnet.costs import resolve_budget

    if re.fullmatch(r"\s*\d{1,3}\s*", text) and int(text) <= MOST_BUDGETS:
        if int(text) == 0:
            raise ConfigError("--budgets: at least one budget is evaluated, got 0")
        return int(text)
    budgets: list[float | str] = [*read_names(text)]
    for budget in budgets:
        resolve_budget(budget, (0.0, 1.0))
    return budgets


def test_images(family: Family, changes: dict[str, Any]) -> ImageSet:
    """The test images of a family, labels in the order of its classes; no other image is decoded.

    Args:
        family: whose recipe says where the images are.
        changes: of the recipe's data section.

    Raises:
        ConfigError: a key or value is wrong, or the images do not have the family's size or classes.
        DataError: they cannot be read.
    """
    import torch

    from snugnet.data import DataConfig, ImageSet, load_split, read_config

    recipe = family.provenance.get("recipe")
    section = recipe.get("data") if isinstance(recipe, dict) else None
    config = read_config(DataConfig, {**(section if isinstance(section, dict) else {}), **changes}, "data")
    if config.resolution != family.space.resolution:
        raise ConfigError(
            f"data: {family.name} takes images of {family.space.resolution} pixels, not {config.resolution}"
        )
    try:
        images, classes = load_split(config, "test")
    except DataError as error:
        hint = "" if "source" in changes else "; if the images lie elsewhere now, say where with -d source=..."
        raise DataError(f"{error}{hint}") from error
    if sorted(classes) != sorted(family.classes):
        strange = sorted(set(classes) ^ set(family.classes))
        raise ConfigError(
            f"data: these are not the classes of {family.name}; in one of the two only: {', '.join(strange)}"
        )
    index = torch.tensor([family.classes.index(name) for name in classes])
    return ImageSet(images.images, index[images.labels])

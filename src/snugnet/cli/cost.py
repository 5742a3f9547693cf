"""``snugnet cost``: what architectures in a file cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snugnet.cli.common import Json, SpaceOption, by_cost, emit, out, read_assignments, read_json
from snugnet.errors import ConfigError, SnugnetError
from snugnet.files import plain_number

if TYPE_CHECKING:
    from snugnet.spaces import Blueprint


def cost(
    space: Annotated[str, typer.Argument(help="Name of a space; 'snugnet space list' shows them.")],
    arch: Annotated[
        Path, typer.Option(help="JSON file with one architecture in the space's form, or {name: architecture}.")
    ],
    num_classes: Annotated[int | None, typer.Option(min=1, help="Width of the classifier; 1000 without it.")] = None,
    option: SpaceOption = None,
    as_json: Json = False,
) -> None:
    """Count what an architecture costs, or each in a file of several: multiply-adds, parameters, and every cost that is known.

    Multiply-adds are those of convolutions and linear layers, once each; parameters are all that is trainable.
    """
    from snugnet.spaces import space_class

    space_class(space)
    options = read_assignments(option, "-o")
    if num_classes is not None:
        if options.get("num_classes", num_classes) != num_classes:
            raise ConfigError(f"--num-classes is {num_classes} and -o num_classes {options['num_classes']!r}")
        options["num_classes"] = num_classes
    content = read_json(arch)
    if not isinstance(content, dict):
        raise ConfigError(f"{arch} holds a {type(content).__name__}; an architecture is a JSON object")
    several = bool(content) and all(isinstance(value, dict) for value in content.values())
    networks = {
        name: _blueprint(space, each, options, f"{arch}: {name}" if several else str(arch))
        for name, each in (content if several else {"": content}).items()
    }
    counted = by_cost(lambda cost: {name: plain_number(cost.of(network)) for name, network in networks.items()})
    costs = {name: {key: each[name] for key, each in counted.items()} for name in networks}
    if as_json:
        emit(costs if several else costs[""])
        return
    from rich.table import Table

    table = Table("architecture" if several else "", *counted, title=space)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, each in costs.items():
        table.add_row(name or str(arch), *(f"{value:,}" for value in each.values()))
    out().print(table)


def _blueprint(space: str, arch: Mapping[str, Any], options: Mapping[str, Any], where: str) -> Blueprint:
    from snugnet.spaces import space_class

    kind = space_class(space)
    stated = {key: arch[key] for key in kind.json_options if key in arch}
    if "resolutions" in options:  # then it is a choice
        stated.pop("resolution", None)
    for key, value in stated.items():
        if key in options and options[key] != value:
            raise ConfigError(f"{where}: {key} is {value!r} there and {options[key]!r} in -o; leave out -o {key}")
    try:
        made = kind.create(**{**stated, **options})
        return made.blueprint(made.from_dict(arch))
    except SnugnetError as error:
        raise ConfigError(f"{where}: {error}") from error

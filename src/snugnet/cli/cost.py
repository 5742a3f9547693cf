"""``snugnet cost``: what architectures in a file cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snugnet.cli.common import Json, SpaceOption, by_cost, emit, out, read_assignments, say
from snugnet.errors import ConfigError, SnugnetError, SpaceError
from snugnet.files import plain_number

if TYPE_CHECKING:
    from snugnet.spaces import Population, SearchSpace


def cost(
    space: Annotated[str, typer.Argument(help="Name of a space; 'snugnet space list' shows them.")],
    arch: Annotated[
        Path,
        typer.Option(
            help="JSON or YAML file with one architecture, or {name: architecture}; also in the forms of once-for-all (ks, e, d, r; "
            "net.config), AttentiveNAS and DyNAS-T."
        ),
    ],
    num_classes: Annotated[
        int | None, typer.Option(min=1, help="Width of the classifier; the file's, or 1000, without it.")
    ] = None,
    option: SpaceOption = None,
    device: Annotated[
        list[str] | None,
        typer.Option(help="Show what was measured on this device as well (nas-bench-201); may be given several times."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Take what was measured for this data set, whatever the number of classes.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Count what an architecture costs, or each in a file of several: multiply-adds, parameters, and every cost that is known.

    Multiply-adds are those of convolutions and linear layers, once each; parameters are all that is trainable. Costs on a device are
    looked up; where nothing was measured they are null, and a line says so.
    """
    from snugnet.spaces import read_architectures, space_class

    space_class(space)
    options = read_assignments(option, "-o")
    if num_classes is not None:
        if options.get("num_classes", num_classes) != num_classes:
            raise ConfigError(f"--num-classes is {num_classes} and -o num_classes {options['num_classes']!r}")
        options["num_classes"] = num_classes
    if dataset is not None and not device:
        raise ConfigError("--dataset says which measurements of a device are shown; give --device as well")
    content = read_architectures(arch)
    several = "" not in content
    made = {
        name: _space_and_row(space, each, options, f"{arch}: {name}" if several else str(arch))
        for name, each in content.items()
    }
    networks = {name: kind.blueprint(row) for name, (kind, row) in made.items()}
    counted = by_cost(
        lambda cost: {name: plain_number(cost.of(network)) for name, network in networks.items()},
        lambda each: max(each.values(), default=0),
    )
    costs: dict[str, dict[str, float | None]] = {
        name: {
            **{key: each[name] for key, each in counted.items()},
            **_measured(*made[name], device or (), dataset, name),
        }
        for name in networks
    }
    if as_json:
        emit(costs if several else costs[""])
        return
    from rich.table import Table

    table = Table("architecture" if several else "", *next(iter(costs.values()), counted), title=space)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, each in costs.items():
        table.add_row(name or str(arch), *("" if value is None else f"{value:,}" for value in each.values()))
    out().print(table)


def _space_and_row(
    space: str, arch: Mapping[str, Any], options: Mapping[str, Any], where: str
) -> tuple[SearchSpace, Population]:
    from snugnet.spaces import get_space, read_architecture, space_class
    from snugnet.spaces.reading import stated_options

    kind = space_class(space)
    try:
        form = kind.own_form(arch, options)
        stated = stated_options(kind, form)
        if "resolutions" in options:  # then it is a choice
            stated.pop("resolution", None)
        for key, value in stated.items():
            if key != "num_classes" and key in options and options[key] != value:
                raise SpaceError(f"{key} is {value!r} there and {options[key]!r} in -o; leave out -o {key}")
        made = get_space(space, **{**stated, **options})
        return made, read_architecture(made, form)
    except SnugnetError as error:
        raise ConfigError(f"{where}: {error}") from error


def _measured(
    space: SearchSpace, row: Population, devices: Sequence[str], dataset: str | None, name: str
) -> dict[str, float | None]:
    """What was measured of one architecture, for people and JSON; ``None``, and a line, where nothing was."""
    from snugnet.costs.hardware import costs_of, measured_cost

    found: dict[str, float | None] = {}
    for device in devices:
        for cost in costs_of(device):
            measured = measured_cost(space, cost, device, dataset)
            value = float(measured.of(row)[0])
            found[measured.name] = None if math.isnan(value) else value
            if math.isnan(value):
                say(f"{name + ': ' if name else ''}{measured.name} was not measured for this architecture")
    return found

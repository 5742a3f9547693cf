"""``snugnet space``: what can be chosen, and what the smallest, middle and largest network cost."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snugnet.cli.common import (
    Json,
    SpaceOption,
    by_cost,
    emit,
    known_as_json,
    known_as_table,
    out,
    read_assignments,
)
from snugnet.files import plain_number

if TYPE_CHECKING:
    from snugnet.spaces import SearchSpace

app = typer.Typer(help="Show search spaces.", no_args_is_help=True)


class Network(StrEnum):
    """The networks to look at before any work begins."""

    smallest = "smallest"
    centroid = "centroid"
    largest = "largest"


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the spaces."""
    from snugnet.spaces.space import SPACES

    if as_json:
        emit(known_as_json(SPACES))
    else:
        out().print(known_as_table(SPACES))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of a space; 'snugnet space list' shows them.")],
    option: SpaceOption = None,
    blueprint: Annotated[Network | None, typer.Option(help="Print the layers of this network as well.")] = None,
    as_json: Json = False,
) -> None:
    """Show a space: its size, its choices, its options, and its smallest, middle and largest network."""
    from snugnet.spaces import get_space

    space = get_space(name, **read_assignments(option, "-o"))
    if as_json:
        document = describe(space)
        if blueprint:
            layers = space.blueprint(space.extremes()[blueprint.value])
            document["blueprint"] = {"network": blueprint.value, **asdict(layers)}
        emit(document)
        return
    console = out()
    console.print(f"{space.name}: {space.size:,} architectures ({Decimal(space.size):.3e})")
    for table in tables(space):
        console.print(table)
    if blueprint:
        console.print(str(space.blueprint(space.extremes()[blueprint.value])), soft_wrap=True)


def describe(space: SearchSpace) -> dict[str, Any]:
    """A space as plain JSON."""
    networks = {
        name: {**costs, "architecture": space.to_dict(space.extremes()[name])}
        for name, costs in _costs_of_extremes(space).items()
    }
    from snugnet.costs.hardware import devices_of

    devices = {device: list(costs) for device, costs in devices_of(space).items()}
    return {
        **space.to_json(),
        "size": space.size,
        "size_scientific": f"{Decimal(space.size):.3e}",
        "choices": [{"kind": kind, "options": list(o), "count": n} for (kind, o), n in _kinds(space).items()],
        "networks": networks,
        **({"devices": devices} if devices else {}),
    }


def tables(space: SearchSpace) -> list[Any]:
    """Networks, choices and options for people."""
    from rich.table import Table

    from snugnet.costs.hardware import devices_of

    extremes = _costs_of_extremes(space)
    networks = Table("network", title="min / centroid / max")
    for header in extremes["smallest"]:
        networks.add_column(header, justify="right")
    for name, costs in extremes.items():
        networks.add_row(name, *(f"{value:,}" for value in costs.values()))
    choices = Table("choice", "options", title="what is chosen")
    choices.add_column("times", justify="right")
    for (kind, options), count in _kinds(space).items():
        choices.add_row(kind, " ".join(map(str, options)), str(count))
    fixed = Table("option", "value", title="what is fixed (-o)")
    for key, value in space.options.items():
        fixed.add_row(key, str(value))
    devices = Table("device", "measured", title="costs on devices")
    for device, measured in devices_of(space).items():
        devices.add_row(device, " ".join(measured))
    return [networks, choices, fixed, *([devices] if devices.rows else [])]


def _costs_of_extremes(space: SearchSpace) -> dict[str, dict[str, float]]:
    """What the smallest, middle and largest network cost, by every cost that is known."""
    networks = {name: space.blueprint(row) for name, row in space.extremes().items()}
    costs = by_cost(
        lambda cost: {name: plain_number(cost.of(network)) for name, network in networks.items()},
        lambda each: max(each.values()),
    )
    return {name: {key: each[name] for key, each in costs.items()} for name in networks}


def _kinds(space: SearchSpace) -> Counter[tuple[str, tuple[Any, ...]]]:
    return Counter((choice.kind, choice.options) for choice in space.choices)

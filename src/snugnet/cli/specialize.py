"""``snugnet specialize``: the network of a family for a group of classes under budgets, as a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snugnet.cli.common import (
    BudgetOption,
    Json,
    ShortBudget,
    check_folder,
    emit,
    load_family,
    out,
    read_budgets,
    read_names,
    say,
)
from snugnet.errors import ConfigError

if TYPE_CHECKING:
    from snugnet.family import Specialized

FamilyArgument = Annotated[
    str, typer.Argument(metavar="FAMILY", help="Folder of a trained family, or USER/NAME on the Hugging Face hub.")
]


def specialize(
    family: FamilyArgument,
    group: Annotated[str | None, typer.Option(help="Superclass of the family.")] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Any classes of the family, in the order of the outputs.")
    ] = None,
    budget: BudgetOption = None,
    madds: ShortBudget = None,
    params: ShortBudget = None,
    latency_ms: ShortBudget = None,
    energy_mj: ShortBudget = None,
    best_of: Annotated[
        int, typer.Option(min=1, help="Try so many architectures on validation images and keep the best.")
    ] = 1,
    out_file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the network: .onnx, or .pt2 for torch.export.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Get the network for a group of classes that fits every budget given; write it with --out.

    Without any budget the largest network is allowed.
    """
    budgets: dict[str, Any] = {
        **read_budgets(budget, madds=madds, params=params, latency_ms=latency_ms, energy_mj=energy_mj)
    }
    if (group is None) == (classes is None):
        given = "neither is given" if group is None else "both are given"
        raise ConfigError(f"the classes are given by --group or by --classes, one of the two; {given}")
    wanted = group if group is not None else read_names(classes or "")
    if out_file is not None:
        from snugnet.deploy.export import check_format

        check_folder(check_format(out_file).parent)
    loaded = load_family(family)
    started = time.perf_counter()
    network = loaded.specialize(wanted, best_of=best_of, **budgets)
    if out_file is not None:
        network.export(out_file)
    milliseconds = 1e3 * (time.perf_counter() - started)
    if as_json:
        emit({**_describe(network), "file": None if out_file is None else str(out_file), "ms": round(milliseconds, 3)})
        return
    _show(network)
    if out_file is None:
        say(f"specialised in {milliseconds:.0f} ms; --out net.onnx writes the network")
    else:
        checked = "; ONNX Runtime ran it and agrees with torch" if out_file.suffix == ".onnx" else ""
        say(f"wrote {out_file} in {milliseconds:.0f} ms{checked}")


def _describe(network: Specialized) -> dict[str, Any]:
    return {
        "family": network.family.name,
        "group": network.group,
        "classes": list(network.classes),
        "budgets": network.budgets,
        "costs": network.costs,
        "architecture": network.arch,
    }


def _show(network: Specialized) -> None:
    from rich.table import Table

    console = out()
    costs = Table(
        "cost", title=f"{network.family.name}: {network.group}", caption=f"classes: {', '.join(network.classes)}"
    )
    for header in ("of the network", "budget"):
        costs.add_column(header, justify="right")
    for name, value in network.costs.items():
        costs.add_row(name, f"{value:,}", f"{network.budgets[name]:,.12g}" if name in network.budgets else "")
    console.print(costs)
    arch = Table("architecture", "")
    for key, value in network.arch.items():
        arch.add_row(key, str(value))
    console.print(arch)

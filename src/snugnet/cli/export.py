"""``snugnet export``: a network on disk, or one that a family hands out, as a file for a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snugnet.cli.common import (
    BestOf,
    BudgetOption,
    ClassesOption,
    DeviceBudget,
    GroupOption,
    Json,
    ShortBudget,
    check_file,
    emit,
    load_family,
    read_budgets,
    read_group,
    say,
)
from snugnet.cli.specialize import describe, show
from snugnet.errors import ConfigError

if TYPE_CHECKING:
    from snugnet.family import Classifier


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DIR", help="Folder of a network (of 'snugnet retrain'), or of a family, or USER/NAME on the hub."
        ),
    ],
    out_file: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The file to write: .onnx, or .pt2 for torch.export.")
    ],
    group: GroupOption = None,
    classes: ClassesOption = None,
    budget: BudgetOption = None,
    madds: ShortBudget = None,
    params: ShortBudget = None,
    latency_ms: DeviceBudget = None,
    energy_mj: DeviceBudget = None,
    peak_memory: ShortBudget = None,
    weight_memory: ShortBudget = None,
    best_of: BestOf = 1,
    opset: Annotated[
        int | None,
        typer.Option(
            help="Of an .onnx file, 17 or 21; with 21, weights of at most four bits take half a byte. 17 without it."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a network as a file, checked against torch before it is written.

    Of a family, the options choose the network as 'snugnet specialize' does; a network on disk is written as it is.
    """
    budgets = read_budgets(
        budget, madds=madds, params=params, latency_ms=latency_ms, energy_mj=energy_mj, peak_memory=peak_memory,
        weight_memory=weight_memory,
    )  # fmt: skip
    wanted = read_group(group, classes)
    check_file(out_file)
    if opset is not None and out_file.suffix != ".onnx":
        raise ConfigError(f"--opset is of .onnx files, got {out_file}")
    from snugnet.family.stored import holds_network, load_network

    network: Classifier
    if holds_network(source):
        if wanted is not None or budgets or best_of > 1:
            raise ConfigError(f"{source} is one network; classes, budgets and --best-of choose a network of a family")
        network = load_network(source)
    elif wanted is None:
        load_family(source)  # what is no family is said first
        raise ConfigError(f"{source} is a family; say which network by --group or --classes")
    else:
        network = load_family(source).specialize(wanted, best_of=best_of, **budgets)
    network.export(out_file, **({} if opset is None else {"opset": opset}))
    size = out_file.stat().st_size
    if as_json:
        emit({**describe(network), "file": str(out_file), "bytes": size})
        return
    show(describe(network))
    say(f"wrote {out_file}, {size:,} bytes, which was run and agrees with torch")

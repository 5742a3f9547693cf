"""``snugnet specialize``: the network of a family for a group of classes under budgets, as a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    is_remote,
    load_family,
    out,
    read_budgets,
    read_group,
    say,
)
from snugnet.cli.int8 import Int8, check_int8, compare, images_to_judge_on, say_precisions
from snugnet.cli.int8 import as_json as beside_as_json
from snugnet.cli.int8 import show as show_beside
from snugnet.errors import ConfigError
from snugnet.texts import listed

if TYPE_CHECKING:
    from snugnet.family import Classifier

FamilyArgument = Annotated[
    str,
    typer.Argument(
        metavar="FAMILY",
        help="Folder of a trained family, USER/NAME on the Hugging Face hub, or a family of a service: http://HOST:PORT/NAME.",
    ),
]


def specialize(
    family: FamilyArgument,
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
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE|DIR",
            help="Write the network: .onnx, or .pt2 for torch.export; with --all the folder for all files.",
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Write the networks of all lines of --budgets.")] = False,
    budget_file: Annotated[
        Path | None,
        typer.Option(
            "--budgets",
            metavar="FILE",
            help="With --all: CSV with a column a cost, and maybe a column 'group' (a superclass, or classes as in "
            "--classes); without it every line is for each superclass.",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "-d",
            "--data",
            metavar="KEY=VALUE",
            help="With --all or --int8: measure accuracies on the test images there: -d source=../images.",
        ),
    ] = None,
    int8: Int8 = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="With --all: make all files anew, whatever --out holds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Get the network for a group of classes that fits every budget given; write it with --out.

    Without any budget the largest network is allowed. With --all, the networks of a whole table of budgets; run the same command
    again to go on with one that was stopped.
    """
    given = {
        "--group": group, "--classes": classes, "--budget": budget, "--madds": madds, "--params": params,
        "--latency-ms": latency_ms, "--energy-mj": energy_mj, "--peak-memory": peak_memory, "--weight-memory": weight_memory,
    }  # fmt: skip
    if every:
        if single := [option for option, value in given.items() if value is not None]:
            raise ConfigError(f"with --all, groups and budgets stand in the file of --budgets; leave out {single[0]}")
        if is_remote(family):
            raise ConfigError(f"with --all, FAMILY is a folder or on the hub; got {family}")
        from snugnet.cli.specialize_all import specialize_all

        specialize_all(family, budget_file, out_file, best_of, data, int8, fresh, as_json)
        return
    for option, value in {"--budgets": budget_file, "--fresh": fresh or None}.items():
        if value is not None:
            raise ConfigError(f"{option} goes with --all")
    if data is not None and not int8:
        raise ConfigError("--data goes with --all or --int8")
    if int8:
        check_int8(out_file)
    budgets = read_budgets(
        budget, madds=madds, params=params, latency_ms=latency_ms, energy_mj=energy_mj, peak_memory=peak_memory,
        weight_memory=weight_memory,
    )  # fmt: skip
    wanted = read_group(group, classes)
    if wanted is None:
        raise ConfigError("the classes are given by --group or by --classes, one of the two; neither is given")
    if out_file is not None:
        check_file(out_file)
    if is_remote(family):
        if int8:
            raise ConfigError(f"--int8 is of families in a folder or on the hub; got {family}")
        description, milliseconds = _ask_service(family, wanted, budgets, best_of, out_file)
        told = None
    else:
        description, milliseconds, told = _ask_family(family, wanted, budgets, best_of, out_file, int8, data)
    if as_json:
        beside = {} if told is None else {"int8": beside_as_json(*told)}
        file = None if out_file is None else str(out_file)
        emit({**description, **beside, "file": file, "ms": round(milliseconds, 3)})
        return
    show(description)
    if out_file is None:
        say(f"specialised in {milliseconds:.0f} ms; --out net.onnx writes the network")
    else:
        checked = "; it was run, and agrees with torch" if out_file.suffix == ".onnx" and not int8 else ""
        say(f"wrote {out_file} in {milliseconds:.0f} ms{checked}")
    if told is not None:
        show_beside(*told)


def _ask_family(
    family: str,
    group: str | list[str],
    budgets: dict[str, Any],
    best_of: int,
    out_file: Path | None,
    int8: bool,
    data: list[str] | None,
) -> tuple[dict[str, Any], float, tuple[Any, str] | None]:
    """A network's description, the milliseconds that it took to get it and to write it, and an int8 file beside the float one."""
    loaded = load_family(family)
    images = images_to_judge_on(loaded, data) if int8 else None
    started = time.perf_counter()
    network = loaded.best((group, budgets), best_of)
    if out_file is not None:
        precision = "int8" if int8 else "float32"
        network.export(out_file, precision=precision)
        say_precisions(network, loaded, precision)
    milliseconds = 1e3 * (time.perf_counter() - started)
    told = None if images is None or out_file is None else (compare(network, out_file, images[0]), images[1])
    return describe(network), milliseconds, told


def _ask_service(
    address: str, group: str | list[str], budgets: dict[str, Any], best_of: int, out_file: Path | None
) -> tuple[dict[str, Any], float]:
    """The same, of a service."""
    from snugnet.client import Client

    url, _, family = address.rstrip("/").rpartition("/")
    service = Client(url)
    started = time.perf_counter()
    network = service.specialize(family, group, best_of=best_of, **budgets)
    if out_file is not None:
        service.save(network, out_file)
    return network, 1e3 * (time.perf_counter() - started)


def describe(network: Classifier) -> dict[str, Any]:
    """A network as plain JSON."""
    return {
        "family": network.family.name,
        "group": network.group,
        "classes": list(network.classes),
        "budgets": network.budgets,
        "costs": network.costs,
        "architecture": network.arch,
    }


def show(network: dict[str, Any]) -> None:
    """A network's description as tables: costs beside budgets, and the architecture."""
    from rich.table import Table

    console = out()
    costs = Table(
        "cost", title=f"{network['family']}: {network['group']}", caption=f"classes: {listed(network['classes'], 50)}"
    )
    for header in ("of the network", "budget"):
        costs.add_column(header, justify="right")
    for name, value in network["costs"].items():
        costs.add_row(name, f"{value:,}", f"{network['budgets'][name]:,.12g}" if name in network["budgets"] else "")
    console.print(costs)
    arch = Table("architecture", "")
    for key, value in network["architecture"].items():
        arch.add_row(key, str(value))
    console.print(arch)

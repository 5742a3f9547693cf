"""``snugnet search``: the architectures of a family that do best on its validation images, by any method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snugnet.cli.common import (
    STOPPED,
    BudgetOption,
    ClusterOption,
    DeviceBudget,
    Json,
    ShortBudget,
    check_file,
    check_folder,
    emit,
    joined,
    known,
    load_family,
    out,
    read_assignments,
    read_budgets,
    read_names,
    say,
    say_stopped,
)
from snugnet.cli.int8 import check_int8, say_precisions
from snugnet.cli.specialize import FamilyArgument
from snugnet.errors import ConfigError

if TYPE_CHECKING:
    from snugnet.family.search import FamilySearch
    from snugnet.search.method import Method

SHOWN = 20  # points of a front
SHORT = ("evaluations", "population", "rounds", "predictor")
"""Settings with an option of their own."""


def show_methods(shown: bool) -> None:
    """The methods, each with its settings and what they are where they are not given."""
    if not shown:
        return
    from rich.table import Table

    from snugnet.search.method import METHODS
    from snugnet.search.settings import describe_settings, setting_types

    table = Table("method", "what it does", "settings (--set)", "short forms")
    for name, text, kind in known(METHODS):
        settings, short = "", ""
        if kind is not None:
            settings = describe_settings(kind)
            presets = [f"--preset {'|'.join(kind.presets())}"] if kind.presets() else []
            own = [key for key in SHORT if key in (*kind.sizes, *setting_types(kind))]
            short = " ".join([*(f"--{key}" for key in own), *presets])
        table.add_row(name, text, settings, short)
    out().print(table)
    raise typer.Exit


def read_method(name: str, texts: list[str] | None, short: dict[str, Any]) -> Method:
    """The method that the options ask for.

    Raises:
        ConfigError: a setting is given twice, or is not of its type.
        SearchError: there is no such method, or a setting is not one of its own.
    """
    from snugnet.search.method import make_method

    settings = read_assignments(texts, "--set")
    twice = sorted(settings.keys() & short.keys())
    if twice:
        raise ConfigError(f"{twice[0]} is given by --set and by --{twice[0]}; leave one out")
    return make_method(name, {**settings, **short})


def search(
    family: FamilyArgument,
    method: Annotated[
        str, typer.Option(help="Name of a method; 'snugnet search --methods' shows them and their settings.")
    ] = "evolution",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Setting of the method, as YAML; may be given several times."),
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Superclass of the family; without it one search for all superclasses.")
    ] = None,
    classes: Annotated[str | None, typer.Option(metavar="A,B,...", help="Any classes of the family.")] = None,
    budget: BudgetOption = None,
    madds: ShortBudget = None,
    params: ShortBudget = None,
    latency_ms: DeviceBudget = None,
    energy_mj: DeviceBudget = None,
    peak_memory: ShortBudget = None,
    weight_memory: ShortBudget = None,
    limits: Annotated[
        str | None,
        typer.Option(
            "--budgets", metavar="NAME=N,N,...", help="A search under each of these, sharing all that is evaluated."
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Architectures that the first round evaluates as well: JSON or YAML, in any form that 'snugnet cost' reads.",
        ),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Settings of the method that have a name, such as spos.")] = None,
    predictor: Annotated[
        str | None,
        typer.Option(help="Kind of predictor, of a method that has one; 'snugnet predictor list' shows them."),
    ] = None,
    judge: Annotated[
        str,
        typer.Option(
            metavar="float|int8",
            help="What candidates' accuracies are of: the network, or its int8 file (--onnx writes it then).",
        ),
    ] = "float",
    evaluations: Annotated[int | None, typer.Option(min=1, help="Architectures to evaluate.")] = None,
    population: Annotated[int | None, typer.Option(min=1, help="Architectures of a round.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds, the first included.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of every draw.")] = 0,
    out_folder: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="For search.json, evaluated.csv and the checkpoint; the same goes on."
        ),
    ] = None,
    cluster: ClusterOption = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew, whatever --out holds.")] = False,
    onnx: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the winner with the head of --group or --classes: .onnx.")
    ] = None,
    methods: Annotated[
        bool, typer.Option("--methods", is_eager=True, callback=show_methods, help="Show the methods and exit.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Search a family under any number of budgets, judging architectures on its validation images.

    Run the same command again with the same --out to go on with a search that was stopped.
    """
    budgets = read_budgets(
        budget, madds=madds, params=params, latency_ms=latency_ms, energy_mj=energy_mj, peak_memory=peak_memory,
        weight_memory=weight_memory,
    )  # fmt: skip
    several = None if limits is None else read_several(limits)
    short = {
        "preset": preset, "evaluations": evaluations, "population": population, "rounds": rounds, "predictor": predictor,
    }  # fmt: skip
    chosen = read_method(method, setting, {key: value for key, value in short.items() if value is not None})
    if group is not None and classes is not None:
        raise ConfigError("the classes are given by --group or by --classes, not by both")
    wanted = group if classes is None else read_names(classes)
    if onnx is not None:
        if wanted is None or chosen.gives_front or several is not None:
            raise ConfigError(
                f"--onnx writes one network: give --group or --classes, no --budgets, and a method that gives no front, got {method}"
            )
        check_file(onnx)
    if judge == "int8" and onnx is not None:
        check_int8(onnx, "--onnx")
    if out_folder is not None:
        check_folder(out_folder)
    from snugnet.spaces import read_architectures

    first = None if start is None else read_architectures(start)
    loaded = load_family(family)

    import torch

    from snugnet.family.limits import LimitsSearch
    from snugnet.family.search import FamilySearch, Searched

    loaded.to("cuda" if torch.cuda.is_available() else "cpu")
    prepared: FamilySearch | LimitsSearch
    if several is None:
        prepared = shown = FamilySearch.make(loaded, wanted, judge, **budgets)
    else:
        prepared = LimitsSearch.make(loaded, wanted, *several, judge, **budgets)
        shown = prepared.searches[0]
    if first is not None:
        prepared = prepared.starting_from(first)
    try:
        with joined(cluster) as machines:
            prepared = prepared if machines is None else prepared.on(machines)
            searched = prepared.run(
                chosen, seed=seed, folder=out_folder, fresh=fresh, on_start=lambda: say(describe(shown))
            )
    except KeyboardInterrupt:
        if out_folder is None:
            say("stopped")
        else:
            say_stopped(fresh)
        raise typer.Exit(STOPPED) from None
    names = ["search.json", *([] if several is None else ["limits.csv"]), "evaluated.csv"]
    files = [] if out_folder is None else [out_folder / name for name in names]
    if onnx is not None and isinstance(searched, Searched):
        precision = "int8" if judge == "int8" else "float32"
        files.append(searched.network().export(onnx, precision=precision))
        say_precisions(searched.network(), loaded, precision)
    if as_json:
        emit({**searched.to_json(), "files": [str(path) for path in files]})
        return
    show(searched.to_json())
    for path in files:
        say(f"wrote {path}")


def read_several(text: str) -> tuple[str, tuple[str, ...]]:
    """The cost and the limits of ``--budgets``.

    Raises:
        ConfigError: it is something else.
    """
    from snugnet.costs import read_limits
    from snugnet.errors import BudgetError

    try:
        return read_limits(text)
    except BudgetError as error:
        raise ConfigError(f"--budgets: {error}") from error


def describe(search: FamilySearch) -> str:
    """Costs of the smallest, the centroid and the largest network, and the budgets: what to look at before a search."""
    from snugnet.costs import format_amount

    problem, lines = search.problem, []
    for name, table in problem.tables.items():
        sizes = [f"{kind} {format_amount(float(table(row)[0]))}" for kind, row in problem.space.extremes().items()]
        budget = f"; budget {format_amount(problem.limits[name])}" if name in problem.limits else ""
        lines.append(f"{name}: {', '.join(sizes)} {table.unit}{budget}")
    return "\n".join(lines)


def show(document: dict[str, Any]) -> None:
    """The winners as tables, from the JSON of a search, or of searches under several limits."""
    import json

    from rich.table import Table

    several = "limits" in document
    winners = document["limits"] if several else document["winners"]
    title = f"{document['family']}: {document['group'] or 'all superclasses'}, {document['settings']['method']}"
    caption = f"{document['evaluated']} architectures evaluated in {document['seconds']:.1f} s"
    table = Table(title=title, caption=caption)
    for name in [*([f"{document['cost']} limit"] if several else []), "validation accuracy", *winners[0]["costs"]]:
        table.add_column(name, justify="right")
    table.add_column("architecture", overflow="fold")
    for winner in winners[:: 1 if several else -(-len(winners) // SHOWN)]:
        limit = [f"{winner['limit']:,}"] if several else []
        costs = [f"{value:,}" for value in winner["costs"].values()]
        arch = json.dumps(winner["architecture"], separators=(",", ":"))
        table.add_row(*limit, f"{winner['accuracy']:.2%}", *costs, arch)
    out().print(table)
    if len(winners) == 1 and len(winners[0]["groups"]) > 1:
        groups = Table("superclass", "validation accuracy")
        for name, accuracy in winners[0]["groups"].items():
            groups.add_row(name, f"{accuracy:.2%}")
        out().print(groups)
    if document.get("shortfall"):
        say(document["shortfall"])

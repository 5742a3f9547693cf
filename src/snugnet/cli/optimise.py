"""``snugnet optimise``: the architecture that a predictor holds best under budgets."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snugnet.cli.common import (
    BudgetOption,
    Json,
    by_cost,
    check_folder,
    emit,
    known,
    out,
    read_assignments,
    read_budgets,
    say,
)
from snugnet.errors import ConfigError
from snugnet.files import json_text, plain_number, write_atomically

if TYPE_CHECKING:
    from snugnet.costs import CostTable, MaximumTable
    from snugnet.spaces import SearchSpace


def show_optimisers(shown: bool) -> None:
    """The optimisers, each with its settings and what they are where they are not given."""
    if not shown:
        return
    from rich.table import Table

    from snugnet.search.optimisers.optimiser import OPTIMISERS
    from snugnet.search.settings import describe_settings

    table = Table("optimiser", "what it does", "settings (--set)")
    for name, text, kind in known(OPTIMISERS):
        table.add_row(name, text, "" if kind is None else describe_settings(kind))
    out().print(table)
    raise typer.Exit


def optimise(
    predictor: Annotated[
        Path, typer.Argument(metavar="PREDICTOR", help="Folder of a predictor, made by 'snugnet predictor fit'.")
    ],
    budget: BudgetOption = None,
    table: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Table of a cost: .npz, or once-for-all's latencies (CSV, YAML, JSON, or a folder of them).",
        ),
    ] = None,
    target: Annotated[str | None, typer.Option(help="What is wanted, of a predictor of several targets.")] = None,
    optimiser: Annotated[
        str | None,
        typer.Option(
            help="Name of an optimiser; --optimisers shows them. Without it ascent where the predictor has gradients, else climb."
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Setting of the optimiser, as YAML; may be given several times."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of every draw.")] = 0,
    out_file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the result here as JSON.")
    ] = None,
    optimisers: Annotated[
        bool, typer.Option("--optimisers", is_eager=True, callback=show_optimisers, help="Show them and exit.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Find the architecture that a predictor holds best within every budget given."""
    budgets, settings = read_budgets(budget), read_assignments(setting, "--set")
    if out_file is not None:
        check_folder(out_file.parent)
        if out_file.is_dir():
            raise ConfigError(f"--out {out_file} is a folder; give a file")
    from snugnet.predictors import load_predictor
    from snugnet.search.optimisers.optimiser import make_optimiser, predictor_problem

    loaded = load_predictor(predictor)
    name = optimiser or ("ascent" if loaded.differentiable else "climb")
    chosen = make_optimiser(name, settings)
    problem = predictor_problem(loaded, cost_tables(loaded.space, table or ()), budgets, target)
    started = time.perf_counter()
    found = chosen.maximise(problem, seed=seed)
    best = found.rows[:1]
    document: dict[str, Any] = {
        "predictor": str(predictor),
        "space": loaded.space.to_json(),
        "target": target or loaded.targets[0],
        "settings": chosen.settings(),
        "seed": seed,
        "budgets": {key: plain_number(value) for key, value in problem.limits.items()},
        "predicted": float(found.scores[0]),
        "costs": {key: plain_number(values[0]) for key, values in problem.costs(best).items()},
        "architecture": loaded.space.to_dict(best),
        "seconds": round(time.perf_counter() - started, 3),
    }
    if out_file is not None:
        write_atomically(out_file, json_text(document).encode())
    if as_json:
        emit(document)
        return
    show(document, name)
    if out_file is not None:
        say(f"wrote {out_file}")


def cost_tables(space: SearchSpace, files: list[Path] | tuple[Path, ...]) -> dict[str, CostTable | MaximumTable]:
    """Every cost that is known, and those of tables in files.

    Raises:
        DataError: a table cannot be read.
        SpaceError: a table is of another space.
        ConfigError: two tables are of one cost.
    """
    from snugnet.costs import load_cost_table

    tables: dict[str, CostTable | MaximumTable] = by_cost(lambda cost: cost.table(space), lambda table: table.range[1])
    for path in files:
        table = load_cost_table(path, space)
        if table.name in tables:
            raise ConfigError(f"--table {path}: there is a table of {table.name} already; leave one out")
        tables[table.name] = table
    return tables


def show(document: dict[str, Any], name: str) -> None:
    """The best architecture as tables."""
    from rich.table import Table

    title = f"{document['predictor']}: {document['target']} {document['predicted']:.6g}, by {name}"
    costs = Table("cost", title=title, caption=f"{document['seconds']:.1f} s")
    for header in ("of the network", "budget"):
        costs.add_column(header, justify="right")
    for key, value in document["costs"].items():
        costs.add_row(key, f"{value:,}", f"{document['budgets'][key]:,}" if key in document["budgets"] else "")
    architecture = Table("architecture", "")
    for key, value in document["architecture"].items():
        architecture.add_row(key, str(value))
    out().print(costs)
    out().print(architecture)

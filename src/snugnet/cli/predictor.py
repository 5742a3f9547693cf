"""``snugnet predictor``: fit an accuracy predictor to a table of measured architectures, and judge one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from snugnet.cli.common import (
    Json,
    SpaceOption,
    check_folder,
    emit,
    known_as_json,
    known_as_table,
    out,
    read_assignments,
)
from snugnet.errors import ConfigError

app = typer.Typer(help="Fit and judge accuracy predictors.", no_args_is_help=True)

Table = Annotated[
    Path,
    typer.Argument(
        help="CSV (.csv, .csv.gz): architectures in columns depth_0, kernel_0, expand_0, ... or in one column arch "
        "(JSON), and what was measured.",
        metavar="TABLE",
    ),
]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the kinds of predictors."""
    from snugnet.predictors import PREDICTORS

    if as_json:
        emit(known_as_json(PREDICTORS))
    else:
        out().print(known_as_table(PREDICTORS))


@app.command()
def fit(
    space: Annotated[str, typer.Argument(help="Name of a space; 'snugnet space list' shows them.")],
    table: Table,
    target: Annotated[list[str], typer.Option(help="Column to predict; several make one predictor of several.")],
    out_folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write the predictor into.")],
    kind: Annotated[
        str, typer.Option(help="Kind of predictor; 'snugnet predictor list' shows them, best is the most exact.")
    ] = "best",
    option: SpaceOption = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of all randomness.")] = 0,
    as_json: Json = False,
) -> None:
    """Fit a predictor to all rows of a table. Judge it on rows that it has not seen: 'snugnet predictor score'."""
    from snugnet.spaces import get_space

    made = get_space(space, **read_assignments(option, "-o"))
    if len(set(target)) != len(target):
        raise ConfigError(f"--target names a column twice: {', '.join(target)}")
    check_folder(out_folder)
    from snugnet.predictors import fit_predictor, read_table

    measured = read_table(table, made)
    values = measured.values(target)
    begin = time.perf_counter()
    predictor = fit_predictor(kind, made, measured.rows, values, targets=target, seed=seed, progress=not as_json)
    seconds = time.perf_counter() - begin
    predictor.provenance |= {"table": table.name}
    predictor.save(out_folder)
    if as_json:
        emit(
            {
                "predictor": str(out_folder),
                "kind": predictor.kind,
                "space": made.to_json(),
                "targets": target,
                "n": len(values),
                "seed": seed,
                "seconds": seconds,
            }
        )
        return
    out().print(
        f"{predictor.kind} predictor of {', '.join(target)} from {len(values):,} architectures of {space} in "
        f"{seconds:.1f} s: {out_folder}",
        soft_wrap=True,
    )


@app.command()
def score(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A predictor, made by 'snugnet predictor fit'.")],
    table: Table,
    target: Annotated[
        str | None, typer.Option(help="Column with the measured values, if it is not named as the predictor's target.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare predictions with measured values: Kendall tau, Spearman, and the mean absolute error in the column's unit."""
    from snugnet.predictors import load_predictor, read_table
    from snugnet.predictors import score as score_predictor

    predictor = load_predictor(folder)
    targets = list(predictor.targets)
    if target is not None:
        if len(targets) > 1:
            raise ConfigError(f"{folder} predicts {', '.join(targets)}; leave out --target, and all are judged")
        targets = [target]
    measured = read_table(table, predictor.space)
    values = measured.values(targets)
    scores = score_predictor(predictor, measured.rows, values)
    if len(targets) == 1:
        scores = {targets[0]: scores}
    if as_json:
        about: dict[str, Any] = {"predictor": str(folder), "kind": predictor.kind, "n": len(values)}
        emit(
            {**about, "target": targets[0], **scores[targets[0]]} if len(targets) == 1 else {**about, "targets": scores}
        )
        return
    from rich.table import Table as RichTable

    shown = RichTable("target", title=f"{predictor.kind} predictor on {len(values):,} architectures of {table.name}")
    for header in ("Kendall tau", "Spearman", "MAE"):
        shown.add_column(header, justify="right")
    for name, each in zip(targets, scores.values(), strict=True):
        shown.add_row(name, *(f"{each[key]:.4f}" for key in ("kendall_tau", "spearman", "mae")))
    out().print(shown)

"""``snugnet train``: from a recipe to a family, and how good it is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snugnet.bundles import FAMILY
from snugnet.cli.common import STOPPED, Json, check_folder, emit, out, say, say_stopped
from snugnet.files import locked
from snugnet.texts import slug

if TYPE_CHECKING:
    from snugnet.data import GroupedImages
    from snugnet.family import Family
    from snugnet.family.report import Report
    from snugnet.recipe import Recipe

Fresh = Annotated[
    bool, typer.Option("--fresh", help="Throw away an earlier run in the output folder instead of going on with it.")
]


def train(
    recipe: Annotated[Path, typer.Argument(help="YAML file; see the folder recipes.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Change the recipe: training.batch_size=64 output=runs/mine."),
    ] = None,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Train a family as a recipe says, and evaluate it; a run that was stopped goes on where it was."""
    from snugnet.cli.ranks import train_with_others
    from snugnet.recipe import load_recipe

    read = load_recipe(recipe, overrides or ())
    arguments = ["train", str(recipe), *(overrides or ()), *["--fresh"] * fresh, *["--json"] * as_json]
    if not train_with_others(read, arguments, fresh=fresh):
        run(read, fresh=fresh, as_json=as_json)


def run(recipe: Recipe, *, fresh: bool, as_json: bool) -> Report:
    """Train, evaluate on the test images, write the report (and ONNX files), and print the table; returns the report."""
    folder = check_folder(recipe.output)
    try:
        started = time.monotonic()
        data = _load_checked(recipe)
        with locked(folder):
            family, report = _train_and_evaluate(recipe, data, folder, fresh)
            files = {path.suffix[1:]: str(path) for path in report.save(folder)}
            export = recipe.evaluation.export
            exported = export_middle(family, report, folder, recipe.evaluation.best_of) if export else {}
    except KeyboardInterrupt:
        say_stopped(fresh)
        raise typer.Exit(STOPPED) from None
    networks = {group: str(path) for group, path in exported.items()}
    if as_json:
        emit({"folder": str(folder), "files": files, "networks": networks, **report.to_json()})
        return report
    out().print(report.table())
    say(
        f"{len(report.rows)} networks in {report.specialize_ms:.1f} ms; all of this in {time.monotonic() - started:.0f} s"
    )
    say(f"family: {folder}\nresults: {', '.join(files.values())}")
    if networks:
        worst = max(row.onnx_difference for row in report.rows)
        say(f"ONNX files, run by ONNX Runtime, within {worst:.0e} of torch: {', '.join(networks.values())}")
    return report


def _load_checked(recipe: Recipe) -> GroupedImages:
    """The images, once it is sure that the recipe can be run here."""
    from snugnet.data import load_data
    from snugnet.training.joining import join_ranks

    join_ranks(recipe)
    data = load_data(recipe.data)
    check_scenarios(recipe, data)
    return data


def _train_and_evaluate(recipe: Recipe, data: GroupedImages, folder: Path, fresh: bool) -> tuple[Family, Report]:
    from snugnet import pipeline
    from snugnet.family import evaluate
    from snugnet.training.device import make_fabric

    if not fresh and (folder / FAMILY.checkpoint).exists():
        say(f"going on with the run in {folder} (--fresh starts anew)")
    family = pipeline.train(recipe, fresh=fresh, data=data).to(make_fabric(recipe).device)
    config = recipe.evaluation
    report = evaluate(family, data.test, config.budgets, best_of=config.best_of)
    report.context = {**family.provenance, "evaluated": {"best_of": config.best_of, "on": pipeline.machine()}}
    return family, report


def check_scenarios(recipe: Recipe, data: GroupedImages) -> None:
    """Show the space, and refuse what would only fail after the training.

    Raises:
        SnugnetError: a kind of choice, a cost, or a budget that the space does not have; no group to specialise to.
    """
    from snugnet import pipeline

    space = pipeline.make_space(recipe, data)
    pipeline.check_recipe(recipe, space, data)
    rows = data.report["rows"]
    say(f"images: {', '.join(f'{count} {name}' for name, count in rows.items())}; {len(data.classes)} classes")
    for note in data.report["notes"]:
        say(f"note: {note}")
    networks = " / ".join(f"{space.blueprint(row).madds:,}" for row in space.extremes().values())
    say(f"{space.name}: {space.size:.3e} architectures; MAdds min / centroid / max {networks}")


def middle_budget(report: Report) -> float:
    """The budget in the middle of those reported on; the lower one of two."""
    limits = sorted({row.budget for row in report.rows})
    return limits[(len(limits) - 1) // 2]


def export_middle(family: Family, report: Report, folder: Path, best_of: int) -> dict[str, Path]:
    """The network of every group at the middle budget, as ONNX that ONNX Runtime has run and that agrees with torch."""
    middle: dict[str, Any] = {report.budget: middle_budget(report)}
    paths: dict[str, Path] = {}
    for group in dict.fromkeys(row.group for row in report.rows):
        path = folder / "onnx" / f"{slug(group)}.onnx"
        if path in paths.values():
            path = path.with_stem(f"{path.stem}-{len(paths)}")
        paths[group] = family.specialize(group, best_of=best_of, **middle).export(path)
    return paths

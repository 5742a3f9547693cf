"""``snugnet plot``: pictures of a family, or of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from snugnet.cli.common import Json, check_folder, emit, is_on_hub, load_family, say
from snugnet.cli.evaluate import read_budget_list
from snugnet.errors import ConfigError


def plot(
    source: Annotated[str, typer.Argument(metavar="FAMILY|STUDY", help="Folder of a family or of a study.")],
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for the PNG files; FAMILY/plots or STUDY/plots without it; needed for a name on the hub.",
        ),
    ] = None,
    budgets: Annotated[
        str | None,
        typer.Option(
            "--budgets", help="Of a family: how many budgets (4 without it), or a list such as 10M,20M or 20%,80%."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Architectures as block diagrams, their similarity across superclasses; for a study also fronts and predictors."""
    from snugnet.files import write_atomically

    if folder is None and is_on_hub(source):
        raise ConfigError(
            f"{source} is no folder here, but may be a name on the hub; give a folder for the files with --out"
        )
    target = check_folder(folder if folder is not None else Path(source) / "plots")
    if (Path(source) / "study.json").exists():
        if budgets is not None:
            raise ConfigError("--budgets is for a family; a study has its own")
        from snugnet.study import Results

        figures = Results.read(Path(source) / "study.json").figures()
    else:
        from snugnet.family.report import family_figures

        limits = read_budget_list("4" if budgets is None else budgets)
        figures = family_figures(load_family(source), limits)
    paths = [target / f"{name}.png" for name in figures]
    for path, content in zip(paths, figures.values(), strict=True):
        write_atomically(path, content)
    if as_json:
        emit({"files": [str(path) for path in paths]})
    else:
        say("\n".join(map(str, paths)))

"""``snugnet study``: methods side by side, over seeds, with error bars."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snugnet.cli.common import STOPPED, ClusterOption, Json, check_folder, emit, joined, out, say, say_stopped
from snugnet.cli.train import Fresh
from snugnet.errors import ConfigError

if TYPE_CHECKING:
    from snugnet.study import StudyConfig


def study(
    recipe: Annotated[Path, typer.Argument(help="YAML file; see recipes/study-*.yaml.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Change the study: seeds=[0] report=validation output=runs/mine."
        ),
    ] = None,
    cluster: ClusterOption = None,
    fresh: Fresh = False,
    family: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD", help="Only write the family of this line, whose networks a generator hands out, to --out."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of --family; by default the study's first.")] = None,
    destination: Annotated[Path | None, typer.Option("--out", help="Folder for --family.")] = None,
    as_json: Json = False,
) -> None:
    """Train every supernet of a study under every seed, search them, print and plot the tables; goes on where it stopped."""
    from snugnet.study import load_study, run_study

    config = load_study(recipe, overrides or ())
    folder = check_folder(config.output)
    if family is not None or destination is not None or seed is not None:
        _hand_out(config, family, seed, destination, fresh=fresh, elsewhere=cluster is not None, as_json=as_json)
        return
    started = time.monotonic()
    try:
        with joined(cluster) as machines:
            results = run_study(config, fresh=fresh, cluster=machines)
    except KeyboardInterrupt:
        say_stopped(fresh)
        raise typer.Exit(STOPPED) from None
    paths = results.save(folder)
    if as_json:
        emit({"folder": str(folder), "files": [str(path) for path in paths], **results.to_json()})
        return
    for table in results.rich_tables():
        out().print(table)
    say(f"{', '.join(map(str, paths))} ({time.monotonic() - started:.0f} s)")


def _hand_out(
    config: StudyConfig,
    method: str | None,
    seed: int | None,
    destination: Path | None,
    *,
    fresh: bool,
    elsewhere: bool,
    as_json: bool,
) -> None:
    """Write a line's family."""
    from snugnet.study import family_of

    if method is None or destination is None:
        raise ConfigError("a family of a study needs both --family METHOD and --out FOLDER")
    if fresh or elsewhere:
        raise ConfigError(
            f"--family reads what the study has trained; it does not go with {'--fresh' if fresh else '--cluster'}"
        )
    written = check_folder(destination)
    try:
        family_of(config, method, seed).save(written)
    except KeyboardInterrupt:
        say_stopped(fresh)
        raise typer.Exit(STOPPED) from None
    if as_json:
        emit({"folder": str(written), "method": method, "seed": config.seeds[0] if seed is None else seed})
    else:
        say(f"{written}: snugnet specialize {written} --help")

"""``snugnet study``: methods side by side, over seeds, with error bars."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from snugnet.cli.common import STOPPED, ClusterOption, Json, check_folder, emit, joined, out, say, say_stopped
from snugnet.cli.train import Fresh


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
    as_json: Json = False,
) -> None:
    """Train every supernet of a study under every seed, search them, print and plot the tables; goes on where it stopped."""
    from snugnet.study import load_study, run_study

    config = load_study(recipe, overrides or ())
    folder = check_folder(config.output)
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

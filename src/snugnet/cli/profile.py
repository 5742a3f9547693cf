"""``snugnet profile``: what a family's networks take on a device, as a budget like any other."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from snugnet.cli.common import STOPPED, Json, check_folder, emit, load_family, out, say, say_stopped

if TYPE_CHECKING:
    from snugnet.costs import CostTable, Profile
    from snugnet.family import Family

HERE = "here"
WORK = "profile"
"""Folder below a family's where its bundle and readings lie while it is measured."""


class _Group(TyperGroup):
    """``snugnet profile FAMILY`` is ``snugnet profile here FAMILY``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command that is meant in front, where none is named."""
        if args and args[0] not in (*self.commands, "--help", "-h"):
            args = [HERE, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Group,
    help="Measure a family's networks on a device: 'snugnet profile FAMILY' on this machine, 'bundle' and 'import' for others.",
    no_args_is_help=True,
)


class Unit(StrEnum):
    """What a column of measurements is in."""

    ms = "ms"
    mJ = "mJ"


class Meter(StrEnum):
    """What counts energy."""

    none = "none"
    rapl = "rapl"
    nvml = "nvml"


FamilyFolder = Annotated[Path, typer.Argument(metavar="FAMILY", help="Folder of a trained family.")]
Batch = Annotated[int, typer.Option(min=1, max=4096, help="Images at once.")]
Networks = Annotated[
    int, typer.Option(min=0, max=1000, help="Whole networks beside the blocks; they correct the sum of parts.")
]


Int8 = Annotated[
    bool, typer.Option("--int8", help="Measure int8 files: budgets for networks that are handed out with --int8.")
]
PRECISIONS = {False: "float32", True: "int8"}


@app.command(HERE)
def here(
    family: FamilyFolder,
    name: Annotated[
        str | None,
        typer.Option(
            help="Of this machine, in budgets: --latency-ms NAME=8; 'here' without it, 'here-int8' with --int8."
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=1024)] = 1,
    batch: Batch = 1,
    networks: Networks = 50,
    int8: Int8 = False,
    rounds: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many visits of each file.")] = 60,
    seconds: Annotated[float, typer.Option(min=0.0001, max=60, help="Of repeats in one visit of a block.")] = 0.02,
    provider: Annotated[str, typer.Option(help="ONNX Runtime's execution provider.")] = "CPUExecutionProvider",
    meter: Annotated[
        Meter, typer.Option(help="Measure energy too: a CPU's by RAPL, an NVIDIA GPU's by NVML.")
    ] = Meter.none,
    pin: Annotated[bool, typer.Option(help="Keep each visit on some cores.")] = True,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw away the readings of an earlier run.")] = False,
    as_json: Json = False,
) -> None:
    """Measure this machine: every distinct block of the family's space, and some whole networks, with ONNX Runtime.

    What was measured stands in the family from then on, as the cost latency_ms@NAME. A run that was stopped goes on.
    """
    loaded = load_family(str(family))
    from snugnet.profiling import measuring
    from snugnet.profiling.runner import Settings

    name = name or (f"{HERE}-int8" if int8 else HERE)
    work = family / WORK / measuring.check_device(name)
    try:
        profiles, noise = measuring.measure_here(
            loaded.space, measuring.needed_widths(loaded.groups, len(loaded.classes)), work, name,
            Settings(threads, rounds, seconds, provider, meter.value, pin),
            batch=batch, networks=networks, precision=PRECISIONS[int8], about={"family": loaded.name}, fresh=fresh, progress=not as_json,
        )  # fmt: skip
    except KeyboardInterrupt:
        say_stopped(fresh)
        raise typer.Exit(STOPPED) from None
    if noise:
        say(noise)
    _keep(family, profiles, as_json)
    _clear(work)


@app.command()
def bundle(
    family: FamilyFolder,
    out_folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write.")],
    batch: Batch = 1,
    networks: Networks = 50,
    int8: Int8 = False,
    as_json: Json = False,
) -> None:
    """Write what measures another device: ONNX files, runner.py, a manifest with checksums.

    On the device, with Python, numpy and onnxruntime: python runner.py. With another runtime: time every .onnx file, and write a CSV with the
    columns file and ms (or mJ). Then: snugnet profile import.
    """
    check_folder(out_folder)
    loaded = load_family(str(family))
    from snugnet.profiling import measuring
    from snugnet.profiling.writing import write_bundle

    widths = measuring.needed_widths(loaded.groups, len(loaded.classes))
    write_bundle(
        loaded.space, widths, out_folder, batch=batch, networks=networks, precision=PRECISIONS[int8], about={"family": loaded.name}, progress=not as_json
    )  # fmt: skip
    files = list(out_folder.glob("*.onnx"))
    size = sum(path.stat().st_size for path in files)
    if as_json:
        emit({"bundle": str(out_folder), "files": len(files), "bytes": size})
    else:
        say(
            f"wrote {len(files)} files ({size / 1e6:.0f} MB) into {out_folder}; there: python runner.py, and bring measured.csv back"
        )


@app.command("import")
def import_(
    family: FamilyFolder,
    measured: Annotated[
        Path,
        typer.Argument(
            metavar="CSV", help="measured.csv of a bundle's runner, or a CSV with columns file and ms or mJ."
        ),
    ],
    name: Annotated[str, typer.Option(help="Of the device, in budgets: --latency-ms NAME=8.")],
    unit: Annotated[Unit, typer.Option(help="The column to read: milliseconds, or millijoules, of one run.")] = Unit.ms,
    batch: Batch = 1,
    int8: Int8 = False,
    fill: Annotated[
        bool,
        typer.Option(
            "--fill", help="Give a block that is missing the value of the least one that is larger in every size."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Take what was measured on another device into the family, checked against what its bundle has.

    Once-for-all's tables of layers are read too, for families of that space.
    """
    loaded = load_family(str(family))
    from snugnet.profiling import measuring

    widths = measuring.needed_widths(loaded.groups, len(loaded.classes))
    made = measuring.import_measured(
        loaded.space, widths, measured, name, unit.value, batch=batch, precision=PRECISIONS[int8], fill=fill
    )
    _keep(family, [made], as_json)


def _keep(folder: Path, made: list[Profile] | list[CostTable] | list[Profile | CostTable], as_json: bool) -> None:
    """Save the costs in the family as it is now, and say what they are."""
    from snugnet.costs import Profile
    from snugnet.files import locked

    with locked(folder):  # others may have added theirs meanwhile
        family = load_family(str(folder))
        for each in made:
            family.add_measured(each)
        family.save(folder)
    if as_json:
        emit([_described(family, each) for each in made])
        return
    from rich.table import Table

    table = Table("cost", title=f"{family.name}: measured")
    for header in ("range", "whole networks", "mean error", "Kendall tau", "sum of parts / whole"):
        table.add_column(header, justify="right")
    for each in made:
        accuracy = each.accuracy if isinstance(each, Profile) else None
        told = ["0", "", "", ""]
        if accuracy:
            told = [
                f"{accuracy.networks}",
                f"{accuracy.mape:.1%}",
                f"{accuracy.kendall_tau:.3f}",
                f"{accuracy.parts:.2f}",
            ]
        table.add_row(each.name, family.tables[each.name].describe_range(), *told)
        if isinstance(each, Profile) and each.filled:
            say(f"{each.name}: {len(each.filled)} blocks were not measured; each has the value of a larger one")
        if isinstance(each, Profile) and accuracy is None:
            say(
                f"{each.name}: too few whole networks were measured; the sum of parts stands as it is, and its error is not known"
            )
    table.caption = "errors are on networks that were left out of the fit"
    out().print(table)


def _described(family: Family, made: Profile | CostTable) -> dict[str, Any]:
    from dataclasses import asdict

    from snugnet.costs import Profile

    low, high = family.tables[made.name].range
    said: dict[str, Any] = {"cost": made.name, "unit": made.unit, "lowest": low, "highest": high}
    if isinstance(made, Profile):
        accuracy = None if made.accuracy is None else asdict(made.accuracy)
        said |= {
            "blocks": len(made.values), "filled": list(made.filled), "widths": list(made.widths), "factors": dict(made.factors),
            "accuracy": accuracy, "about": dict(made.about), "precision": made.precision,
        }  # fmt: skip
    return said


def _clear(work: Path) -> None:
    """Throw the bundle away once what it measured is in the family."""
    import shutil

    shutil.rmtree(work, ignore_errors=True)
    if work.parent.is_dir() and not any(work.parent.iterdir()):
        work.parent.rmdir()

"""Profiling a family: here, or from what was measured elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from snugnet.costs import CostTable, Profile, load_ofa_latency
from snugnet.costs.layer_tables import COLUMNS
from snugnet.errors import ConfigError, DataError
from snugnet.files import locked, read_text
from snugnet.profiling import runner
from snugnet.profiling.fitting import make_profile
from snugnet.profiling.readings import read_measured
from snugnet.profiling.writing import NETWORKS, write_bundle
from snugnet.progress import progress_bar
from snugnet.spaces import SearchSpace

_STEP = 16
"""Channels from one step of a runtime's staircase to the next."""


def needed_widths(groups: Mapping[str, Iterable[str]], classes: int) -> tuple[int, ...]:
    """Widths of the classifier that are measured beside that of all classes: of every group, and 16, 32, 64, ... for lists of classes."""
    steps = [_STEP * 2**i for i in range(classes.bit_length())]
    widths = {len(list(own)) for own in groups.values()} | set(steps)
    return tuple(sorted(width for width in widths if 1 < width < classes))


def check_device(name: str) -> str:
    """A device's name, if it can stand in the name of a cost and on a command line.

    Raises:
        ConfigError: it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise ConfigError(f"a device's name has letters, digits, '-', '_' and '.', such as pixel or pi-4; got {name!r}")
    return name


def measure_here(
    space: SearchSpace,
    widths: tuple[int, ...],
    folder: Path,
    device: str,
    settings: runner.Settings,
    *,
    batch: int = 1,
    networks: int = NETWORKS,
    precision: str = "float32",
    about: Mapping[str, str] | None = None,
    fresh: bool = False,
    progress: bool = True,
) -> tuple[list[Profile], str]:
    """Write a bundle, run it on this machine, and read what came out; a run that was killed goes on.

    Args:
        space: to measure.
        widths: of classifiers; see :func:`needed_widths`.
        folder: for the bundle and the readings.
        device: name of this machine.
        settings: how to measure.
        batch: images at once.
        networks: whole ones beside the blocks.
        precision: ``float32`` or ``int8``, of all files.
        about: more that the manifest says.
        fresh: throw earlier readings away.
        progress: whether to show bars.

    Returns:
        The profile of latency, and that of energy where a meter is asked for; and what is to be said of the machine's noise, or nothing.

    Raises:
        ConfigError: something cannot be measured here, or the folder holds something else.
        BusyError: another process works there.
    """
    try:
        if settings.meter != "none":
            runner.energy_meter(settings.meter)  # before any work
        write_bundle(
            space,
            widths,
            folder,
            batch=batch,
            networks=networks,
            precision=precision,
            about=dict(about or {}),
            fresh=fresh,
            progress=progress,
        )
        most = settings.rounds * len(list(folder.glob("*.onnx")))
        with locked(folder), progress_bar("measuring", most, shown=progress) as advance:
            before = 0

            def tell(done: int, total: int) -> None:
                nonlocal before
                advance(
                    "at most", by=done - before
                )  # rounds end when they agree; at first there is what an earlier run has read
                before = done

            path = runner.measure(folder, settings, fresh=fresh, on_visit=tell)
    except runner.RunnerError as error:
        raise ConfigError(str(error)) from error
    units = ["ms"] if settings.meter == "none" else ["ms", "mJ"]
    tables = [read_measured(path, unit) for unit in units]
    return [
        make_profile(space, widths, table, device, batch=batch, precision=precision) for table in tables
    ], runner.noise(path)


def import_measured(
    space: SearchSpace,
    widths: tuple[int, ...],
    path: Path,
    device: str,
    unit: str,
    *,
    batch: int = 1,
    precision: str = "float32",
    fill: bool = False,
) -> Profile | CostTable:
    """What was measured elsewhere, as a cost of a space: a profile, or a table where it is once-for-all's of layers.

    Raises:
        DataError: it cannot be read, or is of something else; the message names the line.
        SpaceError: a layers' table is of another space.
    """
    check_device(device)
    if _holds_layers(path):
        if unit != "ms":
            raise DataError(f"{path} has latencies of layers in ms, not {unit}")
        table = load_ofa_latency(path, space)
        return replace_name(table, f"{table.name}@{device}")
    return make_profile(space, widths, read_measured(path, unit), device, batch=batch, precision=precision, fill=fill)


def replace_name(table: CostTable, name: str) -> CostTable:
    """The same table under another name."""
    return CostTable.from_arrays(table.space, {**table.arrays(), "name": name})  # type: ignore[dict-item]


def _holds_layers(path: Path) -> bool:
    if path.is_dir() or not path.name.removesuffix(".gz").endswith(".csv"):
        return path.is_dir() or path.name.removesuffix(".gz").endswith((".yaml", ".yml", ".json"))
    lines = read_text(path, DataError, "the measurements ").splitlines()
    return bool(lines) and set(COLUMNS) <= {each.strip() for each in lines[0].split(",")}

"""``snugnet specialize --all``: the networks of a table of budgets as files, and one table over them."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from snugnet.cli.common import STOPPED, check_folder, emit, load_family, out, read_names, say, say_stopped
from snugnet.errors import BudgetError, ConfigError
from snugnet.files import read_text
from snugnet.texts import listed, quoted

if TYPE_CHECKING:
    from snugnet.family import Family, Group, Scenario

GROUP = "group"
"""The column of groups."""


def specialize_all(
    family: str,
    budget_file: Path | None,
    folder: Path | None,
    best_of: int,
    data: list[str] | None,
    int8: bool,
    fresh: bool,
    as_json: bool,
) -> None:
    """Write the network of each line of a file of budgets, for its group or for every one."""
    from snugnet.cli.evaluate import read_changes, test_images

    if budget_file is None or folder is None:
        raise ConfigError("--all needs --budgets FILE.csv and --out DIR")
    if folder.suffix in (".onnx", ".pt2"):
        raise ConfigError(f"with --all, --out is a folder, got {folder}")
    changes = read_changes(data)
    text = read_text(budget_file, ConfigError)
    check_folder(folder)
    loaded = load_family(family)

    from snugnet.family.specialising_all import AllScenarios

    scenarios, lines = read_scenarios(text, loaded, budget_file)
    checked = AllScenarios.read(
        loaded, scenarios, best_of=best_of, int8=int8, place=lambda i: f"line {lines[i]} of {budget_file}"
    )
    test = None if data is None else test_images(loaded, loaded.provenance, changes)
    started = time.perf_counter()
    try:
        files = checked.write(folder, test, fresh=fresh)
    except KeyboardInterrupt:
        say_stopped(fresh)
        raise typer.Exit(STOPPED) from None
    seconds = time.perf_counter() - started
    if as_json:
        emit({**files.to_json(), "folder": str(folder), "taken": files.taken, "seconds": round(seconds, 3)})
        return
    out().print(files.text_table().rich())
    before = f" ({files.taken} were there already)" if files.taken else ""
    say(
        f"wrote {len(checked)} networks{before} and networks.csv, .json, .md, .png into {folder} in {seconds:.1f} s; "
        f"ONNX Runtime ran each and agrees with {'the float32 file' if int8 else 'torch'}"
    )


def read_scenarios(text: str, family: Family, path: Path) -> tuple[list[Scenario], list[int]]:
    """The scenarios of a file of budgets, and the line of each.

    Args:
        text: of the file: CSV whose first line names the columns, ``group`` (not needed) and costs. A group is a superclass or a
            list of classes; a budget is an amount or a share of the range, and none where the cell is empty.
        family: whose groups and costs they are.
        path: of the file, for messages.

    Raises:
        ConfigError: it is something else; the message names the line.
    """
    from snugnet.costs import read_budgets
    from snugnet.family.report import check_groups

    header, *rows = list(_rows(text, path)) or [(1, [])]
    names = header[1]
    _check_header(names, family, path)
    if not rows:
        raise ConfigError(f"{path} has no line of budgets below the names of its columns")
    scenarios: list[Scenario] = []
    lines: list[int] = []
    every: list[Group] = [] if GROUP in names else [*check_groups(family)]
    for line, cells in rows:
        if len(cells) != len(names):
            hint = "; cells with a comma stand in double quotes" if len(cells) > len(names) else ""
            raise ConfigError(f"line {line} of {path}: {len(cells)} cells for {len(names)} columns{hint}")
        given = dict(zip(names, cells, strict=True))
        try:
            groups = [_group(given.pop(GROUP), family)] if GROUP in given else every
            budgets = read_budgets(f"{name}={cell}" for name, cell in given.items() if cell)
        except (BudgetError, ConfigError) as error:
            raise ConfigError(f"line {line} of {path}: {error}") from error
        scenarios += [(group, budgets) for group in groups]
        lines += [line] * len(groups)
    return scenarios, lines


def _rows(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line that is not blank; a cell in quotes may go over several lines, of which the first counts."""
    reader, before = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True), 0
    try:
        for cells in reader:
            if cells:
                yield before + 1, [cell.strip() for cell in cells]
            before = reader.line_num
    except csv.Error as error:
        raise ConfigError(f"line {before + 1} of {path} is no CSV ({error})") from error


def _check_header(names: list[str], family: Family, path: Path) -> None:
    allowed = f"columns: {GROUP}, and costs of {family.name}: {', '.join(family.costs)}"
    if not names:
        raise ConfigError(f"{path} is empty; its first line names the {allowed}")
    short = {
        name.partition("@")[0] for name in family.tables
    }  # of a device's cost; of several devices the first line refuses it
    for name in names:
        if name not in (GROUP, *family.costs, *short):
            raise ConfigError(f"{path} has a column {quoted(name) or '(no name)'}; {allowed}")
        if names.count(name) > 1:
            raise ConfigError(f"{path} has two columns {quoted(name)}; leave one out")


def _group(cell: str, family: Family) -> Group:
    """A superclass, or classes as ``--classes`` takes them."""
    if not cell:
        raise ConfigError(f"no group is given; groups: {listed(family.groups)}, or classes with commas between them")
    if cell in family.groups:
        return cell
    names = read_names(cell)
    return names if len(names) > 1 else names[0]

"""What the commands share: output, and checks that come before any work."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from snugnet.errors import ConfigError, SnugnetError
from snugnet.files import json_text
from snugnet.registry import Registry
from snugnet.texts import listed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from snugnet.cluster import Cluster
    from snugnet.costs import Cost, MaximumCost
    from snugnet.family import Family

T = TypeVar("T")

MOST_TRIED = 10_000
"""Architectures that may be tried for one network, as in recipes."""

LONGEST_LINE = 300
"""Characters of an error's line."""

STOPPED = 130
"""Exit code after Ctrl-C, as shells have it."""

BudgetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        metavar="NAME=N",
        help="At most N of a cost, such as madds=40M, latency_ms=12.5, peak_memory=256KiB, or a share of its range, madds=40%; may be given "
        "several times, and all hold.",
    ),
]
ShortBudget = Annotated[str | None, typer.Option(metavar="N", help="Short for --budget with that cost.")]
DeviceBudget = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[DEVICE=]N",
        help="Short for --budget with that cost; of several devices that were measured say which, once for each: pixel=8.",
    ),
]
GroupOption = Annotated[str | None, typer.Option(help="Superclass of the family.")]
ClassesOption = Annotated[
    str | None, typer.Option(metavar="A,B,...", help="Any classes of the family, in the order of the outputs.")
]
BestOf = Annotated[
    int,
    typer.Option(min=1, max=MOST_TRIED, help="Try so many architectures on validation images and keep the best."),
]
SpaceOption = Annotated[
    list[str] | None,
    typer.Option("-o", "--option", metavar="KEY=VALUE", help="Option of the space, as YAML: -o resolution=32."),
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Work on a Ray cluster: host:port of its head, auto for the one that runs here, local for one of this machine's cores.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]


def joined(address: str | None) -> AbstractContextManager[Cluster | None]:
    """The cluster that ``--cluster`` asks for, if it does."""
    if address is None:
        return nullcontext()
    from snugnet import cluster

    return cluster.joined(address)


def say(text: str) -> None:
    """A line for people, on standard error: standard output is for results."""
    print(text, file=sys.stderr, flush=True)


def one_line(kind: str, text: object) -> str:
    """A message of an error or a warning: one line of at most :data:`LONGEST_LINE` characters.

    Of a longer one the middle is left out: it begins with what is wrong, and ends with what to do.
    """
    line = " ".join(f"{kind}: {text}".split())
    if len(line) <= LONGEST_LINE:
        return line
    end = LONGEST_LINE // 3
    return f"{line[: LONGEST_LINE - end - 5]} ... {line[-end:]}"


def say_stopped(fresh: bool) -> None:
    """What to do after Ctrl-C, so that nothing is lost."""
    say(f"stopped; run the same command{' without --fresh' if fresh else ''} to go on")


def emit(document: Any) -> None:
    """The result as JSON, on standard output; what is no number is null."""
    print(json_text(document))


def out() -> Console:
    """For tables, on standard output; wide where no terminal sets a width."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 180, highlight=False, markup=False, emoji=False)


def read_assignments(texts: Sequence[str] | None, option: str) -> dict[str, Any]:
    """``key=value`` texts as a dictionary, values read as YAML.

    Raises:
        ConfigError: a text is something else, or a key stands twice.
    """
    from snugnet.yaml_content import read_assignment

    values: dict[str, Any] = {}
    for text in texts or ():
        key, value = read_assignment(text)
        if key in values:
            raise ConfigError(f"{option} gives {key} twice; leave one out")
        values[key] = value
    return values


def read_budgets(texts: Sequence[str] | None, **short: str | Sequence[str] | None) -> dict[str, Any]:
    """Budgets by cost, as :func:`snugnet.costs.resolve_budget` reads them: of ``--budget``, and of its short forms.

    A short form that may be of several devices is a list of texts, ``8`` or ``pixel=8``.

    Raises:
        ConfigError: one is no budget, or two are of one cost; the option is named.
    """
    from snugnet import costs
    from snugnet.errors import BudgetError

    option, given = "", []
    try:
        for name, value in short.items():
            for text in (value,) if isinstance(value, str) else value or ():
                option = f"--{name.replace('_', '-')}"
                device, equals, amount = text.rpartition("=")
                costs.resolve_budget(costs.without_unit(name, amount), (0.0, 1.0))
                given.append(f"{name}{'@' if equals else ''}{device.strip()}={amount}")
        option = "--budget"
        return {**costs.read_budgets([*given, *(texts or ())])}
    except BudgetError as error:
        raise ConfigError(f"{option}: {error}") from error


def read_names(text: str) -> list[str]:
    """Names with commas between them; one that has a comma itself stands in double quotes.

    Raises:
        ConfigError: a name is empty.
    """
    import csv

    try:
        names = [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]
    except csv.Error as error:
        raise ConfigError(f"names have commas between them, got {text!r} ({error})") from error
    if not names or not all(names):
        raise ConfigError(f"names have commas between them, got {text!r}")
    return names


def read_group(group: str | None, classes: str | None) -> str | list[str] | None:
    """What ``--group`` or ``--classes`` give: a superclass, a list of classes, or None where neither is given.

    Raises:
        ConfigError: both are given, or a name is empty.
    """
    if group is not None and classes is not None:
        raise ConfigError("the classes are given by --group or by --classes, one of the two; both are given")
    return group if classes is None else read_names(classes)


def known(registry: Registry[T]) -> Iterator[tuple[str, str, T | None]]:
    """What a registry knows: of each its name, the first line about it, and itself.

    Of what an installed package brings and cannot be imported the line says why; and there is no such thing.
    """
    import inspect

    for name in registry.names():
        try:
            thing = registry[name]
        except SnugnetError as error:
            yield name, str(error), None
        else:
            yield name, (inspect.getdoc(thing) or "").split("\n")[0], thing


def by_cost(value: Callable[[Cost | MaximumCost], T], greatest: Callable[[T], float]) -> dict[str, T]:
    """A value for every cost that is known, but for one whose greatest amount is 0 (BitOps of networks in float).

    For a cost that cannot be imported or computed a line says why it is left out.
    """
    from snugnet.costs import COSTS

    found = {}
    for name, text, cost in known(COSTS):
        try:
            if cost is None:
                say(text)
            else:
                made = value(cost)
                if greatest(made):
                    found[name] = made
        except SnugnetError as error:
            say(str(error))
    return found


def known_as_json(registry: Registry[T]) -> list[dict[str, str]]:
    """Name and description of each; what cannot be imported has an error instead."""
    return [{"name": n, "error" if thing is None else "description": text} for n, text, thing in known(registry)]


def known_as_table(registry: Registry[T]) -> Table:
    """The same for people."""
    from rich.table import Table

    table = Table(registry.noun, "what it is")
    for name, text, _ in known(registry):
        table.add_row(name, text)
    return table


def check_folder(path: str | Path) -> Path:
    """The path, if it is a folder that can be written into, or can be made.

    Raises:
        ConfigError: it is not.
    """
    path = Path(path)
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise ConfigError(f"cannot write into {path}: {there} is a file, not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"cannot write into {path}: no permission to write in {there.resolve()}")
    return path


def check_file(path: Path) -> Path:
    """The path of a network's file, if its suffix names a format and its folder can be written into.

    Raises:
        ConfigError: it does not, or it cannot.
    """
    from snugnet.deploy.export import check_format

    check_folder(check_format(path).parent)
    return path


def is_on_hub(family: str) -> bool:
    """Whether a text can only be a name on the Hugging Face hub, ``user/name``, and no folder here."""
    owner, _, name = family.partition("/")
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", family) and not Path(owner).exists() and name not in ("", ".", ".."))


def is_remote(family: str) -> bool:
    """Whether a text is the address of a service's family."""
    return family.startswith(("http://", "https://"))


def load_family(family: str) -> Family:
    """A family from a folder, or from the Hugging Face hub where the text can only be a name there.

    Raises:
        FamilyError: there is none, or it is damaged.
    """
    from snugnet.family import disk

    return disk.from_pretrained(family) if is_on_hub(family) else disk.load_family(family)


def packaged_recipe(name: str) -> Path:
    """A recipe of the package (``quickstart``): of the checkout that this file is in, or as the wheel installed it.

    Raises:
        ConfigError: there is none of that name.
    """
    from importlib import metadata

    found = sorted((Path(__file__).resolve().parents[3] / "recipes").glob("*.yaml")) or [
        Path(str(file.locate()))
        for file in metadata.files("snugnet") or ()
        if "share/snugnet/recipes/" in file.as_posix()
    ]
    recipes = {path.stem: path for path in found}
    if name in recipes:
        return recipes[name]
    raise ConfigError(
        f"no recipe {name!r} is installed, and no file is of that name; installed: {listed(recipes) or 'none'}"
    )

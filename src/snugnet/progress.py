"""Progress bars, on standard error: standard output is for results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def progress_bar(
    description: str, total: int | None, *, done: int = 0, shown: bool = True
) -> Iterator[Callable[..., None]]:
    """A bar on standard error; call what it yields after each unit (or ``by`` units) of work, with a text to show beside it."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown, refresh_per_second=4) as progress:
        task = progress.add_task(description, total=total, completed=done, note="")

        def advance(note: str = "", by: int = 1) -> None:
            progress.update(task, advance=by, note=note)

        yield advance


def show_note(text: str) -> None:
    """A line among the bars."""
    Console(stderr=True).print(text, markup=False, highlight=False)

"""Tables for people: in a terminal and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class TextTable:
    """Cells under a header; the first column holds names, the others numbers.

    Attributes:
        title: of the table.
        header: names of the columns.
        body: lines of cells.
        caption: what the numbers are.
    """

    title: str
    header: Sequence[str]
    body: Sequence[Sequence[str]]
    caption: str

    def rich(self) -> Table:
        """For a terminal; a line is drawn where the first column changes and some of its names stand several times."""
        from rich.table import Table

        table = Table(title=self.title, caption=self.caption)
        for i, name in enumerate(self.header):
            table.add_column(name, justify="left" if i == 0 else "right")
        firsts = [cells[0] for cells in self.body]
        sections = len(set(firsts)) < len(firsts)
        for cells, following in zip(self.body, [*firsts[1:], None], strict=True):
            table.add_row(*cells, end_section=sections and following != cells[0])
        return table

    def markdown(self) -> list[str]:
        """Lines of Markdown, without title and caption."""
        ruler = ["---", *["--:"] * (len(self.header) - 1)]
        return ["| " + " | ".join(cells) + " |" for cells in [self.header, ruler, *self.body]]


def percent(value: float) -> str:
    """0.1234 -> 12.3%; nothing where there is no number."""
    return "" if math.isnan(value) else f"{value:.1%}"


def human(value: float) -> str:
    """1234567 -> 1.23M; nothing where there is no number."""
    if math.isnan(value):
        return ""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"

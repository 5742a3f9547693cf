"""What a search has found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snugnet.search.archive import Archive
from snugnet.search.problem import Problem


@dataclass(frozen=True)
class SearchResult:
    """What a search has found.

    Attributes:
        problem: what was searched.
        archive: every architecture that was evaluated.
        survivors: places in the archive that the last round left.
        seconds: spent, those before a resumption included.
        wanted: so many architectures the method would have evaluated.
    """

    problem: Problem
    archive: Archive
    survivors: NDArray[np.intp]
    seconds: float
    wanted: int

    @property
    def best(self) -> int:
        """Place in the archive of the architecture with the highest score; of equals, the one found first."""
        return int(self.archive.scores.argmax())

    @property
    def row(self) -> NDArray[np.int16]:
        """The best architecture, (d,)."""
        found: NDArray[np.int16] = self.archive.rows[self.best]
        return found

    @property
    def score(self) -> float:
        """Its score."""
        return float(self.archive.scores[self.best])

    @property
    def shortfall(self) -> str:
        """One line where fewer architectures were evaluated than the method wanted; otherwise empty."""
        found, size = len(self.archive), self.problem.space.size
        if found >= self.wanted:
            return ""
        why = f"that is the whole space {self.problem.space.name}" if found == size else "no more new ones were found"
        return f"{found:,} architectures were evaluated, of up to {self.wanted:,}: {why}"

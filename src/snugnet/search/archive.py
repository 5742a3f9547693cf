"""Every architecture that a search has evaluated, once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from snugnet.errors import SearchError
from snugnet.search.problem import Score
from snugnet.spaces import Population


def keys(rows: Population) -> list[bytes]:
    """One hashable key a canonical row."""
    rows = np.ascontiguousarray(rows)
    return rows.view(f"V{rows.itemsize * rows.shape[1]}").ravel().tolist() if len(rows) else []


class Archive:
    """Rows in the order in which they were evaluated, and what the score gave for them.

    Attributes:
        d: length of a row.
        width: values a row: what it is worth, and what is kept beside that.
        index: from a row's key to its place.
    """

    def __init__(self, d: int, width: int = 1) -> None:
        self.d, self.width = d, width
        self.index: dict[bytes, int] = {}
        self._rows = np.zeros((256, d), dtype=np.int16)
        self._values = np.zeros((256, width))
        self._known: dict[bytes, NDArray[np.float64]] = {}

    def __len__(self) -> int:
        """Number of architectures."""
        return len(self.index)

    @property
    def rows(self) -> Population:
        """The architectures, (n, d)."""
        return self._rows[: len(self)]

    @property
    def values(self) -> NDArray[np.float64]:
        """What the score gave, (n, width)."""
        return self._values[: len(self)]

    @property
    def scores(self) -> NDArray[np.float64]:
        """What the architectures are worth, (n,)."""
        return self._values[: len(self), 0]

    def recall(self, rows: Population, values: NDArray[np.float64], entered: int) -> None:
        """Take over what a checkpoint holds.

        Args:
            rows: (n, d).
            values: (n, width).
            entered: so many of them belong to rounds that were finished; the rest is remembered and not scored again.
        """
        self._enter(rows[:entered], values[:entered])
        self._known = dict(zip(keys(rows[entered:]), values[entered:], strict=True))

    def take(self, other: Archive) -> None:
        """Enter what another archive holds and this one does not."""
        new = [i for i, key in enumerate(other.index) if key not in self.index]
        self._enter(other.rows[new], other.values[new])

    def scored(self) -> tuple[Population, NDArray[np.float64]]:
        """What a checkpoint has to hold, (n, d) and (n, width): all that was evaluated, then what is remembered and not yet asked
        for again."""
        waiting = {key: values for key, values in self._known.items() if key not in self.index}
        rows = np.frombuffer(b"".join(waiting), dtype=np.int16).reshape(-1, self.d)
        return np.concatenate([self.rows, rows]), np.concatenate([self.values, *(v[None] for v in waiting.values())])

    def evaluate(
        self,
        rows: Population,
        score: Score,
        *,
        chunk: int,
        after_chunk: Callable[[int, bool], None] = lambda n, remembered: None,
    ) -> NDArray[np.intp]:
        """Score those of the rows that are new.

        Args:
            rows: canonical, (n, d); they may repeat.
            score: of canonical rows.
            chunk: rows scored together. A score may depend on it in its last bits, so a search that is resumed scores the
                same chunks.
            after_chunk: called after each chunk with its number of rows, and whether a checkpoint had their scores.

        Returns:
            Places of the rows, (n,).

        Raises:
            SearchError: the score has the wrong shape or is not finite.
        """
        names = keys(rows)
        fresh: dict[bytes, int] = {}
        for i, key in enumerate(names):
            if key not in self.index:
                fresh.setdefault(key, i)
        order = list(fresh.values())
        for start in range(0, len(order), chunk):
            part = np.ascontiguousarray(rows[order[start : start + chunk]])
            values = self._remembered(part)
            remembered = values is not None
            self._enter(part, self._scored(part, score) if values is None else values)
            after_chunk(len(part), remembered)
        return np.array([self.index[key] for key in names], dtype=np.intp)

    def _remembered(self, rows: Population) -> NDArray[np.float64] | None:
        if not self._known:
            return None
        values = [self._known.get(key) for key in keys(rows)]
        return None if any(value is None for value in values) else np.array(values)

    def _enter(self, rows: Population, values: NDArray[np.float64]) -> None:
        start, end = len(self), len(self) + len(rows)
        if end > len(self._rows):
            room = max(end, 2 * len(self._rows)) - start
            self._rows = np.concatenate([self.rows, np.zeros((room, self.d), dtype=np.int16)])
            self._values = np.concatenate([self.values, np.zeros((room, self.width))])
        self._rows[start:end] = rows
        self._values[start:end] = values
        self.index.update(zip(keys(rows), range(start, end), strict=True))

    def _scored(self, rows: Population, score: Score) -> NDArray[np.float64]:
        values = np.asarray(score(rows), dtype=np.float64)
        values = values[:, None] if values.ndim == 1 else values
        if values.shape != (len(rows), self.width):
            raise SearchError(f"the score of {len(rows)} rows has shape {values.shape}, not {(len(rows), self.width)}")
        if not np.isfinite(values[:, 0]).all():
            raise SearchError("the score of an architecture is not finite; scores are numbers, higher is better")
        return values


class Remembered:
    """A score that scores no row twice, for searches that share their evaluations."""

    def __init__(self, score: Score) -> None:
        self.score = score
        self._known: dict[bytes, NDArray[np.float64]] = {}

    def __call__(self, rows: Population) -> NDArray[np.float64]:
        """Scores of canonical rows; only those that are new are scored."""
        names = keys(rows)
        new = [i for i, key in enumerate(names) if key not in self._known]
        if new:
            values = np.asarray(self.score(rows[new]), dtype=np.float64)
            self._known.update(zip((names[i] for i in new), values, strict=True))
        return np.stack([self._known[key] for key in names])

    def recall(self, archive: Archive) -> None:
        """Remember what a search has evaluated, be it in an earlier run."""
        for key, place in archive.index.items():
            self._known.setdefault(key, archive.values[place])

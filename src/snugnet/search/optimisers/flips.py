"""Flips of a choice, and of two, tried for what they really score: what climb and ascent share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from snugnet.search.archive import keys
from snugnet.search.problem import Problem
from snugnet.spaces import Population, SearchSpace

SCORED_AT_ONCE = 4096  # rows
_CONSIDERED, _PAIRS = 4096, 512  # pairs of flips, by their sums: whose costs are looked at, and that are scored


@dataclass
class Flips:
    """Flips around architectures, and what was scored so far."""

    problem: Problem
    seen: dict[bytes, float] = field(default_factory=dict)

    @property
    def space(self) -> SearchSpace:
        return self.problem.space

    def score(self, rows: Population) -> NDArray[np.float64]:
        """Scores (n,), of each architecture asked for once."""
        names = keys(rows)
        new: dict[bytes, int] = {}
        for i, key in enumerate(names):
            if key not in self.seen:
                new.setdefault(key, i)
        order = list(new.values())
        for start in range(0, len(order), SCORED_AT_ONCE):
            part = order[start : start + SCORED_AT_ONCE]
            values = np.asarray(self.problem.score(rows[part]))
            self.seen.update(zip([names[i] for i in part], values.reshape(len(part), -1)[:, 0].tolist(), strict=True))
        return np.array([self.seen[key] for key in names])

    @cached_property
    def flips(self) -> tuple[NDArray[np.intp], NDArray[np.int16]]:
        """Column and option of each entry of the one-hot layout: (sum of options,) each."""
        space = self.space
        columns = np.repeat(np.arange(space.d), space.num_options)
        return columns, (np.arange(len(columns)) - space.offsets[columns]).astype(np.int16)

    @cached_property
    def nearest(self) -> list[tuple[int, int, NDArray[np.int16]]]:
        """For each choice below another, the last ones first: its column, its parent's, and for each option of the parent the
        nearest with which the choice matters."""
        space, result = self.space, []
        for column, parent in reversed(list(enumerate(space.parents))):
            if parent is not None:
                on = np.flatnonzero(space.choices[column].active)
                distance = np.abs(np.arange(space.num_options[parent])[:, None] - on)
                result.append((column, parent, on[distance.argmin(1)].astype(np.int16)))
        return result

    def flipped(self, rows: Population) -> tuple[Population, Population]:
        """All flips of one choice of each row, and what each is to be compared with: (n, sum of options, d) both.

        A choice that does not matter is flipped where the nearest options of its ancestors make it matter, and compared with
        its first option there.
        """
        columns, options = self.flips
        base = np.repeat(rows[:, None], len(columns), 1)
        wanted = np.zeros((len(columns), self.space.d), dtype=bool)  # by each flip: the choices that have to matter
        wanted[np.arange(len(columns)), columns] = True
        for column, parent, nearest in self.nearest:
            own = np.flatnonzero(wanted[:, column])
            wanted[own, parent] = True
            base[:, own, parent] = nearest[base[:, own, parent]]
        flips = base.copy()
        flips[:, np.arange(len(columns)), columns] = options
        shape = base.shape
        flat = self.space.canonical(np.concatenate([flips, base]).reshape(-1, self.space.d)).reshape(2, *shape)
        return flat[0], flat[1]

    def linear(self, rows: Population) -> tuple[NDArray[np.float64], Population]:
        """What each option adds around each row, (n, sum of options), and the flips that this took."""
        flips, base = self.flipped(rows)
        scores = self.score(np.concatenate([flips, base]).reshape(-1, self.space.d)).reshape(2, len(rows), -1)
        return scores[0] - scores[1], flips

    def pairs(self, row: Population) -> Population:
        """The best of one row (1, d) and of the most promising flips of two choices within all limits."""
        gains, flips = self.linear(row)
        first, second = np.triu_indices(len(gains[0]), 1)
        apart = self.flips[0][first] != self.flips[0][second]
        first, second = first[apart], second[apart]
        order = np.argsort(-(gains[0, first] + gains[0, second]), kind="stable")[:_CONSIDERED]
        # What the second flip changes, its ancestors included, is laid over the first flip.
        over = flips[0, second[order]]
        rows = self.space.canonical(np.where(over != row, over, flips[0, first[order]]))
        rows = np.concatenate([row, rows[self.problem.feasible(rows)][:_PAIRS]])
        return rows[[self.score(rows).argmax()]]

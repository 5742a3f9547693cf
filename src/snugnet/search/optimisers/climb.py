"""A strong optimiser for scores that are cheap, such as a predictor's: linearise, solve exactly under all budgets, repeat.

Evolution asks a predictor tens of thousands of times. But around one architecture a predictor is nearly a sum of scores of
options, and the best architecture under such a sum and any budgets is what :func:`snugnet.costs.decode` finds exactly. So:
score all flips of one choice, decode their sum under several penalties on changes (a trust region, as in sequential linear
programming), keep the best of what was decoded, and repeat until nothing is better. Last come flips of one choice, and of
pairs that the sum holds promising, which are tried for what they really score.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from snugnet.search.archive import keys
from snugnet.search.problem import Problem
from snugnet.spaces import Population, SearchSpace

PENALTIES = (0.0, 0.5, 1.0, 2.0)
"""On a choice that is changed, in units of the mean effect of a flip; one decode each."""
CELLS = 256  # of the decode's grid
_STEPS = 30
_CONSIDERED, _PAIRS = 4096, 512  # pairs of flips, by their sums: whose costs are looked at, and that are scored
_CHILDREN = 32  # drawn for each start and round; the best scores among them are climbed from
_SHAKE = 0.2  # probability of drawing a choice of a child anew
_BATCH = 4096  # rows scored at once


@dataclass
class _Climb:
    """One climb: what it has scored so far, and the rows that no step makes better."""

    problem: Problem
    seen: dict[bytes, float] = field(default_factory=dict)
    summits: set[bytes] = field(default_factory=set)

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
        for start in range(0, len(order), _BATCH):
            part = order[start : start + _BATCH]
            values = np.asarray(self.problem.score(rows[part]))
            self.seen.update(zip([names[i] for i in part], values.reshape(len(part), -1)[:, 0].tolist(), strict=True))
        return np.array([self.seen[key] for key in names])

    def best(self, rows: Population) -> Population:
        """The rows, the highest score first."""
        return rows[np.argsort(-self.score(rows), kind="stable")]

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

    def step(self, rows: Population) -> Population:
        """For each row the best of itself, its flips, and the exact optima of its linear models."""
        gains, flips = self.linear(rows)
        columns, options = self.flips
        changed = (rows[:, columns] != options) & self.space.active(rows)[:, columns]
        unit = np.abs(gains).sum(1) / np.maximum(1, (gains != 0).sum(1))
        penalties = np.array(PENALTIES)[:, None, None] * (unit[:, None] * changed)  # (penalties, n, sum of options)
        decoded = self.problem.decode((gains - penalties).reshape(-1, len(columns)), CELLS)
        candidates = np.concatenate(
            [rows[:, None], decoded.reshape(len(PENALTIES), *rows.shape).swapaxes(0, 1), flips], axis=1
        )
        flat = candidates.reshape(-1, self.space.d)
        scores = self.score(flat)
        scores[~self.problem.feasible(flat)] = -np.inf
        best = scores.reshape(len(rows), -1).argmax(1)
        return candidates[np.arange(len(rows)), best]

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

    def ascend(self, rows: Population) -> Population:
        """Steps until no row gets better; rows that meet are one from then on. The best first."""
        for _ in range(_STEPS):
            moving = np.array([key not in self.summits for key in keys(rows)])
            if not moving.any():
                break
            new = self.step(rows[moving])
            self.summits.update(keys(new[(new == rows[moving]).all(1)]))
            rows = np.unique(np.concatenate([rows[~moving], new]), axis=0)
        return self.best(rows)


def climb(
    problem: Problem, *, starts: int = 12, rounds: int = 4, seed: int = 0
) -> tuple[Population, NDArray[np.float64]]:
    """Maximise a cheap score under all limits.

    Args:
        problem: its score is asked some ten thousand times, always for many rows at once.
        starts: samples that are climbed from.
        rounds: how often, after that, the best is looked at for flips of two choices, and the best children of what was
            climbed to are climbed from.
        seed: of the draws.

    Returns:
        Canonical rows within all limits, (n, d), the best first, and their scores, (n,): what was climbed to.
    """
    rng = np.random.default_rng((seed, 0))
    run, space = _Climb(problem), problem.space
    rows = run.ascend(np.unique(problem.sample(starts, rng), axis=0))
    for _ in range(rounds):
        parents = rows[: max(1, starts // 2)]
        mothers, fathers = parents[rng.integers(len(parents), size=(2, _CHILDREN * starts))]
        children = space.mutate(space.crossover(mothers, fathers, rng), _SHAKE, rng)
        children = run.best(children[problem.feasible(children)])[: max(1, starts // 2)]
        found = run.ascend(np.unique(np.concatenate([run.pairs(rows[:1]), children]), axis=0))
        rows = run.best(np.unique(np.concatenate([rows, found]), axis=0))
    return rows, run.score(rows)

"""A strong optimiser for scores that are cheap, such as a predictor's: linearise, solve exactly under all budgets, repeat.

Evolution asks a predictor tens of thousands of times. But around one architecture a predictor is nearly a sum of scores of
options, and the best architecture under such a sum and any budgets is what :func:`snugnet.costs.decode` finds exactly. So:
score all flips of one choice, decode their sum under several penalties on changes (a trust region, as in sequential linear
programming), keep the best of what was decoded, and repeat until nothing is better. Last come flips of one choice, and of
pairs that the sum holds promising, which are tried for what they really score.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from snugnet.search.archive import keys
from snugnet.search.optimisers.flips import Flips
from snugnet.search.optimisers.optimiser import Optimiser, Optimum, check_least, check_probability
from snugnet.search.problem import Problem
from snugnet.spaces import Population

PENALTIES = (0.0, 0.5, 1.0, 2.0)
"""On a choice that is changed, in units of the mean effect of a flip; one decode each."""
_DECODE_CELLS = 256  # of the decode's grid
_MOST_STEPS = 30
_CHILDREN_A_START = 32  # drawn for each start and round; the best scores among them are climbed from


@dataclass
class _Run(Flips):
    """One climb: what it has scored so far, and the rows that no step makes better."""

    summits: set[bytes] = field(default_factory=set)

    def best(self, rows: Population) -> Population:
        """The rows, the highest score first."""
        return rows[np.argsort(-self.score(rows), kind="stable")]

    def step(self, rows: Population) -> Population:
        """For each row the best of itself, its flips, and the exact optima of its linear models."""
        gains, flips = self.linear(rows)
        columns, options = self.flips
        changed = (rows[:, columns] != options) & self.space.active(rows)[:, columns]
        unit = np.abs(gains).sum(1) / np.maximum(1, (gains != 0).sum(1))
        penalties = np.array(PENALTIES)[:, None, None] * (unit[:, None] * changed)  # (penalties, n, sum of options)
        decoded = self.problem.decode((gains - penalties).reshape(-1, len(columns)), _DECODE_CELLS)
        candidates = np.concatenate(
            [rows[:, None], decoded.reshape(len(PENALTIES), *rows.shape).swapaxes(0, 1), flips], axis=1
        )
        flat = candidates.reshape(-1, self.space.d)
        scores = self.score(flat)
        scores[~self.problem.feasible(flat)] = -np.inf
        best = scores.reshape(len(rows), -1).argmax(1)
        found: Population = candidates[np.arange(len(rows)), best]
        return found

    def ascend(self, rows: Population) -> Population:
        """Steps until no row gets better; rows that meet are one from then on. The best first."""
        for _ in range(_MOST_STEPS):
            moving = np.array([key not in self.summits for key in keys(rows)])
            if not moving.any():
                break
            new = self.step(rows[moving])
            self.summits.update(keys(new[(new == rows[moving]).all(1)]))
            rows = np.unique(np.concatenate([rows[~moving], new]), axis=0)
        return self.best(rows)


@dataclass(frozen=True)
class Climb(Optimiser):
    """Linear models of the score, solved exactly under all limits, from several starts.

    It asks the score some ten thousand times, and gives what it has climbed to.

    Attributes:
        starts: samples that are climbed from.
        rounds: how often, after that, the best is looked at for flips of two choices, and the best children of what was
            climbed to are climbed from.
        probability: of drawing a choice of a child anew.
    """

    name: ClassVar[str] = "climb"
    starts: int = 12
    rounds: int = 4
    probability: float = 0.2

    def __post_init__(self) -> None:
        check_least(self, starts=1, rounds=0)
        check_probability(self)

    def maximise(self, problem: Problem, *, seed: int = 0) -> Optimum:
        rng = np.random.default_rng((seed, 0))
        run, space = _Run(problem), problem.space
        rows = run.ascend(np.unique(problem.sample(self.starts, rng), axis=0))
        for _ in range(self.rounds):
            parents = rows[: max(1, self.starts // 2)]
            mothers, fathers = parents[rng.integers(len(parents), size=(2, _CHILDREN_A_START * self.starts))]
            children = space.mutate(space.crossover(mothers, fathers, rng), self.probability, rng)
            children = run.best(children[problem.feasible(children)])[: max(1, self.starts // 2)]
            found = run.ascend(np.unique(np.concatenate([run.pairs(rows[:1]), children]), axis=0))
            rows = run.best(np.unique(np.concatenate([rows, found]), axis=0))
        return Optimum(rows, run.score(rows))

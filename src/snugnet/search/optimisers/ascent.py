"""The fastest optimiser here, for predictors that have a gradient: random linear models, solved within all budgets.

Around an architecture a predictor is nearly a sum of scores of options, and one backward pass gives them all. The best
architecture under such a sum, less a price for each unit of cost, takes one Viterbi pass over the cost tables' plan
(:class:`snugnet.costs.exact.automaton.Automaton`), for hundreds of sums at once. So from each architecture many such problems are solved:
each with noise on the scores, a charge for what is changed (a trust region), and a price drawn around the one at which half
of the proposals meet the budget. The best proposal is the next architecture.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from snugnet.costs.exact.allowed import automaton_of
from snugnet.costs.exact.automaton import Automaton
from snugnet.costs.table import CostTable, common_automaton
from snugnet.errors import SearchError
from snugnet.search.archive import Archive
from snugnet.search.optimisers.flips import SCORED_AT_ONCE, Flips
from snugnet.search.optimisers.optimiser import Optimiser, Optimum, check_least, check_probability
from snugnet.search.problem import Gradients, Problem
from snugnet.spaces import Population, SearchSpace

PROPOSALS = 24  # from each architecture and step
NOISE = 0.3  # on what an option gains, in units of the mean gain
CHARGE = 1.6  # at most, for a choice that is changed, in the same units
SPREAD = 0.3  # of a price, as the standard deviation of its logarithm
_PRICING = 0.6  # how fast prices follow the share of proposals that meet the budget
_STEPS_UP = 5  # from proposal to proposal
_SAMPLES = 192  # that the starts are the best of
_PARENTS, _CHILDREN, _CLIMBERS, _ELITE = 24, 150, 8, 4
_POLISHED = 3


@dataclass
class _Run:
    """One run: what it has scored so far, and what it has climbed from.

    Attributes:
        probability: of drawing a choice of a child anew.
        prices: of a unit of each cost whose limit binds, (m,).
    """

    problem: Problem
    gradients: Gradients
    probability: float
    rng: np.random.Generator
    archive: Archive = field(init=False)
    plan: Automaton = field(init=False)
    prices: NDArray[np.float64] = field(init=False)
    done: set[int] = field(default_factory=set)
    polished: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        space = self.space
        self.archive = Archive(space.d, 1 + len(self.problem.columns))
        every = [(self.problem.tables[name], limit) for name, limit in self.problem.limits.items()]
        self.limits = [(t, limit) for t, limit in every if isinstance(t, CostTable) and limit < t.range[1]]
        tables, allowed = [table for table, _ in self.limits], self.problem.allowed
        self.plan = common_automaton(tables, allowed) if tables else automaton_of(space, frozenset(), allowed)
        self.column = np.repeat(np.arange(space.d), space.num_options)
        self.option = np.arange(len(self.column)) - space.offsets[self.column]
        self.prices = np.zeros(len(self.limits))
        self.designs = self._designs()
        self.flips = Flips(self.problem)

    @property
    def space(self) -> SearchSpace:
        return self.problem.space

    def _designs(self) -> list[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """For each step of the plan the terms that its transitions add up, options and then prices, and how often: ``(K, terms)``.

        A matrix product of a few columns is the fastest way to the sums of hundreds of models.
        """
        size = len(self.column)
        increments = [table.terms.increments(self.plan) for table, _ in self.limits]
        designs = []
        for i, step in enumerate(self.plan.steps):
            counts = np.zeros((len(step.rows), size + 1 + len(self.limits)), dtype=np.float32)
            np.put_along_axis(counts, step.hot, 1, axis=1)
            counts[:, size + 1 :] = -np.stack([each[i] for each in increments], 1) if increments else 0
            counts = np.delete(counts, size, axis=1)  # stood for choices that do not matter
            columns = np.flatnonzero(counts.any(0))
            designs.append((columns, np.ascontiguousarray(counts[:, columns])))
        return designs

    def evaluate(self, rows: Population) -> NDArray[np.intp]:
        """Places in the archive of rows within all limits: (n,)."""
        return self.archive.evaluate(rows, self.problem.score, chunk=SCORED_AT_ONCE)

    def best(self, n: int) -> NDArray[np.intp]:
        """Places of the best so far, the best first."""
        scores = -self.archive.scores
        if n < len(scores):
            front = np.flatnonzero(scores <= np.partition(scores, n - 1)[n - 1])
            return front[np.argsort(scores[front], kind="stable")][:n]
        return np.argsort(scores, kind="stable")

    def propose(self, rows: Population) -> Population:
        """Optima of random linear models around each row, (n, proposals, d); some are above a limit."""
        gains = np.asarray(self.gradients(rows), dtype=np.float32)
        unit = np.abs(gains).mean(1)[:, None, None]
        changed = (rows[:, self.column] != self.option) & self.space.active(rows)[:, self.column]
        charge = CHARGE * self.rng.random((len(rows), PROPOSALS, 1), dtype=np.float32)
        noise = NOISE * self.rng.standard_normal((len(rows), PROPOSALS, len(self.column)), dtype=np.float32)
        models = (gains[:, None] + unit * (noise - charge * changed[:, None])).reshape(-1, len(self.column))
        if not self.prices.all():
            self.prices = np.array([self._first_price(gains, *table.range) for table, _ in self.limits])
        spread = np.exp(SPREAD * self.rng.standard_normal((len(self.limits), len(models))))
        prices = (self.prices[:, None] * spread).astype(np.float32)

        terms = np.concatenate([models.T, prices])
        proposals, _ = self.plan.best([matrix @ terms[columns] for columns, matrix in self.designs])
        for i, (table, limit) in enumerate(self.limits):
            self.prices[i] *= np.exp(_PRICING * (0.5 - (table(proposals) <= limit).mean()))
        return proposals.reshape(len(rows), PROPOSALS, -1)

    def _first_price(self, gains: NDArray[np.float32], low: float, high: float) -> float:
        """What all choices together can gain, for each unit that they can cost."""
        starts = self.space.offsets[:-1]
        spread = np.maximum.reduceat(gains, starts, axis=1) - np.minimum.reduceat(gains, starts, axis=1)
        return max(float(spread.sum(1).mean()), 1e-12) / (high - low)

    def climb(self, places: NDArray[np.intp]) -> None:
        """Move each architecture to the best proposal around it while that is better."""
        for _ in range(_STEPS_UP):
            places = np.array([place for place in np.unique(places) if place not in self.done], dtype=np.intp)
            if not len(places):
                return
            self.done.update(places.tolist())
            proposals = self.propose(self.archive.rows[places])
            flat = proposals.reshape(-1, self.space.d)
            fits = self.problem.feasible(flat)
            every = np.repeat(places, PROPOSALS)
            every[fits] = self.evaluate(flat[fits])
            found = every.reshape(len(places), -1)
            places = found[np.arange(len(places)), self.archive.scores[found].argmax(1)]

    def polish(self, n: int) -> None:
        """Try flips of two choices, (:class:`snugnet.search.optimisers.flips.Flips`) on the best, until none of them gets better."""
        for place in self.best(n):
            row, better = self.archive.rows[[place]], True
            while better and int(place) not in self.polished:
                self.polished.add(int(place))
                row = self.flips.pairs(row)
                (found,) = self.evaluate(row)
                better, place = found != place, found

    def children(self) -> NDArray[np.intp]:
        """Places of the best of crossed and mutated children of the best."""
        parents = self.archive.rows[self.best(_PARENTS)]
        mothers, fathers = parents[self.rng.integers(len(parents), size=(2, _CHILDREN))]
        rows = self.space.mutate(self.space.crossover(mothers, fathers, self.rng), self.probability, self.rng)
        places = self.evaluate(rows[self.problem.feasible(rows)])
        return places[np.argsort(-self.archive.scores[places], kind="stable")[:_CLIMBERS]]


@dataclass(frozen=True)
class Ascent(Optimiser):
    """Random linear models of a score that has gradients, solved under all limits.

    It asks the score some thousand times, and gives all that was scored.

    Attributes:
        starts: samples that are climbed from.
        rounds: how often, after that, children of the best are climbed from.
        patience: stop after so many rounds in a row that found nothing better; never without it.
        probability: of drawing a choice of a child anew.
    """

    name: ClassVar[str] = "ascent"
    needs_gradients: ClassVar[bool] = True
    starts: int = 32
    rounds: int = 12
    patience: int | None = None
    probability: float = 0.3

    def __post_init__(self) -> None:
        check_least(self, starts=1, rounds=0, **({} if self.patience is None else {"patience": 1}))
        check_probability(self)

    def maximise(self, problem: Problem, *, seed: int = 0) -> Optimum:
        if problem.gradients is None:
            raise SearchError(
                "ascent: the score has no gradients; take a predictor of kind mlp, or the optimiser climb"
            )
        run = _Run(problem, problem.gradients, self.probability, np.random.default_rng((seed, 0)))
        run.evaluate(problem.sample(max(self.starts, _SAMPLES), run.rng))
        run.climb(run.best(self.starts))
        best, waited = run.archive.scores.max(), 0
        for _ in range(self.rounds):
            run.climb(run.best(_ELITE))
            run.climb(run.children())
            run.polish(_POLISHED)
            waited = waited + 1 if run.archive.scores.max() <= best else 0
            best = run.archive.scores.max()
            if waited == self.patience:
                break
        order = run.best(len(run.archive))
        return Optimum(run.archive.rows[order], run.archive.scores[order])

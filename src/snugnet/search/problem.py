"""What is searched: a space, a score, and budgets on any number of costs at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from snugnet.costs import Allowed, CostTable, MaximumTable, decode, make_sampler, resolve_budget, sample, within
from snugnet.costs.exact.automaton import make_automaton
from snugnet.errors import BudgetError, SearchError
from snugnet.spaces import Population, SearchSpace

Score = Callable[[Population], NDArray[np.floating]]
"""From canonical rows (n, d) to what they are worth, (n,), higher is better; or (n, 1 + k): what they are worth, and k
values that are kept beside it."""

Gradients = Callable[[Population], NDArray[np.floating]]
"""From canonical rows (n, d) to what the score gains by each entry of their one-hot code: (n, sum of options)."""

_TRIES = 8  # batches drawn before what is still missing is decoded
_MOST = 2**16  # rows in one of them
_DECODED = 64  # scenarios decoded at once where several budgets bind


class Proposer(Protocol):
    """Proposes architectures that are likely to be good, such as a family's architecture generator does."""

    @property
    def id(self) -> str:
        """What it is, in a few words or as a hash: a checkpoint with the proposals of another is refused."""
        ...

    def __call__(self, problem: Problem, n: int, rng: np.random.Generator) -> Population:
        """So many canonical rows within all limits of the problem, (n, d); they may repeat."""
        ...


@dataclass
class Problem:
    """The architectures of a space within all limits, and their score.

    Attributes:
        space: what is searched.
        score: see :data:`Score`.
        tables: costs by name, or none; NSGA-II may minimise any of them.
        limits: upper budgets by the cost's name; given as numbers or as text such as ``"40M"``, or ``"40%"`` of the range.
        columns: names of the k values that the score gives besides what an architecture is worth.
        proposer: of architectures, where somebody knows where good ones are.
        gradients: of the score, where it has any.
        at_least: share of the first limit on a sum that architectures cost at least, so that searches are compared at equal cost.
        allowed: the architectures within all limits on maxima; ``None`` where these are all.
        sums: limits on sums that bind, the one that leaves the fewest architectures first.
        start: canonical rows, (n, d), that the first round of every method evaluates besides its own; those within all limits.
    """

    space: SearchSpace
    score: Score
    tables: Mapping[str, CostTable | MaximumTable]
    limits: Mapping[str, float] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    proposer: Proposer | None = None
    gradients: Gradients | None = None
    at_least: float = 0.0
    start: Population | None = None
    allowed: Allowed | None = field(init=False, repr=False)
    sums: list[tuple[CostTable, float]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse limits that no architecture meets, before any work.

        Raises:
            BudgetError: a limit is of an unknown cost or no positive number, or no architecture meets all of them; the
                message gives the feasible range.
        """
        for name in self.limits:
            if name not in self.tables:
                raise BudgetError(f"there is no cost {name!r}; costs: {', '.join(self.tables) or 'none'}")
        self.limits = {name: resolve_budget(value, self.tables[name].range) for name, value in self.limits.items()}
        for name, limit in self.limits.items():
            self.tables[name].check_budget(limit)
        self.allowed = within(self._maxima)
        # What the dearest architecture meets binds nothing.
        limited = ((self.tables[name], limit) for name, limit in self.limits.items())
        sums = [(table, limit) for table, limit in limited if isinstance(table, CostTable) and limit < table.range[1]]
        self.sums = sorted(sums, key=lambda each: make_sampler(each[0], each[1], None, self.allowed).reachable)
        if len(sums) + len(self._maxima) > 1:
            self._decode(np.zeros((1, int(self.space.offsets[-1]))))
        if self._window is not None:
            table, least, most = self._window
            make_sampler(table, most, least, self.allowed)

    @property
    def _maxima(self) -> list[tuple[MaximumTable, float]]:
        limited = ((self.tables[name], limit) for name, limit in self.limits.items())
        return [(table, limit) for table, limit in limited if isinstance(table, MaximumTable)]

    @property
    def fast_samples(self) -> bool:
        """Whether sampling takes no tries: at most one limit on a sum binds."""
        return not self.sums or all(table is self._drawn[0] for table, _ in self.sums)

    @property
    def _drawn(self) -> tuple[CostTable, float | None, float]:
        """The cost under which architectures are drawn, the least and the most of it; there is a limit on a sum."""
        return self._window or (self.sums[0][0], None, self.sums[0][1])

    def costs(self, rows: Population) -> dict[str, NDArray[np.float64]]:
        """Costs by name, (n,) each."""
        return {name: table(rows) for name, table in self.tables.items()}

    def feasible(self, rows: Population) -> NDArray[np.bool_]:
        """Which rows meet every limit: (n,)."""
        fits = np.ones(len(rows), dtype=bool)
        for table, bound in self.sums:
            fits &= table(rows) <= bound
        for maximum, bound in self._maxima:
            fits &= maximum(rows) <= bound
        if self._window is not None:
            table, least, _ = self._window
            fits &= table(rows) >= least
        return fits

    @property
    def _window(self) -> tuple[CostTable, float, float] | None:
        """A cost, and the least and most of it, where there is a least."""
        if not self.at_least:
            return None
        for name, limit in self.limits.items():
            table = self.tables[name]
            if isinstance(table, CostTable):
                most = min(limit, table.range[1])
                return table, self.at_least * most, most
        raise SearchError("at_least is a share of a limit on a sum, and there is none")

    def first(self) -> Population:
        """Those of :attr:`start` that meet every limit, each once: (n, d)."""
        if self.start is None:
            return np.zeros((0, self.space.d), dtype=np.int16)
        rows = self.start[np.sort(np.unique(self.start, axis=0, return_index=True)[1])]
        return rows[self.feasible(rows)]

    def decode(self, scores: NDArray[np.floating], cells: int = 512) -> Population:
        """The rows within all limits whose options have the greatest sum of scores; see :func:`snugnet.costs.decode`.

        Args:
            scores: in one-hot layout, (n, sum of options).
            cells: of the decode's grid.

        Raises:
            SearchError: there is a least cost, which a decode does not keep.
        """
        if self.at_least:
            raise SearchError("a decode keeps limits and no least cost; take random or evolution for that")
        return self._decode(scores, cells)

    def _decode(self, scores: NDArray[np.floating], cells: int = 512) -> Population:
        if not self.tables:
            automaton = make_automaton(self.space, ())
            return automaton.best(automaton.scores(scores))[0]
        tables: list[CostTable | MaximumTable] = [table for table, _ in self.sums]
        tables = tables or [next(iter(self.tables.values()))]
        bounds = [bound for _, bound in self.sums] or [np.inf]
        parts = [
            decode(tables, part, np.tile(bounds, (len(part), 1)), allowed=self.allowed, cells=cells)
            for part in np.split(scores, range(_DECODED, len(scores), _DECODED))
        ]
        return np.concatenate(parts)

    def propose(self, n: int, rng: np.random.Generator) -> Population:
        """So many architectures as the proposer gives them, (n, d).

        Raises:
            SearchError: there is none.
        """
        if self.proposer is None:
            raise SearchError("nothing proposes architectures in this search; take another method")
        return self.proposer(self, n, rng)

    def sample(self, n: int, rng: np.random.Generator) -> Population:
        """Draw architectures within all limits: canonical rows, (n, d); they may repeat.

        Under at most one binding limit on a sum, and any on maxima, the draw is exactly uniform. Under several, draws under the tightest are kept where
        they meet the others, which is uniform too; where that finds too few, the rest is the decode of random scores: not
        uniform, but it meets all limits and always ends. (With a least cost there are fewer then.)

        Raises:
            SearchError: there is a least cost, and none of many draws met it and all limits.
        """
        if not self.tables:
            return self.space.sample(n, rng)
        if not self.sums and self._window is None:
            return sample(next(iter(self.tables.values())), n, rng, allowed=self.allowed)
        drawn, least, bound = self._drawn
        if self.fast_samples:
            return sample(drawn, n, rng, budget=bound, at_least=least, allowed=self.allowed)
        found, missing, size = [np.zeros((0, self.space.d), dtype=np.int16)], n, n + 8
        for _ in range(_TRIES):
            if missing <= 0:
                break
            rows = sample(drawn, size, rng, budget=bound, at_least=least, allowed=self.allowed)
            found.append(rows[self.feasible(rows)][:missing])
            missing -= len(found[-1])
            size = min(2 * size, _MOST)
        if missing > 0 and not self.at_least:
            found.append(self._decode(rng.gumbel(size=(missing, int(self.space.offsets[-1])))))
        if missing == n > 0:
            raise SearchError(
                f"no architecture was found that costs at least {self.at_least:.0%} of its limit and is within all others; lower at_least"
            )
        return np.concatenate(found)

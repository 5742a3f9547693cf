"""What the search methods share: each is settings, and two steps of a round."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from snugnet.costs import sample
from snugnet.errors import SearchError
from snugnet.search.archive import Archive, keys
from snugnet.search.problem import Problem
from snugnet.spaces import Population

Breed = Callable[[int, np.random.Generator], Population]
"""Draws so many canonical rows, (n, d); they need not meet the limits."""

_BATCHES = 3  # of children drawn one way
_FACTOR = 3  # children drawn for one that is wanted


@dataclass(frozen=True)
class Round:
    """What a round may look at; its draws are a function of the search's seed and its number.

    Attributes:
        problem: what is searched.
        archive: all that was evaluated in the rounds before.
        survivors: places in the archive that the last round has left.
        number: from 0 on.
        rng: of this round alone.
        stock: samples within the limits that were drawn for this round in advance; they may have been evaluated since.
    """

    problem: Problem
    archive: Archive
    survivors: NDArray[np.intp]
    number: int
    rng: np.random.Generator
    stock: Callable[[], Population]

    def fresh(self, rows: Population, most: int, taken: set[bytes]) -> Population:
        """The first rows, at most so many, that were not evaluated and are not taken; they are then."""
        chosen: list[int] = []
        if most < 1:
            return rows[:0]
        evaluated = self.archive.index
        for i, key in enumerate(keys(rows)):
            if key in evaluated or key in taken:
                continue
            taken.add(key)
            chosen.append(i)
            if len(chosen) == most:
                break
        return rows[chosen]

    def samples(self, n: int, taken: set[bytes] | None = None) -> Population:
        """Up to ``n`` new samples within all limits; fewer only where new ones are hard to come by."""
        taken = set() if taken is None else taken
        found = [self.fresh(self.stock(), n, taken)] if n else [np.zeros((0, self.problem.space.d), dtype=np.int16)]
        for _ in range(_BATCHES):
            if (missing := n - sum(map(len, found))) == 0:
                break
            found.append(self.fresh(self.problem.sample(missing, self.rng), missing, taken))
        return np.concatenate(found)

    def children(self, n: int, taken: set[bytes], *breeds: Breed) -> Population:
        """Up to ``n`` new children within all limits; fewer where new ones are hard to come by.

        Args:
            n: how many are wanted.
            taken: keys of rows that the round has already.
            breeds: ways to draw children, the preferred one first. Parents that have become alike have no new children by
                crossing; what one way does not give is drawn the next way.
        """
        found = [np.zeros((0, self.problem.space.d), dtype=np.int16)]
        missing = n
        for last, breed in enumerate(breeds, start=1 - len(breeds)):
            factor = _FACTOR
            for _ in range(_BATCHES):
                if missing == 0:
                    break
                rows = breed(factor * missing, self.rng)
                found.append(self.fresh(rows[self.problem.feasible(rows)], missing, taken))
                missing -= len(found[-1])
                if last < 0 and len(found[-1]) < missing:  # less than half of what was wanted: on to the next way
                    break
                factor *= 2
        return np.concatenate(found)


@dataclass(frozen=True)
class Method(ABC):
    """Settings of a method. Round after round it proposes rows, which are evaluated, and selects survivors."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def rounds(self) -> int:
        """How many rounds there are, the first included."""

    @property
    @abstractmethod
    def evaluations(self) -> int:
        """At most so many architectures are evaluated."""

    @abstractmethod
    def propose(self, now: Round) -> Population:
        """Canonical rows within all limits to evaluate next: (n, d)."""

    def select(self, now: Round, pool: NDArray[np.intp]) -> NDArray[np.intp]:
        """Which survive into the next round.

        Args:
            now: the round, after its evaluation.
            pool: places in the archive of the last survivors and of what was proposed, each once.
        """
        return pool[:0]

    def settings(self) -> dict[str, Any]:
        """What the course of a search depends on, as JSON: a checkpoint is of one method with one setting."""
        return {"method": self.name, **asdict(self)}


def check_counts(method: Method, **least: int) -> None:
    """Refuse settings below what makes sense.

    Raises:
        SearchError: with the setting's name.
    """
    for name, low in least.items():
        value = getattr(method, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise SearchError(f"{method.name}: {name} is a whole number of at least {low}, got {value!r}")


@dataclass(frozen=True)
class RandomSearch(Method):
    """The best of so many samples within all limits.

    Attributes:
        samples: how many.
        at_least: share of the first budget that they cost at least, so that architectures are compared at equal cost.
    """

    name: ClassVar[str] = "random"
    samples: int = 1000
    at_least: float = 0.0

    def __post_init__(self) -> None:
        check_counts(self, samples=1)
        if isinstance(self.at_least, bool) or not 0 <= self.at_least <= 1:
            raise SearchError(f"random: at_least is a share from 0 to 1, got {self.at_least!r}")

    @property
    def rounds(self) -> int:
        return 1

    @property
    def evaluations(self) -> int:
        return self.samples

    def propose(self, now: Round) -> Population:
        if not self.at_least:
            return now.samples(self.samples)
        problem = now.problem
        if not problem.limits:
            raise SearchError("random: at_least is a share of a budget, and there is none")
        name, limit = next(iter(problem.limits.items()))
        limit = min(limit, problem.tables[name].range[1])
        rows = sample(problem.tables[name], self.samples, now.rng, budget=limit, at_least=self.at_least * limit)
        return now.fresh(rows[problem.feasible(rows)], self.samples, set())


@dataclass(frozen=True)
class Proposals(Method):
    """The best of what something else proposes, such as a family's architecture generator (EAS section 3.2, best of n).

    Attributes:
        candidates: how many.
        source: from that number and a generator of random numbers to canonical rows within all limits, (n, d).
        source_id: what the source is, in a few words or as a hash, for the checkpoint.
    """

    name: ClassVar[str] = "generator"
    candidates: int
    source: Callable[[int, np.random.Generator], Population]
    source_id: str = ""

    def __post_init__(self) -> None:
        check_counts(self, candidates=1)

    @property
    def rounds(self) -> int:
        return 1

    @property
    def evaluations(self) -> int:
        return self.candidates

    def propose(self, now: Round) -> Population:
        return now.fresh(self.source(self.candidates, now.rng), self.candidates, set())

    def settings(self) -> dict[str, Any]:
        return {"method": self.name, "candidates": self.candidates, "source": self.source_id}

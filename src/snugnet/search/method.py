"""What the search methods share: each is settings, and two steps of a round."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from snugnet.errors import SearchError
from snugnet.registry import Registry
from snugnet.search.archive import Archive, keys
from snugnet.search.problem import Problem
from snugnet.search.result import SearchResult
from snugnet.search.settings import check_settings, has_settings, setting_types
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
    """Settings of a method, its fields: plain data. Round after round it proposes rows, which are evaluated, and selects
    survivors."""

    name: ClassVar[str]
    sizes: ClassVar[tuple[str, ...]] = ()
    """Which of ``evaluations``, ``population`` and ``rounds`` :meth:`resized` takes."""
    gives_front: ClassVar[bool] = False
    """Whether the winners are a front, and not one architecture."""

    @classmethod
    def presets(cls) -> Mapping[str, Method]:
        """Settings that have a name."""
        return {}

    def resized(self, **sizes: int) -> Self:
        """The same settings at another size.

        Args:
            **sizes: those of :attr:`sizes` that are given; whole numbers of at least 1.

        Raises:
            SearchError: the method makes no sense at that size.
        """
        return replace(self, **sizes)

    def on(self, problem: Problem) -> Self:
        """The method with what its settings leave open decided for a problem.

        Raises:
            SearchError: it does not fit the problem.
        """
        return self

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

    def winners(self, result: SearchResult) -> NDArray[np.intp]:
        """Places in the archive of what has been searched for, (n,): the best architecture."""
        return np.array([result.best])

    def settings(self) -> dict[str, Any]:
        """The method's name and settings, as JSON."""
        return {"method": self.name, **asdict(self)}

    def depends_on(self, problem: Problem) -> dict[str, Any]:
        """What the course of a search depends on beside space, costs and limits, as JSON: a checkpoint is of one method with
        one setting."""
        return self.settings()


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
        at_least: share of the first budget on a sum that they cost at least; see :class:`snugnet.search.problem.Problem`.
    """

    name: ClassVar[str] = "random"
    sizes: ClassVar[tuple[str, ...]] = ("evaluations",)
    samples: int = 1000
    at_least: float = 0.0

    def __post_init__(self) -> None:
        check_counts(self, samples=1)
        if isinstance(self.at_least, bool) or not 0 <= self.at_least <= 1:
            raise SearchError(f"random: at_least is a share from 0 to 1, got {self.at_least!r}")

    def resized(self, **sizes: int) -> Self:
        return replace(self, samples=sizes["evaluations"])

    def on(self, problem: Problem) -> Self:
        if self.at_least and not problem.limits:
            raise SearchError("random: at_least is a share of a budget, and there is none")
        if self.at_least:
            replace(problem, at_least=self.at_least)  # refuses what nothing meets
        return self

    @property
    def rounds(self) -> int:
        return 1

    @property
    def evaluations(self) -> int:
        return self.samples

    def propose(self, now: Round) -> Population:
        if not self.at_least:
            return now.samples(self.samples)
        rows = replace(now.problem, at_least=self.at_least).sample(self.samples, now.rng)
        return now.fresh(rows, self.samples, set())


@dataclass(frozen=True)
class Proposals(Method):
    """The best of what the family's architecture generator proposes (EAS section 3.2, best of n).

    Attributes:
        candidates: how many.
    """

    name: ClassVar[str] = "generator"
    sizes: ClassVar[tuple[str, ...]] = ("evaluations",)
    candidates: int = 100

    def __post_init__(self) -> None:
        check_counts(self, candidates=1)

    def resized(self, **sizes: int) -> Self:
        return replace(self, candidates=sizes["evaluations"])

    def on(self, problem: Problem) -> Self:
        if problem.proposer is None:
            raise SearchError(
                f"{self.name}: nothing proposes architectures here; search a family, or by another method"
            )
        return self

    @property
    def rounds(self) -> int:
        return 1

    @property
    def evaluations(self) -> int:
        return self.candidates

    def propose(self, now: Round) -> Population:
        return now.fresh(now.problem.propose(self.candidates, now.rng), self.candidates, set())

    def depends_on(self, problem: Problem) -> dict[str, Any]:
        return {**self.settings(), "source": "" if problem.proposer is None else problem.proposer.id}


METHODS: Registry[type[Method]] = Registry(
    "snugnet.search_methods",
    "search method",
    SearchError,
    has_settings(Method),
    homes={
        "random": "snugnet.search.method:RandomSearch",
        "evolution": "snugnet.search.evolution:Evolution",
        "nsga2": "snugnet.search.nsga2:NSGA2",
        "predictor": "snugnet.search.predictor_search:PredictorSearch",
        "generator": "snugnet.search.method:Proposals",
    },
)
"""Search methods by name, imported when they are asked for; installed packages bring theirs through entry points."""


def make_method(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """A method by its name.

    Args:
        name: one of :data:`METHODS`.
        settings: its fields, and beside them ``preset`` (one of its presets, which the other settings then change) and its
            :attr:`Method.sizes`, as they are read from YAML.

    Raises:
        SearchError: there is no such method or preset, a setting is not one of the method's, or makes no sense.
        ConfigError: a value is not of its setting's type.
    """
    if name not in METHODS:
        raise SearchError(f"there is no method {name!r}; methods: {', '.join(METHODS.names())}")
    kind, given = METHODS[name], dict(settings or {})
    presets, own = kind.presets(), setting_types(kind)
    base = {}
    if presets and (preset := given.pop("preset", None)) is not None:
        if not isinstance(preset, str) or preset not in presets:
            raise SearchError(f"there is no preset {preset!r} of {name}; presets: {', '.join(presets)}")
        base = {key: getattr(presets[preset], key) for key in own}
    sizes = {key: given.pop(key) for key in kind.sizes if key in given and key not in own}
    for key, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SearchError(f"{key} is a whole number of at least 1, got {value!r}")
    others = [*kind.sizes, *(["preset"] if presets else [])]
    made = kind(**{**base, **check_settings(name, kind, given, others)})
    resized = made.resized(**sizes) if sizes else made
    for key in given:
        if getattr(resized, key) != getattr(made, key):
            raise SearchError(f"{name}: {key} follows from {' and '.join(sizes)}; leave one out")
    return resized

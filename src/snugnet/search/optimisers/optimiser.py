"""What the optimisers share: each is settings, and one call from a problem to the best that was found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from snugnet.costs import CostTable, MaximumTable
from snugnet.errors import SearchError
from snugnet.predictors import Predictor
from snugnet.registry import Registry
from snugnet.search.problem import Problem
from snugnet.search.settings import check_settings, has_settings
from snugnet.spaces import Population


class Optimum(NamedTuple):
    """The best that was found.

    Attributes:
        rows: canonical rows within all limits, (n, d), each once, the best first.
        scores: theirs, (n,).
    """

    rows: Population
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class Optimiser(ABC):
    """Settings of an optimiser, its fields: plain data. It maximises a score that is cheap, such as a predictor's."""

    name: ClassVar[str]
    needs_gradients: ClassVar[bool] = False
    """Whether the problem must have :attr:`snugnet.search.problem.Problem.gradients`."""

    @abstractmethod
    def maximise(self, problem: Problem, *, seed: int = 0) -> Optimum:
        """Maximise a score under all limits.

        Args:
            problem: its score is asked thousands of times, always for many rows at once.
            seed: of the draws.

        Raises:
            SearchError: the problem is none for this optimiser.
        """

    def settings(self) -> dict[str, Any]:
        """The optimiser's name and settings, as JSON."""
        return {"optimiser": self.name, **asdict(self)}


OPTIMISERS: Registry[type[Optimiser]] = Registry(
    "snugnet.optimisers",
    "optimiser",
    SearchError,
    has_settings(Optimiser),
    homes={
        "climb": "snugnet.search.optimisers.climb:Climb",
        "ascent": "snugnet.search.optimisers.ascent:Ascent",
        "evolution": "snugnet.search.optimisers.evolved:Evolved",
    },
)
"""Optimisers by name, imported when they are asked for; installed packages bring theirs through entry points."""


def make_optimiser(name: str, settings: Mapping[str, Any] | None = None) -> Optimiser:
    """An optimiser by its name.

    Args:
        name: one of :data:`OPTIMISERS`.
        settings: its fields, as they are read from YAML.

    Raises:
        SearchError: there is no such optimiser, a setting is not one of its own, or makes no sense.
        ConfigError: a value is not of its setting's type.
    """
    kind = OPTIMISERS[name]
    return kind(**check_settings(name, kind, settings or {}))


def check_least(optimiser: Optimiser, **least: int) -> None:
    """Refuse settings below what makes sense.

    Raises:
        SearchError: with the setting's name.
    """
    for name, low in least.items():
        value = getattr(optimiser, name)
        if value < low:
            raise SearchError(f"{optimiser.name}: {name} is a whole number of at least {low}, got {value!r}")


def check_probability(optimiser: Optimiser, name: str = "probability") -> None:
    """Refuse what is no probability above 0.

    Raises:
        SearchError: with the setting's name.
    """
    value = getattr(optimiser, name)
    if not 0 < value <= 1:
        raise SearchError(f"{optimiser.name}: {name} is above 0 and at most 1, got {value!r}")


def predictor_problem(
    predictor: Predictor,
    tables: Mapping[str, CostTable | MaximumTable],
    limits: Mapping[str, float | str],
    target: str | None = None,
) -> Problem:
    """The architectures that a predictor holds best, under budgets.

    Args:
        predictor: its values are the score, and its gradients where it has them.
        tables: costs by name.
        limits: see :class:`snugnet.search.problem.Problem`.
        target: which of the predictor's targets, where it has several.

    Raises:
        SearchError: there is no such target, or several and none is named.
        BudgetError: of the limits.
    """
    targets = predictor.targets
    if target is None and len(targets) > 1:
        raise SearchError(f"the predictor predicts {', '.join(targets)}; say which one is wanted")
    if target is not None and target not in targets:
        raise SearchError(f"the predictor has no target {target!r}; targets: {', '.join(targets)}")
    output = 0 if target is None else targets.index(target)

    def score(rows: Population) -> NDArray[np.float64]:
        return predictor.predict(rows) if len(targets) == 1 else predictor.predict(rows)[:, output]

    def gradients(rows: Population) -> NDArray[np.float32]:
        return predictor.gradients(rows, output)

    problem = Problem(predictor.space, score, tables, limits)  # type: ignore[arg-type]  # text is made a number there
    problem.gradients = gradients if predictor.differentiable else None
    return problem

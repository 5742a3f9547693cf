"""NSGA-II: fronts over the score and any number of costs (Deb et al., 2002), on pymoo's selection and survival."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from snugnet.errors import SearchError
from snugnet.extras import needs
from snugnet.search.archive import Archive
from snugnet.search.method import Method, Round, check_counts
from snugnet.search.problem import Problem
from snugnet.search.result import SearchResult
from snugnet.spaces import Population


@dataclass(frozen=True)
class NSGA2(Method):
    """The highest score and the lowest costs at once, within all limits.

    Sorting, crowding and tournament are pymoo's; samples, crossover and mutation are the space's, so children are
    canonical, and draws are a function of seed and round, so that a search can be resumed.

    Attributes:
        costs: names of the costs to minimise; without them those that are limited, or else the first cost.
        population: so many survive a round, and as many children are evaluated.
        generations: rounds after the first.
        probability: of drawing a choice of a child anew.
    """

    name: ClassVar[str] = "nsga2"
    sizes: ClassVar[tuple[str, ...]] = ("rounds",)
    gives_front: ClassVar[bool] = True
    costs: tuple[str, ...] | None = None
    population: int = 50
    generations: int = 19
    probability: float = 0.05

    def __post_init__(self) -> None:
        check_counts(self, population=2, generations=0)
        if self.costs is not None and not self.costs:
            raise SearchError("nsga2: costs is empty; name at least one cost to minimise besides the accuracy")
        if not 0 < self.probability <= 1:
            raise SearchError(f"nsga2: probability is above 0 and at most 1, got {self.probability!r}")

    def resized(self, **sizes: int) -> Self:
        return replace(self, generations=sizes["rounds"] - 1)

    def on(self, problem: Problem) -> Self:
        needs("pymoo")
        return replace(self, costs=self._minimised(problem))

    def _minimised(self, problem: Problem) -> tuple[str, ...]:
        costs = self.costs or tuple(problem.limits) or tuple(problem.tables)[:1]
        if not costs:
            raise SearchError("nsga2: there is no cost to minimise besides the accuracy")
        check_costs(problem, costs)
        return costs

    @property
    def rounds(self) -> int:
        return 1 + self.generations

    @property
    def evaluations(self) -> int:
        return self.population * self.rounds

    def propose(self, now: Round) -> Population:
        if now.number == 0:
            return now.samples(self.population)
        ranked = self._ranked(now, now.survivors)
        space, parents = now.problem.space, now.archive.rows[self._places(now.survivors, ranked)]

        def crosses(n: int, rng: np.random.Generator) -> Population:
            picks = (
                _tournament()._do(None, ranked, n, 2, random_state=rng) if len(parents) > 1 else np.zeros((n, 2), int)
            )
            children = space.crossover(parents[picks[:, 0]], parents[picks[:, 1]], rng)
            return space.mutate(children, self.probability, rng)

        taken: set[bytes] = set()
        crossed = now.children(self.population, taken, crosses)
        return np.concatenate([crossed, now.samples(self.population - len(crossed), taken)])

    def select(self, now: Round, pool: NDArray[np.intp]) -> NDArray[np.intp]:
        return self._places(pool, self._ranked(now, pool))

    def winners(self, result: SearchResult) -> NDArray[np.intp]:
        return pareto_front(result, self._minimised(result.problem))

    def _places(self, pool: NDArray[np.intp], ranked: Any) -> NDArray[np.intp]:
        """Places in the archive of those that :meth:`_ranked` gave, in its order."""
        found: NDArray[np.intp] = pool[ranked.get("place").astype(np.intp)]
        return found

    def _ranked(self, now: Round, pool: NDArray[np.intp]) -> Any:
        """pymoo's population of those that survive, with their rank and crowding distance."""
        needs("pymoo")
        from pymoo.core.population import Population as Individuals
        from pymoo.core.problem import Problem as Objectives
        from pymoo.operators.survival.rank_and_crowding import RankAndCrowding

        values = objectives(now.problem, now.archive, self._minimised(now.problem))[pool]
        individuals = Individuals.new("F", values, "place", np.arange(len(pool)))
        return RankAndCrowding().do(
            Objectives(n_var=1, n_obj=values.shape[1]), individuals, n_survive=min(self.population, len(pool)),
            random_state=np.random.default_rng(0),
        )  # fmt: skip


def _tournament() -> Any:
    from pymoo.operators.selection.tournament import TournamentSelection

    def better(individuals: Any, pairs: NDArray[np.intp], **_: Any) -> NDArray[np.intp]:
        """Of each pair the one of lower rank, of equals the one that stands more alone (Deb's crowded comparison)."""
        rank, crowding = individuals.get("rank"), individuals.get("crowding")
        first, second = pairs.T
        wins = (rank[first] < rank[second]) | ((rank[first] == rank[second]) & (crowding[first] >= crowding[second]))
        found: NDArray[np.intp] = np.where(wins, first, second)[:, None]
        return found

    return TournamentSelection(func_comp=better)


def check_costs(problem: Problem, costs: tuple[str, ...]) -> None:
    """Refuse costs that the problem does not have.

    Raises:
        SearchError: there is no such cost.
    """
    for name in costs:
        if name not in problem.tables:
            raise SearchError(f"nsga2: there is no cost {name!r}; costs: {', '.join(problem.tables)}")


def objectives(problem: Problem, archive: Archive, costs: tuple[str, ...]) -> NDArray[np.float64]:
    """What is minimised, (n, 1 + costs): the score's negative, and the costs.

    Raises:
        SearchError: there is no such cost.
    """
    check_costs(problem, costs)
    return np.stack([-archive.scores, *(problem.tables[name](archive.rows) for name in costs)], axis=1)


def pareto_front(result: SearchResult, costs: tuple[str, ...]) -> NDArray[np.intp]:
    """Places in the archive of all that was evaluated and nothing evaluated dominates; the first cost rises.

    Of architectures that are equal in every objective, one is named.

    Raises:
        SearchError: fewer than two points; a front of one point trades nothing off.
    """
    needs("pymoo")
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    values = objectives(result.problem, result.archive, costs)
    _, unique = np.unique(values, axis=0, return_index=True)
    unique.sort()
    front = unique[NonDominatedSorting().do(values[unique], only_non_dominated_front=True)]
    if len(front) < 2:
        raise SearchError(
            f"the front over accuracy and {', '.join(costs)} has {len(front)} point of {len(result.archive)} evaluated; "
            "evaluate more architectures, or allow more with a wider budget"
        )
    found: NDArray[np.intp] = front[np.argsort(values[front, 1], kind="stable")]
    return found

"""Evolutionary search: the fittest so far are mutated and crossed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from snugnet.errors import SearchError
from snugnet.search.method import Method, Round, check_counts
from snugnet.spaces import Population


@dataclass(frozen=True)
class Evolution(Method):
    """Evolution as SPOS (Algorithm 1), OFA and AttentiveNAS have it: what they differ in are settings, and theirs are its presets.

    The parents of a round are the best of all that was evaluated before; every child meets all limits.

    Attributes:
        initial: samples of the first round.
        mutated: children a round that are a parent with some choices drawn anew.
        crossed: children a round that take each choice from one of two parents.
        generations: rounds after the first.
        parents: so many survive.
        probability: of drawing a choice of a mutated child anew.
        another: whether such a choice always changes (AttentiveNAS); otherwise its present option may be drawn again (SPOS, OFA).
    """

    name: ClassVar[str] = "evolution"
    sizes: ClassVar[tuple[str, ...]] = ("population", "rounds")
    initial: int = 50
    mutated: int = 25
    crossed: int = 25
    generations: int = 19
    parents: int = 10
    probability: float = 0.1
    another: bool = False

    def __post_init__(self) -> None:
        check_counts(self, initial=1, mutated=0, crossed=0, generations=0, parents=1)
        if self.mutated + self.crossed < 1:
            raise SearchError("evolution: mutated and crossed are both 0; at least one child a round is needed")
        if not 0 < self.probability <= 1:
            raise SearchError(f"evolution: probability is above 0 and at most 1, got {self.probability!r}")

    @classmethod
    def presets(cls) -> Mapping[str, Method]:
        return PRESETS

    def resized(self, **sizes: int) -> Self:
        """The same settings with another number of architectures or of rounds, in the same proportions.

        Args:
            **sizes: ``population``, the children of each round (the first round and the parents grow with it), and
                ``rounds``, the first one included.
        """
        result = self
        if "population" in sizes:
            population = sizes["population"]
            factor = population / (self.mutated + self.crossed)
            mutated = round(self.mutated * factor)
            result = replace(
                self,
                initial=max(1, round(self.initial * factor)),
                mutated=mutated,
                crossed=population - mutated,
                parents=max(1, round(self.parents * factor)),
            )
        return replace(result, generations=sizes["rounds"] - 1) if "rounds" in sizes else result

    @property
    def rounds(self) -> int:
        return 1 + self.generations

    @property
    def evaluations(self) -> int:
        return self.initial + self.generations * (self.mutated + self.crossed)

    def propose(self, now: Round) -> Population:
        if now.number == 0:
            return now.samples(self.initial)
        space, parents = now.problem.space, now.archive.rows[now.survivors]

        def mutants(n: int, rng: np.random.Generator) -> Population:
            return space.mutate(
                parents[rng.integers(len(parents), size=n)], self.probability, rng, another=self.another
            )

        def crosses(n: int, rng: np.random.Generator) -> Population:
            mothers, fathers = parents[rng.integers(len(parents), size=(2, n))]
            return space.crossover(mothers, fathers, rng)

        taken: set[bytes] = set()
        mutated = now.children(self.mutated, taken, mutants)
        # where mutants have just run out, there are no more to stand in for crosses
        breeds = (crosses, mutants) if len(mutated) == self.mutated else (crosses,)
        crossed = now.children(self.crossed, taken, *breeds)
        rest = now.samples(self.mutated + self.crossed - len(mutated) - len(crossed), taken)
        return np.concatenate([mutated, crossed, rest])

    def select(self, now: Round, pool: NDArray[np.intp]) -> NDArray[np.intp]:
        return pool[np.argsort(-now.archive.scores[pool], kind="stable")[: self.parents]]


PRESETS = {
    "spos": Evolution(),
    "attentive-nas": Evolution(initial=512, mutated=128, crossed=128, generations=20, parents=128, another=True),
    "ofa": Evolution(initial=100, mutated=50, crossed=50, generations=500, parents=25),
}
"""``spos``: population 50, 20 rounds, top 10, mutation 0.1, half crossed and half mutated (Algorithm 1; its first population
is the first of the 20 that are evaluated). ``attentive-nas``: 21 rounds, 512 and then 20 generations of 128 + 128 (section
4.2; the paper gives neither parents nor probability: 128 and 0.1 are ours). ``ofa``: 501 rounds, one that begins and the 500
generations of the published EvolutionFinder's defaults."""

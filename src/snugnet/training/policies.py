"""Policies: which architectures a training step runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from snugnet.costs import CostTable, Sampler, make_sampler
from snugnet.errors import BudgetError, ConfigError
from snugnet.recipe import StageConfig
from snugnet.spaces import Population, SearchSpace

Estimate = Callable[[Population], NDArray[np.float64]]
"""How well architectures (n, d) do, (n,), higher is better: minus their loss on the step's images, or a predictor."""

PILOT = 1 << 16
"""Architectures that the distribution of costs is read off."""


class Policy(ABC):
    """Decides which architectures a training step runs: it draws some, and may then choose among them.

    What it draws does not depend on what training has come to, so it may be drawn ahead; what it chooses may.
    """

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Population:
        """All that the generator is asked for: (n, d)."""

    def choose(self, drawn: Population, estimate: Estimate) -> Population:
        """Of what was drawn, the architectures to run in this step: (k, d)."""
        return drawn


@dataclass(frozen=True)
class Uniform(Policy):
    """Every choice uniform over the options that are already elastic; the rest at their largest.

    With all options this is single-path one-shot's sampling (SPOS section 3.2); progressive shrinking (OFA; EAS section 4)
    is this policy with more and more elastic options, stage by stage.

    Attributes:
        space: the search space.
        elastic: for each kind of choice, how many of its options are in use, counted from the largest; or ``all``.
        subnets: architectures a step; their gradients are averaged to one update.
    """

    space: SearchSpace
    elastic: Mapping[str, int] | Literal["all"]
    subnets: int = 1

    def __post_init__(self) -> None:
        kinds = sorted({choice.kind for choice in self.space.choices})
        if self.subnets < 1:
            raise ConfigError(f"subnets is at least 1, got {self.subnets}")
        for kind, count in {} if self.elastic == "all" else self.elastic.items():
            if kind not in kinds:
                raise ConfigError(
                    f"elastic: {kind!r} is no kind of choice in {self.space.name}; kinds: {', '.join(kinds)}"
                )
            if count < 1:
                raise ConfigError(f"elastic: {kind} has at least 1 option in use, got {count}")

    @cached_property
    def used(self) -> NDArray[np.int64]:
        """Options in use of each choice: (d,)."""
        total = self.space.num_options
        if self.elastic == "all":
            return total
        return np.minimum([self.elastic.get(choice.kind, 1) for choice in self.space.choices], total)

    @property
    def smallest(self) -> Population:
        """The smallest option in use everywhere: (1, d)."""
        return self.space.canonical((self.space.num_options - self.used).astype(np.int16)[None])

    def draw(self, rng: np.random.Generator) -> Population:
        """Draw ``subnets`` architectures: (subnets, d)."""
        draws = (rng.random((self.subnets, self.space.d)) * self.used).astype(np.int16)  # adding first might round up
        return self.space.canonical((self.space.num_options - self.used + draws).astype(np.int16))


@dataclass(frozen=True)
class CostWindows:
    """The range of a cost, cut into windows of equal width, and a probability for each.

    Attributes:
        table: the cost.
        samplers: exact and uniform within one window each; windows without an architecture are left out.
        probabilities: of the windows.
    """

    table: CostTable
    samplers: tuple[Sampler, ...]
    probabilities: NDArray[np.float64]

    @classmethod
    def make(cls, table: CostTable, count: int, *, even: bool, seed: int = 0) -> CostWindows:
        """Cut the range.

        Args:
            table: the cost.
            count: of windows (AttentiveNAS, section 4: steps of 25 MFLOPs, about 70 over its space).
            even: every window alike; otherwise as often as costs of uniform architectures fall into it: pi(tau) of
                AttentiveNAS, equation 6.
            seed: of the architectures that this distribution is read off.
        """
        low, high = table.range
        edges = np.linspace(low, high, count + 1)
        costs = table(table.space.sample(PILOT, np.random.default_rng(seed)))
        shares = np.histogram(costs, edges)[0] / PILOT
        kept, samplers = [], []
        for i in range(count):
            if not even and shares[i] == 0:
                continue
            try:
                samplers.append(make_sampler(table, float(edges[i + 1]), float(edges[i])))
            except BudgetError:  # nothing costs so much: a small space, or one with steps
                continue
            kept.append(i)
        weights = np.ones(len(kept)) if even else shares[kept]
        return cls(table, tuple(samplers), weights / weights.sum())

    def sample(self, subnets: int, each: int, rng: np.random.Generator) -> Population:
        """For each of ``subnets`` drawn windows, ``each`` architectures: (subnets * each, d), window by window."""
        windows = rng.choice(len(self.samplers), size=subnets, p=self.probabilities)
        return np.concatenate([self.samplers[w].sample(each, rng) for w in windows])


@dataclass(frozen=True)
class UniformCost(Policy):
    """The cost uniform over its range, then an architecture uniform among those of that cost.

    Attributes:
        windows: of the cost, all alike.
        subnets: architectures a step.
    """

    windows: CostWindows
    subnets: int = 1

    def draw(self, rng: np.random.Generator) -> Population:
        """Draw ``subnets`` architectures: (subnets, d)."""
        return self.windows.sample(self.subnets, 1, rng)


@dataclass(frozen=True)
class Attentive(Policy):
    """BestUp-k and WorstUp-k (AttentiveNAS, section 4, equations 5 to 7).

    Draw a cost, draw k architectures of that cost, run the one that an estimate holds best (or worst): training attends to
    the Pareto front (or to what lies farthest below it).

    Attributes:
        windows: of the cost, as often as architectures have it.
        subnets: architectures a step, each the pick of its own k.
        candidates: k.
        best: BestUp; otherwise WorstUp.
    """

    windows: CostWindows
    subnets: int = 1
    candidates: int = 3
    best: bool = True

    def draw(self, rng: np.random.Generator) -> Population:
        """Draw all candidates: (subnets * candidates, d)."""
        return self.windows.sample(self.subnets, self.candidates, rng)

    def choose(self, drawn: Population, estimate: Estimate) -> Population:
        """The best (or worst) of each cost: (subnets, d)."""
        scores = estimate(drawn).reshape(self.subnets, self.candidates)
        picks = scores.argmax(1) if self.best else scores.argmin(1)
        found: Population = drawn[np.arange(self.subnets) * self.candidates + picks]
        return found


@dataclass(frozen=True)
class Sandwich(Policy):
    """The sandwich rule (AttentiveNAS, equation 3): the largest, what another policy draws, and the smallest.

    Attributes:
        largest, smallest: the two ends, (1, d) each. The largest comes first: the others learn from it.
        between: draws the rest.
    """

    largest: Population
    smallest: Population
    between: Policy

    def draw(self, rng: np.random.Generator) -> Population:
        """What lies between the ends."""
        return self.between.draw(rng)

    def choose(self, drawn: Population, estimate: Estimate) -> Population:
        """The largest, the chosen, the smallest: (k + 2, d)."""
        return np.concatenate([self.largest, self.between.choose(drawn, estimate), self.smallest])


def make_policy(stage: StageConfig, table: CostTable) -> Policy:
    """The policy that a stage of a recipe names.

    Args:
        stage: of the recipe.
        table: the cost that costs are drawn of.

    Raises:
        ConfigError: the stage names a kind of choice that the space does not have.
    """
    space = table.space
    uniform = Uniform(space, stage.elastic, stage.subnets)
    policy: Policy = uniform
    if stage.sampling == "cost":
        policy = UniformCost(CostWindows.make(table, stage.windows, even=True), stage.subnets)
    elif stage.sampling != "uniform":
        windows = CostWindows.make(table, stage.windows, even=False)
        policy = Attentive(windows, stage.subnets, stage.candidates, best=stage.sampling == "best-up")
    return Sandwich(space.largest, uniform.smallest, policy) if stage.sandwich else policy

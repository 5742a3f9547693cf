"""Policies: which architectures a training step runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from snugnet.errors import ConfigError
from snugnet.spaces import Population, SearchSpace


class Policy(Protocol):
    """Draws the architectures of one training step."""

    def sample(self, step: int, rng: np.random.Generator) -> Population:
        """The architectures to run in this step: (k, d)."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Every choice uniform over the options that are already elastic; the rest at their largest.

    Progressive shrinking (OFA; EAS section 4) is this policy with more and more elastic options, stage by stage.

    Attributes:
        space: the search space.
        elastic: for each kind of choice, how many of its options are in use, counted from the largest.
        subnets: architectures a step; their gradients add up to one update.
    """

    space: SearchSpace
    elastic: Mapping[str, int]
    subnets: int = 1

    def __post_init__(self) -> None:
        kinds = sorted({choice.kind for choice in self.space.choices})
        if self.subnets < 1:
            raise ConfigError(f"subnets is at least 1, got {self.subnets}")
        for kind, count in self.elastic.items():
            if kind not in kinds:
                raise ConfigError(
                    f"elastic: {kind!r} is no kind of choice in {self.space.name}; kinds: {', '.join(kinds)}"
                )
            if count < 1:
                raise ConfigError(f"elastic: {kind} has at least 1 option in use, got {count}")

    def sample(self, step: int, rng: np.random.Generator) -> Population:
        """Draw ``subnets`` architectures: (subnets, d)."""
        total = self.space.num_options
        used = np.minimum([self.elastic.get(choice.kind, 1) for choice in self.space.choices], total)
        draws = (rng.random((self.subnets, self.space.d)) * used).astype(np.int16)  # adding first might round up
        return self.space.canonical((total - used + draws).astype(np.int16))

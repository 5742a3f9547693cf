"""Evolution as an optimiser: the plain way, against which the others are measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from snugnet.search.driver import run_search
from snugnet.search.method import make_method
from snugnet.search.optimisers.optimiser import Optimiser, Optimum
from snugnet.search.problem import Problem


@dataclass(frozen=True)
class Evolved(Optimiser):
    """The evolution of a search, run on a score that is cheap.

    Attributes:
        preset: of :class:`snugnet.search.evolution.Evolution`.
    """

    name: ClassVar[str] = "evolution"
    preset: str = "ofa"

    def __post_init__(self) -> None:
        make_method("evolution", {"preset": self.preset})

    def maximise(self, problem: Problem, *, seed: int = 0) -> Optimum:
        archive = run_search(
            problem, make_method("evolution", {"preset": self.preset}), seed=seed, progress=False
        ).archive
        order = np.argsort(-archive.scores, kind="stable")
        return Optimum(archive.rows[order], archive.scores[order])

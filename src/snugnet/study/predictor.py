"""The third step, where an entry asks it: a predictor of every superclass's accuracy (OFA's pipeline, EAS appendix B).

Architectures are evaluated once for all superclasses, and the predictor is fitted once for all searches on a supernet.
"""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from snugnet.costs import CostTable
from snugnet.family.report import check_groups
from snugnet.files import write_atomically
from snugnet.fingerprint import digest
from snugnet.predictors import fit_predictor
from snugnet.search.driver import run_search
from snugnet.search.image_scorer import ImageScorer
from snugnet.search.method import Method, Round
from snugnet.search.problem import Problem
from snugnet.spaces import Population
from snugnet.study.config import fitted_on
from snugnet.study.supernet import TrainedSupernet
from snugnet.training.policies import CostWindows
from snugnet.training.supernet import made_with

Predict = Callable[[Population], NDArray[np.float64]]
"""From rows (n, d) to the accuracy of every superclass, (n, superclasses)."""

_COST_WINDOWS = 64


@dataclass(frozen=True)
class Spread(Method):
    """Architectures uniform over a cost, all in one round.

    Attributes:
        cost: its name.
        architectures: how many.
        seed: of the draw.
    """

    name: ClassVar[str] = "evaluate architectures"
    cost: str
    architectures: int
    seed: int

    @property
    def rounds(self) -> int:
        return 1

    @property
    def evaluations(self) -> int:
        return self.architectures

    def propose(self, now: Round) -> Population:
        table = now.problem.tables[self.cost]
        assert isinstance(table, CostTable)  # the cost that a generator was trained on is a sum
        windows = CostWindows.make(table, _COST_WINDOWS, even=True)
        rows = windows.sample(self.architectures, 1, np.random.default_rng((self.seed, 2)))
        return now.fresh(rows, self.architectures, set())


@dataclass(frozen=True)
class FittedPredictor:
    """A predictor of every superclass's accuracy on the images of the search.

    Attributes:
        predict: in the order of the superclasses.
        seconds: of evaluating the architectures and fitting.
        held_out: ``predicted`` and ``measured`` accuracies (means over superclasses) of architectures that a predictor like
            this one was not fitted on.
    """

    predict: Predict
    seconds: float
    held_out: dict[str, list[float]]


def make_predictor(trained: TrainedSupernet) -> FittedPredictor:
    """Evaluate the study's number of architectures, or take what is kept of that, and fit."""
    rows, accuracies, seconds = _evaluated(trained)
    started = time.perf_counter()
    predict = _fit(trained, rows, accuracies)
    seconds += time.perf_counter() - started
    split = fitted_on(len(rows))
    predicted = _fit(trained, rows[:split], accuracies[:split])(rows[split:])
    held_out = {"predicted": predicted.mean(1).tolist(), "measured": accuracies[split:].mean(1).tolist()}
    return FittedPredictor(predict, seconds, held_out)


def _fit(trained: TrainedSupernet, rows: Population, accuracies: NDArray[np.float64]) -> Predict:
    job, names = trained.job, tuple(check_groups(trained.family()))
    config = job.config.predictor
    # not predict, which leaves the axis of the superclasses out where there is one
    return fit_predictor(
        config.kind, trained.supernet.space, rows, accuracies, targets=names, seed=job.seed, **config.settings
    ).outputs


def _evaluated(trained: TrainedSupernet) -> tuple[Population, NDArray[np.float64], float]:
    """Architectures (n, d), their accuracy on each superclass's validation images (n, superclasses), and the seconds."""
    job, family = trained.job, trained.family()
    groups = [family.class_indices(group) for group in check_groups(family)]
    method = Spread(family.budget_name, job.config.predictor.architectures, job.seed)
    images = trained.recipe.evaluation.model_dump(include={"calibration_images", "validation_images"})
    own = digest(made_with(trained.recipe, job.data), images, method.settings())
    path = job.own / "evaluated.npz"
    with suppress(OSError, ValueError, KeyError, BadZipFile), np.load(path, allow_pickle=False) as stored:
        if stored["made_with"] == own:
            return stored["rows"], stored["accuracies"], float(stored["seconds"])
    scorer = ImageScorer(
        family.supernet, family.calibration_batches, family.validation, groups, family.mean, family.std
    )
    problem = Problem(
        family.space, scorer, {method.cost: family.tables[method.cost]}, columns=tuple(check_groups(family))
    )
    unfinished = job.own / f"evaluated-{own}"
    result = run_search(problem, method, folder=unfinished, scorer=own, chunk=1, progress=job.progress)
    rows, accuracies = result.archive.rows, result.archive.values[:, 1:]
    _write(path, rows=rows, accuracies=accuracies, seconds=np.array(result.seconds), made_with=np.array(own))
    shutil.rmtree(unfinished)
    return rows, accuracies, result.seconds


def _write(path: Path, **arrays: NDArray[np.generic]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_atomically(path, buffer.getvalue())

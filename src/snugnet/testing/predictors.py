"""The laws of an accuracy predictor."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from snugnet.errors import PredictorError
from snugnet.predictors import Predictor, load_predictor
from snugnet.testing.contract import ContractError, holds, works
from snugnet.testing.problems import small_problem


def check_predictor(
    kind: type[Predictor], *, rows: int = 80, seed: int = 0, settings: Mapping[str, Any] | None = None
) -> None:
    """Fit, ask, save and load a kind of predictor. It must be known by name (an entry point, or the registry) to be loaded.

    Args:
        kind: its class.
        rows: measured architectures that it is fitted on.
        seed: of the measurements.
        settings: of the fit, to make it short.

    Raises:
        ContractError: the first law that is broken, and what was found.
    """
    what = f"predictor {getattr(kind, 'kind', kind)!r}"
    problem, rng = small_problem(seed=seed), np.random.default_rng(seed)
    space = problem.space
    known, asked = space.sample(rows, rng), space.sample(50, rng)
    values = np.asarray(problem.score(known))
    with works(what, "can be fitted to rows and values"):
        fitted = kind.fit(space, known, values, seed=seed, **(settings or {}))
    with works(what, "predicts rows that it has not seen"):
        predicted = fitted.predict(asked)
    holds(predicted.shape == (len(asked),), what, "predict gives (n,) where there is one target", predicted.shape)
    holds(np.isfinite(predicted).all(), what, "predictions are finite")
    one_by_one = np.concatenate([fitted.predict(asked[i : i + 1]) for i in range(len(asked))])
    close = np.allclose(one_by_one, predicted, rtol=1e-4, atol=1e-5 * float(np.ptp(values)))
    holds(close, what, "a prediction does not depend on what else is asked with it")
    again = kind.fit(space, known, values, seed=seed, **(settings or {})).predict(asked)
    holds(np.array_equal(again, predicted), what, "a fit is a function of rows, values and seed")
    own = np.corrcoef(fitted.predict(known), values)[0, 1]
    holds(own > 0.3, what, "knows something about the rows that it was fitted on", f"correlation {own:.2f}")
    both = np.stack([values, -values], 1)
    with works(what, "can be fitted to several targets"):
        two = kind.fit(space, known, both, targets=("up", "down"), seed=seed, **(settings or {}))
    holds(two.predict(asked).shape == (len(asked), 2), what, "predict gives (n, targets) where there are several")
    for case, few, wrong in (
        ("too few rows", known[:2], values[:2]),
        ("values that are not finite", known, np.where(np.arange(rows) == 3, np.nan, values)),
        ("values of another number than the rows", known, values[:-1]),
    ):
        try:
            kind.fit(space, few, wrong, seed=seed, **(settings or {}))
        except PredictorError:
            continue
        except Exception as error:
            raise ContractError(
                f"{what}: refuses {case} with a PredictorError; found: {type(error).__name__}"
            ) from error
        raise ContractError(f"{what}: refuses {case} with a PredictorError; found: it was fitted")
    with tempfile.TemporaryDirectory() as folder, works(what, "can be saved, and loaded by its name"):
        loaded = load_predictor(fitted.save(folder))
    holds(np.array_equal(loaded.predict(asked), predicted), what, "predicts the same when it is loaded again")

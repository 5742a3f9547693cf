"""How good a predictor is on architectures that it has not seen."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from snugnet.extras import needs
from snugnet.predictors.predictor import Predictor, check_values
from snugnet.spaces import Population


def score(predictor: Predictor, rows: Population, values: ArrayLike) -> dict[str, Any]:
    """Compare predictions with measured values.

    Args:
        predictor: to judge.
        rows: architectures, shape ``(n, d)``, at least two.
        values: measured, shape ``(n,)`` or ``(n, outputs)``.

    Returns:
        ``kendall_tau`` (tau-b), ``spearman`` and ``mae`` (in the target's unit); of a predictor with several targets
        ``{target: those}``. A rank correlation is NaN where all values or all predictions are equal.

    Raises:
        PredictorError: fewer than two rows, or values that are not finite or do not fit.
        SpaceError: the rows are not of the predictor's space.
    """
    rows, measured = check_values(predictor.space, rows, values, predictor.targets, least=2)
    predicted = predictor.outputs(rows)
    scores = {t: agreement(predicted[:, i], measured[:, i]) for i, t in enumerate(predictor.targets)}
    return scores if len(scores) > 1 else scores[predictor.targets[0]]


def agreement(predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> dict[str, float]:
    """Kendall's tau-b, Spearman's rho and the mean absolute error of two lists of shape ``(n,)``."""
    needs("scipy")
    from scipy.stats import kendalltau, spearmanr

    if np.ptp(predicted) == 0 or np.ptp(measured) == 0:
        tau = rho = float("nan")  # scipy says the same with a warning
    else:
        tau, rho = float(kendalltau(predicted, measured)[0]), float(spearmanr(predicted, measured)[0])
    return {"kendall_tau": tau, "spearman": rho, "mae": float(np.abs(predicted - measured).mean())}

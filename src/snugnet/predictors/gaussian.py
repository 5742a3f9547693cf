"""The most exact predictor here: a Gaussian process on steps from option to option, its hyper-parameters learned.

The kernel is a linear one plus a squared exponential one (Rasmussen & Williams, Gaussian Processes for Machine Learning,
2006, sections 4.2, 5.4.1), each with a scale for every (kind of choice, step) and a deviation from it for every choice.
The values are warped by a one-parameter logarithm that is learned along (Snelson et al., Warped Gaussian Processes, 2004),
since accuracy bends towards a ceiling. All of it maximises the marginal likelihood under weak priors, by L-BFGS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from snugnet.errors import PredictorError
from snugnet.extras import needs
from snugnet.predictors.likelihood import Kernel, maximise, unwarp, warp
from snugnet.predictors.predictor import (
    MINIMUM_ROWS,
    Predictor,
    check_values,
    levels,
    standardise,
)
from snugnet.predictors.thermometer import Thermometer
from snugnet.spaces import Population, SearchSpace

_KERNEL_ROWS = 256  # rows at a time: their kernel with 1,600 centres takes 3 MB


class GaussianProcessPredictor(Predictor):
    """A Gaussian process with a linear and a squared exponential kernel, and warped values.

    Exact up to ``centres`` rows; of more rows, that many serve as centres for all (subset of regressors, Rasmussen &
    Williams, section 8.3.1). Its prediction is the posterior median. Several targets share one kernel.

    Settings of :meth:`fit`: ``centres``, ``likelihood_rows`` (rows for the hyper-parameters), ``iterations`` (of L-BFGS).
    """

    kind = "best"

    def __init__(
        self,
        space: SearchSpace,
        arrays: Mapping[str, NDArray[Any]],
        targets: Sequence[str] = ("accuracy",),
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        """Put the prediction together.

        Args:
            space: the space.
            arrays: ``scale`` (steps,) and ``centres`` (m, steps): of the squared exponential kernel; ``weights``
                (m, outputs), ``slopes`` (steps, outputs), ``intercept``, ``bend``, ``mean``, ``std`` (outputs,).
            targets: names of the outputs.
            provenance: how it came to be.
        """
        super().__init__(space, targets, provenance)
        self._arrays = {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}
        self._steps = Thermometer(space)
        centres = self._arrays["centres"] * self._arrays["scale"]
        self._centres, self._norms = np.ascontiguousarray(centres.T), (centres**2).sum(1) / 2

    @classmethod
    def fit(
        cls,
        space: SearchSpace,
        rows: Population,
        values: ArrayLike,
        *,
        targets: Sequence[str] = ("accuracy",),
        seed: int = 0,
        progress: bool = False,
        centres: int = 2000,
        likelihood_rows: int = 1000,
        iterations: int = 30,
        **settings: Any,
    ) -> Self:
        """Learn the hyper-parameters, then solve for the weights; see :meth:`Predictor.fit`."""
        if settings:
            raise PredictorError(f"unknown setting {min(settings)!r} of the predictor {cls.kind}")
        rows, matrix = check_values(space, rows, values, targets, MINIMUM_ROWS)
        steps = Thermometer(space)
        code = steps(levels(space, rows))
        scaled, mean, std = standardise(matrix)
        shift = code.mean(0)
        order = np.random.default_rng(seed).permutation(len(rows))
        some, chosen = order[:likelihood_rows], order[:centres]
        limits = scaled.min(0), scaled.max(0)  # of all rows: the warp has to hold for each
        kernel = maximise(steps, code[some] - shift, scaled[some], limits, iterations, progress)
        weights = _solve(kernel, code - shift, chosen, warp(scaled, kernel.bend))
        slopes = kernel.slope[:, None] ** 2 * ((code[chosen] - shift).T @ weights)
        arrays = {
            "scale": kernel.scale,
            "centres": code[chosen],
            "weights": kernel.variance * weights,
            "slopes": slopes,
            "intercept": -shift @ slopes,
            "bend": kernel.bend,
            "mean": mean,
            "std": std,
        }
        return cls(space, arrays, targets, {"rows": len(rows), "seed": seed, "iterations": iterations})

    def outputs(self, rows: Population) -> NDArray[np.float64]:
        own = self._arrays
        latent = np.empty((len(rows), len(self.targets)))
        for start in range(0, len(rows), _KERNEL_ROWS):
            code = self._steps(levels(self.space, rows[start : start + _KERNEL_ROWS]))
            scaled = code * own["scale"]
            near = scaled @ self._centres
            near -= self._norms
            near -= (scaled**2).sum(1, keepdims=True) / 2
            np.exp(near, out=near)
            latent[start : start + _KERNEL_ROWS] = near @ own["weights"] + code @ own["slopes"] + own["intercept"]
        return unwarp(latent, own["bend"]) * own["std"] + own["mean"]

    def arrays(self) -> dict[str, NDArray[Any]]:
        return self._arrays

    @classmethod
    def restore(cls, space: SearchSpace, targets: Sequence[str], arrays: Mapping[str, NDArray[Any]]) -> Self:
        steps, outputs, m = len(Thermometer(space).choice), len(targets), len(arrays["centres"])
        shapes: dict[str, tuple[int, ...]] = {
            "scale": (steps,), "centres": (m, steps), "weights": (m, outputs), "slopes": (steps, outputs),
            **dict.fromkeys(("intercept", "bend", "mean", "std"), (outputs,)),
        }  # fmt: skip
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                raise PredictorError(f"{name} has shape {arrays[name].shape}; {space.name} needs {shape}")
        return cls(space, arrays, targets)


def _solve(
    kernel: Kernel, code: NDArray[np.float64], chosen: NDArray[np.intp], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weights of the chosen rows as centres, shape ``(m, outputs)``."""
    needs("scipy")
    from scipy.linalg import solve

    centres = code[chosen]
    between = kernel(centres, centres)
    if len(chosen) == len(code):
        system, right = between + kernel.noise * np.eye(len(code)), values[chosen]
    else:
        system = kernel.noise * (between + 1e-6 * np.eye(len(centres)))
        right = np.zeros((len(centres), values.shape[1]))
        for start in range(0, len(code), len(centres)):
            across = kernel(centres, code[start : start + len(centres)])
            system += across @ across.T
            right += across @ values[start : start + len(centres)]
    weights: NDArray[np.float64] = solve(system, right, assume_a="pos")
    return weights

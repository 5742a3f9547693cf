"""Hyper-parameters of the Gaussian process by maximum marginal likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from snugnet.predictors.thermometer import Thermometer
from snugnet.progress import progress_bar

_JITTER = 1e-6
_START = {"signal": 0.0, "noise": -3.0, "scale": -1.5, "slope": -1.5}
_SPREAD = {"signal": 1.0, "noise": 1.5, "scale": 1.0, "slope": 1.0, "own_scale": 0.3, "own_slope": 0.3, "bend": 1.0}
"""Standard deviations of the priors, of logarithms but for the bend. They are weak but for a choice's own deviation from
its group; on the published once-for-all table 0.3 and 0.6 there scored alike."""

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Kernel:
    """``variance exp(-|scale (x - y)|^2 / 2) + (slope x) . (slope y)``, noise, and the warp's bend.

    Attributes:
        scale, slope: shape ``(steps,)``.
        variance, noise: of standardised, warped values.
        bend: shape ``(outputs,)``.
    """

    scale: NDArray[np.float64]
    slope: NDArray[np.float64]
    variance: float
    noise: float
    bend: NDArray[np.float64]

    def __call__(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Covariances of two lists of codes, shape ``(len(a), len(b))``."""
        x, y, scale, slope = (torch.from_numpy(each) for each in (a, b, self.scale, self.slope))
        return _covariance(x, y, scale, slope, torch.tensor(self.variance)).numpy()


def maximise(
    steps: Thermometer,
    code: NDArray[np.float64],
    values: NDArray[np.float64],
    limits: tuple[NDArray[np.float64], NDArray[np.float64]],
    iterations: int,
    progress: bool,
) -> Kernel:
    """The kernel of greatest posterior probability.

    Args:
        steps: the code's layout.
        code: centred, shape ``(n, steps)``.
        values: standardised, shape ``(n, outputs)``.
        limits: least and greatest value that the warp must hold, each of shape ``(outputs,)``.
        iterations: of L-BFGS.
        progress: whether to show a bar.
    """
    x, y = torch.from_numpy(code), torch.from_numpy(values)
    low, high = (
        torch.from_numpy(0.98 / np.where(np.abs(limit) > 1e-3, limit, least))
        for limit, least in zip(limits, (-1e-3, 1e-3), strict=True)
    )
    start = {
        "signal": torch.tensor(_START["signal"], dtype=x.dtype),
        "noise": torch.tensor(_START["noise"], dtype=x.dtype),
        "scale": torch.full((steps.groups,), _START["scale"], dtype=x.dtype),
        "slope": torch.full((steps.groups,), _START["slope"], dtype=x.dtype),
        "own_scale": torch.zeros(int(steps.choice.max()) + 1, dtype=x.dtype),
        "own_slope": torch.zeros(int(steps.choice.max()) + 1, dtype=x.dtype),
        "bend": torch.zeros(values.shape[1], dtype=x.dtype),
    }
    own = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
    optimizer = torch.optim.LBFGS(list(own.values()), max_iter=iterations, line_search_fn="strong_wolfe")
    eye = torch.eye(len(x), dtype=x.dtype)

    def form() -> Tensors:
        return {
            "scale": torch.exp(own["scale"][steps.group] + own["own_scale"][steps.choice]),
            "slope": torch.exp(own["slope"][steps.group] + own["own_slope"][steps.choice]),
            "variance": torch.exp(2 * own["signal"]),
            "noise": torch.exp(2 * own["noise"]) + _JITTER,
            "bend": torch.where(own["bend"] > 0, high, -low) * torch.tanh(own["bend"]),
        }

    def loss() -> torch.Tensor:
        f = form()
        factor = torch.linalg.cholesky(_covariance(x, x, f["scale"], f["slope"], f["variance"]) + f["noise"] * eye)
        z = _warp(y, f["bend"])
        fit = (z * torch.cholesky_solve(z, factor)).sum() / 2
        volume = values.shape[1] * torch.log(torch.diagonal(factor)).sum()
        jacobian = -torch.log1p(-f["bend"] * y).sum()
        prior = sum((((own[k] - start[k]) / _SPREAD[k]) ** 2).sum() / 2 for k in own)
        minus_log: torch.Tensor = fit + volume - jacobian + prior
        return minus_log

    with progress_bar("likelihood", None, shown=progress) as advance:

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            value = loss()
            value.backward()
            advance(f"{value.item():.1f}")
            return value

        optimizer.step(closure)
    with torch.no_grad():
        found: dict[str, Any] = {name: tensor.numpy() for name, tensor in form().items()}
    return Kernel(**{**found, "variance": float(found["variance"]), "noise": float(found["noise"])})


def warp(values: NDArray[np.float64], bend: NDArray[np.float64]) -> NDArray[np.float64]:
    """``-log(1 - bend u) / bend``: stretches values near ``1 / bend``, and is ``u`` for a bend of 0."""
    return _warp(torch.from_numpy(values), torch.from_numpy(bend)).numpy()


def unwarp(values: NDArray[np.float64], bend: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of :func:`warp`."""
    bend = np.where(np.abs(bend) < 1e-9, 1e-9, bend)
    return -np.expm1(-bend * values) / bend


def _warp(values: torch.Tensor, bend: torch.Tensor) -> torch.Tensor:
    bend = torch.where(bend.abs() < 1e-9, bend + 1e-9, bend)
    return -torch.log1p(-bend * values) / bend


def _covariance(
    a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor, slope: torch.Tensor, variance: torch.Tensor
) -> torch.Tensor:
    near_a, near_b = a * scale, b * scale
    distance = (near_a**2).sum(1)[:, None] + (near_b**2).sum(1) - 2 * near_a @ near_b.T
    return variance * torch.exp(-distance / 2) + (a * slope) @ (b * slope).T

"""What tests of gates share: probabilities, and gradients held against finite differences."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from snugnet.nn.gated import GatedSupernet
from snugnet.nn.gates import Encoding, num_gates
from snugnet.spaces import SearchSpace


def one_hot(space: SearchSpace, rows: np.ndarray) -> list[Tensor]:
    """Probabilities of 0 and 1: for each choice (pairs, m), float64."""
    columns = torch.from_numpy(rows.astype(np.int64)).T
    return [F.one_hot(column, n).double() for column, n in zip(columns, space.num_options.tolist(), strict=True)]


def random_logits(space: SearchSpace, encoding: Encoding, pairs: int) -> Tensor:
    return torch.randn(pairs, sum(num_gates(space, encoding)), dtype=torch.float64)


def check_gradients(gated: GatedSupernet, x: Tensor, encoding: Encoding, rows: np.ndarray | None) -> list[Tensor]:
    """Hold the gradients of the probabilities against finite differences, for every choice on its own, along a random direction.

    Args:
        gated: in double precision, frozen.
        x: images, (n, pairs, c, h, h).
        encoding: of the gates.
        rows: at the probabilities of these architectures, one a pair; without them at soft ones.

    Returns:
        The gradients.
    """
    space, (n, pairs), step = gated.space, x.shape[:2], 1e-6
    soft = [torch.rand(pairs, m, dtype=torch.float64) for m in space.num_options.tolist()]
    points = [point.requires_grad_() for point in (soft if rows is None else one_hot(space, rows))]
    weights = torch.randn(n, pairs, space.blueprint(space.smallest).num_classes, dtype=torch.float64)

    def value(at: list[Tensor]) -> Tensor:
        return (gated(x, at, encoding) * weights).sum()

    gradients = list(torch.autograd.grad(value(points), points))
    for c, gradient in enumerate(gradients):
        direction = torch.randn_like(points[c])
        with torch.no_grad():
            up, down = (
                value([p + s * direction if i == c else p for i, p in enumerate(points)]) for s in (step, -step)
            )
        torch.testing.assert_close(
            (gradient * direction).sum(), (up - down) / (2 * step), rtol=2e-5, atol=2e-6,
            msg=lambda m, c=c: f"{space.choices[c].name}: {m}",
        )  # fmt: skip
    return gradients

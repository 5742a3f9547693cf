"""The accuracy predictor of once-for-all: an MLP on one-hot codes.

Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient Deployment", ICLR 2020, appendix B: three
hidden layers of 400 units with ReLU; kernel sizes, expand ratios and the resolution as one-hot codes, zero where a block
is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from snugnet.errors import PredictorError
from snugnet.predictors.predictor import MINIMUM_ROWS, Predictor, check_values, standardise
from snugnet.progress import progress_bar
from snugnet.spaces import Population, SearchSpace

_CACHED_ROWS = 512  # rows at a time: their activations stay in cache


class MLPPredictor(Predictor):
    """An MLP on one-hot codes.

    Settings of :meth:`fit`: ``hidden`` (widths), ``steps``, ``batch_size``, ``learning_rate``, ``weight_decay``.

    Attributes:
        module: the differentiable form: codes of shape ``(n, sum of options)``, of architectures or of probabilities, to
            values in the targets' units, shape ``(n, outputs)``. Treat its parameters as constant.
    """

    kind = "mlp"
    differentiable = True

    def __init__(
        self,
        space: SearchSpace,
        module: nn.Sequential,
        targets: Sequence[str] = ("accuracy",),
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(space, targets, provenance)
        self.module = module.eval().requires_grad_(False)
        # numpy's matrix product is measurably the faster one here, and has less to do before it starts.
        linears = [layer for layer in module if isinstance(layer, nn.Linear)]
        self._layers = [(layer.weight.detach().numpy().T, layer.bias.detach().numpy()) for layer in linears]

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
        hidden: Sequence[int] = (400, 400, 400),
        steps: int = 4000,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.1,
        **settings: Any,
    ) -> Self:
        """Fit with AdamW under a cosine schedule to standardised values; see :meth:`Predictor.fit`."""
        if settings:
            raise PredictorError(f"unknown setting {min(settings)!r} of the predictor {cls.kind}")
        rows, matrix = check_values(space, rows, values, targets, MINIMUM_ROWS)
        scaled, mean, std = standardise(matrix)
        code, target = torch.from_numpy(space.one_hot(rows)), torch.from_numpy(scaled).float()
        with _seeded(seed):
            module = _mlp([code.shape[1], *hidden, len(targets)])
            _train(module, code, target, steps, batch_size, learning_rate, weight_decay, progress)
        scale, shift = torch.from_numpy(std), torch.from_numpy(mean)
        state = module.state_dict()  # shares its memory with the module
        last = f"{len(module) - 1}"
        state[f"{last}.weight"].mul_(scale[:, None])  # the targets' units go into the last layer
        state[f"{last}.bias"].mul_(scale).add_(shift)
        return cls(space, module, targets, {"rows": len(rows), "seed": seed, "steps": steps})

    def outputs(self, rows: Population) -> NDArray[np.float64]:
        values = np.empty((len(rows), len(self.targets)))
        *layers, (weight, bias) = self._layers
        for start in range(0, len(rows), _CACHED_ROWS):
            hidden = self.space.one_hot(rows[start : start + _CACHED_ROWS])
            for inner, shift in layers:
                hidden = hidden @ inner
                hidden += shift
                np.maximum(hidden, 0, out=hidden)
            values[start : start + _CACHED_ROWS] = hidden @ weight + bias
        return values

    def gradients(self, rows: Population, output: int = 0) -> NDArray[np.float32]:
        *layers, (weight, _) = self._layers
        hidden, active = self.space.one_hot(rows), []
        for inner, shift in layers:
            hidden = np.maximum(hidden @ inner + shift, 0)
            active.append(hidden > 0)
        result = np.repeat(weight[None, :, output], len(rows), 0)
        for (inner, _), on in zip(reversed(layers), reversed(active), strict=True):
            result = (result * on) @ inner.T
        return result

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {name: tensor.numpy() for name, tensor in self.module.state_dict().items()}

    @classmethod
    def restore(cls, space: SearchSpace, targets: Sequence[str], arrays: Mapping[str, NDArray[Any]]) -> Self:
        weights = [arrays[f"{2 * i}.weight"] for i in range(len(arrays) // 2)]
        module = _mlp([weights[0].shape[1], *(len(weight) for weight in weights)])
        if (weights[0].shape[1], len(weights[-1])) != (space.offsets[-1], len(targets)):
            raise PredictorError(f"the predictor's layers do not fit the space {space.name} and {len(targets)} targets")
        module.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in arrays.items()})
        return cls(space, module, targets)

    @classmethod
    def from_ofa(cls, path: str | Path, space: SearchSpace) -> Self:
        """The published predictor of the once-for-all MobileNetV3 space at width 1.2 (MIT licence, han-cai/files).

        Its 128 inputs are brought into the space's own one-hot order; where the space has no choice ``resolution``, the
        input of its fixed resolution goes into the bias.

        Args:
            path: ``accuracy_predictor_w1.2.safetensors``.
            space: ``ofa-mobilenet-v3`` with ``width_mult`` 1.2.

        Returns:
            A predictor of ImageNet top-1 accuracy in per cent.

        Raises:
            PredictorError: the file is another, or the space has options that the predictor does not know.
        """
        from snugnet.predictors.published import ofa_layers

        state = ofa_layers(Path(path), space)
        module = _mlp([int(space.offsets[-1]), 400, 400, 400, 1])
        module.load_state_dict(state)
        return cls(space, module, ("imagenet_top1",), {"source": Path(path).name})


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _train(
    module: nn.Sequential, code: torch.Tensor, target: torch.Tensor, steps: int, batch_size: int, learning_rate: float,
    weight_decay: float, progress: bool,
) -> None:  # fmt: skip
    optimizer = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = torch.empty(0, dtype=torch.long)
    with progress_bar("predictor", steps, shown=progress) as advance:
        for _ in range(steps):
            if len(order) < min(batch_size, len(code)):
                order = torch.randperm(len(code))
            batch, order = order[:batch_size], order[batch_size:]
            loss = nn.functional.mse_loss(module(code[batch]), target[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            advance()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield

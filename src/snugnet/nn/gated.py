"""The supernet under gates: many architectures in one pass, with gradients to the probabilities of their choices.

What choices do is read off the blueprints by :mod:`snugnet.spaces.effects`; here it is run. The output of a position is the
sum of its rows of layers, each times the probability that it is there (a block that is kept or skipped is EAS equation 5);
the mask of a layer's channels is the sum over the options that decide them of probability times "the channels that this
option has". With one-hot probabilities that is the sub-network itself.

Every row is run, also one that no architecture of the batch has chosen: the gradient of its gate is the product of the
output's gradient with the row's own output, so that a gradient says what opening it would bring.

Masks are applied where channels are mixed, not where they arise: a convolution channel by channel and its batch norm see
every channel whole, so that a closed gate still gets the gradient of what opening it would bring.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from snugnet.nn.batched import (
    batched_conv,
    batched_depthwise,
    batched_norm,
    batched_se,
    grouped,
    placed,
    scaled,
    split,
    with_channels,
)
from snugnet.nn.gates import Probabilities, check_encoding, to_thermometer
from snugnet.nn.layers import ConvLayer, LinearLayer, NormLayer, SELayer
from snugnet.nn.network import Network, resized
from snugnet.spaces import SearchSpace
from snugnet.spaces.effects import Effect, Effects, Encoding, Position, Row, SizedLayer, effects
from snugnet.spaces.graph import flow


class GatedSupernet:
    """A frozen supernet under the gates of many architectures at once.

    The batch holds ``b`` images for each of ``P`` architectures; see :mod:`snugnet.nn.batched` for how they are laid out.

    Attributes:
        space: the search space.
        network: the supernet's network, every layer at its largest.
    """

    def __init__(self, space: SearchSpace, network: Network) -> None:
        self.space = space
        self.network = network
        self._modules = network.block_modules()
        self._effects: dict[Encoding, Effects] = {}

    def __call__(self, images: Tensor, probabilities: Probabilities, encoding: Encoding = "single-path") -> Tensor:
        """Run all architectures.

        Args:
            images: (b, P, c, h, w), normalised: ``images[:, p]`` are for architecture p.
            probabilities: for each choice (P, m), one-hot in value.
            encoding: how gradients reach the probabilities.

        Returns:
            Logits over all classes, (b, P, classes).

        Raises:
            ConfigError: the encoding is unknown.
        """
        check_encoding(encoding)
        if encoding not in self._effects:
            self._effects[encoding] = effects(self.space, encoding)
        plan, draw = self._effects[encoding], _Draw(probabilities)
        column = self.space.column.get("resolution")
        if column is None:
            return self._run(images, plan, draw)
        chosen = probabilities[column]
        total = torch.zeros((), device=images.device)
        for i, resolution in enumerate(self.space.choices[column].options):
            at = resized(images.flatten(0, 1), resolution).unflatten(0, images.shape[:2])
            total = total + chosen[:, i, None] * self._run(at, plan, draw)
        return total

    def _run(self, images: Tensor, plan: Effects, draw: _Draw) -> Tensor:
        b, archs = images.shape[:2]
        image = _State(images.flatten(1, 2), None, archs)
        last = flow(plan.steps, image, _gathered, lambda position, state: self._position(position, state, draw))
        return last.x.reshape(b, archs, -1)

    def _position(self, position: Position, state: _State, draw: _Draw) -> _State:
        total: Tensor | None = None
        for row, chance in zip(position.rows, draw.chances(position), strict=True):
            x = scaled(self._row(row, state, draw), chance)
            x = placed(x, state.archs, row.at, row.channels, position.width)
            total = x if total is None else total + x
        assert total is not None
        return _State(total, draw.mask(position.channels), state.archs)

    def _row(self, row: Row, state: _State, draw: _Draw) -> Tensor:
        state = state.sliced(row.first, row.step)
        if not row.layers:
            return state.x
        layers = self._modules[row.key]._modules
        state = state.with_channels(row.layers[0].layer.in_channels)
        for sized in row.layers:
            state = _layer(layers[sized.layer.name], sized, state, draw)
        return state.x


@dataclass(frozen=True)
class _State:
    """Activations (b, P * C, h, w) of P architectures, and the mask (P, C) that is still to be applied to them."""

    x: Tensor
    mask: Tensor | None
    archs: int

    def masked(self) -> Tensor:
        return scaled(self.x, self.mask)

    def with_channels(self, channels: int) -> _State:
        """The leading channels of each architecture, or zeros behind them."""
        if self.x.shape[1] == self.archs * channels:
            return self
        mask = None if self.mask is None else F.pad(self.mask, (0, channels - self.mask.shape[1]))
        return _State(with_channels(self.x, self.archs, channels), mask, self.archs)

    def sliced(self, first: int, step: int) -> _State:
        """Every ``step``-th channel of each architecture from the given one on."""
        if step == 1:
            return self
        mask = None if self.mask is None else self.mask[:, first::step]
        x = self.x.unflatten(1, (self.archs, -1))[:, :, first::step].flatten(1, 2)
        return _State(x, mask, self.archs)


def _gathered(states: list[_State], position: Position) -> _State:
    """Several outputs as the one that a position takes. Where their masks differ, they are applied first."""
    if any(state.mask is not states[0].mask for state in states):
        states = [_State(state.masked(), None, state.archs) for state in states]
    if position.gather == "add":
        return replace(states[0], x=sum((state.x for state in states[1:]), states[0].x))
    archs, mask = states[0].archs, states[0].mask
    x = torch.cat([state.x.unflatten(1, (archs, -1)) for state in states], 2).flatten(1, 2)
    return _State(x, None if mask is None else torch.cat([mask] * len(states), 1), archs)


def _layer(step: Any, sized: SizedLayer, state: _State, draw: _Draw) -> _State:
    """One layer at the size of its row's union."""
    layer, archs = sized.layer, state.archs
    if isinstance(step, ConvLayer) and not layer.depthwise:
        x = batched_conv(step, layer, state.masked(), archs)
    elif isinstance(step, ConvLayer) and sized.kernel.columns:
        x = batched_depthwise(step, layer, state.x, archs, draw.larger(sized.kernel), sized.kernel.levels)
    elif isinstance(step, ConvLayer):
        x = batched_conv(step, layer, state.x, archs)
    elif isinstance(step, LinearLayer):
        x = step(split(state.masked(), archs).flatten(1), layer)
        x = x.reshape(-1, archs * layer.out_channels, 1, 1)
    elif isinstance(step, SELayer):
        return replace(state, x=batched_se(step, layer, state.x, archs, state.mask, draw.mask(sized.hidden)))
    elif isinstance(step, NormLayer):
        return replace(state, x=batched_norm(step.norm, layer, state.x, archs))
    elif layer.op == "flatten":
        return state
    else:  # no weights, each channel by itself, at the resolution at hand
        x = step(split(state.x, archs), replace(layer, resolution=state.x.shape[-1]))
        return replace(state, x=grouped(x, archs))
    return _State(x, draw.mask(sized.channels), archs)


@lru_cache(maxsize=4096)
@torch.inference_mode(False)  # training uses it too, whoever asked first
def prefixes(widths: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """(m, c): which of the largest width's channels each width has."""
    filled = torch.arange(max(widths))[None] < torch.tensor(widths)[:, None]
    return filled.to(device, dtype)


@lru_cache(maxsize=4096)
@torch.inference_mode(False)  # as above
def _constant(values: tuple[tuple[float, ...], ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """A matrix that no step changes, copied to the device once."""
    return torch.tensor(values, dtype=dtype).to(device)


class _Draw:
    """The probabilities of one pass, and what has been worked out from them."""

    def __init__(self, probabilities: Probabilities) -> None:
        self.probabilities = probabilities
        self._known: dict[Any, Tensor] = {}

    def _once(self, key: Any, make: Callable[[], Tensor]) -> Tensor:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def joint(self, columns: tuple[int, ...]) -> Tensor:
        """(P, K): of the joint options of some choices, the last choice fastest."""
        if len(columns) == 1:
            return self.probabilities[columns[0]]
        before, last = self.joint(columns[:-1]), self.probabilities[columns[-1]]
        return self._once(columns, lambda: (before[:, :, None] * last[:, None, :]).flatten(1))

    def mask(self, effect: Effect) -> Tensor | None:
        """(P, c): for each channel the probability that it is there; nothing where all are."""
        if not effect.columns:
            return None
        p = self.joint(effect.columns)
        return self._once(effect, lambda: p @ prefixes(effect.values, p.device, p.dtype))

    def chances(self, position: Position) -> list[Tensor | None]:
        """(P, 1) a row: the probability that it is there; nothing where that is certain."""
        uncertain = [row.there for row in position.rows if row.there.columns]
        found: dict[Effect, Tensor] = {}
        for columns in dict.fromkeys(there.columns for there in uncertain):
            alike = [there for there in uncertain if there.columns == columns]  # one product for all of them
            p = self.joint(columns)
            each = p @ _constant(tuple(there.values for there in alike), p.device, p.dtype).T
            found.update(zip(alike, each.split(1, 1), strict=True))
        return [found.get(row.there) for row in position.rows]

    def larger(self, effect: Effect) -> Tensor:
        """(P, m): the probability of each level or a higher one."""
        p, levels = self.joint(effect.columns), effect.levels
        if effect.values != levels:
            same = tuple(tuple(value == level for level in levels) for value in effect.values)
            p = p @ _constant(same, p.device, p.dtype)
        return to_thermometer(p)

"""The supernet under gates: many architectures in one pass, with gradients to the probabilities of their choices.

Everything is read off the blueprint. Each number that describes a layer (its channels, its kernel, whether it is there) is a
function of a few of the choices that its part depends on; the mask of its channels is the sum over their joint options
of probability times "the channels that this option has". With one-hot probabilities that is the sub-network itself.

Masks are applied where channels are mixed, not where they arise: a convolution channel by channel and its batch norm see
every channel whole, so that a closed gate still gets the gradient of what opening it would bring.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snugnet.errors import SpaceError
from snugnet.nn.gates import Encoding, Probabilities, check_encoding, to_thermometer
from snugnet.nn.layers import BlockModule, ConvLayer, LinearLayer, SELayer
from snugnet.nn.network import module_name, resized
from snugnet.nn.pairs import conv_pairs, depthwise_pairs, grouped, scaled, se_pairs, split, with_channels
from snugnet.spaces import Block, Layer, SearchSpace

OPERATION = ("kernel_size", "expand_ratio")
"""Kinds of choices that have paths of their own in the multi-path encoding."""


class GatedSupernet:
    """A frozen supernet under the gates of many architectures at once.

    The batch holds ``b`` images for each of ``P`` architectures; see :mod:`snugnet.nn.pairs` for how they are laid out.

    Attributes:
        space: the search space.
        network: the supernet's network, every layer at its largest.
    """

    def __init__(self, space: SearchSpace, network: nn.Module) -> None:
        self.space = space
        self.network = network
        self._blocks: dict[Encoding, list[_GatedBlock]] = {}

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
        if encoding not in self._blocks:
            self._blocks[encoding] = _gated_blocks(self.space, encoding)
        blocks, draw = self._blocks[encoding], _Draw(probabilities)
        column = self.space.column.get("resolution")
        if column is None:
            return self._run(images, blocks, draw)
        chosen = probabilities[column]
        total: Any = 0.0
        for i, resolution in enumerate(self.space.choices[column].options):
            at = resized(images.flatten(0, 1), resolution).unflatten(0, images.shape[:2])
            total = total + chosen[:, i, None] * self._run(at, blocks, draw)
        return total

    def _run(self, images: Tensor, blocks: list[_GatedBlock], draw: _Draw) -> Tensor:
        b, pairs = images.shape[:2]
        state = _State(images.flatten(1, 2), None)
        for block in blocks:
            module = self.network._modules[block.module]
            assert isinstance(module, BlockModule)
            state = block(module, state, pairs, draw)
        return state.x.reshape(b, pairs, -1)


# -- what choices decide -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Attribute:
    """A number that describes a layer, as a function of the fewest choices that decide it.

    Attributes:
        columns: of those choices.
        values: one for each of their joint options, the last choice fastest; -1 where the layer is not there.
    """

    columns: tuple[int, ...]
    values: tuple[int, ...]

    @classmethod
    def of(cls, columns: tuple[int, ...], values: NDArray[np.int64]) -> _Attribute:
        """From values over more choices, (options, ...); where the layer is not there, anything goes."""
        left = list(columns)
        for axis in reversed(range(values.ndim)):
            top = values.max(axis, keepdims=True)
            if ((values == top) | (values == -1)).all():
                values = top.squeeze(axis)
                del left[axis]
        return cls(tuple(left), tuple(values.ravel().tolist()))

    @property
    def levels(self) -> tuple[int, ...]:
        """The different values, rising."""
        return tuple(sorted({value for value in self.values if value >= 0}))


@lru_cache(maxsize=4096)
def prefixes(widths: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """(m, c): which of the largest width's channels each width has."""
    filled = torch.arange(max(widths))[None] < torch.tensor(widths)[:, None]
    return filled.to(device, dtype)


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

    def mask(self, attribute: _Attribute) -> Tensor | None:
        """(P, c): for each channel the probability that it is there; nothing where all are."""
        if not attribute.columns:
            return None
        p = self.joint(attribute.columns)
        return self._once(attribute, lambda: p @ prefixes(attribute.values, p.device, p.dtype))

    def chance(self, attribute: _Attribute) -> Tensor | None:
        """(P, 1): the probability that something is there (value 1); nothing where that is certain."""
        if not attribute.columns:
            return None
        p = self.joint(attribute.columns)
        there = tuple(max(value, 0) for value in attribute.values)
        return self._once((attribute, "chance"), lambda: p @ prefixes(there, p.device, p.dtype))

    def larger(self, attribute: _Attribute) -> Tensor:
        """(P, m): the probability of each level or a higher one."""
        p, levels = self.joint(attribute.columns), attribute.levels
        if attribute.values != levels:
            p = p @ (torch.tensor(attribute.values)[:, None] == torch.tensor(levels)).to(p)
        return to_thermometer(p)


# -- blocks ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _State:
    """Activations (b, P * C, h, w), and the mask (P, C) that is still to be applied to them."""

    x: Tensor
    mask: Tensor | None

    def masked(self) -> Tensor:
        return scaled(self.x, self.mask)


def _gated_blocks(space: SearchSpace, encoding: Encoding) -> list[_GatedBlock]:
    """The space's blocks, first to last, with what its choices do to each."""
    made = []
    for i, part in enumerate(space.parts):
        # of its resolutions a block is looked at under the largest: they change no layer's weights
        ranges = [
            range(len(space.choices[c].options))[-1:]
            if space.choices[c].kind == "resolution"
            else range(len(space.choices[c].options))
            for c in part.choices
        ]
        shape = tuple(len(options) for options in ranges)
        variants: dict[str, NDArray[Any]] = {}
        for at, indices in zip(np.ndindex(shape), product(*ranges), strict=True):
            for block in space.part_blocks(i, indices):
                variants.setdefault(block.name, np.full(shape, None, dtype=object))[at] = block
        paths = [
            axis
            for axis, c in enumerate(part.choices)
            if encoding == "multi-path" and space.choices[c].kind in OPERATION
        ]
        made += [_GatedBlock(part.choices, blocks, paths) for blocks in variants.values()]
    return made


class _GatedBlock:
    """One block of the supernet and its gates.

    Attributes:
        module: name of its weights in the network.
        kept: whether the block is there.
        paths: the rows of layers that are run and mixed: one for each joint option of the choices with paths of their own.
        mixed: columns of those choices.
        shortcut: of each layer on the shortcut, its union and whether it is there; nothing without a shortcut.
    """

    def __init__(self, columns: tuple[int, ...], blocks: NDArray[Any], paths: list[int]) -> None:
        present = [block for block in blocks.flat if block is not None]
        union = Block.union(present)
        self.module = module_name(union)
        self.kept = _Attribute.of(
            columns, np.array([b is not None for b in blocks.flat], dtype=np.int64).reshape(blocks.shape)
        )
        self.mixed = tuple(columns[axis] for axis in paths)
        rest = tuple(c for axis, c in enumerate(columns) if axis not in paths)
        self.paths = []
        for indices in product(*(range(blocks.shape[axis]) for axis in paths)):
            where: list[Any] = [slice(None)] * blocks.ndim
            for axis, i in zip(paths, indices, strict=True):
                where[axis] = i
            self.paths.append(_Row(rest, np.asarray(blocks[tuple(where)], dtype=object)))
        self.shortcut: list[tuple[Layer, _Attribute]] | None = None
        if union.shortcut is not None:
            self.shortcut = [(layer, _read(columns, blocks, partial(_there, layer.name))) for layer in union.shortcut]
        sometimes = any(block.shortcut is None for block in present)
        if (union.shortcut is not None and sometimes) or (self.kept.columns and union.shortcut != ()):
            raise SpaceError(
                f"{union.name}: a block is skipped only around an identity, and has a shortcut always or never"
            )
        self.channels = union.layers[-1].out_channels

    def __call__(self, module: BlockModule, state: _State, pairs: int, draw: _Draw) -> _State:
        weights = draw.joint(self.mixed) if self.mixed else None
        total: Tensor | None = None
        for i, row in enumerate(self.paths):
            out = row(module, state, pairs, draw)
            x = out.x if weights is None else scaled(out.x, weights[:, i : i + 1])
            total = x if total is None else total + x
        assert total is not None
        total = scaled(total, draw.chance(self.kept))  # EAS equation 5: kept or skipped
        if self.shortcut is not None:
            total = total + self._around(module, state, pairs, draw, self.shortcut)
        return _State(total, out.mask)

    def _around(
        self, module: BlockModule, state: _State, pairs: int, draw: _Draw, layers: list[tuple[Layer, _Attribute]]
    ) -> Tensor:
        """The shortcut: of a 1x1 convolution that only some widths need, a mixture with the identity."""
        for layer, there in layers:
            step = module._modules[layer.name]
            if isinstance(step, ConvLayer):
                x = with_channels(state.masked(), pairs, layer.in_channels)
                x = with_channels(conv_pairs(step, layer, x, pairs), pairs, self.channels)
                chance = draw.chance(there)
                if chance is not None:
                    x = scaled(x, chance) + scaled(with_channels(state.x, pairs, self.channels), 1 - chance)
                state = _State(x, None)
            else:
                state = _pooled(step, layer, state, pairs)
        return with_channels(state.x, pairs, self.channels)


class _Row:
    """Layers in a row, each at the size of its union over the options of the choices that are left.

    Attributes:
        steps: the layers, and for each what decides its output's channels, its kernel and its hidden units.
    """

    def __init__(self, columns: tuple[int, ...], blocks: NDArray[Any]) -> None:
        present = [block for block in blocks.flat if block is not None]
        self.steps: list[tuple[Layer, _Attribute, _Attribute, _Attribute]] = []
        for layer in Block.union(present).layers:
            if any(_find(block, layer.name) is None for block in present):
                raise SpaceError(f"{present[0].name}: the layer {layer.name} is there under some options only")
            channels, kernel, hidden = (
                _read(columns, blocks, partial(_size, layer.name, size))
                for size in ("out_channels", "kernel", "hidden")
            )
            self.steps.append((layer, channels, kernel, hidden))

    def __call__(self, module: BlockModule, state: _State, pairs: int, draw: _Draw) -> _State:
        for layer, channels, kernel, hidden in self.steps:
            step = module._modules[layer.name]
            if isinstance(step, SELayer):
                state = _State(se_pairs(step, layer, state.masked(), pairs, draw.mask(hidden)), None)
            elif isinstance(step, LinearLayer):
                state = _State(step(split(state.masked(), pairs).flatten(1), layer), None)
            elif not isinstance(step, ConvLayer):
                state = _pooled(step, layer, state, pairs)
            elif not layer.depthwise:
                state = _State(conv_pairs(step, layer, state.masked(), pairs), draw.mask(channels))
            elif kernel.columns:
                x = depthwise_pairs(step, layer, state.x, pairs, draw.larger(kernel), kernel.levels)
                state = _State(x, draw.mask(channels))
            else:
                state = _State(conv_pairs(step, layer, state.x, pairs), draw.mask(channels))
        return state


def _pooled(step: Any, layer: Layer, state: _State, pairs: int) -> _State:
    """A layer without weights that treats each channel by itself, at the resolution at hand."""
    if layer.op == "flatten":
        return state
    x = step(split(state.x, pairs), replace(layer, resolution=state.x.shape[-1]))
    return _State(grouped(x, pairs), state.mask)


def _find(block: Block, name: str) -> Layer | None:
    return next((layer for layer in block.all_layers if layer.name == name), None)


def _there(name: str, block: Block) -> int:
    return int(_find(block, name) is not None)


def _size(name: str, size: str, block: Block) -> int:
    return int(getattr(_find(block, name), size))


def _read(columns: tuple[int, ...], blocks: NDArray[Any], number: Callable[[Block], int]) -> _Attribute:
    """A number of a block under all options of some choices."""
    values = [-1 if block is None else number(block) for block in blocks.flat]
    return _Attribute.of(columns, np.array(values, dtype=np.int64).reshape(blocks.shape))

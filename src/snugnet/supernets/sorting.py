"""Channels in order of importance, so that a narrower network begins with those that matter most.

Once-for-all sorts before widths become elastic: a sub-network takes the leading channels, and training leaves those in any order. Which
tensors share a row of channels is read off the plan of the space: every channel is followed from the convolution that makes it to all that
read it, through batch norms, sums, concatenations and splits. What the largest network computes stays the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snugnet.spaces import SearchSpace
from snugnet.spaces.effects import Effect, Effects, Position, Row, SizedLayer, effects
from snugnet.spaces.graph import flow

Ids = NDArray[np.int64]
"""Which channels: one number each."""


class Dim(NamedTuple):
    """An axis of one tensor.

    Attributes:
        tensor: its name in a supernet's network.
        axis: of it.
    """

    tensor: str
    axis: int


@dataclass(frozen=True)
class ChannelAxis:
    """A row of channels whose leading ones a narrower network takes, and all tensors that have it.

    Attributes:
        places: for each of those tensors' axes, where the channels stand in it, in their order.
        readers: those of them by whose weights a channel's importance is measured: they mix it with others.
        columns: of the choices that decide how many channels are taken.
    """

    places: Mapping[Dim, Ids]
    readers: tuple[Dim, ...]
    columns: tuple[int, ...]


def channel_axes(space: SearchSpace) -> tuple[ChannelAxis, ...]:
    """The elastic rows of channels of a space that can be put into another order.

    What is only there where its input or output is narrower than its largest, such as a shortcut that other widths need, is no part of the
    largest network, and begins with the leading channels as they come. One that only partly reaches some other tensor, or reaches it in another order, is left out, and so are the image's channels and the classes.
    """
    return _Follow(effects(space)).axes()


@torch.no_grad()
def importances(axis: ChannelAxis, tensors: Mapping[str, Tensor]) -> Tensor:
    """The L1 norm of the weights that read each channel (as once-for-all measures it): (channels,)."""
    total: Tensor | None = None
    for tensor, dim in axis.readers:
        weight = tensors[tensor].detach().double().abs()
        each = weight.transpose(0, dim).flatten(1).sum(1)[_index(axis.places[Dim(tensor, dim)], weight)]
        total = each if total is None else total + each
    assert total is not None, "nothing reads these channels"
    return total


@torch.no_grad()
def sort_channels(axes: Iterable[ChannelAxis], tensors: Mapping[str, Tensor], *others: Mapping[str, Tensor]) -> None:
    """Bring the channels of some axes into falling order of importance, in place.

    Args:
        axes: of the space.
        tensors: a supernet network's parameters and buffers, by name.
        others: what belongs to parameters of the same names and follows them, such as an optimizer's momentum; names may be missing.
    """
    axes = [axis for axis in axes if axis.readers]
    # Sorting one row changes the order in which another's importance is summed, but not what is summed.
    orders = [importances(axis, tensors).argsort(descending=True, stable=True) for axis in axes]
    for axis, order in zip(axes, orders, strict=True):
        for (name, dim), places in axis.places.items():
            for held in (tensors, *others):
                if (tensor := held.get(name)) is not None and tensor.ndim > dim:
                    at = _index(places, tensor)
                    tensor.index_copy_(dim, at, tensor.index_select(dim, at[order.to(at.device)]))


def narrows(axes: Iterable[ChannelAxis], in_use: Sequence[int]) -> bool:
    """Whether some channels are not taken by some networks.

    Args:
        axes: of the space.
        in_use: options of each choice that are drawn, counted from the largest: (d,).
    """
    return any(in_use[column] > 1 for axis in axes for column in axis.columns)


def _index(places: Ids, like: Tensor) -> Tensor:
    return torch.from_numpy(places).to(like.device)


class _Follow:
    """Follows channels through the plan of a space; equal ones are united."""

    def __init__(self, plan: Effects) -> None:
        self.plan = plan
        self._parent: list[int] = []
        self._dims: dict[Dim, Ids] = {}
        self._readers: set[Dim] = set()
        self._decided: dict[Dim, list[tuple[Row, Effect]]] = {}
        image = self._new(plan.space.in_channels)
        self._fixed = [image]
        flow(plan.steps, image, self._gathered, self._position)

    def axes(self) -> tuple[ChannelAxis, ...]:
        """What has been found."""
        root = np.array([self._root(channel) for channel in range(len(self._parent))], dtype=np.int64)
        columns: dict[tuple[int, ...], set[int]] = {}
        for dim, decided in self._decided.items():
            if by := _columns(decided):
                columns.setdefault(tuple(root[self._dims[dim]].tolist()), set()).update(by)
        rows = [np.array(row) for row in columns]
        owner, spoilt = np.full(len(root), -1), set[int]()
        for i, row in enumerate(rows):
            others = set(owner[row].tolist()) - {-1}
            owner[row] = i
            if others or len(set(row.tolist())) < len(row):
                spoilt |= {i, *others}
        spoilt |= {int(owner[channel]) for ids in self._fixed for channel in root[ids]}
        places: list[dict[Dim, Ids]] = [{} for _ in rows]
        for dim, ids in self._dims.items():
            own = owner[root[ids]]
            for i in set(own.tolist()) - {-1}:
                at = np.flatnonzero(own == i)
                places[i][dim] = at
                if not np.array_equal(root[ids][at], rows[i]):
                    spoilt.add(i)
        return tuple(
            ChannelAxis(own, tuple(dim for dim in own if dim in self._readers), tuple(sorted(by)))
            for i, (own, by) in enumerate(zip(places, columns.values(), strict=True))
            if i not in spoilt
        )

    # -- the walk ------------------------------------------------------------------------------------------------------

    def _gathered(self, inputs: list[Ids], position: Position) -> Ids:
        if position.gather == "concat":
            return np.concatenate(inputs)
        for each in inputs[1:]:
            self._unite(inputs[0], each)
        return max(inputs, key=len)

    def _position(self, position: Position, x: Ids) -> Ids:
        out = self._new(position.width)
        for row in position.rows:
            y = x[row.first :: row.step]
            if row.layers and row.layers[0].layer.in_channels < len(y):
                y = self._new(
                    row.layers[0].layer.in_channels
                )  # only there where its input is narrower than its largest
            for sized in row.layers:
                y = self._layer(f"{row.key.replace('.', '_')}.{sized.layer.name}", row, sized, y)
            y = y[: row.channels or None]
            if row.channels or len(y) == position.width - row.at:  # otherwise only where one of the two is narrower
                self._unite(out[row.at : row.at + len(y)], y)
        return out

    def _layer(self, name: str, row: Row, sized: SizedLayer, x: Ids) -> Ids:
        layer = sized.layer
        match layer.op:
            case "conv" if not layer.depthwise:
                self._reads(f"{name}.conv.weight", x)
                return self._makes(name, layer.out_channels, ("conv.weight", "conv.bias", *_NORM), row, sized.channels)
            case "conv":
                if layer.groups != layer.in_channels or layer.in_channels != layer.out_channels:
                    self._fixed.append(x)
                self._passes(name, ("conv.weight", "conv.bias", *_NORM), x)
                return x
            case "norm":
                self._passes(name, _NORM, x)
                return x
            case "se":
                self._passes(name, ("expand.weight", "expand.bias"), x)
                self._dim(Dim(f"{name}.reduce.weight", 1), x)
                hidden = self._makes(name, layer.hidden, ("reduce.weight", "reduce.bias"), row, sized.hidden)
                self._reads(f"{name}.expand.weight", hidden)
                return x
            case "linear":
                self._reads(f"{name}.linear.weight", x)
                out = self._makes(name, layer.out_channels, ("linear.weight", "linear.bias"), row, sized.channels)
                self._fixed.append(out)
                return out
            case "zero":
                return self._new(layer.out_channels)
            case _:
                return x

    def _makes(self, name: str, channels: int, tensors: Iterable[str], row: Row, effect: Effect) -> Ids:
        """New channels, or those that the same weights made in another row."""
        names = [Dim(f"{name}.{tensor}", 0) for tensor in tensors]
        out = self._dim(names[0], self._new(channels))
        for dim in names[1:]:
            self._dim(dim, out)
        self._decided.setdefault(names[0], []).append((row, effect))
        return out

    def _passes(self, name: str, tensors: Iterable[str], x: Ids) -> None:
        for tensor in tensors:
            self._dim(Dim(f"{name}.{tensor}", 0), x)

    def _reads(self, tensor: str, x: Ids) -> None:
        self._dim(Dim(tensor, 1), x)
        self._readers.add(Dim(tensor, 1))

    def _dim(self, dim: Dim, ids: Ids) -> Ids:
        """What stands along an axis: at least these channels, in this order."""
        known = self._dims.setdefault(dim, ids)
        if known is not ids:
            self._unite(known, ids)
            self._dims[dim] = max(known, ids, key=len)
        return self._dims[dim]

    # -- equal channels ------------------------------------------------------------------------------------------------

    def _new(self, count: int) -> Ids:
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def _unite(self, some: Ids, others: Ids) -> None:
        """The leading channels of both are the same."""
        for a, b in zip(some.tolist(), others.tolist(), strict=False):
            self._parent[self._root(a)] = self._root(b)

    def _root(self, channel: int) -> int:
        while self._parent[channel] != channel:
            self._parent[channel] = self._parent[self._parent[channel]]
            channel = self._parent[channel]
        return channel


def _columns(decided: Sequence[tuple[Row, Effect]]) -> set[int]:
    """The choices that decide how many channels the rows of some weights have; none where it is always as many."""
    within = {column for _, effect in decided if len(effect.levels) > 1 for column in effect.columns}
    if within or len({level for _, effect in decided for level in effect.levels}) <= 1:
        return within
    return {column for row, _ in decided for column in row.there.columns}


_NORM = ("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")

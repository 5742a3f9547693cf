"""What spaces of cells have in common: operations on the edges of a small graph, as blocks that read each other."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from snugnet.spaces.blueprint import Block, Layer, Op
from snugnet.spaces.mbconv import MBConvSpace
from snugnet.spaces.space import Population

NONE = "none"
"""The operation of an edge that is not there."""


class Edge(NamedTuple):
    """One edge of a cell, the same in all cells of a kind.

    Attributes:
        name: of the choice of its operation, such as ``"normal.edge02"``.
        source: number of the node that it comes from.
        node: number of the node that it leads to.
        column: of the choice of its operation.
        operations: what may stand on it, :data:`NONE` first where it may be left out.
        inputs: column of the choice that says which edges its node has; ``None`` where all are there and ``none`` is chosen
            as any other operation.
    """

    name: str
    source: int
    node: int
    column: int
    operations: tuple[str, ...]
    inputs: int | None

    @property
    def kind(self) -> str:
        """Of cell that it is in, such as ``"normal"``; empty in a space of one kind."""
        return self.name.rpartition(".")[0]

    @property
    def offset(self) -> int:
        """Operations before the first option of its choice."""
        return 0 if self.inputs is None else 1


class CellSpace(MBConvSpace):
    """A space of cells: graphs with a choice of operation on every edge, each repeated along the network."""

    @property
    @abstractmethod
    def edges(self) -> tuple[Edge, ...]:
        """Of all kinds of cells, in the order in which their nodes are made."""

    @cached_property
    def positions(self) -> dict[str, tuple[str, ...]]:
        """The blocks of each edge, one a cell, first to last; by the edge's name."""
        return {
            edge.name: tuple(part.name for part in self.parts if edge.column in part.choices) for edge in self.edges
        }

    def edge_operations(self, archs: Population) -> NDArray[np.intp]:
        """Which operation each edge has: places in :attr:`Edge.operations`, shape ``(n, edges)``.

        Args:
            archs: canonical rows, shape ``(n, d)``.
        """
        found = np.empty((len(archs), len(self.edges)), dtype=np.intp)
        active = self.active(archs)
        for e, edge in enumerate(self.edges):
            found[:, e] = np.where(active[:, edge.column], archs[:, edge.column] + edge.offset, 0)
        return found


def relu(name: str, channels: int, size: int) -> Layer:
    """ReLU alone: in a cell it stands before a convolution."""
    return Layer(name, "activation", channels, channels, size, activation="relu")


def relu_conv(name: str, before: int, after: int, size: int, kernel: int = 1, stride: int = 1) -> tuple[Layer, ...]:
    """ReLU, convolution, batch norm."""
    return relu(f"{name}_relu", before, size), Layer(name, "conv", before, after, size, kernel, stride, norm=True)


def pool(op: Op, channels: int, size: int, stride: int = 1) -> tuple[Layer, ...]:
    """``avg_pool`` or ``max_pool`` over 3x3 pixels; what lies beyond the edge does not count."""
    return (Layer("pool", op, channels, channels, size, 3, stride),)


def identity(channels: int, size: int) -> tuple[Layer, ...]:
    """What comes in."""
    return (Layer("identity", "identity", channels, channels, size),)


def zero(channels: int, size: int, stride: int = 1) -> tuple[Layer, ...]:
    """An edge that is not there."""
    return (Layer("zero", "zero", channels, channels, size, stride=stride),)


def node(name: str, edges: tuple[str, ...], channels: int, size: int) -> Block:
    """The sum of some edges."""
    return Block(name, identity(channels, size), reads=edges)


def classifier(width: int, num_classes: int, size: int) -> tuple[Layer, ...]:
    """Global average, and a linear layer with a bias."""
    return (
        Layer("pool", "pool", width, width, size),
        Layer("flatten", "flatten", width, width, 1),
        Layer("classifier", "linear", width, num_classes, 1, bias=True),
    )

"""What spaces of cells have in common: operations on the edges of a small graph, as blocks that read each other."""

from __future__ import annotations

from snugnet.spaces.blueprint import Block, Layer, Op


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

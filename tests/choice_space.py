"""A small space with choice blocks: at two positions one of several blocks with weights of their own."""

from __future__ import annotations

from typing import Any, Self

from snugnet.spaces import Block, Choice, Layer, Part, SearchSpace
from snugnet.spaces.blueprint import Activation

WIDTH = 6


def stem() -> tuple[Block, ...]:
    return (Block("stem", (Layer("conv", "conv", 3, 4, 6, 3, norm=True, activation="relu"),)),)


def separable(name: str, alternative: str, channels: tuple[int, int], kernel: int, stride: int, mid: int) -> Block:
    """1x1, depthwise, 1x1; around it the identity where that fits."""
    before, after = channels
    size = 6 // (2 if stride == 1 else 1)
    depthwise = Layer("depthwise", "conv", mid, mid, size, kernel, stride, groups=mid, norm=True)
    layers = (
        Layer("expand", "conv", before, mid, size, norm=True, activation="h_swish"),
        depthwise,
        Layer("project", "conv", mid, after, depthwise.out_resolution, norm=True, activation="h_swish"),
    )
    return Block(name, layers, () if before == after and stride == 1 else None, alternative)


def down(operation: str, mid: int) -> tuple[Block, ...]:
    """Kernel 3 or 5, or depthwise before 1x1, twice, of elastic width inside, with a strided shortcut."""
    if operation != "xception":
        return (separable("down", operation, (4, WIDTH), int(operation[1]), 2, 8),)
    layers = (
        Layer("depthwise1", "conv", 4, 4, 6, 3, 2, groups=4, norm=True),
        Layer("pointwise1", "conv", 4, mid, 3, norm=True, activation="h_swish"),
        Layer("depthwise2", "conv", mid, mid, 3, 3, groups=mid, norm=True),
        Layer("pointwise2", "conv", mid, WIDTH, 3, norm=True, activation="h_swish"),
    )
    around = (
        Layer("around_pool", "avg_pool", 4, 4, 6, 2, 2),
        Layer("around_conv", "conv", 4, WIDTH, 3, norm=True),
    )
    return (Block("down", layers, around, operation),)


def flat(operation: str, scale: float, kernel: int) -> tuple[Block, ...]:
    """Kernel 3 or 5 of a scaled width, a convolution whose kernel and activation are one choice, or nothing at all."""
    if operation == "skip":
        return ()
    if operation == "plain":
        activation: Activation = "relu" if kernel == 1 else "h_swish"
        mixing = Layer("conv", "conv", WIDTH, WIDTH, 3, kernel, norm=True, activation=activation)
        return (Block("flat", (mixing,), None, operation),)
    return (separable("flat", operation, (WIDTH, WIDTH), int(operation[1]), 1, int(WIDTH * scale)),)


def head() -> tuple[Block, ...]:
    layers = (
        Layer("pool", "pool", WIDTH, WIDTH, 3),
        Layer("flatten", "flatten", WIDTH, WIDTH, 1),
        Layer("classifier", "linear", WIDTH, 4, 1, bias=True),
    )
    return (Block("head", layers),)


class ChoiceSpace(SearchSpace):
    """Two positions; in the first one alternative has a width to choose, in the second two share one; one may be skipped."""

    name = "choice-blocks"

    @classmethod
    def create(cls, /, **options: Any) -> Self:
        choices = (
            Choice("down.block", ("k3", "k5", "xception"), "block", (1, 1)),
            Choice("down.mid", (3, 5, 8), "width", (1, 1), "down.block", (False, False, True)),
            Choice("flat.block", ("skip", "k3", "k5", "plain"), "block", (2, 2, 2)),
            Choice("flat.scale", (0.5, 1.0, 1.5), "scale", (2, 2), "flat.block", (False, True, True, False)),
            Choice("flat.kernel", (1, 3), "kernel_size", (2,), "flat.block", (False, False, False, True)),
        )
        parts = (
            Part("stem", (), stem),
            Part("down", (0, 1), down),
            Part("flat", (2, 3, 4), flat),
            Part("head", (), head),
        )
        return cls(options, choices, parts, 3, 6)

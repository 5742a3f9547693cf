"""The space of DARTS: a normal and a reduction cell, each node of which takes two operations on earlier ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache, partial
from itertools import combinations
from typing import Any, NamedTuple, Self

from numpy.typing import ArrayLike

from snugnet.errors import SpaceError
from snugnet.spaces.blueprint import Activation, Block, Layer
from snugnet.spaces.cells import NONE, CellSpace, Edge, classifier, identity, node, pool, relu, relu_conv, zero
from snugnet.spaces.mbconv import Assembly, Build, check_counts, check_fields, check_resolutions
from snugnet.spaces.space import Population, check_sequence, register

OPERATIONS = (
    "skip_connect",
    "max_pool_3x3",
    "avg_pool_3x3",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "sep_conv_3x3",
    "sep_conv_5x5",
)
"""Of an edge, cheapest first (at stride 1)."""
INPUTS = 2
"""Nodes 0 and 1 of a cell: the outputs of the two cells before it."""
CELLS = ("normal", "reduce")
STEMS = ("cifar", "imagenet")
STEM_MULTIPLIER = 3


@register
class DARTS(CellSpace):
    """The space of DARTS (Liu et al., ICLR 2019, arXiv 1806.09055, section 3.1.1), 1.1e18 pairs of cells.

    A cell has two inputs, the outputs of the two cells before it, each brought to the cell's channels by a 1x1 convolution (ReLU
    first, batch norm behind; a factorized reduction where a reduction cell stands between), and four nodes. A node is the sum of
    two operations on two different earlier ones; the cell's output is the four nodes side by side. All normal cells are the
    same, and both reduction cells, a third and two thirds down the network, where the channels double: there what is taken from the
    inputs has a stride of 2.

    ``sep_conv`` is ReLU, depthwise, 1x1, batch norm, twice; ``dil_conv`` is that once, its taps two pixels apart; a pool over 3x3 pixels
    leaves out what lies beyond the edge; ``skip_connect`` is the identity, and a factorized reduction at stride 2. DARTS's
    eighth operation, ``none``, is in no cell that was derived: here it is every edge that no node has chosen. The
    auxiliary classifier is no part of a network; training adds one to the second reduction cell where it wants it.

    Counts: ``madds`` are those of convolutions and linear layers, as everywhere in this package. The published cell (DARTS V2)
    has 3,349,342 params and 528,359,040 MAdds at 36 channels and 20 cells on CIFAR-10, and 4,718,752 and 529,911,552 at 48 and
    14 on ImageNet. (The 574 million that papers print for ImageNet come out of no counter that was tried.)

    Options:
        resolution: height and width of the image, 32; 224 with the stem for ImageNet.
        resolutions: where the resolution is to be a choice, its options, smallest first; the largest is ``resolution``.
        num_classes: width of the classifier, 10; 1000 with the stem for ImageNet.
        in_channels: channels of the image.
        channels: of a node before the first reduction, 36; each reduction doubles them.
        cells: normal and reduction cells together, at least 3; 20.
        nodes: of a cell, besides its inputs; 4.
        operations: that a node chooses from; all seven.
        stem: ``cifar`` (one 3x3 convolution with three times the channels) or ``imagenet`` (three 3x3 of stride 2; the first cell's
            inputs are the second and the third, and the first cell brings the larger one down by a factorized reduction).
    """

    name = "darts"
    json_options = ("resolution",)

    @classmethod
    def _create(
        cls,
        resolution: int | None = None,
        resolutions: Sequence[int] | None = None,
        num_classes: int | None = None,
        in_channels: int = 3,
        channels: int = 36,
        cells: int = 20,
        nodes: int = 4,
        operations: Sequence[str] = OPERATIONS,
        stem: str = "cifar",
    ) -> Self:
        if stem not in STEMS:
            raise SpaceError(f"stem is one of {', '.join(STEMS)}, got {stem!r}")
        large = stem == "imagenet"
        resolution, sizes = check_resolutions(resolution, resolutions, 224 if large else 32)
        num_classes = (1000 if large else 10) if num_classes is None else num_classes
        options: dict[str, Any] = {
            "resolution": resolution,
            "num_classes": num_classes,
            "in_channels": in_channels,
            "channels": channels,
            "cells": cells,
            "nodes": nodes,
        }
        check_counts(**options)
        chosen = tuple(check_sequence("operations", operations))
        if not chosen or chosen != tuple(each for each in OPERATIONS if each in chosen):
            raise SpaceError(f"operations are some of {', '.join(OPERATIONS)}, in that order; got {list(chosen)!r}")
        if cells < 3 or channels < 2:
            raise SpaceError(
                f"cells are at least 3, two of which reduce, and channels at least 2; got {cells} and {channels}"
            )
        options |= {"operations": list(chosen), "stem": stem} | ({"resolutions": list(sizes)} if sizes else {})

        made = Assembly(resolution, sizes)
        columns = {kind: _choices(made, kind, i * nodes, nodes, chosen) for i, kind in enumerate(CELLS)}
        inputs = _put_stem(made, stem, in_channels, channels)
        for cell in range(cells):
            reduces = cell in (cells // 3, 2 * cells // 3)
            channels *= 1 + reduces
            inputs = _put_cell(made, f"cell{cell + 1}", inputs, channels, columns[CELLS[reduces]], 1 + reduces)
        made.part("head", (), partial(_head, inputs[1].channels, num_classes), strides=inputs[1].strides)
        return cls(options, tuple(made.choices), tuple(made.parts), in_channels, resolution)

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """Fourteen of each kind of cell, where it has four nodes."""
        operations = (NONE, *self.options["operations"])
        return tuple(
            Edge(name, source, number, self.column[name], operations, self.column[f"{kind}.node{number}.inputs"])
            for kind in CELLS
            for number in self._nodes
            for source in range(number)
            for name in [f"{kind}.edge{source}{number}"]
        )

    @property
    def auxiliary_block(self) -> str:
        """The output of the second reduction cell, two thirds down the network."""
        return f"cell{2 * self.options['cells'] // 3 + 1}.output"

    @property
    def _nodes(self) -> range:
        """The numbers of a cell's nodes."""
        return range(INPUTS, INPUTS + self.options["nodes"])

    def to_dict(self, arch: ArrayLike) -> dict[str, Any]:
        """The JSON form: a genotype as DARTS writes it, the two of each node in the order of their inputs; and the resolution where
        it is a choice."""
        named = super().to_dict(arch)
        form: dict[str, Any] = {"resolution": named["resolution"]} if "resolution" in named else {}
        for kind in CELLS:
            pairs = [
                [named[f"{kind}.edge{source}{number}"], int(source)]
                for number in self._nodes
                for source in named[f"{kind}.node{number}.inputs"].split("+")
            ]
            form |= {kind: pairs, f"{kind}_concat": list(self._nodes)}
        return form

    def from_dict(self, arch: Mapping[str, Any]) -> Population:
        """The row of a genotype; further keys are left alone. The two of a node may stand in either order.

        Raises:
            SpaceError: a field is missing, or is none of this space.
        """
        self._check_stated(arch)
        needed = [key for kind in CELLS for key in (kind, f"{kind}_concat")]
        check_fields(arch, needed + (["resolution"] if "resolution" in self.column else []))
        named = {key: arch[key] for key in ("resolution",) if key in self.column}
        for kind in CELLS:
            concat = check_sequence(f"{kind}_concat", arch[f"{kind}_concat"])
            if list(concat) != list(self._nodes):
                raise SpaceError(f"{kind}_concat is {list(self._nodes)}, all nodes of a cell, got {list(concat)}")
            edges = check_sequence(kind, arch[kind], 2 * len(self._nodes))
            for number, pair in zip(self._nodes, zip(edges[::2], edges[1::2], strict=True), strict=True):
                (first, a), (second, b) = sorted(
                    (self._check_edge(kind, number, edge) for edge in pair), key=lambda edge: edge[1]
                )
                if a == b:
                    raise SpaceError(f"{kind}: node {number} takes node {a} twice; its two inputs are different nodes")
                named[f"{kind}.node{number}.inputs"] = f"{a}+{b}"
                named |= {f"{kind}.edge{a}{number}": first, f"{kind}.edge{b}{number}": second}
        return self.from_choices(named)

    def _check_edge(self, kind: str, number: int, edge: Any) -> tuple[str, int]:
        """An operation and its input from a genotype.

        Raises:
            SpaceError: it is none of this space.
        """
        operation, source = check_sequence(f"{kind}: an edge of node {number}", edge, 2)
        allowed = self.options["operations"]
        if operation not in allowed:
            raise SpaceError(f"{kind}: node {number} has {operation!r}; allowed: {', '.join(allowed)}")
        if type(source) is not int or not 0 <= source < number:
            raise SpaceError(f"{kind}: node {number} takes nodes 0 to {number - 1}, got {source!r}")
        return operation, source


class _Output(NamedTuple):
    """What cells take from before them: a block, its channels, and the strides on the way to it."""

    name: str
    channels: int
    strides: tuple[int, ...]


_Inputs = tuple[_Output, _Output]


def _choices(
    made: Assembly, kind: str, position: int, nodes: int, operations: tuple[str, ...]
) -> dict[int, tuple[int, tuple[int, ...]]]:
    """Of each node of a cell: its two inputs, and the operation on each edge to it, which matters where that is one of the two;
    their columns."""
    columns = {}
    for i in range(nodes):
        number = INPUTS + i
        pairs = tuple(combinations(range(number), 2))
        name = f"{kind}.node{number}.inputs"
        inputs = made.choice(name, tuple(f"{a}+{b}" for a, b in pairs), "inputs", (position + i,) * (len(pairs) - 1))
        edges = tuple(
            made.choice(
                f"{kind}.edge{source}{number}", operations, "operation", (position + i,) * (len(operations) - 1),
                name, tuple(source in pair for pair in pairs),
            )
            for source in range(number)
        )  # fmt: skip
        columns[number] = inputs, edges
    return columns


def _put_stem(made: Assembly, stem: str, in_channels: int, channels: int) -> _Inputs:
    """Put down what stands before the cells."""
    if stem == "cifar":
        width = STEM_MULTIPLIER * channels
        made.part("stem", (), partial(_stem, "stem", in_channels, width, 1, False, False))
        return (_Output("stem", width, made.strides),) * 2
    made.part("stem1", (), partial(_stem, "stem1", in_channels, channels // 2, 2, False, True), 2)
    made.part("stem2", (), partial(_stem, "stem2", channels // 2, channels, 2, False, False), 2)
    larger = _Output("stem2", channels, made.strides)
    made.part("stem3", (), partial(_stem, "stem3", channels, channels, 2, True, False), 2)
    return larger, _Output("stem3", channels, made.strides)


def _put_cell(
    made: Assembly,
    name: str,
    inputs: _Inputs,
    channels: int,
    columns: Mapping[int, tuple[int, tuple[int, ...]]],
    stride: int,
) -> _Inputs:
    """Put down a cell; returns what the next one takes."""
    before = inputs[1].strides
    after = (*before, stride)
    for i, each in enumerate(inputs):
        halves = len([s for s in before if s > 1]) > len([s for s in each.strides if s > 1])
        own = f"{name}.input{i}"
        build: Build = partial(_input, own, each.name, each.channels, channels, halves)
        made.part(own, (), build, strides=each.strides)
    for number, (pair, operations) in columns.items():
        for source, operation in enumerate(operations):
            own, outer = f"{name}.edge{source}{number}", source < INPUTS
            build = partial(_edge, name, source, number, channels, stride if outer else 1)
            made.part(own, (pair, operation), build, strides=before if outer else after)
        edges = tuple(f"{name}.edge{source}{number}" for source in range(number))
        made.part(f"{name}.node{number}", (), partial(_node, f"{name}.node{number}", edges, channels), strides=after)
    made.part(f"{name}.output", (), partial(_output, name, tuple(columns), channels), strides=after)
    return inputs[1], _Output(f"{name}.output", len(columns) * channels, after)


# -- blocks ------------------------------------------------------------------------------------------------------------


def _stem(
    name: str, before: int, after: int, stride: int, relu_before: bool, relu_behind: bool, size: int
) -> tuple[Block, ...]:
    """3x3 convolution and batch norm, with a ReLU before or behind."""
    activation: Activation = "relu" if relu_behind else "none"
    conv = Layer("conv", "conv", before, after, size, 3, stride, norm=True, activation=activation)
    return (Block(name, ((relu("relu", before, size),) if relu_before else ()) + (conv,)),)


def _input(name: str, source: str, before: int, after: int, halves: bool, size: int) -> tuple[Block, ...]:
    if halves:
        return (_halves(name, source, before, after, size),)
    return (Block(name, relu_conv("conv", before, after, size), reads=(source,)),)


def _halves(name: str, source: str, before: int, after: int, size: int, alternative: str = "") -> Block:
    """A factorized reduction: two 1x1 of stride 2 side by side, the second one on the pixels that the first leaves out."""
    first, second = (
        Layer(which, "conv", before, width, size, stride=2, norm=True)
        for which, width in (("first", after // 2), ("second", after - after // 2))
    )
    return Block(
        name,
        (relu("second_relu", before, size), Layer("shift", "shift", before, before, size), second),
        (relu("first_relu", before, size), first),
        alternative,
        join="concat",
        reads=(source,),
    )


def _edge(
    cell: str, source: int, number: int, channels: int, stride: int, size: int, inputs: str, operation: str
) -> tuple[Block, ...]:
    """What stands between two nodes: an operation where the source is one of the node's inputs, or zero."""
    there = str(source) in inputs.split("+")
    return _operation(cell, source, number, channels, stride, size, operation if there else NONE)


@lru_cache(maxsize=65536)
def _operation(
    cell: str, source: int, number: int, channels: int, stride: int, size: int, operation: str
) -> tuple[Block, ...]:
    name = f"{cell}.edge{source}{number}"
    before = f"{cell}.{'input' if source < INPUTS else 'node'}{source}"
    kind, _, kernel = operation.rpartition("_")
    side = int(kernel[0]) if kernel[0].isdigit() else 0
    match kind:
        case "max_pool" | "avg_pool":
            layers = pool("max_pool" if kind == "max_pool" else "avg_pool", channels, size, stride)
        case "sep_conv":
            small = -(-size // stride)
            layers = (*_separable("1", channels, size, side, stride), *_separable("2", channels, small, side, 1))
        case "dil_conv":
            layers = _separable("", channels, size, side, stride, 2)
        case "skip" if stride == 2:
            return (_halves(name, before, channels, channels, size, operation),)
        case "skip":
            layers = identity(channels, size)
        case _:
            layers = zero(channels, size, stride)
    return (Block(name, layers, None, operation, reads=(before,)),)


def _separable(number: str, channels: int, size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[Layer, ...]:
    """ReLU, depthwise, 1x1, batch norm."""
    each = Layer(f"depthwise{number}", "conv", channels, channels, size, kernel, stride, channels, dilation=dilation)
    mix = Layer(f"pointwise{number}", "conv", channels, channels, each.out_resolution, norm=True)
    return relu(f"relu{number}", channels, size), each, mix


def _node(name: str, edges: tuple[str, ...], channels: int, size: int) -> tuple[Block, ...]:
    return (node(name, edges, channels, size),)


def _output(cell: str, numbers: tuple[int, ...], channels: int, size: int) -> tuple[Block, ...]:
    """All nodes side by side."""
    nodes = tuple(f"{cell}.node{number}" for number in numbers)
    return (Block(f"{cell}.output", identity(len(nodes) * channels, size), reads=nodes, gather="concat"),)


def _head(width: int, num_classes: int, size: int) -> tuple[Block, ...]:
    return (Block("head", classifier(width, num_classes, size)),)

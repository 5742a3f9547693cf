"""The space of NAS-Bench-201: one cell of four nodes, repeated."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Self

from numpy.typing import ArrayLike

from snugnet.errors import SpaceError
from snugnet.spaces.blueprint import Block, Layer
from snugnet.spaces.cells import CellSpace, Edge, classifier, identity, node, pool, relu_conv, zero
from snugnet.spaces.mbconv import Assembly, check_counts, check_fields, check_resolutions
from snugnet.spaces.space import Population, register

OPERATIONS = ("none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3")
"""Of an edge, cheapest first."""
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""From node to node, in the order in which architectures are written."""
STAGES = 3
FORM = "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|"


@register
class NASBench201(CellSpace):
    """The space of NAS-Bench-201 (Dong and Yang, ICLR 2020, arXiv 2001.00326, section 2.1), 15,625 architectures.

    A cell is a graph of four nodes, each the sum of operations on all earlier ones: six edges, and one choice for each, the same
    in all cells. A convolution is ReLU, convolution, batch norm; an average over 3x3 pixels leaves out what lies beyond the
    edge; ``none`` is zero. Around the cells: a 3x3 convolution with batch norm; three stages, and between them a
    residual block that halves the size (two 3x3 convolutions, beside them an average over 2x2 pixels and a 1x1); batch norm,
    ReLU, pool, and a classifier with a bias.

    Counts: ``params`` are those of the benchmark. Its FLOPs are the MAdds of this package (convolutions and linear layers, once
    each) and, on top, one for each bias of the classifier: :meth:`benchmark_flops`. Operations that reach no output are counted,
    there and here, but not run here.

    Options:
        resolution: height and width of the image: 32 for CIFAR, 16 for ImageNet16-120.
        resolutions: where the resolution is to be a choice, its options, smallest first; the largest is ``resolution``.
        num_classes: 10 or 100 for CIFAR, 120 for ImageNet16-120.
        in_channels: channels of the image.
        channels: of the first stage, 16; each further stage has twice as many.
        cells: of each stage, 5.
    """

    name = "nas-bench-201"
    json_options = ("resolution",)

    @classmethod
    def _create(
        cls,
        resolution: int | None = None,
        resolutions: Sequence[int] | None = None,
        num_classes: int = 10,
        in_channels: int = 3,
        channels: int = 16,
        cells: int = 5,
    ) -> Self:
        resolution, sizes = check_resolutions(resolution, resolutions, 32)
        options: dict[str, Any] = {
            "resolution": resolution,
            "num_classes": num_classes,
            "in_channels": in_channels,
            "channels": channels,
            "cells": cells,
        }
        check_counts(**options)
        options |= {"resolutions": list(sizes)} if sizes else {}
        made = Assembly(resolution, sizes)
        columns = [
            made.choice(f"edge{a}{b}", OPERATIONS, "operation", (i,) * (len(OPERATIONS) - 1))
            for i, (a, b) in enumerate(EDGES)
        ]
        made.part("stem", (), partial(_stem, in_channels, channels))
        before = "stem"
        for stage in range(STAGES):
            width = channels << stage
            if stage:
                before = f"reduction{stage}"
                made.part(before, (), partial(_reduction, before, width // 2), 2)
            for cell in range(cells):
                name = f"stage{stage + 1}.cell{cell + 1}"
                for column, (a, b) in zip(columns, EDGES, strict=True):
                    source = before if a == 0 else f"{name}.node{a}"
                    edge = partial(_edge, f"{name}.edge{a}{b}", source, width)
                    made.part(f"{name}.edge{a}{b}", (column,), edge)
                    if a == b - 1:
                        made.part(f"{name}.node{b}", (), partial(_node, name, b, width))
                before = f"{name}.node3"
        made.part("head", (), partial(_head, channels << STAGES - 1, num_classes))
        return cls(options, tuple(made.choices), tuple(made.parts), in_channels, resolution)

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """The six, in the order in which architectures are written."""
        named = ((f"edge{a}{b}", a, b) for a, b in EDGES)
        return tuple(Edge(name, a, b, self.column[name], OPERATIONS, None) for name, a, b in named)

    @property
    def auxiliary_block(self) -> str:
        """The second residual block that halves the size, two thirds down the network."""
        return f"reduction{STAGES - 1}"

    def to_dict(self, arch: ArrayLike) -> dict[str, Any]:
        """The JSON form: ``arch_str``, as the benchmark writes it, and the resolution where it is a choice."""
        chosen = {"resolution": self.resolution_of(self.rows(arch)[0])} if "resolution" in self.column else {}
        return {"arch_str": self.arch_str(arch), **chosen}

    def from_dict(self, arch: Mapping[str, Any]) -> Population:
        """The row of an architecture in JSON form; further keys are left alone.

        Raises:
            SpaceError: there is no ``arch_str``, or it is none of this space.
        """
        self._check_stated(arch)
        check_fields(arch, ("arch_str", *(["resolution"] if "resolution" in self.column else [])))
        rows = self.from_str(arch["arch_str"])
        if "resolution" in self.column:
            rows[0, 0] = self.choices[0].index(arch["resolution"])
        return rows

    def arch_str(self, arch: ArrayLike) -> str:
        """One architecture as the benchmark writes it, such as ``|none~0|+|none~0|none~1|+|none~0|none~1|none~2|``."""
        chosen = self._operations(arch)
        nodes = ("".join(f"{chosen[a, b]}~{a}|" for a in range(b)) for b in range(1, 4))
        return "+".join(f"|{each}" for each in nodes)

    def from_str(self, text: str) -> Population:
        """The row, shape ``(1, d)``, of an architecture as the benchmark writes it, at the smallest resolution.

        Raises:
            SpaceError: it is none.
        """
        found = re.fullmatch(_PATTERN, text) if isinstance(text, str) else None
        wrong = [each for each in found.groups() if each not in OPERATIONS] if found else [text]
        if wrong:
            raise SpaceError(f"arch_str holds {wrong[0]!r}; allowed: {FORM}, each op one of {', '.join(OPERATIONS)}")
        assert found is not None
        row = [0] * (self.d - len(EDGES)) + [OPERATIONS.index(each) for each in found.groups()]
        return self.rows(row)

    def isomorphism_class(self, arch: ArrayLike) -> str:
        """What is equal for cells that compute the same, as far as the benchmark knows (``iso_string`` in its tables).

        A node is the sorted sum of its edges, an edge ``(node)@operation``; a ``skip_connect`` is the node itself, and ``none``, or
        any edge of a node that is ``none`` alone, is ``#``.
        """
        chosen = self._operations(arch)
        nodes = ["0"]
        for b in range(1, 4):
            terms = []
            for a in range(b):
                operation, before = chosen[a, b], nodes[a]
                if operation == "none" or before == "#":
                    terms.append("#")
                else:
                    terms.append(before if operation == "skip_connect" else f"({before})@{operation}")
            nodes.append("+".join(sorted(terms)))
        return nodes[-1]

    def benchmark_flops(self, arch: ArrayLike) -> int:
        """FLOPs as the benchmark's tables count them, for one image: MAdds, and one for each bias of the classifier."""
        blueprint = self.blueprint(arch)
        return blueprint.madds + blueprint.num_classes

    def _operations(self, arch: ArrayLike) -> dict[tuple[int, int], str]:
        """The operation of each edge of one architecture."""
        rows = self.rows(arch)
        if len(rows) != 1:
            raise SpaceError(f"a cell is of one architecture, got {len(rows)}")
        chosen = rows[0, -len(EDGES) :].tolist()
        return {edge: OPERATIONS[i] for edge, i in zip(EDGES, chosen, strict=True)}


_PATTERN = r"\+".join(r"\|" + "".join(rf"([^|~+]*)~{a}\|" for a in range(b)) for b in range(1, 4))


# -- blocks ------------------------------------------------------------------------------------------------------------


def _stem(in_channels: int, width: int, size: int) -> tuple[Block, ...]:
    return (Block("stem", (Layer("conv", "conv", in_channels, width, size, 3, norm=True),)),)


def _edge(name: str, source: str, width: int, size: int, operation: str) -> tuple[Block, ...]:
    match operation:
        case "none":
            layers = zero(width, size)
        case "skip_connect":
            layers = identity(width, size)
        case "avg_pool_3x3":
            layers = pool("avg_pool", width, size)
        case _:
            layers = relu_conv("conv", width, width, size, 1 if operation == "nor_conv_1x1" else 3)
    return (Block(name, layers, alternative=operation, reads=(source,)),)


def _node(cell: str, number: int, width: int, size: int) -> tuple[Block, ...]:
    edges = tuple(f"{cell}.edge{a}{number}" for a in range(number))
    return (node(f"{cell}.node{number}", edges, width, size),)


def _reduction(name: str, before: int, size: int) -> tuple[Block, ...]:
    """Two 3x3 convolutions with twice the channels, the first of stride 2; on the shortcut no batch norm."""
    first = relu_conv("conv1", before, 2 * before, size, 3, 2)
    small = first[-1].out_resolution
    around = (
        Layer("shortcut_pool", "avg_pool", before, before, size, 2, 2),
        Layer("shortcut_conv", "conv", before, 2 * before, small),
    )
    return (Block(name, (*first, *relu_conv("conv2", 2 * before, 2 * before, small, 3)), around),)


def _head(width: int, num_classes: int, size: int) -> tuple[Block, ...]:
    norm = Layer("norm", "norm", width, width, size, activation="relu")
    return (Block("head", (norm, *classifier(width, num_classes, size))),)

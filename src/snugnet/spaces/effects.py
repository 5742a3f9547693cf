"""What choices do to layers: which number of which layer is a function of which few choices.

Read off the blueprints alone. ``print(effects(space))`` shows it; the gates of :mod:`snugnet.nn.gated` run it.

A position of the network is a sum of rows of layers, each with the options under which it is there: the block's own layers,
those of its shortcut, the input itself. A row reads a slice of the input's channels and writes a slice of the output's, so
splits and concatenations are such sums too. Blocks share one row where they differ in numbers that a gate reaches inside one set
of weights, because the smaller is a part of the larger (:data:`GATED`). Whatever else a choice changes (which alternative
runs, which layers a row has, an activation, a kernel that mixes channels, any number that is new) gives rows of their own.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from snugnet.errors import SpaceError
from snugnet.spaces.blueprint import Block, Join, Layer, union_of_rows
from snugnet.spaces.graph import Step, in_order
from snugnet.spaces.space import SearchSpace

Encoding = Literal["single-path", "multi-path"]

GATED = ("out_channels", "kernel", "hidden")
"""Numbers that a gate reaches inside one set of weights; the kernel where each channel is convolved on its own."""


@dataclass(frozen=True)
class Effect:
    """A number, as a function of the fewest choices that decide it.

    Attributes:
        columns: of those choices.
        values: one for each of their joint options, the last choice fastest; -1 where what it describes is not there.
    """

    columns: tuple[int, ...]
    values: tuple[int, ...]

    @classmethod
    def of(cls, columns: tuple[int, ...], values: NDArray[np.int64]) -> Effect:
        """From values over more choices, an axis a choice; where they are -1, anything goes."""
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


class SizedLayer(NamedTuple):
    """A layer at its largest in its row, and what decides its numbers (:data:`GATED`)."""

    layer: Layer
    channels: Effect
    kernel: Effect
    hidden: Effect


@dataclass(frozen=True)
class Row:
    """Layers that run one after the other.

    Attributes:
        key: of the block whose weights they use; empty for the input itself, which has no layers.
        layers: in order.
        there: 1 under the options with which the position has this row, else 0.
        first, step: it reads the input's channels ``first``, ``first + step``, and so on.
        at: channel of the position's output at which it writes.
        channels: that it writes, where others stand behind them; 0 for all that it has.
    """

    key: str
    layers: tuple[SizedLayer, ...]
    there: Effect
    first: int = 0
    step: int = 1
    at: int = 0
    channels: int = 0


@dataclass(frozen=True)
class Position:
    """One place of the network: the sum of those of its rows that are there.

    Attributes:
        name: of the block, the same for all alternatives.
        rows: the blocks' own, then their shortcuts'.
        channels: of the output.
        width: of the output at its largest.
        reads, gather: as in :class:`snugnet.spaces.Block`.
    """

    name: str
    rows: tuple[Row, ...]
    channels: Effect
    width: int
    reads: tuple[str, ...] = ()
    gather: Join = "add"


class Fact(NamedTuple):
    """A line of the plan: that number of that layer takes these values under the joint options of these choices."""

    layer: str
    attribute: str
    choices: tuple[str, ...]
    values: tuple[int, ...]


@dataclass(frozen=True)
class Effects:
    """What the choices of a space do, position by position."""

    space: SearchSpace
    positions: tuple[Position, ...]

    @cached_property
    def steps(self) -> tuple[Step[Position], ...]:
        """The positions and whose outputs they take, first to last."""
        return in_order(self.positions)

    def facts(self) -> Iterator[Fact]:
        """Everything that some choice decides, first layer to last."""
        for position in self.positions:
            for row in position.rows:
                name = row.key or f"{position.name}.input"
                ends = dict.fromkeys(row.layers[end].layer.name for end in (0, -1)) if row.layers else {}
                yield from self._fact(f"{name}.{'..'.join(ends)}".rstrip("."), "there", row.there)
                for layer, *numbers in row.layers:
                    for attribute, effect in zip(GATED, numbers, strict=True):
                        yield from self._fact(f"{name}.{layer.name}", attribute, effect)

    def _fact(self, layer: str, attribute: str, effect: Effect) -> Iterator[Fact]:
        if effect.columns:
            yield Fact(layer, attribute, tuple(self.space.choices[c].name for c in effect.columns), effect.values)

    def __str__(self) -> str:
        lines = []
        for layer, attribute, choices, values in self.facts():
            last = len(self.space.choices[self.space.column[choices[-1]]].options)
            shown = ["-" if value < 0 else str(value) for value in values]
            groups = [" ".join(shown[i : i + last]) for i in range(0, len(shown), last)]
            lines.append(f"{layer:<36} {attribute:<12} {' x '.join(choices)}: {' | '.join(groups)}")
        return "\n".join(lines)


def effects(space: SearchSpace, encoding: Encoding = "single-path") -> Effects:
    """Read off the blueprints what the choices do.

    Args:
        space: whose.
        encoding: with ``multi-path``, choices of what is inside a block have rows of their own as well: those that decide
            a number of its inner layers, and neither the widths at its ends nor whether it is there.

    Raises:
        SpaceError: a block is skipped under some options, but its output is smaller than its input, or others name it; what a
            block reads, or where what is concatenated begins, is another under some options.
    """
    made: list[Position] = []
    skipped: set[str] = set()
    for i, part in enumerate(space.parts):
        shape = tuple(len(space.choices[c].options) for c in part.choices)
        found: dict[str, _Blocks] = {}
        for indices in product(*map(range, shape)):
            for block in space.part_blocks(i, indices):
                found.setdefault(block.name, _Blocks(part.choices, shape, {})).at[indices] = block
        made += [_position(name, blocks, encoding) for name, blocks in found.items()]
        skipped |= {name for name, blocks in found.items() if len(blocks.at) < math.prod(shape)}
    plan = Effects(space, tuple(made))
    _check_graph(plan, skipped)
    return plan


def _check_graph(plan: Effects, skipped: Collection[str]) -> None:
    """Refuse what a graph leaves open.

    Raises:
        SpaceError: see :func:`effects`.
    """
    elastic = {position.name for position in plan.positions if position.channels.columns}
    for position, sources, _ in plan.steps:
        unclear = [name for name in (position.name, *position.reads) if position.reads and name in skipped]
        if unclear:
            raise SpaceError(
                f"{unclear[0]} is skipped under some options, but stands in a graph ({position.name} reads "
                f"{', '.join(position.reads)}); give it an alternative of one zero or identity layer instead"
            )
        moving = [name for name in sources[:-1] if name in elastic and position.gather == "concat"]
        if moving:
            raise SpaceError(f"{position.name} concatenates {moving[0]}, whose width is elastic, with what follows it")


class _Blocks(NamedTuple):
    """A position's blocks under the joint options (an axis a choice) of its part's choices, where there is one."""

    columns: tuple[int, ...]
    shape: tuple[int, ...]
    at: dict[tuple[int, ...], Block]

    def effect(self, numbers: Mapping[tuple[int, ...], int], elsewhere: int = -1) -> Effect:
        """What decides a number that is given under some of the joint options."""
        values = np.full(self.shape, elsewhere, dtype=np.int64)
        for at, number in numbers.items():
            values[at] = number
        return Effect.of(self.columns, values)


class _Placed(NamedTuple):
    """A row under one joint option: the key of its block, its layers, and then as in :class:`Row`."""

    key: str
    layers: tuple[Layer, ...]
    first: int = 0
    step: int = 1
    at: int = 0
    channels: int = 0


_Rows = Mapping[tuple[int, ...], _Placed]
"""The row under each joint option under which there is one."""


def _position(name: str, blocks: _Blocks, encoding: Encoding) -> Position:
    joint = list(np.ndindex(blocks.shape))
    wiring = list(dict.fromkeys((block.reads, block.gather) for block in blocks.at.values()))
    if len(wiring) > 1:
        raise SpaceError(f"what {name} reads is another under some options: {wiring[0]} and {wiring[1]}")
    body: dict[tuple[int, ...], _Placed] = {}
    around: dict[tuple[int, ...], _Placed] = {}
    for at in joint:
        block = blocks.at.get(at)
        if block is None:
            around[at] = _Placed("", ())  # the input goes on as it is
            continue
        for rows, branch in zip((body, around), block.branches, strict=False):
            followed = block.join == "concat" and branch.at == 0
            key = block.key if branch.layers else ""
            rows[at] = _Placed(key, *branch[:-1], branch.channels if followed else 0)
    if len(body) < len(joint) and any(b.layers[0].resolution != b.out_resolution for b in blocks.at.values()):
        raise SpaceError(f"{name} is skipped under some options, but its output is smaller than its input")
    channels = blocks.effect({at: block.out_channels for at, block in blocks.at.items()})
    own = _rows(blocks, body)
    if encoding == "multi-path":
        entry = blocks.effect({at: block.in_channels for at, block in blocks.at.items()})
        there = blocks.effect(dict.fromkeys(body, 1), 0)
        inner = {c for row in own for _, *numbers in row.layers for effect in numbers for c in effect.columns}
        own = _rows(blocks, body, inner - {*channels.columns, *entry.columns, *there.columns})
    return Position(name, (*own, *_rows(blocks, around)), channels, max(channels.values), *wiring[0])


def _rows(blocks: _Blocks, placed: _Rows, apart: Collection[int] = ()) -> list[Row]:
    """One row for each structure and place, and for each joint option of the choices that are kept apart."""
    axes = [axis for axis, column in enumerate(blocks.columns) if column in apart]
    alike: dict[Any, dict[tuple[int, ...], tuple[Layer, ...]]] = {}
    for at, (key, layers, *place) in placed.items():
        structure = (key, tuple(place), *map(_structure, layers), *(at[a] for a in axes))
        alike.setdefault(structure, {})[at] = layers
    there: dict[Any, list[tuple[int, ...]]] = {}
    for (
        key,
        place,
        *_,
    ), each in alike.items():  # choices that make no difference to some alternative do not part its rows
        there.setdefault((key, _sized(blocks, each), place), []).extend(each)
    return [
        Row(key, layers, blocks.effect(dict.fromkeys(joint, 1), 0), *place)
        for (key, layers, place), joint in there.items()
    ]


@lru_cache(maxsize=65536)
def _structure(layer: Layer) -> Layer:
    """What is left of a layer without the numbers that a gate reaches, or that follow from them or from the image.

    Of a quantised layer all is left: the levels of a weight are those of the whole tensor, so a smaller one is no part of it.
    """
    if layer.weight_bits or layer.activation_bits:
        return replace(layer, resolution=0)
    kernel = 0 if layer.depthwise else layer.kernel
    groups = int(layer.depthwise)
    return replace(layer, in_channels=0, out_channels=0, resolution=0, hidden=0, groups=groups, kernel=kernel)


def _sized(blocks: _Blocks, rows: Mapping[tuple[int, ...], tuple[Layer, ...]]) -> tuple[SizedLayer, ...]:
    """The layers of rows of one structure at their largest, and what decides their numbers."""
    return tuple(
        SizedLayer(
            layer, *(blocks.effect({at: getattr(row[i], number) for at, row in rows.items()}) for number in GATED)
        )
        for i, layer in enumerate(union_of_rows(list(rows.values())))
    )

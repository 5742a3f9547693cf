"""What there is to measure of a space: each distinct block once, wherever it stands."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, fields, replace

import numpy as np

from snugnet.spaces import Block, Blueprint, Layer, Population, SearchSpace

VERSION = 1
"""Of how blocks and networks are named and written; files of another version are other files."""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_DEFAULTS = {each.name: each.default for each in fields(Layer) if each.default is not MISSING}


def described(block: Block) -> str:
    """What a block computes, its name and its weights' names left out: equal for blocks that take the same time.

    Fields at their default are left out, so a layer that gets a new field keeps its description.
    """
    texts = [" > ".join(map(_layer, block.layers))]
    if block.shortcut is not None:
        texts.append(
            f"{block.join}{' split' if block.split else ''}: {' > '.join(map(_layer, block.shortcut)) or 'input'}"
        )
    return " | ".join(texts)


def _layer(layer: Layer) -> str:
    given = {name: getattr(layer, name) for name in _DEFAULTS if getattr(layer, name) != _DEFAULTS[name]}
    details = "".join(f" {name}={value}" for name, value in given.items())
    return f"{layer.op} {layer.in_channels}->{layer.out_channels} @{layer.resolution}{details}"


def is_silent(block: Block) -> bool:
    """Whether a block runs nothing: what is handed on as it is, or is not there."""
    return {layer.op for layer in block.all_layers} <= {"identity", "zero"}


def block_name(block: Block, batch: int) -> str:
    """The name under which a block is measured, ``block-`` and 12 hexadecimal digits; it tells its layers, their sizes, and the batch."""
    return f"block-{_digest(batch, described(block))}"


def network_name(space: SearchSpace, row: Population, batch: int) -> str:
    """The name under which a whole network is measured: its row, a digit a choice in base 36, and a digest of what it computes.

    Args:
        space: its space, with all classes.
        row: shape ``(1, d)``, canonical.
        batch: images at once.
    """
    texts = map(described, space.blueprint(row).blocks)
    return f"network-{''.join(_DIGITS[i] for i in row[0])}-{_digest(batch, *texts)}"


def named_row(space: SearchSpace, name: str, batch: int) -> Population | None:
    """The row, shape ``(1, d)``, that :func:`network_name` named; ``None`` for any other name."""
    kind, _, rest = name.partition("-")
    digits = rest.partition("-")[0]
    if kind != "network" or len(digits) != space.d or not set(digits) <= set(_DIGITS):
        return None
    row = np.array([[_DIGITS.index(each) for each in digits]], dtype=np.int16)
    whole = bool((row < space.num_options).all())
    return row if whole and network_name(space, row, batch) == name else None


def _digest(batch: int, *texts: str) -> str:
    return hashlib.sha256("\n".join([f"{VERSION} {batch}", *texts]).encode()).hexdigest()[:12]


def blocks_of(space: SearchSpace, widths: Iterable[int] = ()) -> Iterator[tuple[Block, int]]:
    """Every block that some architecture has, with the resolution of its network's image; equal ones may come several times.

    Args:
        space: the space.
        widths: of the classifier, beside the space's own.
    """
    column = space.column.get("resolution")
    for part, about in enumerate(space.parts):
        shape = [len(space.choices[c].options) for c in about.choices]
        last = part == len(space.parts) - 1
        for indices in np.ndindex(*shape):
            resolution = space.resolution
            if column in about.choices:
                assert column is not None
                resolution = space.choices[column].options[indices[about.choices.index(column)]]
            blocks = space.part_blocks(part, indices)
            yield from ((block, resolution) for block in blocks)
            if last and blocks:
                whole = Blueprint(blocks, space.in_channels, resolution)
                yield from ((whole.with_classes(width).blocks[-1], resolution) for width in widths)


def distinct_blocks(space: SearchSpace, widths: Sequence[int], batch: int) -> dict[str, Block]:
    """The blocks to measure, by the names under which they are; those that run nothing are left out."""
    return {
        block_name(block, batch): replace(block, name="measured", alternative="", reads=())
        for block, _ in blocks_of(space, widths)
        if not is_silent(block)
    }

"""Block variants: every size in which a position's weights are run by some architecture of a space.

An architecture is a walk over them, one at each of its positions. Spaces whose blocks meet at shared widths have few: 183 for the 10^19
architectures of ``ofa-mobilenet-v3``. They are read off the blueprints, so a space says nothing about them itself. No torch.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from snugnet.spaces.blueprint import Block
from snugnet.spaces.space import SearchSpace


class Variant(NamedTuple):
    """One size of one block.

    Attributes:
        block: its description; the name is that of the position.
        share: of the joint options of the choices that decide it, those that give this one: in (0, 1].
    """

    block: Block
    share: float


def block_variants(space: SearchSpace, used: NDArray[np.int64] | None = None) -> tuple[Variant, ...]:
    """All variants, position by position in the network's order.

    Args:
        space: of the architectures.
        used: for each choice how many of its options are in use, counted from the last, (d,); all without it.
    """
    used = space.num_options if used is None else used
    found: dict[str, dict[Block, float]] = {}
    for i, part in enumerate(space.parts):
        options = [range(int(space.num_options[c] - used[c]), int(space.num_options[c])) for c in part.choices]
        share = 1 / np.prod([len(each) for each in options], initial=1.0)
        for indices in product(*options):
            for block in space.part_blocks(i, indices):
                shares = found.setdefault(block.name, {})
                shares[block] = shares.get(block, 0.0) + float(share)
    return tuple(Variant(block, share) for shares in found.values() for block, share in shares.items())

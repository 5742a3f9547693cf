"""Cost tables from what each block costs: the one loop behind counted and measured tables."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from snugnet.costs.table import CostTable
from snugnet.spaces import Block, Blueprint, SearchSpace

BlockCost = Callable[[Block, int], float]
"""From a block, and the height and width in pixels of the image that the whole network takes, to what the block costs."""


def block_table(space: SearchSpace, name: str, unit: str, cost: BlockCost, num_classes: int | None = None) -> CostTable:
    """A cost that is a sum over blocks: one small table a part of the space.

    Args:
        space: the space.
        name: of the cost.
        unit: of its values.
        cost: of a block; asked once for every block that some architecture has.
        num_classes: width of the classifier, if another than the space's.
    """
    last = len(space.parts) - 1
    tables = [
        (part.choices, part_costs(space, i, cost, num_classes if i == last else None))
        for i, part in enumerate(space.parts)
    ]
    return CostTable(space, name, unit, tables)


def part_costs(space: SearchSpace, part: int, cost: BlockCost, num_classes: int | None = None) -> NDArray[np.float64]:
    """What a part of the network costs under each combination of the options that it depends on.

    Args:
        space: the space.
        part: its position.
        cost: of a block.
        num_classes: of the last part, the width of the classifier, if another than the space's.
    """
    resolution, choices = space.column.get("resolution"), space.parts[part].choices
    values = np.empty(tuple(int(space.num_options[c]) for c in choices))
    for indices in itertools.product(*map(range, values.shape)):
        blueprint = Blueprint(space.part_blocks(part, indices), space.in_channels, space.resolution)
        if num_classes is not None:
            blueprint = blueprint.with_classes(num_classes)
        if resolution in choices:
            chosen = indices[choices.index(resolution)]
            blueprint = replace(blueprint, resolution=space.choices[resolution].options[chosen])
        values[indices] = sum(cost(block, blueprint.resolution) for block in blueprint.blocks)
    return values

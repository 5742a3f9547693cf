"""Cost tables from what each block costs: the one loop behind counted and measured tables."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np

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
    resolution = space.column.get("resolution")
    tables = []
    for i, part in enumerate(space.parts):
        shape = tuple(int(space.num_options[c]) for c in part.choices)
        values = np.empty(shape)
        for indices in itertools.product(*map(range, shape)):
            blueprint = Blueprint(space.part_blocks(i, indices), space.in_channels, space.resolution)
            if num_classes is not None and i == len(space.parts) - 1:
                blueprint = blueprint.with_classes(num_classes)
            if resolution in part.choices:
                chosen = indices[part.choices.index(resolution)]
                blueprint = replace(blueprint, resolution=space.choices[resolution].options[chosen])
            values[indices] = sum(cost(block, blueprint.resolution) for block in blueprint.blocks)
        tables.append((part.choices, values))
    return CostTable(space, name, unit, tables)

"""Cost tables from what each block costs: the one loop behind counted and measured tables."""

from __future__ import annotations

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
    parts = range(len(space.parts))
    return CostTable(space, name, unit, [part_table(space, i, cost, num_classes) for i in parts])


def part_table(
    space: SearchSpace, part: int, cost: BlockCost, num_classes: int | None = None
) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """What one part costs: the columns of its choices, and a value for every combination of their options.

    Args:
        space: the space.
        part: which; the classifier is in the last.
        cost: of a block.
        num_classes: width of the classifier, if another than the space's.
    """
    resolution, columns = space.column.get("resolution"), space.parts[part].choices
    values = np.empty([int(space.num_options[c]) for c in columns])
    for indices in np.ndindex(*values.shape):
        blueprint = Blueprint(space.part_blocks(part, indices), space.in_channels, space.resolution)
        if num_classes is not None and part == len(space.parts) - 1:
            blueprint = blueprint.with_classes(num_classes)
        if resolution in columns:
            chosen = indices[columns.index(resolution)]
            blueprint = replace(blueprint, resolution=space.choices[resolution].options[chosen])
        values[indices] = sum(cost(block, blueprint.resolution) for block in blueprint.blocks)
    return columns, values

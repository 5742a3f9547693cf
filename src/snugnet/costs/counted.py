"""Cost tables that are counted from the blueprint: the same layers that the network is built from."""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np

from snugnet.costs.table import CostTable
from snugnet.errors import SpaceError
from snugnet.spaces import Blueprint, SearchSpace

Count = Literal["madds", "params", "activations"]

COUNT_UNITS: dict[str, str] = {"madds": "MAdds", "params": "params", "activations": "values"}
"""What can be counted, and its unit; see :mod:`snugnet.spaces.blueprint` for what each includes."""


def counted_table(space: SearchSpace, count: Count | str, num_classes: int | None = None) -> CostTable:
    """The table of a count: one small table a part of the space, every entry an exact integer.

    Args:
        space: the space.
        count: a key of :data:`COUNT_UNITS`. ``activations`` is the sum of all layers' outputs for one image.
        num_classes: width of the classifier, if another than the space's.

    Raises:
        SpaceError: there is no such count.
    """
    if count not in COUNT_UNITS:
        raise SpaceError(f"unknown count {count!r}; known: {', '.join(COUNT_UNITS)}")
    tables = []
    for i, part in enumerate(space.parts):
        shape = tuple(int(space.num_options[c]) for c in part.choices)
        values = np.empty(shape)
        for indices in itertools.product(*map(range, shape)):
            blueprint = Blueprint(space.part_blocks(i, indices), space.in_channels, space.resolution)
            if num_classes is not None and i == len(space.parts) - 1:
                blueprint = blueprint.with_classes(num_classes)
            values[indices] = sum(getattr(layer, count) for layer in blueprint.layers())
        tables.append((part.choices, values))
    return CostTable(space, count, COUNT_UNITS[count], tables)

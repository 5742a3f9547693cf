"""Cost tables that are counted from the blueprint: the same layers that the network is built from."""

from __future__ import annotations

from typing import Literal

from snugnet.costs.blocks import block_table
from snugnet.costs.table import CostTable
from snugnet.errors import SpaceError
from snugnet.spaces import SearchSpace

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
    return block_table(
        space,
        count,
        COUNT_UNITS[count],
        lambda block, _: sum(getattr(layer, count) for layer in block.all_layers),
        num_classes,
    )

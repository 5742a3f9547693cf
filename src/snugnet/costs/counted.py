"""Costs that are counted from the blueprint: the same layers that the network is built from."""

from __future__ import annotations

from snugnet.costs.cost import COSTS, Cost, register_cost
from snugnet.costs.table import CostTable
from snugnet.spaces import SearchSpace

MADDS = register_cost(
    Cost(
        "madds",
        "MAdds",
        "multiply-accumulates of convolutions and linear layers, for one image",
        lambda block, _: sum(layer.madds for layer in block.all_layers),
    )
)
PARAMS = register_cost(
    Cost("params", "params", "trainable parameters", lambda block, _: sum(layer.params for layer in block.all_layers))
)
ACTIVATIONS = register_cost(
    Cost(
        "activations",
        "values",
        "outputs of all layers, for one image",
        lambda block, _: sum(layer.activations for layer in block.all_layers),
    )
)
BITOPS = register_cost(
    Cost(
        "bitops",
        "BitOps",
        "MAdds times weight bits times activation bits of quantised layers, for one image; layers in float have none",
        lambda block, _: sum(layer.bitops for layer in block.all_layers),
    )
)


def counted_table(space: SearchSpace, name: str, num_classes: int | None = None) -> CostTable:
    """The table of a cost that is known by name: one small table a part of the space; for counts every entry is exact.

    Args:
        space: the space.
        name: one of :data:`snugnet.costs.COSTS`.
        num_classes: width of the classifier, if another than the space's.

    Raises:
        SpaceError: there is no such cost.
    """
    return COSTS[name].table(space, num_classes)

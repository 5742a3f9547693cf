"""Costs that are counted from the blueprint: the same layers that the network is built from."""

from __future__ import annotations

from operator import attrgetter

from snugnet.costs.cost import COSTS, Cost, MaximumCost, register_cost
from snugnet.costs.live import peak_values
from snugnet.costs.peak import peak_tables
from snugnet.costs.table import CostTable
from snugnet.errors import SpaceError
from snugnet.spaces import SearchSpace


def _layers(name: str, unit: str, what: str, count: str) -> Cost:
    """What a property of a layer adds up to over a network's layers."""
    of = attrgetter(count)
    return register_cost(Cost(name, unit, what, lambda block, _: sum(map(of, block.all_layers))))


MADDS = _layers("madds", "MAdds", "multiply-accumulates of convolutions and linear layers, for one image", "madds")
PARAMS = _layers("params", "params", "trainable parameters", "params")
ACTIVATIONS = _layers("activations", "values", "outputs of all layers, for one image", "activations")
BITOPS = _layers(
    "bitops",
    "BitOps",
    "MAdds times weight bits times activation bits of quantised layers, for one image; layers in float have none",
    "bitops",
)
WEIGHT_MEMORY = _layers(
    "weight_memory",
    "B",
    "bytes of weights and biases in the exported file, batch norm folded; float32, quantised weights a byte each",
    "weight_bytes",
)
WEIGHT_MEMORY_INT8 = _layers(
    "weight_memory_int8",
    "B",
    "bytes of weights and biases in the int8 file, a byte a weight and four a bias; scales and zero points not counted",
    "weight_bytes_int8",
)


def _peak_memory(name: str, each: int, what: str) -> MaximumCost:
    """Peak memory where a value takes so many bytes."""
    return MaximumCost(
        name,
        "B",
        f"most bytes of activations held at once, one image at a time, {what}; the largest step, not a sum",
        lambda blueprint: each * peak_values(blueprint),
        lambda space, num_classes: [(scope, each * values) for scope, values in peak_tables(space, num_classes)],
    )


PEAK_MEMORY = register_cost(_peak_memory("peak_memory", 4, "in float32"))
PEAK_MEMORY_INT8 = register_cost(_peak_memory("peak_memory_int8", 1, "a byte each, as where all is int8"))


def counted_table(space: SearchSpace, name: str, num_classes: int | None = None) -> CostTable:
    """The table of a cost that is known by name: one small table a part of the space; for counts every entry is exact.

    Args:
        space: the space.
        name: one of :data:`snugnet.costs.COSTS`.
        num_classes: width of the classifier, if another than the space's.

    Raises:
        SpaceError: there is no such cost, or it is no sum.

    Examples:
        >>> from snugnet.spaces import get_space
        >>> space = get_space("nas-bench-201", num_classes=10)
        >>> madds = counted_table(space, "madds")
        >>> madds.range, float(madds(space.largest)[0])
        ((...), ...)
    """
    return additive_cost(name).table(space, num_classes)


def additive_cost(name: str) -> Cost:
    """A cost that is known by name and is a sum: what a network can be trained or searched for by its expectation.

    Raises:
        SpaceError: there is no such cost, or it is no sum.
    """
    cost = COSTS[name]
    if isinstance(cost, MaximumCost):
        raise SpaceError(
            f"{name} is a maximum over a network, not a sum; it can be a limit, and here a cost that is a sum is needed"
        )
    return cost

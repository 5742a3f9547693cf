"""Costs by name: sums, of which what a block costs is all that there is to say, and maxima."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from numpy.typing import ArrayLike

from snugnet.costs.blocks import BlockCost, block_table, part_table
from snugnet.costs.maximum import MaximumTable
from snugnet.costs.table import CostTable
from snugnet.errors import SnugnetError, SpaceError
from snugnet.registry import Registry
from snugnet.spaces import Block, Blueprint, SearchSpace

AnyCost = TypeVar("AnyCost", "Cost", "MaximumCost")


@dataclass(frozen=True)
class Cost:
    """A cost that is a sum over the blocks of a network.

    Attributes:
        name: of the cost, such as ``"madds"``; by it budgets are set.
        unit: of its values, such as ``"MAdds"``.
        description: one line, for people.
        block: what one block costs, given the height and width in pixels of the image that the whole network takes.
    """

    name: str
    unit: str
    description: str
    block: BlockCost

    def of_block(self, block: Block, resolution: int) -> float:
        """What one block costs, as :attr:`block` says.

        Raises:
            SpaceError: it cannot say, or gives no finite number.
        """
        try:
            value = self.block(block, resolution)
            finite = math.isfinite(value)
        except SnugnetError:
            raise
        except Exception as error:  # whatever somebody else's cost does with layers that it was not made for
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise SpaceError(f"cost {self.name!r} cannot be computed for the block {block.name} ({reason})") from error
        if not finite:
            raise SpaceError(f"cost {self.name!r} of the block {block.name} is {value}, not a finite number")
        return value

    def of(self, blueprint: Blueprint) -> float:
        """What one network costs."""
        return sum(self.of_block(block, blueprint.resolution) for block in blueprint.blocks)

    def table(self, space: SearchSpace, num_classes: int | None = None) -> CostTable:
        """The cost of every architecture of a space.

        Args:
            space: the space.
            num_classes: width of the classifier, if another than the space's.
        """
        return block_table(space, self.name, self.unit, self.of_block, num_classes)

    def with_classes(self, table: CostTable, num_classes: int) -> CostTable:
        """Equal to :meth:`table` for another width of the classifier, made from the table of the space's own.

        Where a class costs the same in every architecture the two differ by a constant, and share all the rest.
        """
        space, last = table.space, len(table.space.parts) - 1
        columns, before = part_table(space, last, self.of_block)
        more = part_table(space, last, self.of_block, num_classes)[1] - before
        if more.min() == more.max():
            return table.shifted(float(more.max()))
        return CostTable(space, table.name, table.unit, [*table.tables, ((), table.constant), (columns, more)])


@dataclass(frozen=True)
class MaximumCost:
    """A cost that is the largest of many amounts in a network, such as what is held in memory at each of its steps.

    Attributes:
        name: of the cost, such as ``"peak_memory"``.
        unit: of its values, such as ``"B"``.
        description: one line, for people.
        network: what one network costs.
        tables: for a space, and a width of the classifier where that is another than the space's, pairs of columns and values, as those
            of a :class:`snugnet.costs.MaximumTable`; of an architecture the largest is what its network costs.
    """

    name: str
    unit: str
    description: str
    network: Callable[[Blueprint], float]
    tables: Callable[[SearchSpace, int | None], Sequence[tuple[Sequence[int], ArrayLike]]]

    def of(self, blueprint: Blueprint) -> float:
        """What one network costs."""
        return self.network(blueprint)

    def table(self, space: SearchSpace, num_classes: int | None = None) -> MaximumTable:
        """The cost of every architecture of a space; see :meth:`Cost.table`."""
        return MaximumTable(space, self.name, self.unit, self.tables(space, num_classes))

    def with_classes(self, table: MaximumTable, num_classes: int) -> MaximumTable:
        """Equal to :meth:`table` for another width of the classifier; the very table where that changes nothing."""
        narrower = self.table(table.space, num_classes)
        return table if narrower.same_as(table) else narrower


COSTS: Registry[Cost | MaximumCost] = Registry(
    "snugnet.costs", "cost", SpaceError, lambda thing: isinstance(thing, (Cost, MaximumCost))
)
"""What can be computed from a blueprint alone; installed packages bring theirs through entry points."""


def register_cost(cost: AnyCost) -> AnyCost:
    """Make a cost known by its name."""
    COSTS.add(cost.name, cost)
    return cost

"""Additive costs by name: what a block costs is all that there is to say."""

from __future__ import annotations

from dataclasses import dataclass

from snugnet.costs.blocks import BlockCost, block_table, part_table
from snugnet.costs.table import CostTable
from snugnet.errors import SnugnetError, SpaceError
from snugnet.registry import Registry
from snugnet.spaces import Block, Blueprint, SearchSpace


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
            SpaceError: it cannot say.
        """
        try:
            return self.block(block, resolution)
        except SnugnetError:
            raise
        except Exception as error:  # whatever somebody else's cost does with layers that it was not made for
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise SpaceError(f"cost {self.name!r} cannot be computed for the block {block.name} ({reason})") from error

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


COSTS: Registry[Cost] = Registry("snugnet.costs", "cost", SpaceError, lambda thing: isinstance(thing, Cost))
"""What can be computed from a blueprint alone; installed packages bring theirs through entry points."""


def register_cost(cost: Cost) -> Cost:
    """Make a cost known by its name."""
    return COSTS.add(cost.name, cost)

# %% [markdown]
# # A cost of your own
#
# Memory traffic: bytes that are read and written when a network runs layer by layer in float32. Devices with slow memory wait for these, not for
# multiply-adds. What one block costs is all that there is to say; exact tables, ranges, budgets and searches follow.
#
#     python examples/own_cost.py [FAMILY]    # runs/digits without it

# %%
import sys

import snugnet
from snugnet.costs import Cost, register_cost
from snugnet.spaces import Block
from snugnet.testing import check_cost

FAMILY = sys.argv[1] if len(sys.argv) == 2 else "runs/digits"


def traffic(block: Block, resolution: int) -> float:
    """Bytes of one block, one image; ``resolution`` is that of the image that the whole network takes."""
    total = 0
    for layer in block.all_layers:
        total += 4 * layer.in_channels * layer.resolution**2  # read
        total += layer.weight_bytes + 4 * layer.activations  # read, and written
    return total


TRAFFIC = register_cost(Cost("traffic", "B", "bytes read and written, layer by layer, in float32", traffic))
check_cost(TRAFFIC)
print("traffic keeps every law of a cost")

# %% [markdown]
# It is a budget now, alone or beside others.

# %%
family = snugnet.load(FAMILY)
group = next(iter(family.groups))
low, high = family.cost_range("traffic", group)
print(f"{group}: {low:,.0f} to {high:,.0f} bytes")
for budgets in ({"traffic": "30%"}, {"madds": "30%"}, {"traffic": "30%", "madds": "30%"}):
    net = family.specialize(group, **budgets)
    print(f"{budgets}: {TRAFFIC.of(net.blueprint):,} bytes, {net.costs['madds']:,} MAdds")

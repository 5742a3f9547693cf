"""What an architecture costs: tables, budgets, exact sampling, and the best architecture under budgets. No torch."""

from snugnet.costs.blocks import block_table
from snugnet.costs.budget import exact_amount, format_amount, parse_budget, read_budgets, resolve_budget
from snugnet.costs.cost import COSTS, Cost, register_cost
from snugnet.costs.counted import counted_table
from snugnet.costs.exact.decode import decode
from snugnet.costs.exact.sampling import Sampler
from snugnet.costs.measured import load_ofa_latency
from snugnet.costs.table import CostTable

__all__ = [
    "COSTS",
    "Cost",
    "CostTable",
    "Sampler",
    "block_table",
    "counted_table",
    "decode",
    "exact_amount",
    "format_amount",
    "load_ofa_latency",
    "parse_budget",
    "read_budgets",
    "register_cost",
    "resolve_budget",
]

"""What an architecture costs: tables, budgets, exact sampling, and the best architecture under budgets. No torch."""

from snugnet.costs.blocks import block_table
from snugnet.costs.budget import (
    exact_amount,
    format_amount,
    parse_budget,
    read_budgets,
    read_limits,
    resolve_budget,
    split_amounts,
    without_unit,
)
from snugnet.costs.cost import COSTS, Cost, MaximumCost, register_cost
from snugnet.costs.counted import additive_cost, counted_table
from snugnet.costs.decoding import decode
from snugnet.costs.ends import ends_within
from snugnet.costs.exact.allowed import Allowed
from snugnet.costs.hardware import DEVICES, MeasuredCost, disconnected, measured_cost
from snugnet.costs.maximum import MaximumTable, within
from snugnet.costs.measured import load_cost_table, load_ofa_latency, save_cost_table
from snugnet.costs.profile import PROFILED, Profile, profile_of
from snugnet.costs.sampling import Sampler, make_sampler, sample
from snugnet.costs.table import CostTable

__all__ = [
    "COSTS",
    "DEVICES",
    "Allowed",
    "Cost",
    "CostTable",
    "MaximumCost",
    "MaximumTable",
    "MeasuredCost",
    "PROFILED",
    "Profile",
    "Sampler",
    "additive_cost",
    "block_table",
    "counted_table",
    "decode",
    "disconnected",
    "ends_within",
    "exact_amount",
    "format_amount",
    "load_cost_table",
    "load_ofa_latency",
    "measured_cost",
    "parse_budget",
    "profile_of",
    "read_budgets",
    "read_limits",
    "register_cost",
    "resolve_budget",
    "split_amounts",
    "within",
    "without_unit",
    "make_sampler",
    "sample",
    "save_cost_table",
]

"""Elastic layers, static networks and gates."""

from snugnet.nn.layers import BlockModule, ConvLayer, LinearLayer, SELayer
from snugnet.nn.network import Network, build, initialise, module_name, with_layout

__all__ = [
    "BlockModule",
    "ConvLayer",
    "LinearLayer",
    "Network",
    "SELayer",
    "build",
    "initialise",
    "module_name",
    "with_layout",
]

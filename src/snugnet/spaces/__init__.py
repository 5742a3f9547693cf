"""What can be chosen: search spaces, architectures as rows of integers, blueprints. No torch in here."""

from snugnet.spaces.blueprint import Block, Blueprint, Layer
from snugnet.spaces.mbconv import OFAMobileNetV3
from snugnet.spaces.space import (
    Choice,
    Part,
    Population,
    SearchSpace,
    get_space,
    list_spaces,
    register,
    space_class,
)

__all__ = [
    "Block",
    "Blueprint",
    "Choice",
    "Layer",
    "OFAMobileNetV3",
    "Part",
    "Population",
    "SearchSpace",
    "get_space",
    "list_spaces",
    "register",
    "space_class",
]

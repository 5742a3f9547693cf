"""What can be chosen: search spaces, architectures as rows of integers, blueprints. No torch in here."""

from snugnet.spaces.attentive_nas import AttentiveNAS
from snugnet.spaces.blueprint import Block, Blueprint, Layer
from snugnet.spaces.choices import Choice, Part
from snugnet.spaces.darts import DARTS
from snugnet.spaces.mobilenet_v2 import MobileNetV2
from snugnet.spaces.nas_bench_201 import NASBench201
from snugnet.spaces.ofa_mobilenet_v3 import OFAMobileNetV3
from snugnet.spaces.reading import read_architecture, read_architectures
from snugnet.spaces.resnet_mixed_precision import ResNetMixedPrecision
from snugnet.spaces.space import (
    Population,
    SearchSpace,
    get_space,
    list_spaces,
    register,
    space_class,
)
from snugnet.spaces.spos_shufflenet_v2 import SPOSShuffleNetV2

__all__ = [
    "AttentiveNAS",
    "Block",
    "Blueprint",
    "Choice",
    "DARTS",
    "Layer",
    "MobileNetV2",
    "NASBench201",
    "OFAMobileNetV3",
    "Part",
    "Population",
    "ResNetMixedPrecision",
    "SPOSShuffleNetV2",
    "SearchSpace",
    "get_space",
    "list_spaces",
    "read_architecture",
    "read_architectures",
    "register",
    "space_class",
]

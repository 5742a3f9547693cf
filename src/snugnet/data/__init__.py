"""Labelled images in groups: loading, splits, batches and transforms.

Names are loaded on first use, so that importing this package does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snugnet.data.batches import Batches, evaluation_batches
    from snugnet.data.config import AugmentConfig, DataConfig, read_config
    from snugnet.data.dataset import GroupedImages, load_data, load_split, mean_std
    from snugnet.data.groups import BUILT_IN_GROUPINGS, Groups, read_grouping, select_groups
    from snugnet.data.image_set import ImageSet
    from snugnet.data.images import decode_image
    from snugnet.data.transforms import Augment, normalise

__all__ = [
    "Augment",
    "AugmentConfig",
    "BUILT_IN_GROUPINGS",
    "Batches",
    "DataConfig",
    "GroupedImages",
    "Groups",
    "ImageSet",
    "decode_image",
    "evaluation_batches",
    "load_data",
    "load_split",
    "mean_std",
    "normalise",
    "read_config",
    "read_grouping",
    "select_groups",
]

_HOME = {
    "batches": ("Batches", "evaluation_batches"),
    "config": ("AugmentConfig", "DataConfig", "read_config"),
    "dataset": ("GroupedImages", "load_data", "load_split", "mean_std"),
    "groups": ("BUILT_IN_GROUPINGS", "Groups", "read_grouping", "select_groups"),
    "image_set": ("ImageSet",),
    "images": ("decode_image",),
    "transforms": ("Augment", "normalise"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)

"""Right-sized neural networks: train one weight-sharing network once, then get the network that fits, at once.

>>> import snugnet
>>> family = snugnet.load("runs/digits")                      # doctest: +SKIP
>>> net = family.specialize("round", madds="4M")              # doctest: +SKIP
>>> net.export("round.onnx")                                  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snugnet._version import __version__ as __version__

if TYPE_CHECKING:
    from snugnet.family import Family, Specialized
    from snugnet.family.disk import from_pretrained
    from snugnet.family.search import search_family
    from snugnet.family.stored import StoredNetwork, load
    from snugnet.pipeline import train
    from snugnet.retraining import retrain
    from snugnet.routing import make_route
    from snugnet.spaces import get_space

_HOMES = {
    "Family": ("snugnet.family", "Family"),
    "Specialized": ("snugnet.family", "Specialized"),
    "from_pretrained": ("snugnet.family.disk", "from_pretrained"),
    "StoredNetwork": ("snugnet.family.stored", "StoredNetwork"),
    "load": ("snugnet.family.stored", "load"),
    "make_route": ("snugnet.routing", "make_route"),
    "retrain": ("snugnet.retraining", "retrain"),
    "search_family": ("snugnet.family.search", "search_family"),
    "train": ("snugnet.pipeline", "train"),
    "get_space": ("snugnet.spaces", "get_space"),
}

__all__ = [
    "Family",
    "Specialized",
    "StoredNetwork",
    "from_pretrained",
    "get_space",
    "load",
    "make_route",
    "retrain",
    "search_family",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import on first use: torch alone takes seconds, and ``snugnet --help`` needs none of it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'snugnet' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)

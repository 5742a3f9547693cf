"""Weight-sharing networks."""

from snugnet.supernets.supernet import Supernet, begin_at_shortcuts

__all__ = ["Supernet", "begin_at_shortcuts"]

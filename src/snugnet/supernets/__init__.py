"""Weight-sharing networks."""

from snugnet.supernets.supernet import Supernet

__all__ = ["Supernet"]

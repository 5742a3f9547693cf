"""Weight-sharing networks."""

from snugnet.supernets.supernet import Supernet, begin_as_identities

__all__ = ["Supernet", "begin_as_identities"]

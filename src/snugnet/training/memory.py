"""The CPU allocator's manners."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Have glibc's malloc keep freed memory for the next step instead of handing it back to the kernel.

    Every step of a CPU training allocates the same large activations again; by default each of them is mapped, zeroed page
    by page and unmapped anew. Keeping them makes a step about 1.5 times as fast. All threads share one arena: those of their own
    hand memory back whatever is said here. Elsewhere than on glibc nothing happens.

    Returns:
        Whether it took effect.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = {M_MMAP_THRESHOLD: 1 << 30, M_TRIM_THRESHOLD: (1 << 31) - 1, M_ARENA_MAX: 1}
    all_set: bool = sum(mallopt(parameter, value) for parameter, value in wanted.items()) == len(wanted)
    return all_set

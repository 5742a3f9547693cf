"""A stand-in for CUDA graphs: repeats work eagerly, in memory that never moves and that recordings share, as graphs do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T", Tensor, None)


class StandIn:
    """A :class:`snugnet.supernets.graphs.Recorder` on a CPU.

    What a recording made is filled anew whenever it is repeated; and what others of its pool made is spoilt then, whatever it was, so
    that nobody can have read it later unnoticed.
    """

    def __init__(self, free: int = 1 << 40, capacity: int | None = None) -> None:
        """Bytes that it says are free; recordings that there is memory for, any number without it."""
        self.bytes, self.capacity = free, capacity
        self.recorded = self.warmed = self.repeated = 0

    def pool(self) -> list[Tensor]:
        return []

    def free(self) -> int:
        return self.bytes

    def warm(self, work: Callable[[], object]) -> None:
        self.warmed += 1
        work()

    def record(self, work: Callable[[], T], pool: Any) -> tuple[T, Callable[[], None]]:
        self.recorded += 1
        if self.capacity is not None and self.recorded > self.capacity:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        made = work()
        if made is not None:
            made = made.clone()
            pool.append(made)

        def repeat() -> None:
            self.repeated += 1
            fresh = work()
            with torch.no_grad():
                for other in pool:
                    if other is not made:
                        other.fill_(torch.nan)
                if made is not None and fresh is not None:
                    made.copy_(fresh)

        return made, repeat

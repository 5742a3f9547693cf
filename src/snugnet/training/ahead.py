"""What steps need and do not depend on one another for, made a step ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


@contextmanager
def ahead(make: Callable[[int], T], total: int, device: torch.device) -> Iterator[Callable[[int], T]]:
    """A function of the step, called in a thread while the step before runs; its results are the same, and come in time.

    On a CPU, where a thread would take time away from the step itself, it is the function as it is.

    Args:
        make: a function of the step alone.
        total: steps; nothing is made for later ones.
        device: that the steps run on.
    """
    if device.type == "cpu":
        yield make
        return
    with ThreadPoolExecutor(1, "ahead") as thread:
        made: dict[int, Future[T]] = {}

        def made_ahead(step: int) -> T:
            own = made.pop(step, None) or thread.submit(make, step)
            made.clear()
            if step + 1 < total:
                made[step + 1] = thread.submit(make, step + 1)
            return own.result()

        yield made_ahead

"""Torch's threads, shared by tasks that run side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def side_by_side(device: torch.device, tasks: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """A ``map`` whose tasks share torch's threads on a CPU; elsewhere, or with one task or thread, the built-in one."""
    threads = torch.get_num_threads()
    workers = min(threads, tasks) if device.type == "cpu" else 1
    if workers < 2:
        yield map
        return
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,)) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(threads)  # a thread's own number is also what later threads start with

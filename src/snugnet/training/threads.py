"""Torch's threads, shared by tasks that run side by side."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch


def begin_worker(threads: int) -> None:
    """In a worker process: take its share of the threads, and end when the process that began it is killed.

    Else it would go on writing where that one's next run writes.
    """
    torch.set_num_threads(threads)

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def side_by_side(device: torch.device, tasks: int, *, as_alone: bool = False) -> Iterator[Callable[..., Iterable[Any]]]:
    """A ``map`` whose tasks share torch's threads on a CPU; elsewhere, or with one task or thread, the built-in one.

    Args:
        device: that the tasks run on.
        tasks: how many there are.
        as_alone: give each task all threads, as it has them by itself: sums over images are added up in as many parts as there
            are threads, so with fewer they differ in the last bits. Of batch-norm calibration that takes a quarter more CPU time.
    """
    threads = torch.get_num_threads()
    workers = min(threads, tasks) if device.type == "cpu" else 1
    if workers < 2:
        yield map
        return
    each = threads if as_alone else threads // workers
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(each,)) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(threads)  # a thread's own number is also what later threads start with

"""Slow work off the event loop: one build for all who ask for the same, and a bounded queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from snugnet.serve.problems import Overloaded
from snugnet.serve.store import Content, Store

T = TypeVar("T")


class Builds:
    """What is being made.

    Attributes:
        store: where it is kept.
        waiting: how many may be made or wait at a time.
    """

    def __init__(self, store: Store, threads: int, waiting: int) -> None:
        self.store, self.waiting = store, waiting
        self._makers = ThreadPoolExecutor(threads, "build")
        self._readers = ThreadPoolExecutor(2, "read")
        self._open: dict[str, asyncio.Task[Any]] = {}

    async def content(self, key: str, made: Callable[[], bytes]) -> Content:
        """A file from memory, from the disk, or made now.

        Raises:
            Overloaded: too many are being made.
        """
        recent = self.store.recent(key)
        if recent is not None:
            return recent
        found: Content = await self._once(key, lambda: self._find(key, made))
        return found

    async def result(self, key: str, work: Callable[[], T]) -> T:
        """What some work gives; it is not kept.

        Raises:
            Overloaded: too much is being made.
        """
        found: T = await self._once(key, lambda: self._run(work))
        return found

    async def _find(self, key: str, made: Callable[[], bytes]) -> Content:
        stored = await asyncio.get_running_loop().run_in_executor(self._readers, self.store.stored, key)
        return stored if stored is not None else await self._run(lambda: self.store.make(key, made))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._makers, work)

    async def _once(self, key: str, begin: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        task = self._open.get(key)
        if task is None:
            if len(self._open) >= self.waiting:
                raise Overloaded(f"{len(self._open)} networks are being built or wait; ask again in a while")
            task = self._open[key] = asyncio.create_task(begin())
            task.add_done_callback(lambda done: self._end(key, done))
        return await asyncio.shield(task)  # who stops waiting stops nobody else's build

    def _end(self, key: str, done: asyncio.Task[Any]) -> None:
        self._open.pop(key, None)
        if not done.cancelled():
            done.exception()  # seen, also where nobody waits any more

    def close(self) -> None:
        """Let go of the threads; what they are at comes to its end."""
        self._makers.shutdown(wait=False, cancel_futures=True)
        self._readers.shutdown(wait=False, cancel_futures=True)

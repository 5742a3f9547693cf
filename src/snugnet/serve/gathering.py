"""Scenarios of many requests, answered together: while some are worked on the next ones gather, and the generator is asked once for all."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from itertools import islice

from snugnet.errors import SnugnetError
from snugnet.family import Networks, Scenario, SpecialisingFamily

_MOST = 4096  # scenarios at a time: what comes next waits for no more

Answers = Callable[[Networks, Sequence[Scenario]], list[str]]
"""What is said of each network, as its scenario was given."""
_Request = tuple[Sequence[Scenario], asyncio.Future[bytes]]


class Gatherer:
    """Asks a family, from one thread at a time.

    Attributes:
        family: that is asked.
        executor: where it is asked; others may work there too.
        answers: made of what it hands out, in the same thread.
        sizes: told how many scenarios were asked together.
    """

    def __init__(
        self, family: SpecialisingFamily, executor: Executor, answers: Answers, sizes: Callable[[int], None]
    ) -> None:
        self.family, self.executor, self.answers, self.sizes = family, executor, answers, sizes
        self._waiting: deque[_Request] = deque()
        self._work: asyncio.Task[None] | None = None

    async def ask(self, scenarios: Sequence[Scenario]) -> bytes:
        """The answers to a request's scenarios, with commas between them.

        Raises:
            FamilyError, BudgetError: of the first scenario that is refused, with its number where there are several.
        """
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append((scenarios, future))
        if self._work is None:
            self._work = asyncio.create_task(self._answer_all())
        return await future

    async def _answer_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                taken, n = list[_Request](), 0
                while self._waiting and (not taken or n + len(self._waiting[0][0]) <= _MOST):
                    taken.append(self._waiting.popleft())
                    n += len(taken[-1][0])
                taken = [each for each in taken if not each[1].done()]  # who asked may be gone
                if not taken:
                    continue
                self.sizes(sum(len(scenarios) for scenarios, _ in taken))
                try:
                    results = await loop.run_in_executor(self.executor, self._answer, [s for s, _ in taken])
                except Exception as error:  # of nobody's scenario: all who wait have to hear of it
                    results = [error] * len(taken)
                for (_, future), result in zip(taken, results, strict=True):
                    if future.done():
                        continue
                    if isinstance(result, Exception):
                        future.set_exception(result)
                    else:
                        future.set_result(result)
        finally:
            self._work = None

    def _answer(self, requests: list[Sequence[Scenario]]) -> list[bytes | Exception]:
        """An answer or an error for each request; where one is refused, halves are asked, so the others pay little for it."""
        every = [scenario for scenarios in requests for scenario in scenarios]
        try:
            networks = self.family.specialize_many(every)
        except SnugnetError as error:
            if len(requests) == 1:
                only = len(every) == 1
                return [error if only else self.family.refusal(every, lambda i: f"scenario {i + 1}") or error]
            middle = len(requests) // 2
            return self._answer(requests[:middle]) + self._answer(requests[middle:])
        assert isinstance(networks, Networks)
        texts = iter(self.answers(networks, every))
        return [",".join(islice(texts, len(scenarios))).encode() for scenarios in requests]

"""Long benchmarks as jobs: each a file of its own, some at once, gone on with where they were stopped."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Job:
    """One piece of work, whose result is a file.

    Attributes:
        name: of the file.
        run: a function of a module.
        args: of it.
        needs: jobs that come before; their results follow the arguments.
        weights: whether it leaves weights in the folder, which jobs that need it read and no report holds.
    """

    name: str
    run: Callable[..., dict[str, Any]]
    args: tuple[Any, ...] = ()
    needs: tuple[str, ...] = ()
    weights: bool = False


@dataclass(frozen=True)
class Jobs:
    """The jobs of one benchmark, in the order in which they are begun.

    Attributes:
        each: of them.
        folder: where results and weights lie.
        report: the committed report (``.json``), whose results count as well: without that file all is done anew.
        workers: processes, of one thread each: small networks are faster side by side than split.
    """

    each: Sequence[Job]
    folder: Path
    report: Path
    workers: int = 2

    @cached_property
    def committed(self) -> dict[str, Any]:
        """Results of an earlier run, by job."""
        return json.loads(self.report.read_text())["jobs"] if self.report.is_file() else {}

    def path(self, job: Job) -> Path:
        return self.folder / f"{job.name}.json"

    def result(self, job: Job) -> dict[str, Any] | None:
        """Of this run, or else of the one whose report is committed."""
        path = self.path(job)
        return json.loads(path.read_text()) if path.is_file() else self.committed.get(job.name)

    def results(self) -> dict[str, Any]:
        """All that there are, by name."""
        return {job.name: result for job in self.each if (result := self.result(job)) is not None}

    def run(self) -> None:
        """Begin each job that has no result when what it needs is there."""
        os.environ["OMP_NUM_THREADS"] = "1"
        self.folder.mkdir(parents=True, exist_ok=True)
        by_name = {job.name: job for job in self.each}
        left = self._missing(by_name)
        running: dict[Future[str], Job] = {}
        with ProcessPoolExecutor(self.workers, get_context("spawn"), _begin) as pool:
            while left or running:
                for job in list(left):
                    needed = [self.result(by_name[name]) for name in job.needs]
                    if len(running) < self.workers and all(each is not None for each in needed):
                        running[pool.submit(_do, job, self.path(job), needed)] = job
                        left.remove(job)
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for each in done:
                    running.pop(each)
                    print(time.strftime("%H:%M:%S"), each.result(), f"({len(left)} left)", flush=True)

    def _missing(self, by_name: dict[str, Job]) -> list[Job]:
        """Jobs without a result, and those whose weights such a one needs and that are not here."""
        missing = {job.name for job in self.each if self.result(job) is None}
        while (
            more := {
                need
                for name in missing
                for need in by_name[name].needs
                if by_name[need].weights and not self.path(by_name[need]).is_file()
            }
            - missing
        ):
            missing |= more
        return [job for job in self.each if job.name in missing]


def _begin() -> None:
    import torch

    torch.set_num_threads(1)


def _do(job: Job, path: Path, needed: Sequence[Any]) -> str:
    """Run a job and write its result."""
    from snugnet.files import write_atomically
    from snugnet.pipeline import machine

    before, started = machine(), time.perf_counter()
    result = job.run(*job.args, *needed)
    result |= {"job_seconds": round(time.perf_counter() - started, 1), "machine": before}
    write_atomically(path, (json.dumps(result) + "\n").encode())
    return f"{job.name}: {result['job_seconds']} s"


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation of a sample, and each."""
    import numpy as np

    values = [round(value, 6) for value in values]
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "each": values,
    }

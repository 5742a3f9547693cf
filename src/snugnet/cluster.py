"""Work on several machines, through Ray: the jobs of a study, the candidates of a search. Ray is the optional extra ``cluster``."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from snugnet._version import __version__
from snugnet.errors import ClusterError, SnugnetError
from snugnet.extras import needs

T = TypeVar("T")
Score = Callable[[NDArray[np.int16]], NDArray[np.floating]]

LOCAL = "local"
ANSWER_SECONDS = 60.0
"""Nodes that take longer to answer are refused before any work."""
_REACH_SECONDS = 10.0


@dataclass(frozen=True)
class Cluster:
    """Machines that have been joined.

    Attributes:
        nodes: of each that answered, its address.
        cpus, gpus: of all of them together.
        cores: of the machine that has most.
    """

    nodes: tuple[str, ...]
    cpus: int
    gpus: int
    cores: int
    _asked: list[Any] = field(default_factory=list, repr=False, compare=False)

    def workers(self, *, cuda: bool) -> int:
        """How many workers with a GPU each, or a core each, there is room for."""
        return max(1, self.gpus if cuda else self.cpus)

    def submit(self, job: Callable[..., T], *args: Any, threads: int, cuda: bool) -> Future[T]:
        """Have one of the machines do a job, in this process's working directory and with so many threads; where a machine dies, another.

        Raises:
            ClusterError: no machine has so many cores, or a GPU: the job would wait for ever.
        """
        import ray

        if threads > self.cores:
            raise ClusterError(
                f"a job takes {threads} threads and no machine of the cluster has more than {self.cores} cores; give fewer: threads in the recipe"
            )
        if cuda and not self.gpus:
            raise ClusterError("a job takes a GPU and no machine of the cluster has one; give device: cpu or auto")
        remote = ray.remote(num_cpus=threads, num_gpus=int(cuda), max_retries=3)(_at_work)
        reference = remote.remote(os.getcwd(), threads, job, *args)
        self._asked.append(reference)
        future: Future[T] = reference.future()
        return future

    def cancel(self) -> None:
        """End what was submitted, each as by Ctrl-C, and wait for that, for :data:`ANSWER_SECONDS` at most."""
        import ray

        for reference in self._asked:
            ray.cancel(reference, force=False)
        if self._asked:
            ray.wait(self._asked, num_returns=len(self._asked), timeout=ANSWER_SECONDS)
        self._asked.clear()

    def spread(self, score: Score, *, cuda: bool) -> Score:
        """The same score, row by row, on all machines; each worker has a copy of it, and one thread or one GPU."""
        import ray

        judge = ray.remote(num_cpus=1, num_gpus=int(cuda), max_retries=3)(_judge)
        copies = [ray.put(score)]  # in a list Ray hands it on as it is, and a worker fetches it once

        def spread(rows: NDArray[np.int16]) -> NDArray[np.floating]:
            with own_errors():
                return np.concatenate(ray.get([judge.remote(copies, row) for row in np.split(rows, len(rows))]))

        return lambda rows: spread(rows) if len(rows) else score(rows)

    def check_folder(self, folder: Path) -> None:
        """See that all machines have a folder in common, at the same path.

        Raises:
            ClusterError: one does not have it.
        """
        own = folder.resolve()
        token = own / f".seen-by-all-{os.getpid()}"
        token.touch()
        try:
            blind = [node for node, seen in _on_each_node(_sees, str(token), os.getcwd()) if not seen]
        finally:
            token.unlink()
        if blind:
            raise ClusterError(
                f"{', '.join(blind)}: no {own}, or no {os.getcwd()}, or other files in it; a study on a cluster needs a working directory "
                "and an output that all machines share"
            )


@contextmanager
def joined(address: str) -> Iterator[Cluster]:
    """A cluster, for as long as it is needed.

    Args:
        address: ``host:port`` of a running Ray's head, ``auto`` for the one on this machine, or ``local`` for one that is started here
            and ends with this process.

    Raises:
        MissingPackageError: Ray is not installed.
        ClusterError: nothing is there, or a node does not answer, or has another version of this package.
    """
    needs("ray")
    import ray

    if address not in (LOCAL, "auto"):
        _reach(address)
    try:
        where = {"include_dashboard": False} if address == LOCAL else {"address": address}
        ray.init(**where, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ClusterError(f"cannot join the cluster {address}: {error}") from error
    try:
        nodes = []
        for node, version in _on_each_node(_version):
            if version != __version__:
                raise ClusterError(
                    f"node {node} has snugnet {version}, here it is {__version__}; install the same there"
                )
            nodes.append(node)
        has = ray.cluster_resources()
        cores = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])
        yield Cluster(tuple(nodes), int(has.get("CPU", 0)), int(has.get("GPU", 0)), cores)
    finally:
        ray.shutdown()


@contextmanager
def own_errors() -> Iterator[None]:
    """What a worker raised, as itself; what Ray raises in one line.

    Raises:
        ClusterError: all machines that could go on are gone.
    """
    import ray

    try:
        yield
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, SnugnetError):
            raise cause from None
        raise
    except ray.exceptions.RayError as error:
        raise ClusterError(f"the cluster cannot go on: {error}") from error


def _reach(address: str) -> None:
    """Refuse an address that nothing answers at: Ray by itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise ClusterError(f"--cluster is host:port, auto or local, got {address!r}")
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"no cluster answers at {address} ({error}); start one with 'ray start --head'") from error


def _on_each_node(task: Callable[..., T], *args: Any) -> list[tuple[str, T]]:
    """Address of each node that is alive, and what the task gives there.

    Raises:
        ClusterError: one does not answer within :data:`ANSWER_SECONDS`, or cannot run the task.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = {}
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            remote = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(task)
            asked[remote.remote(*args)] = node["NodeManagerAddress"]
    _, missing = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
    if missing:
        raise ClusterError(f"node {asked[missing[0]]} does not answer within {ANSWER_SECONDS:.0f} s")
    answers = []
    for reference, node in asked.items():
        try:
            answers.append((node, ray.get(reference)))
        except ray.exceptions.TaskUnschedulableError:
            continue  # it has gone, and its place in the list follows
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            raise ClusterError(f"node {node} cannot work: {str(cause).strip().splitlines()[-1]}") from error
    return answers


# -- on the machines ---------------------------------------------------------------------------------------------------


def _version() -> str:
    return __version__


def _sees(token: str, directory: str) -> bool:
    return Path(token).exists() and Path(directory).is_dir()


def _at_work(directory: str, threads: int, job: Callable[..., T], *args: Any) -> T:
    import torch

    os.chdir(directory)
    torch.set_num_threads(threads)
    return job(*args)


_fetched: dict[Any, Score] = {}


def _judge(copies: list[Any], row: NDArray[np.int16]) -> NDArray[np.floating]:
    """What a row is worth, by this worker's copy of the score."""
    (copy,) = copies
    if copy not in _fetched:
        import ray
        import torch

        from snugnet.training.memory import keep_freed_memory

        torch.set_num_threads(1)
        keep_freed_memory()
        _fetched.clear()
        _fetched[copy] = ray.get(copy)
    return _fetched[copy](row)

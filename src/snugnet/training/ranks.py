"""Several processes that train one supernet together: ranks, each with a device of its own.

In a step all ranks run the same sub-networks, which are a function of the step,
each on its shard of the batch; then one all-reduce averages what they found (:meth:`Ranks.averaging`). So all hold the same numbers
after every step, and rank 0 alone writes. One process is rank 0 of 1: it waits for nobody and sends nothing.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from snugnet.errors import TrainingError
from snugnet.fingerprint import Fingerprint, describe_differences
from snugnet.training.checkpoint import load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Metrics = dict[str, Tensor]
"""Scalars of one step, on the device; ``loss`` is always there."""


@dataclass(frozen=True)
class Ranks:
    """Where a process stands among those that train with it. What is said to be collective, all of them call.

    Attributes:
        index: of this process, from 0.
        count: of processes.
        device: of this process.
    """

    index: int = 0
    count: int = 1
    device: str | torch.device = "cpu"

    @classmethod
    def of(cls, fabric: Fabric) -> Ranks:
        """Those that a fabric has joined."""
        return cls(fabric.global_rank, fabric.world_size, fabric.device)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes: checkpoints, logs, bars."""
        return self.index == 0

    def own_draws(self) -> None:
        """From here on torch draws other numbers on every rank, a function of the step's seed and the rank."""
        if not self.first:
            torch.manual_seed(torch.initial_seed() + self.index)

    def share(self, total: int) -> slice:
        """Which of so many things in a row are for this rank, as even as can be; all where there is one rank."""
        return slice(total * self.index // self.count, total * (self.index + 1) // self.count)

    def averaging(self, module: nn.Module) -> Callable[[Metrics], Metrics]:
        """What averages a step over the ranks: gradients, the running statistics of batch norm, and the step's metrics.

        It is called after the last backward pass of a step, and is collective: one all-reduce of one tensor, however many sub-networks
        the step had. A parameter without a gradient stays without one: the same sub-networks have run everywhere, so it has none on
        any rank.

        Args:
            module: that is trained.

        Returns:
            A function from this rank's metrics to the mean ones.
        """
        parameters = [p for p in module.parameters() if p.requires_grad]
        norms = [each for each in module.modules() if isinstance(each, nn.BatchNorm2d)]
        statistics = [each for norm in norms for each in (norm.running_mean, norm.running_var) if each is not None]

        def average(metrics: Metrics) -> Metrics:
            if self.count == 1:
                return metrics
            reached = [p for p in parameters if p.grad is not None]
            means = {name: metric.detach().clone() for name, metric in metrics.items()}
            found = [p.grad for p in reached if p.grad is not None]
            layouts = [*reached, *statistics, *means.values()]
            with torch.no_grad():
                self._as_one([*found, *statistics, *means.values()], layouts, self._mean_)
            return means

        return average

    def mean(self, values: Tensor) -> Tensor:
        """The mean of the ranks' tensors, on the device; collective."""
        if self.count > 1:
            self._mean_(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether a flag is set on any rank; collective."""
        return bool(self.mean(torch.tensor(float(flag), device=self.device)) > 0) if self.count > 1 else flag

    def align(self, *modules: nn.Module | None) -> None:
        """Give all ranks what modules hold on the first; collective. Where they differ they do so in the last bits, but that adds up."""
        if self.count > 1:
            held = [t for module in modules if module is not None for t in module.state_dict().values()]
            floats = [tensor for tensor in held if tensor.is_floating_point()]
            with torch.no_grad():
                self._as_one(floats, floats, self._spread_)

    def agree(self, made_with: Fingerprint) -> None:
        """Make sure that all ranks train the same on the same images; collective.

        Raises:
            TrainingError: this one does not; the message names what differs.
        """
        if self.count > 1:
            there = json.loads(self._spread(json.dumps(made_with).encode()))
            if differ := describe_differences(there, made_with):
                raise TrainingError(
                    f"rank {self.index} on {platform.node()} is not like rank 0 (not the same {differ}); give every machine the same "
                    "recipe and images"
                )

    def save(self, path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Save a checkpoint, on the first rank; see :func:`snugnet.training.checkpoint.save_checkpoint`."""
        if self.first:
            save_checkpoint(path, tensors, state)

    def load(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The checkpoint that the first rank has, if it has one; collective. Other machines need no file of their own.

        Raises:
            TrainingError: the file is no whole checkpoint.
        """
        found = load_checkpoint(path) if self.first and path.exists() else None
        if self.count == 1:
            return found
        content = self._spread(path.read_bytes() if found is not None else b"")
        if self.first or not content:
            return found
        with TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            copy.write_bytes(content)
            return load_checkpoint(copy)

    def _as_one(self, tensors: list[Tensor], layouts: list[Tensor], operate: Callable[[Tensor], None]) -> None:
        """Run an operation in place on many tensors as on one; laid out in it as others of their shapes are, the same everywhere."""
        flat = torch.empty(sum(tensor.numel() for tensor in tensors), device=self.device)
        parts = flat.split([tensor.numel() for tensor in tensors])
        views = [part.as_strided(like.shape, like.stride()) for part, like in zip(parts, layouts, strict=True)]
        torch._foreach_copy_(views, tensors)
        operate(flat)
        torch._foreach_copy_(tensors, views)

    def _mean_(self, values: Tensor) -> None:
        with answering(self.index, self.count):  # not Fabric's, which has a barrier before each
            dist.all_reduce(values)
        values /= self.count

    def _spread_(self, values: Tensor) -> None:
        with answering(self.index, self.count):
            dist.broadcast(values, 0)

    def _spread(self, content: bytes) -> bytes:
        """The first rank's bytes. (torch's own for objects has them pickled.)"""
        size = torch.tensor(len(content), device=self.device)
        self._spread_(size)
        count = int(size)
        if not count:
            return b""
        held = (
            torch.frombuffer(bytearray(content), dtype=torch.uint8)
            if self.first
            else torch.empty(count, dtype=torch.uint8)
        )
        held = held.to(self.device)
        self._spread_(held)
        return held.cpu().numpy().tobytes()


ALONE = Ranks()
"""One process by itself."""


@contextmanager
def answering(index: int, count: int) -> Iterator[None]:
    """One line where another rank ended, or does not answer in time."""
    try:
        yield
    except RuntimeError as error:  # those of torch.distributed derive from it
        reason = " ".join(str(error).split())[:120]
        raise TrainingError(
            f"rank {index} of {count} on {platform.node()}: another rank has ended, or does not answer ({reason}); the last checkpoint "
            "is as it was: run the same command to go on"
        ) from error

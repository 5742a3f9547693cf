"""Accuracy of candidates on images: one pass gives that of every superclass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import cycle
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from snugnet.data import ImageSet
from snugnet.errors import SearchError
from snugnet.nn.judged import folded, measuring
from snugnet.nn.network import Network, resized, with_layout
from snugnet.spaces import Population
from snugnet.supernets import Supernet
from snugnet.training.calibration import calibrate, network_batches
from snugnet.training.threads import side_by_side

_CPU_PIXELS = 2**19  # in a batch
_GPU_BATCH = 1024
_IN_FLIGHT = 4  # candidates at once on a GPU, each on a stream of its own
Colours = tuple[float, float, float]
Precision = Literal["float32", "bfloat16"]


@dataclass(eq=False)
class ImageScorer:
    """Accuracy of sub-networks on validation images that stay on the device where they fit, batch norm recalibrated for each.

    A candidate is extracted once as a small static network in channels-last layout; its statistics are measured and folded into its
    convolutions (:mod:`snugnet.nn.judged`), so that validation runs no batch norm; and what is right is counted on the device
    and read once for all candidates. Accuracies are those of the network as it is handed out. On a CPU, candidates are judged side
    by side, each by its share of torch's threads: the layers of a small network are too small to be split. On CUDA some are in flight
    at once, and all batches are of one size, the last one filled up with what does not count: each new shape costs time.

    Attributes:
        supernet: in eval mode.
        calibration: yields normalised images for batch norm's statistics, (n, 3, h, w) each; asked once for each candidate.
        validation: images to be judged on; those of no group are left out.
        groups: for each superclass the indices of its classes among the supernet's; its images are told apart by these alone.
        mean, std: of the images, 0 to 1, a channel each.
        batch: validation images at once; by default as many as a CPU likes, or up to 1,024 on a GPU.
        precision: of validation; statistics are always measured in float32. bfloat16 needs a device that is made for it.
    """

    supernet: Supernet
    calibration: Callable[[], Iterable[Tensor]]
    validation: ImageSet
    groups: Sequence[Sequence[int]]
    mean: Colours
    std: Colours
    batch: int = 0
    precision: Precision = "float32"
    _classes: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Keep the images that count, and where each group's are.

        Raises:
            SearchError: a group has no validation images, or there is no such precision.
        """
        if self.precision not in get_args(Precision):
            raise SearchError(f"precision is {self.precision!r}; known: {', '.join(get_args(Precision))}")
        self._classes = sorted({c for classes in self.groups for c in classes})
        self.validation = self.validation.of_classes(self._classes)
        labels = self.validation.labels
        if not self.batch:
            pixels = self.validation.resolution**2
            self.batch = max(16, _CPU_PIXELS // pixels)
            if labels.device.type != "cpu":  # equal parts, so that little is filled up
                n = max(1, len(self.validation))
                self.batch = -(-n // -(-n // _GPU_BATCH))
        self._members: list[tuple[Tensor, Tensor, Tensor]] = []  # of each group: its images, its logits, its labels
        for classes in self.groups:
            own = torch.isin(labels, torch.as_tensor(classes, device=labels.device)).nonzero().flatten()
            if not len(own):
                raise SearchError(f"there are no validation images of classes {list(classes)} to judge a network on")
            columns = torch.as_tensor([self._classes.index(c) for c in classes], device=labels.device)
            matches = labels[own, None] == torch.as_tensor(classes, device=labels.device)
            self._members.append((own, columns, matches.int().argmax(1)))

    def __call__(self, rows: Population) -> NDArray[np.float64]:
        """Mean accuracy over the groups, then each group's: (n, 1 + groups), fractions from 0 to 1."""
        accuracies = self.accuracies(rows)
        return np.concatenate([accuracies.mean(1, keepdims=True), accuracies], axis=1)

    def accuracies(self, rows: Population) -> NDArray[np.float64]:
        """Accuracy of each architecture on each group's images, among the group's classes: (n, groups)."""
        if not len(rows):
            return np.zeros((0, len(self._sizes())))
        with side_by_side(self.validation.device, len(rows)) as run:
            right = torch.stack(list(_in_flight(self._right, rows) if self._cuda else run(self._right, rows)))
        found: NDArray[np.float64] = right.cpu().numpy() / self._sizes()
        return found

    def _sizes(self) -> NDArray[np.int64]:
        """Images of each group."""
        return np.array([len(own) for own, _, _ in self._members])

    @property
    def _cuda(self) -> bool:
        return self.validation.device.type == "cuda"

    @torch.inference_mode()
    def _right(self, row: NDArray[np.int16]) -> Tensor:
        """Images of each group that are told right, (groups,), on the device."""
        network = with_layout(self.supernet.extract(row, self._classes).eval(), torch.channels_last)
        logits = self._logits(network)
        return torch.stack(
            [(logits[own][:, columns].argmax(1) == labels).sum() for own, columns, labels in self._members]
        )

    def _measure(self, network: Network) -> None:
        """Calibrate a network, or what measures it."""
        calibrate(network, (resized(images, network.blueprint.resolution) for images in self.calibration()))

    def _logits(self, network: Network) -> Tensor:
        """Of all validation images, (n, classes), by a network whose statistics are still to be measured."""
        network, resolution = measuring(network), network.blueprint.resolution
        self._measure(network)
        network = folded(network)
        device, parts = self.validation.device.type, []
        with nullcontext() if self.precision == "float32" else torch.autocast(device, torch.bfloat16):
            for images, _ in network_batches(self.validation, self.mean, self.std, resolution, self.batch):
                if self._cuda:
                    images = F.pad(images, (0, 0, 0, 0, 0, 0, 0, self.batch - len(images)))
                parts.append(network(images))
        return torch.cat(parts)[: len(self.validation)]


def _in_flight(task: Callable[[NDArray[np.int16]], Tensor], rows: Population) -> Iterator[Tensor]:
    """Tasks that wait for nothing on the host, on CUDA streams of their own; what follows on this stream waits for all of them."""
    here = torch.cuda.current_stream()
    streams = [torch.cuda.Stream() for _ in range(min(_IN_FLIGHT, len(rows)))]
    for stream in streams:
        stream.wait_stream(here)
    for row, stream in zip(rows, cycle(streams), strict=False):
        with torch.cuda.stream(stream):
            result = task(row)
        result.record_stream(here)
        yield result
    for stream in streams:
        here.wait_stream(stream)

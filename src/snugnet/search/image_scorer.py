"""Accuracy of candidates on images: one pass gives that of every superclass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snugnet.data import ImageSet
from snugnet.errors import SearchError
from snugnet.nn.folding import fold_norms
from snugnet.nn.network import Network, resized, with_layout
from snugnet.spaces import Population
from snugnet.supernets import Supernet
from snugnet.training.calibration import calibrate, network_batches
from snugnet.training.threads import side_by_side

_CPU_PIXELS = 2**17  # in a batch
Colours = tuple[float, float, float]


@dataclass(eq=False)
class ImageScorer:
    """Accuracy of sub-networks on validation images that stay on the device where they fit, batch norm recalibrated for each.

    A candidate is extracted once as a small static network in channels-last layout; after its statistics have been measured
    they are folded into its convolutions, so that validation runs no batch norm; and what is right is counted on the device
    and read once. Accuracies are those of the network as it is handed out. On a CPU, candidates are judged side by side, each
    by its share of torch's threads: the layers of a small network are too small to be split.

    Attributes:
        supernet: in eval mode.
        calibration: yields normalised images for batch norm's statistics, (n, 3, h, w) each; asked once for each candidate.
        validation: images to be judged on; those of no group are left out.
        groups: for each superclass the indices of its classes among the supernet's; its images are told apart by these alone.
        mean, std: of the images, 0 to 1, a channel each.
        batch: validation images at once; by default as many as a CPU's cache likes, or 512 on a GPU.
    """

    supernet: Supernet
    calibration: Callable[[], Iterable[Tensor]]
    validation: ImageSet
    groups: Sequence[Sequence[int]]
    mean: Colours
    std: Colours
    batch: int = 0
    _classes: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Keep the images that count, and where each group's are.

        Raises:
            SearchError: a group has no validation images.
        """
        self._classes = sorted({c for classes in self.groups for c in classes})
        self.validation = self.validation.of_classes(self._classes)
        labels = self.validation.labels
        if not self.batch:
            pixels = self.validation.resolution**2
            self.batch = 512 if labels.device.type != "cpu" else max(8, _CPU_PIXELS // pixels)
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
            return np.zeros((0, len(self.groups)))
        with side_by_side(self.validation.device, len(rows)) as run:
            right = torch.stack(list(run(self._right, rows)))
        return right.cpu().numpy() / np.array([len(own) for own, _, _ in self._members])

    @torch.inference_mode()
    def _right(self, row: NDArray[np.int16]) -> Tensor:
        """Images of each group that are told right, (groups,), on the device."""
        network = with_layout(self.supernet.extract(row, self._classes).eval(), torch.channels_last)
        resolution = network.blueprint.resolution
        calibrate(network, (resized(images, resolution) for images in self.calibration()))
        logits = self._logits(network)
        return torch.stack(
            [(logits[own][:, columns].argmax(1) == labels).sum() for own, columns, labels in self._members]
        )

    def _logits(self, network: Network) -> Tensor:
        """Of the validation images, (n, classes), by a network in eval mode whose statistics have been measured; it may be changed."""
        fold_norms(network)
        batches = network_batches(self.validation, self.mean, self.std, network.blueprint.resolution, self.batch)
        return torch.cat([network(part) for part, _ in batches])

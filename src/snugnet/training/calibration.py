"""Batch-norm recalibration and accuracy of one sub-network.

A sub-network's statistics are not the supernet's, so they are measured anew on a few images before it is judged or used
(SPOS section 3.3; OFA does the same).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from snugnet.data import ImageSet, evaluation_batches, normalise
from snugnet.errors import TrainingError
from snugnet.nn.network import resized


@torch.no_grad()
def calibrate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of every batch norm by the averages over the batches.

    Args:
        network: changed in place; left in eval mode.
        batches: normalised images, (n, c, h, w) each, of one size.

    Raises:
        TrainingError: there are no images.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
        images = None
        for seen, images in enumerate(batches, start=1):
            # the mean over all batches so far; with no momentum at all each would read its counter off the device
            for norm in norms:
                norm.momentum = 1 / seen
            network(images)
        if images is None:
            raise TrainingError("batch norm cannot be calibrated without images")
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.eval()


@torch.no_grad()
def accuracy(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Share of images whose largest logit is their label's.

    Args:
        network: in eval mode.
        batches: normalised images (n, c, h, w) and labels (n,), as indices of the network's logits.

    Returns:
        A fraction from 0 to 1; NaN if there are no images.
    """
    right: Tensor | float = 0.0
    seen = 0
    for images, labels in batches:
        right = right + (network(images).argmax(1) == labels).sum()
        seen += len(labels)
    return float(right) / seen if seen else float("nan")


def network_batches(
    images: ImageSet, mean: Sequence[float], std: Sequence[float], resolution: int, size: int = 256
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images in order as a network takes them, normalised and at its resolution, with their labels."""
    for part, labels in evaluation_batches(images, size) if len(images) else ():
        yield resized(normalise(part, mean, std, channels_last=True), resolution), labels

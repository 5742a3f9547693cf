"""What a training step of a supernet has in hand: its images, and what comes out of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snugnet.training.dropout import superclass_mask
from snugnet.training.ranks import Metrics


@dataclass(frozen=True)
class StepBatch:
    """Images (n, 3, h, w), normalised, their labels (n,), and the rate of superclass dropout."""

    x: Tensor
    labels: Tensor
    class_to_group: Tensor
    rate: float

    def mask(self, rate: float | None = None) -> Tensor | None:
        """A fresh draw of the logits that stay, (n, classes), at the batch's rate or another; all of them at rate 0."""
        rate = self.rate if rate is None else rate
        return superclass_mask(self.labels, self.class_to_group, rate) if rate > 0 else None


class StepMeans:
    """Loss and training accuracy, averaged over a step's sub-networks, on the device."""

    def __init__(self, batch: StepBatch, subnets: int) -> None:
        self.labels, self.subnets = batch.labels, subnets
        self.loss = torch.zeros((), device=batch.x.device)
        self.right = torch.zeros((), device=batch.x.device)

    def add(self, loss: Tensor, logits: Tensor) -> None:
        """Take in one sub-network's loss and logits (n, classes)."""
        self.loss += loss.detach() / self.subnets
        self.right += (logits.detach().argmax(1) == self.labels).float().mean() / self.subnets

    def result(self) -> Metrics:
        """The means so far."""
        return {"loss": self.loss, "train_accuracy": self.right}

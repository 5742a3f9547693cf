"""A second classifier in the middle of a network, for its training alone."""

from __future__ import annotations

from torch import Tensor, nn

from snugnet.nn.network import Network, initialise
from snugnet.spaces import Block

HIDDEN = (128, 768)
"""Channels of its two convolutions."""


def auxiliary_head(block: Block, num_classes: int, *, seed: int) -> nn.Sequential:
    """The auxiliary classifier of DARTS (Liu et al., ICLR 2019, arXiv 1806.09055, appendix A.2; after Inception), with fresh weights.

    ReLU, average pool to 2x2, 1x1 convolution, batch norm, ReLU, 2x2 convolution, batch norm, ReLU, linear. The pool's windows are the
    published 5x5 where those cover the map with even steps, 6 to 10 pixels (stride 3 on the 8 pixels of CIFAR, 2 on the 7 of
    ImageNet); otherwise they are quarters of the map. (DARTS's own code leaves out the second batch norm on ImageNet.)

    Args:
        block: on whose output (n, c, h, h) it stands; it gives logits (n, classes).
        num_classes: width of the classifier.
        seed: of the weights.
    """
    size, (first, second) = block.out_resolution, HIDDEN
    head = nn.Sequential(
        nn.ReLU(),
        nn.AvgPool2d(5, size - 5) if 6 <= size <= 10 else nn.AdaptiveAvgPool2d(2),
        nn.Conv2d(block.out_channels, first, 1, bias=False),
        nn.BatchNorm2d(first),
        nn.ReLU(),
        nn.Conv2d(first, second, 2, bias=False),
        nn.BatchNorm2d(second),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second, num_classes),
    )
    initialise(head, seed)
    return head


class WithAuxiliary(nn.Module):
    """What is trained: a network and, where there is one, the classifier beside it.

    Attributes:
        network: is handed out in the end.
        head: stays behind; None where there is no such classifier.
        block: the name of the network's block that the head stands on.
    """

    def __init__(self, network: Network, block: Block | None, *, seed: int = 0) -> None:
        super().__init__()
        self.network = network
        self.block = None if block is None else block.name
        self.head = None if block is None else auxiliary_head(block, network.blueprint.num_classes, seed=seed)

    def forward(self, x: Tensor, drop_path: float = 0.0) -> tuple[Tensor, Tensor | None]:
        """Images (n, c, h, h) to the network's logits and the head's, (n, classes) each."""
        if self.head is None:
            return self.network(x, drop_path), None
        logits, inner = self.network(x, drop_path, self.block)
        return logits, self.head(inner)

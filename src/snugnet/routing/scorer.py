"""Candidates for a router: how many images they send to the right superclass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snugnet.nn.network import told, with_layout
from snugnet.search.image_scorer import ImageScorer
from snugnet.spaces import Population
from snugnet.spaces.blueprint import Over, Superclasses

OVERS: tuple[Over, ...] = ("sum", "max")


@dataclass(eq=False)
class RouterScorer(ImageScorer):
    """Share of validation images that a network sends to the right superclass.

    Attributes:
        groups: the classes of each superclass; no class stands in two.
        overs: ways to make a superclass's logit of those of its classes that are tried; one pass gives all of them.
    """

    overs: Sequence[Over] = field(default=OVERS, kw_only=True)

    def __post_init__(self) -> None:
        """Also find each image's superclass, and the classifier's outputs superclass by superclass.

        Raises:
            SearchError: a superclass has no validation images.
        """
        super().__post_init__()
        labels = self.validation.labels
        order = [self._classes.index(c) for classes in self.groups for c in classes]
        self._order = torch.as_tensor(order, device=labels.device)
        self._superclass = torch.empty_like(labels)
        for g, (own, _, _) in enumerate(self._members):
            self._superclass[own] = g
        self._says = [Superclasses(tuple(map(len, self.groups)), over) for over in self.overs]

    def __call__(self, rows: Population) -> NDArray[np.float64]:
        """The better of the ways, then each of them: (n, 1 + ways), fractions from 0 to 1 of all images."""
        shares = self.accuracies(rows)
        return np.concatenate([shares.max(1, keepdims=True), shares], axis=1)

    def _sizes(self) -> NDArray[np.int64]:
        return np.full(len(self.overs), len(self.validation))

    @torch.inference_mode()
    def _right(self, row: NDArray[np.int16]) -> Tensor:
        """Images that go to their superclass, each way: (ways,), on the device."""
        network = with_layout(self.supernet.extract(row, self._classes).eval(), torch.channels_last)
        logits = self._logits(network)[:, self._order]
        return torch.stack([(told(logits, says).argmax(1) == self._superclass).sum() for says in self._says])

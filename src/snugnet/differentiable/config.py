"""How a differentiable search is done, as checked, printable configuration. No torch in here."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from snugnet.config import Config
from snugnet.data.config import AugmentConfig
from snugnet.recipe import NetworkRecipe

Method = Literal["dca", "darts", "pc-darts"]

METHODS: dict[Method, dict[str, Any]] = {
    "dca": {"weight_sharing": True, "derived_cells": True, "bottleneck": 4, "partial_channels": 1, "edge_weights": False},
    "darts": {"weight_sharing": False, "derived_cells": False, "bottleneck": 1, "partial_channels": 1, "edge_weights": False},
    "pc-darts": {"weight_sharing": False, "derived_cells": False, "bottleneck": 1, "partial_channels": 4, "edge_weights": True},
}  # fmt: skip
"""What each method switches on."""


class LookupConfig(Config):
    """The look-up graph: from the limit that a search is given to what the derived network then costs (DCA-NAS, section 3.2.1).

    Attributes:
        points: searches, each with another limit; 0 for no graph: the search is then given the device's own limit.
        epochs: of each, as a share of the search's own.
        workers: of them at once; as many as there are CPU cores without it.
    """

    points: int = Field(default=8, ge=0, le=64)
    epochs: float = Field(default=0.3, gt=0, le=1)
    workers: int | None = Field(default=None, ge=1, le=64)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.points == 1:
            raise ValueError("a look-up graph has at least 2 points, or 0 for none")
        return self


class CellSearchConfig(Config):
    """A differentiable search for the cells of a network.

    Attributes:
        method: ``dca``, ``darts`` (first order) or ``pc-darts``; it says what is on below wherever nothing is given.
        space: options of the space that the search network has in place of the found network's, such as fewer cells and channels.
        augment: random changes to images of the search, where they are others than the network's training has.
        epochs: passes over the half of the training images that the weights learn from.
        warmup_epochs: of them, in which only the weights learn.
        batch_size: images a step, of either half.
        architecture_share: of the training images that the architecture learns from; the weights learn from the others.
        learning_rate: of the weights' SGD, falling to 0 by a cosine.
        momentum, weight_decay: of the weights' SGD.
        clip: largest norm of the weights' gradient.
        architecture_learning_rate, architecture_weight_decay: of the architecture's Adam (betas 0.5 and 0.999).
        second_order: whether the architecture's gradient looks one step of the weights ahead (DARTS, equation 7), by finite differences of
            DARTS's own size (0.01 over the gradient's norm); on networks of few channels the kinks of ReLU make much noise of them.
        multiplier_rate: of the ascent of each Lagrange multiplier, over the whole search: so much would it rise if its limit were broken by
            its whole amount at every step. Neither the number of steps nor the size of a cost leaves a rate to be tuned.
        cost_temperature: of the softmax in the expected cost. 1 is equation 3 of DCA-NAS as it stands; below, the expected cost comes near that
            of the derived cells, and a limit moves first the edges that are nearly undecided.
        lookup: the look-up graph.
        weight_sharing, derived_cells, bottleneck, partial_channels: see :class:`snugnet.supernets.mixed.MixedNetwork`.
        edge_weights: whether the edges of a node have weights of their own (PC-DARTS, section 3.3).
        selection: how the cell is derived: by the architecture's ``softmax``, or by ``perturbation``: what hurts most when it is left
            out (Wang et al., ICLR 2021, arXiv 2108.04392), from the cells that are mixed; with ``derived_cells`` that is one of each kind.
        perturbation_batches: of the architecture's images, to see how much it hurts.
        max_skips: the search ends when the normal cell that it derives has more skip connections than that, and goes back to the epoch
            before (DARTS+, arXiv 1909.06035); the found network never has more.
        checkpoint_seconds: at most so much work is lost when a run is stopped.
        log_every: steps between two lines of the log.
    """

    method: Method = "dca"
    space: dict[str, Any] = Field(default_factory=dict)
    augment: AugmentConfig | None = None
    epochs: int = Field(default=50, ge=1, le=100_000)
    warmup_epochs: int = Field(default=0, ge=0)
    batch_size: int = Field(default=512, ge=2)
    architecture_share: float = Field(default=0.5, gt=0, lt=1)
    learning_rate: float = Field(default=0.2, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=3e-4, ge=0)
    clip: float | None = Field(default=5.0, gt=0)
    architecture_learning_rate: float = Field(default=6e-4, gt=0)
    architecture_weight_decay: float = Field(default=1e-3, ge=0)
    second_order: bool = False
    multiplier_rate: float = Field(default=0.6, gt=0)
    cost_temperature: float = Field(default=0.1, gt=0, le=1)
    lookup: LookupConfig = LookupConfig()
    weight_sharing: bool | None = None
    derived_cells: bool | None = None
    bottleneck: int | None = Field(default=None, ge=1)
    partial_channels: int | None = Field(default=None, ge=1)
    edge_weights: bool | None = None
    selection: Literal["softmax", "perturbation"] = "softmax"
    perturbation_batches: int = Field(default=4, ge=1)
    max_skips: int | None = Field(default=None, ge=0)
    checkpoint_seconds: float = Field(default=60.0, ge=0)
    log_every: int = Field(default=20, ge=1)

    def resolved(self) -> Self:
        """With everything that the method says filled in."""
        missing = {key: value for key, value in METHODS[self.method].items() if getattr(self, key) is None}
        return self.model_copy(update=missing)

    @property
    def network(self) -> dict[str, Any]:
        """What a resolved configuration says of the search network, as arguments of it."""
        return {
            key: getattr(self, key) for key in ("weight_sharing", "derived_cells", "bottleneck", "partial_channels")
        }

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key in ("num_classes", "in_channels"):
            if key in self.space:
                raise ValueError(f"{key} of the search network follows from the data; leave it out of space")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs ({self.warmup_epochs}) leave no epoch of {self.epochs} to the architecture"
            )
        return self


class CellRecipe(NetworkRecipe):
    """A differentiable search, and the training of the network that it finds.

    Attributes:
        space: of the network that is searched for: ``darts`` or ``nas-bench-201``, and its options.
        search: how it is searched for.
        limits: what costs of it may be at most, by name: ``params``, ``madds``, a measured one with its device
            (``latency_ms@raspi4``); an amount, or a share of the cost's range (``40%``).
        at_least: what costs of it have to be at least.
    """

    search: CellSearchConfig = CellSearchConfig()
    limits: dict[str, float | str] = Field(default_factory=dict)
    at_least: dict[str, float | str] = Field(default_factory=dict)

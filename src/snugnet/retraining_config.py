"""The section of recipes on training one network that was found."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from snugnet.config import Config

Schedule = Literal["cosine", "linear"]
"""How learning rates fall."""

PROTOCOL_BATCH = 1024
"""Images a step of the papers' protocols; learning rates that are not given are theirs, in proportion to the batch."""


class ScratchConfig(Config):
    """Training one network that was found, from fresh weights, on its classes: the protocol of SPOS (section 4).

    Attributes:
        epochs: passes over the training images of the network's classes.
        batch_size: images a step; without it that of the supernet's training, or :attr:`NetworkRecipe.batch_size`.
        learning_rate: at the start; without it 0.5 for 1024 images a step, and less in proportion for fewer.
        schedule: how it falls to 0: ``linear`` or by a ``cosine``.
        warmup_epochs: over which it first rises from 0.
        distillation: weight of the loss against the family's largest network, beside the loss against the labels; 0 for none.
        label_smoothing: share of the target spread over the classes.
        momentum: of SGD.
        nesterov: whether that momentum is Nesterov's; DARTS's is plain.
        weight_decay: of SGD, on every parameter but biases and batch norm.
        clip: largest norm of the whole gradient, to which a larger one is scaled down.
        drop_path: rate at the end of the training, rising linearly from 0 at its start, at which operations of cells, or what stands
            around an identity, are dropped; see :class:`snugnet.nn.network.Network`.
        auxiliary: weight of the loss of a second classifier on the space's auxiliary block
            (:attr:`snugnet.spaces.SearchSpace.auxiliary_block`), which is there for the training alone.
        checkpoint_seconds: at most so much work is lost when a run is stopped.
        log_every: steps between two lines of the log.
    """

    epochs: float = Field(default=240.0, gt=0, le=1e5)
    batch_size: int | None = Field(default=None, ge=2)
    learning_rate: float | None = Field(default=None, gt=0)
    schedule: Schedule = "linear"
    warmup_epochs: float = Field(default=0.0, ge=0)
    distillation: float = Field(default=0.0, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(default=4e-5, ge=0)
    clip: float | None = Field(default=None, gt=0)
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    auxiliary: float = Field(default=0.0, ge=0)
    checkpoint_seconds: float = Field(default=60.0, ge=0)
    log_every: int = Field(default=20, ge=1)

    protocol_rate: ClassVar[float] = 0.5
    """The learning rate at a batch of :data:`PROTOCOL_BATCH`."""

    def resolved(self, batch_size: int) -> Self:
        """With nothing left open.

        Args:
            batch_size: where none is given.
        """
        batch = self.batch_size or batch_size
        rate = self.learning_rate or self.protocol_rate * batch / PROTOCOL_BATCH
        return self.model_copy(update={"batch_size": batch, "learning_rate": rate})

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs}) is more than epochs ({self.epochs})")
        return self


class InheritedConfig(ScratchConfig):
    """Fine-tuning one network that was found, from the supernet's weights, with the family's largest network as its teacher.

    Attributes:
        epochs: passes over the training images of the network's classes.
        learning_rate: at the start; without it 0.16 for 1024 images a step, and less in proportion for fewer.
        distillation: weight of the loss against the teacher's logits over the network's classes.
    """

    epochs: float = Field(default=10.0, gt=0, le=1e5)
    distillation: float = Field(default=1.0, ge=0)

    protocol_rate: ClassVar[float] = 0.16


class RetrainingConfig(Config):
    """How ``snugnet retrain`` trains a network that was found, by what it starts from."""

    scratch: ScratchConfig = ScratchConfig()
    inherited: InheritedConfig = InheritedConfig()

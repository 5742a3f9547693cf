"""Training of one network that was found: from fresh weights or from those that it has, with or without a teacher."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from snugnet.bundles import NETWORK
from snugnet.data import Augment, Batches, ImageSet, normalise
from snugnet.errors import DataError, TrainingError
from snugnet.files import locked, remove_temporaries
from snugnet.fingerprint import Fingerprint, describe_differences, digest
from snugnet.nn.auxiliary import WithAuxiliary
from snugnet.nn.network import Network, resized, with_layout
from snugnet.recipe import NetworkRecipe
from snugnet.retraining_config import ScratchConfig
from snugnet.training.calibration import accuracy, network_batches
from snugnet.training.checkpoint import (
    load_checkpoint,
    load_optimizer,
    optimizer_tensors,
    save_checkpoint,
    split_prefix,
)
from snugnet.training.dropout import cross_entropy, distillation_loss
from snugnet.training.inputs import faults
from snugnet.training.loop import SCHEDULES, RunLog, run_phase
from snugnet.training.optimizer import make_optimizer
from snugnet.training.ranks import Metrics

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class ClassImages:
    """Images of a network's classes; labels are places among these. There are no test images in it: nothing is chosen on them.

    Attributes:
        train: to learn from.
        validation: to judge on, epoch by epoch; may be empty.
        mean, std: of the family's images, 0 to 1, a channel each.
    """

    train: ImageSet
    validation: ImageSet
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if len(self.train) < 2:
            raise DataError(
                f"there are {len(self.train)} training images of the network's classes; at least 2 are needed"
            )

    def digest(self) -> str:
        """Of all that the training sees."""
        return digest(self.mean, self.std, *self.train.contents(), *self.validation.contents())


@dataclass
class NetworkTraining:
    """One training of a static network, which can be stopped and gone on with.

    Attributes:
        recipe: seed and augmentation.
        config: how to train, nothing left open.
        network: trained in place; as it is before the first step.
        teacher: frozen, with the same classes; None where nothing is distilled.
        images: of its classes, at their own resolution: network and teacher get them at theirs.
        made_with: what a checkpoint must have been made with to be gone on with.
        fabric: device and precision.
        folder: the checkpoint ``network.ckpt.safetensors`` is kept here.
        log: where scalars go; the validation accuracy comes after every epoch.
        progress: whether to show a bar.
        auxiliary: the name of the network's block on which the auxiliary classifier stands; asked where ``config`` gives that a
            weight.
        spent: seconds of training so far, earlier runs of the same training included.
    """

    recipe: NetworkRecipe
    config: ScratchConfig
    network: Network
    teacher: Network | None
    images: ClassImages
    made_with: Fingerprint
    fabric: Fabric
    folder: Path
    log: RunLog
    progress: bool = True
    auxiliary: str | None = None
    spent: float = 0.0

    def __post_init__(self) -> None:
        assert self.config.batch_size is not None
        block = self.network.block(self.auxiliary) if self.auxiliary and self.config.auxiliary else None
        self.trained = WithAuxiliary(self.network, block, seed=self.recipe.seed)
        self.path = self.folder / NETWORK.checkpoint
        device, crop = self.fabric.device, self.recipe.augment.random_resized_crop
        self.batches = Batches(self.images.train, self.config.batch_size, self.recipe.seed, device=device, crop=crop)
        self.augment = Augment(self.recipe.augment, self.images.mean, cropped=self.batches.cropped)
        self.validation = self.images.validation.to(device)
        with_layout(self.trained.to(device), torch.channels_last).requires_grad_(True)
        if self.teacher is not None:
            with_layout(self.teacher.to(device), torch.channels_last).eval().requires_grad_(False)

    def run(self) -> Network:
        """Train to the end, from the checkpoint if there is one.

        Returns:
            The network in eval mode; its batch norm has the running averages of the training.

        Raises:
            BusyError: another process trains in this folder.
            TrainingError: the loss is not finite, or the checkpoint belongs to another training.
        """
        with locked(self.folder), closing(self.batches):
            remove_temporaries(self.path)
            return self._run()

    def validation_accuracy(self) -> float:
        """Of the network as it is now; NaN if there are no validation images."""
        resolution, training = self.network.blueprint.resolution, self.network.training
        batches = network_batches(self.validation, self.images.mean, self.images.std, resolution)
        try:
            return accuracy(self.network.eval(), batches)
        finally:
            self.network.train(training)

    def _run(self) -> Network:
        config = self.config
        assert config.learning_rate is not None
        rate, falling = config.learning_rate, SCHEDULES[config.schedule]
        epoch = self.batches.steps_per_epoch
        total, warmup = max(1, round(config.epochs * epoch)), round(config.warmup_epochs * epoch)
        start, held = self._resume()
        self._since = time.monotonic() - self.spent
        optimizer = make_optimizer(self.trained, config.momentum, config.weight_decay, config.nesterov)
        load_optimizer(optimizer, self.trained, held)
        model, wrapped = self.fabric.setup(self.trained, optimizer)
        self.trained.train()

        def step_of(step: int, rng: np.random.Generator) -> Metrics:
            for group in optimizer.param_groups:
                group["lr"] = rate * falling(step, total, warmup)
            images, labels = self.batches.batch(step)
            x = normalise(self.augment(images), self.images.mean, self.images.std, channels_last=True)
            logits, beside = model(resized(x, self.network.blueprint.resolution), config.drop_path * step / total)
            loss = cross_entropy(logits, labels, None, config.label_smoothing)
            if beside is not None:
                loss = loss + config.auxiliary * cross_entropy(beside, labels, None, config.label_smoothing)
            if self.teacher is not None:
                with torch.no_grad(), self.fabric.autocast():
                    taught = self.teacher(resized(x, self.teacher.blueprint.resolution))
                loss = loss + config.distillation * distillation_loss(logits, taught)
            optimizer.zero_grad(set_to_none=True)
            self.fabric.backward(loss)
            if config.clip is not None:  # whether it is finite the loss shows; to ask here would wait for a GPU
                self.fabric.clip_gradients(model, wrapped, max_norm=config.clip, error_if_nonfinite=False)
            wrapped.step()
            if len(self.validation) and ((step + 1) % epoch == 0 or step + 1 == total):
                self.log.scalars("validation", step + 1, {"accuracy": self.validation_accuracy()})
            right = (logits.detach().argmax(1) == labels).float().mean()
            return {"loss": loss.detach(), "train_accuracy": right}

        run_phase(
            "network",
            step_of,
            lambda done: self._save(done, optimizer),
            phase=0,
            start=start,
            total=total,
            seed=self.recipe.seed,
            log=self.log,
            log_every=config.log_every,
            checkpoint_seconds=config.checkpoint_seconds,
            progress=self.progress,
            inputs=lambda step: faults(self.batches.batch(step)[0], self.images.mean, self.images.std),
        )
        return self.network.eval().requires_grad_(False)

    def _save(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        tensors = {f"trained.{name}": tensor for name, tensor in self.trained.state_dict().items()}
        tensors |= {f"optimizer.{name}": t for name, t in optimizer_tensors(optimizer, self.trained).items()}
        self.spent = time.monotonic() - self._since
        state = {"step": step, "made_with": self.made_with, "seconds": self.spent, "log": self.log.mark()}
        save_checkpoint(self.path, tensors, state)

    def _resume(self) -> tuple[int, dict[str, Tensor]]:
        """Step to go on from, and the optimizer's state."""
        if not self.path.exists():
            self.log.go_on_from({})
            return 0, {}
        tensors, state = load_checkpoint(self.path)
        differ = describe_differences(state.get("made_with"), self.made_with)
        if differ:
            raise TrainingError(
                f"{self.path} was made by another retraining (not the same {differ}); give another --out, or --fresh to throw "
                "it away"
            )
        self.trained.load_state_dict(split_prefix(tensors, "trained"))
        self.spent = float(state.get("seconds", 0.0))
        self.log.go_on_from(state.get("log", {}))
        return state["step"], split_prefix(tensors, "optimizer")

"""Training of the supernet: progressive shrinking with a teacher and superclass dropout (EAS sections 3.1 and 4)."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from snugnet.data import Augment, Batches, GroupedImages, normalise
from snugnet.errors import TrainingError
from snugnet.nn.network import Network, build, with_layout
from snugnet.recipe import Recipe, StageConfig
from snugnet.supernets import Supernet
from snugnet.training.checkpoint import (
    load_checkpoint,
    load_optimizer,
    optimizer_tensors,
    save_checkpoint,
    split_prefix,
)
from snugnet.training.dropout import cross_entropy, distillation_loss, superclass_mask
from snugnet.training.loop import Metrics, RunLog, cosine, run_phase
from snugnet.training.memory import keep_freed_memory
from snugnet.training.policies import Policy, Uniform

SHAPING = ("seed", "precision", "data", "augment", "space", "training")
"""Sections of a recipe that shape the supernet's weights."""


def make_fabric(recipe: Recipe) -> Fabric:
    """Device and precision of a recipe; ``auto`` is bf16 on a GPU and float32 elsewhere.

    Raises:
        TrainingError: there is no such device here.
    """
    accelerator = {"cuda": "gpu"}.get(recipe.device, recipe.device)
    if accelerator == "auto":
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    precision = recipe.precision
    if precision == "auto":
        precision = "bf16-mixed" if accelerator == "gpu" else "32-true"
    if accelerator == "cpu":
        keep_freed_memory()
    try:
        return Fabric(accelerator=accelerator, devices=1, precision=precision)
    except (RuntimeError, ValueError) as error:  # Fabric's own errors derive from these
        raise TrainingError(f"device {recipe.device!r} with precision {precision!r}: {error}") from error


def fingerprint(recipe: Recipe, data: GroupedImages) -> str:
    """What a checkpoint must have been made with to be gone on with: all that shapes the supernet's weights."""
    content = recipe.model_dump(mode="json", exclude_defaults=True, include=set(SHAPING))
    for key in ("checkpoint_seconds", "log_every"):
        content["training"].pop(key, None)
    groups = {name: list(classes) for name, classes in data.groups.items()}
    digest = hashlib.sha256(
        json.dumps([content, list(data.classes), groups, data.mean, data.std], sort_keys=True).encode()
    )
    for images in (data.train, data.validation):  # a groups file or a folder may have changed under the same name
        digest.update(images.labels.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


@dataclass
class SupernetTraining:
    """One training of a supernet, which can be stopped and gone on with.

    Attributes:
        recipe: what to do.
        supernet: trained in place.
        data: the images, on the device.
        fabric: device and precision.
        folder: the checkpoint ``supernet.ckpt.safetensors`` is kept here.
        log: where scalars go.
        progress: whether to show bars.
        spent: seconds of training so far, earlier runs of the same training included.
    """

    recipe: Recipe
    supernet: Supernet
    data: GroupedImages
    fabric: Fabric
    folder: Path
    log: RunLog
    progress: bool = True
    spent: float = 0.0

    def __post_init__(self) -> None:
        self.path = self.folder / "supernet.ckpt.safetensors"
        self.fingerprint = fingerprint(self.recipe, self.data)
        self.teacher: Network | None = None
        self.class_to_group = self.data.class_to_group.to(self.fabric.device)
        self.augment = Augment(self.recipe.augment)
        self.batches = Batches(
            self.data.train, self.recipe.training.batch_size, self.recipe.seed, device=self.fabric.device
        )

    def run(self) -> Supernet:
        """Train to the end, from the checkpoint if there is one.

        Raises:
            TrainingError: the loss is not finite, or the checkpoint belongs to another recipe.
        """
        with_layout(self.supernet.to(self.fabric.device), torch.channels_last)
        stage, step, held = self._resume()
        self._since = time.monotonic() - self.spent
        stages = self.recipe.training.stages
        for index in range(stage, len(stages)):
            self._run_stage(index, stages[index], step, held)
            step, held = 0, {}
            if index == 0:
                self.teacher = self._frozen(self.supernet.extract(self.supernet.space.largest))
            if index + 1 < len(stages):
                self._save(index + 1, 0, None)
        return self.supernet.eval()

    def _run_stage(self, index: int, stage: StageConfig, start: int, held: dict[str, Tensor]) -> None:
        config = self.recipe.training
        per_epoch = self.batches.steps_per_epoch
        total = max(1, round(stage.epochs * per_epoch))
        warmup = round(stage.warmup_epochs * per_epoch)
        optimizer = make_optimizer(self.supernet, config.momentum, config.weight_decay)
        load_optimizer(optimizer, self.supernet, held)
        model, wrapped = self.fabric.setup(self.supernet, optimizer)
        policy = Uniform(self.supernet.space, stage.elastic, stage.subnets)
        self.supernet.train()

        def step_of(step: int, rng: np.random.Generator) -> Metrics:
            for group in optimizer.param_groups:
                group["lr"] = stage.learning_rate * cosine(step, total, warmup)
            return self._step(model, wrapped, policy, step, rng, first=index == 0)

        run_phase(
            f"supernet: {stage.name}",
            step_of,
            lambda done: self._save(index, done, optimizer),
            phase=index,
            start=start,
            total=total,
            seed=self.recipe.seed,
            log=self.log,
            log_every=config.log_every,
            checkpoint_seconds=config.checkpoint_seconds,
            progress=self.progress,
        )

    def _step(
        self, model: Any, optimizer: Any, policy: Policy, step: int, rng: np.random.Generator, *, first: bool
    ) -> Metrics:
        config = self.recipe.training
        images, labels = self.batches.batch(step)
        x = normalise(self.augment(images), self.data.mean, self.data.std, channels_last=True)
        with torch.no_grad(), self.fabric.autocast():
            taught = None if self.teacher is None else self.teacher(x)
        optimizer.zero_grad(set_to_none=True)
        archs = policy.sample(step, rng)
        total = torch.zeros((), device=x.device)
        right = torch.zeros((), device=x.device)
        for arch in archs:
            rate = 0.0 if first else config.superclass_dropout  # the teacher trains without (appendix B)
            mask = superclass_mask(labels, self.class_to_group, rate) if rate > 0 else None
            logits = model(x, arch)
            loss = cross_entropy(logits, labels, mask, config.label_smoothing)
            if taught is not None and config.distillation > 0:
                loss = loss + config.distillation * distillation_loss(logits, taught, mask)
            self.fabric.backward(loss / len(archs))
            total += loss.detach() / len(archs)
            right += (logits.detach().argmax(1) == labels).float().mean() / len(archs)
        optimizer.step()
        return {"loss": total, "train_accuracy": right}

    def _frozen(self, teacher: Network) -> Network:
        return with_layout(teacher.to(self.fabric.device), torch.channels_last).eval().requires_grad_(False)

    def _save(self, stage: int, step: int, optimizer: torch.optim.Optimizer | None) -> None:
        tensors = {f"supernet.{name}": tensor for name, tensor in self.supernet.state_dict().items()}
        if self.teacher is not None:
            tensors |= {f"teacher.{name}": tensor for name, tensor in self.teacher.state_dict().items()}
        if optimizer is not None:
            tensors |= {f"optimizer.{name}": t for name, t in optimizer_tensors(optimizer, self.supernet).items()}
        self.spent = time.monotonic() - self._since
        state = {"stage": stage, "step": step, "recipe": self.fingerprint, "seconds": self.spent}
        save_checkpoint(self.path, tensors, state)

    def _resume(self) -> tuple[int, int, dict[str, Tensor]]:
        """Stage and step to go on from, and the optimizer's state."""
        if not self.path.exists():
            return 0, 0, {}
        tensors, state = load_checkpoint(self.path)
        if state.get("recipe") != self.fingerprint:
            raise TrainingError(
                f"{self.path} was made by another recipe (data, space, training or seed differ); give another output, "
                "or --fresh to throw it away"
            )
        self.supernet.load_state_dict(split_prefix(tensors, "supernet"))
        self.spent = float(state.get("seconds", 0.0))
        teacher = split_prefix(tensors, "teacher")
        if teacher:
            space = self.supernet.space
            self.teacher = self._frozen(build(space.blueprint(space.largest), teacher))
        return state["stage"], state["step"], split_prefix(tensors, "optimizer")


def make_optimizer(module: nn.Module, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """SGD with Nesterov momentum; no weight decay on biases and batch norm (the learning rate is set step by step)."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=momentum > 0)

"""Training of the architecture generator against the frozen supernet (EAS section 3.2, equations 3 and 4)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from snugnet.costs import CostTable
from snugnet.data import GroupedImages, normalise
from snugnet.errors import DataError, TrainingError
from snugnet.files import locked, remove_temporaries
from snugnet.fingerprint import Fingerprint, describe_differences, digest, fingerprint
from snugnet.generator.model import ArchitectureGenerator
from snugnet.nn.gated import GatedSupernet
from snugnet.nn.gates import Probabilities, relax
from snugnet.nn.network import with_layout
from snugnet.recipe import Recipe
from snugnet.supernets import Supernet
from snugnet.training.checkpoint import (
    load_optimizer,
    optimizer_tensors,
    split_prefix,
)
from snugnet.training.dropout import cross_entropy
from snugnet.training.inputs import faults
from snugnet.training.loop import RunLog, cosine, run_phase
from snugnet.training.ranks import Metrics, Ranks
from snugnet.training.supernet import made_with

if TYPE_CHECKING:
    from lightning_fabric import Fabric

GENERATOR_PHASE = 1000
"""Number of this phase, for seeding; the supernet's stages count from 0."""


def budget_loss(costs: Tensor, budgets: Tensor) -> Tensor:
    """Mean of (C / B - 1)^2: 0 where the budget is met exactly, free of scale (equation 3; the paper's exact form is lost).

    Args:
        costs: differentiable, (pairs,).
        budgets: (pairs,), in the same unit.
    """
    return (costs / budgets - 1).square().mean()


@dataclass
class GeneratorTraining:
    """One training of a generator, which can be stopped and gone on with.

    Attributes:
        recipe: what to do.
        supernet: frozen; only its weights are read.
        generator: trained in place.
        table: the cost that budgets are of.
        data: the images, on the device; only the validation split is used.
        fabric: device and precision, and the ranks that train together: they draw the same, and each runs its share of the pairs.
        folder: the checkpoint ``generator.ckpt.safetensors`` is kept here.
        log: where scalars go.
        progress: whether to show a bar.
        spent: seconds of training so far, earlier runs of the same training included.
    """

    recipe: Recipe
    supernet: Supernet
    generator: ArchitectureGenerator
    table: CostTable
    data: GroupedImages
    fabric: Fabric
    folder: Path
    log: RunLog
    progress: bool = True
    spent: float = 0.0

    def __post_init__(self) -> None:
        self.path = self.folder / "generator.ckpt.safetensors"
        device = self.fabric.device
        self.ranks = Ranks.of(self.fabric)
        self.class_to_group = self.data.class_to_group.to(device)
        groups = self.class_to_group[self.data.validation.labels.to(device)]
        self.rows = [torch.nonzero(groups == g).flatten() for g in range(len(self.data.groups))]
        for name, rows in zip(self.data.groups, self.rows, strict=True):
            if len(rows) < 2:
                raise DataError(f"group {name!r} has {len(rows)} validation images; the generator needs at least 2")
        self.made_with = self._made_with()
        self.images = self.data.validation.to(device)

    def run(self) -> ArchitectureGenerator:
        """Train to the end, from the checkpoint if there is one.

        Raises:
            BusyError: another process trains in this folder.
            TrainingError: the loss is not finite, or the checkpoint belongs to another recipe; another rank does not answer.
        """
        if not self.ranks.first:
            return self._run()
        with locked(self.folder):
            remove_temporaries(self.path)
            return self._run()

    def _run(self) -> ArchitectureGenerator:
        config = self.recipe.generator
        device = self.fabric.device
        self.generator.to(device).train()
        optimizer = torch.optim.Adam(self.generator.parameters(), lr=config.learning_rate)
        self.ranks.agree(self.made_with)
        start = self._resume(optimizer)
        self.ranks.align(self.generator)
        self._since = time.monotonic() - self.spent
        if start == 0:  # so that a run which is killed early knows where its part of the log begins
            self._save(0, optimizer)
        frozen = [p.requires_grad for p in self.supernet.parameters()]
        with_layout(self.supernet.to(device), torch.contiguous_format).requires_grad_(False)
        gated = GatedSupernet(self.supernet.space, self.supernet.network)
        over_ranks = self.ranks.averaging(self.generator)

        def step_of(step: int, rng: np.random.Generator) -> Metrics:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * cosine(step, config.steps)
            return self._step(gated, optimizer, step / config.steps, over_ranks)

        try:
            run_phase(
                "generator",
                step_of,
                lambda done: self._save(done, optimizer),
                phase=GENERATOR_PHASE,
                start=start,
                total=config.steps,
                seed=self.recipe.seed,
                log=self.log,
                log_every=self.recipe.training.log_every,
                checkpoint_seconds=self.recipe.training.checkpoint_seconds,
                progress=self.progress,
                inputs=lambda step: faults(self.images.pixels(slice(512)), self.data.mean, self.data.std),
                ranks=self.ranks,
            )
        finally:
            for parameter, needed in zip(self.supernet.parameters(), frozen, strict=True):
                parameter.requires_grad_(needed)
        return self.generator.eval()

    def _step(
        self,
        gated: GatedSupernet,
        optimizer: torch.optim.Optimizer,
        done: float,
        over_ranks: Callable[[Metrics], Metrics],
    ) -> Metrics:
        config = self.recipe.generator
        own = self.ranks.share(config.pairs)
        groups, images, labels = self._draw_images(own)
        # the budgets of a step are spread evenly over the range, so that every step sees all of it
        place = (torch.randperm(config.pairs, device=groups.device) + torch.rand_like(groups.float())) / config.pairs
        budgets = self.generator.low + place * (self.generator.high - self.generator.low)
        one_hot = torch.nn.functional.one_hot(groups, len(self.data.groups)).float()
        logits = self.generator(one_hot, budgets)
        first, last = config.temperature
        probabilities = relax(logits, self.generator.space, config.encoding, first + (last - first) * done)
        costs = self.table.expectation(probabilities)
        task = self._task(gated, groups[own], images, labels, [each[own] for each in probabilities])
        task = task * (
            (own.stop - own.start) * self.ranks.count / config.pairs
        )  # so that the mean over ranks is that over pairs
        budget = budget_loss(costs, budgets)
        loss = task + config.budget_weight * budget
        optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        off = (costs.detach() / budgets - 1).abs().mean()
        metrics = over_ranks(
            {"loss": loss.detach(), "task": task.detach(), "budget": budget.detach(), "off_budget": off}
        )
        torch.nn.utils.clip_grad_norm_(self.generator.parameters(), 1.0)
        optimizer.step()
        return metrics

    def _task(
        self, gated: GatedSupernet, groups: Tensor, images: Tensor, labels: Tensor, probabilities: Probabilities
    ) -> Tensor:
        """The loss against the labels of some pairs, each on its own images; 0 where a rank has none."""
        if not len(groups):
            return torch.zeros((), device=images.device)
        x = normalise(images.flatten(0, 1), self.data.mean, self.data.std)
        with self.fabric.autocast():
            outputs = gated(x.view(*images.shape[:2], *x.shape[1:]), probabilities, self.recipe.generator.encoding)
        mask = self.class_to_group == groups[:, None]  # only the group's classes are of interest
        mask = mask.expand(len(images), *mask.shape).flatten(0, 1)
        return cross_entropy(outputs.flatten(0, 1), labels.flatten(), mask)

    def _draw_images(self, own: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Groups (pairs,), and of some pairs the validation images (b, own, 3, h, w) as uint8 and their labels (b, own)."""
        config = self.recipe.generator
        device = self.images.device
        groups = torch.randint(len(self.rows), (config.pairs,), device=device)
        picks = [
            self.rows[g][torch.randint(len(self.rows[g]), (config.images,), device=device)] for g in groups.tolist()
        ]
        index = torch.stack(picks, 1)[:, own]
        images = self.images.pixels(index.flatten())
        return groups, images.view(*index.shape, *images.shape[1:]), self.images.labels[index]

    def _made_with(self) -> Fingerprint:
        """What the checkpoint must have been made with: the generator's recipe, and the very costs and weights it is trained on."""
        section = self.recipe.generator.model_dump(mode="json", exclude_defaults=True)
        weights = digest(*self.supernet.state_dict().values())
        costs = digest(*self.table.arrays().values())
        return fingerprint(generator=section, costs=costs, supernet=made_with(self.recipe, self.data), weights=weights)

    def _save(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        tensors = {f"generator.{name}": t for name, t in self.generator.state_dict().items()}
        tensors |= {f"optimizer.{name}": t for name, t in optimizer_tensors(optimizer, self.generator).items()}
        self.spent = time.monotonic() - self._since
        state = {"step": step, "made_with": self.made_with, "seconds": self.spent, "log": self.log.mark()}
        self.ranks.save(self.path, tensors, state)

    def _resume(self, optimizer: torch.optim.Optimizer) -> int:
        checkpoint = self.ranks.load(self.path)
        if checkpoint is None:
            return 0
        tensors, state = checkpoint
        if differ := describe_differences(state.get("made_with"), self.made_with):
            raise TrainingError(
                f"{self.path} was made with another generator recipe or supernet (not the same {differ}); delete it, or give "
                "another output"
            )
        self.generator.load_state_dict(split_prefix(tensors, "generator"))
        load_optimizer(optimizer, self.generator, split_prefix(tensors, "optimizer"))
        self.spent = float(state.get("seconds", 0.0))
        self.log.go_on_from(state.get("log", {}))
        return int(state["step"])

"""The search itself: weights and architecture learned in turn, under limits with multipliers of their own."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from snugnet.costs import CostTable
from snugnet.costs.table import nothing
from snugnet.data import Augment, AugmentConfig, Batches, ImageSet, normalise
from snugnet.differentiable.config import CellSearchConfig
from snugnet.differentiable.relaxed import Limit, RelaxedCells, derive, operations_of_first_cell
from snugnet.errors import DataError, TrainingError
from snugnet.files import locked, remove_temporaries
from snugnet.fingerprint import Fingerprint, describe_differences, digest
from snugnet.nn.network import resized, with_layout
from snugnet.spaces import Population
from snugnet.spaces.cells import CellSpace
from snugnet.supernets.mixed import MixedNetwork
from snugnet.training.checkpoint import (
    load_checkpoint,
    load_optimizer,
    optimizer_tensors,
    save_checkpoint,
    split_prefix,
)
from snugnet.training.inputs import faults
from snugnet.training.loop import RunLog, cosine, run_phase
from snugnet.training.optimizer import make_optimizer
from snugnet.training.ranks import Metrics

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CHECKPOINT = "search.ckpt.safetensors"
SKIP = "skip_connect"
_PHASE = 0
_FINITE_STEP = 0.01  # of the weights for the second order, divided by the norm of the gradient (DARTS, section 2.3)


@dataclass(frozen=True)
class SearchImages:
    """Training images, in two parts that share none.

    Attributes:
        weights: that the weights learn from.
        architecture: that the architecture learns from.
        mean, std: of the images, 0 to 1, a channel each.
    """

    weights: ImageSet
    architecture: ImageSet
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of(
        cls,
        images: ImageSet,
        share: float,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        seed: int,
    ) -> SearchImages:
        """Divide training images.

        Args:
            images: of the training split.
            share: that the architecture learns from.
            mean, std: of the images.
            seed: of the draw.

        Raises:
            DataError: they are too few.
        """
        if len(images) < 4:
            raise DataError(f"there are {len(images)} training images; a search divides at least 4")
        order = torch.from_numpy(np.random.default_rng((seed, 1)).permutation(len(images)))
        cut = min(max(2, round(share * len(images))), len(images) - 2)
        parts = (order[cut:].sort().values, order[:cut].sort().values)
        weights, architecture = (images.take(rows) for rows in parts)
        return cls(weights, architecture, mean, std)

    def digest(self) -> str:
        """Of all that a search sees."""
        return digest(self.mean, self.std, *self.weights.contents(), *self.architecture.contents())


@dataclass(frozen=True)
class Found:
    """What a search has come to.

    Attributes:
        scores: of the operations on each edge, (edges, operations); what the cells are derived from.
        history: for each epoch its number, the derived architecture, what it costs and what the mixture is expected to cost, the
            multipliers, the scores.
        seconds: that the search took in all.
        ended: why it ended before its last epoch; empty where it did not.
    """

    scores: NDArray[np.float64]
    history: tuple[dict[str, Any], ...]
    seconds: float
    ended: str = ""


@dataclass
class CellSearch:
    """One search, which can be stopped and gone on with.

    Attributes:
        config: how to search, nothing left open.
        space: of the search network.
        target: of the network that is searched for: the same choices, at its own number of cells and channels.
        limits: of costs of the target.
        bounds: what the search is given in place of the limits' amounts (the look-up graph's answer).
        images: two halves of training images.
        augment: random changes to both.
        seed: of all that is drawn.
        fabric: device and precision.
        folder: the checkpoint ``search.ckpt.safetensors`` is kept here.
        made_with: what a checkpoint must have been made with to be gone on with.
        log: where scalars go.
        progress: whether to show a bar.
        never: tables that are 0 but for networks that are not to be derived, such as those that no image reaches.
    """

    config: CellSearchConfig
    space: CellSpace
    target: CellSpace
    limits: Sequence[Limit]
    bounds: Sequence[float]
    images: SearchImages
    augment: AugmentConfig
    seed: int
    fabric: Fabric
    folder: Path
    made_with: Fingerprint
    log: RunLog
    progress: bool = True
    never: Sequence[CostTable] = ()
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = self.config
        self.path = self.folder / CHECKPOINT
        device, crop = self.fabric.device, self.augment.random_resized_crop
        network = MixedNetwork(self.space, **config.network, seed=self.seed)
        self.network = with_layout(network.to(device), torch.channels_last).train()
        self.cells = RelaxedCells(self.space, edge_weights=bool(config.edge_weights), seed=self.seed).to(device)
        self.multipliers = torch.zeros(len(self.limits), dtype=torch.float64, device=device)
        self._train, self._validation = (
            Batches(images, config.batch_size, self.seed, device=device, crop=crop)
            for images in (self.images.weights, self.images.architecture)
        )
        self._augmented = Augment(self.augment, self.images.mean, cropped=self._train.cropped)
        self._ascent = config.multiplier_rate / ((config.epochs - config.warmup_epochs) * self._train.steps_per_epoch)
        self._parameters = [p for p in self.network.parameters() if p.requires_grad]
        self._sgd = make_optimizer(self.network, config.momentum, config.weight_decay, nesterov=False)
        rate, decay = config.architecture_learning_rate, config.architecture_weight_decay
        self._adam = torch.optim.Adam(self.cells.parameters(), lr=rate, betas=(0.5, 0.999), weight_decay=decay)
        self._skips, self._nothing = operations_of_first_cell(self.target, SKIP), nothing(self.target)
        self._first = self.cells.scores()
        self._derived: list[int] | None = None
        self._ended = ""

    # -- the run -------------------------------------------------------------------------------------------------------

    def run(self) -> Found:
        """Search to the end, from the checkpoint if there is one.

        Raises:
            BusyError: another process searches in this folder.
            TrainingError: the loss is not finite, or the checkpoint belongs to another search.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder), closing(self._train), closing(self._validation):
            remove_temporaries(self.path)
            return self._run()

    def _run(self) -> Found:
        steps = self._train.steps_per_epoch
        start, spent = self._resume()
        since = time.monotonic() - spent
        self._rederive()
        for epoch in range(start // steps, self.config.epochs):
            if self._ended:
                break
            run_phase(
                "search",
                self._step,
                lambda done: self._save(done, time.monotonic() - since),
                phase=_PHASE,
                start=max(start, epoch * steps),
                total=(epoch + 1) * steps,
                seed=self.seed,
                log=self.log,
                log_every=self.config.log_every,
                checkpoint_seconds=self.config.checkpoint_seconds,
                progress=self.progress,
                inputs=lambda step: faults(self._train.batch(step)[0], self.images.mean, self.images.std),
            )
        scores = np.array(self.history[-1]["scores"])
        return Found(scores, tuple(self.history), time.monotonic() - since, self._ended)

    def _note(self, epoch: int) -> None:
        """Write down what an epoch has come to, and whether the search ends with it."""
        scores, most = self.cells.scores(), self.config.max_skips
        row = self._derive(scores)
        if most is not None and self._skips(row)[0] > most and epoch >= self.config.warmup_epochs:
            self._ended = f"epoch {epoch + 1} derives a cell of more than {most} skip connections"
            scores = np.array(self.history[-1]["scores"]) if self.history else self._first
            row = self._derive(scores, [Limit(self._skips, most)])
        with torch.no_grad():
            expected = [
                limit.table.expectation(self.cells.choices(self.config.cost_temperature)).item()
                for limit in self.limits
            ]
        names = [limit.table.name for limit in self.limits]
        self.history.append(
            {
                "epoch": epoch + 1,
                "architecture": self.target.to_dict(row),
                "skips": int(self._skips(row)[0]),
                "derived": {name: float(limit.table(row)[0]) for name, limit in zip(names, self.limits, strict=True)},
                "expected": dict(zip(names, expected, strict=True)),
                "multipliers": dict(zip(names, self.multipliers.tolist(), strict=True)),
                "scores": scores.tolist(),
            }
        )

    # -- one step ------------------------------------------------------------------------------------------------------

    def _step(self, step: int, rng: np.random.Generator) -> Metrics:
        """Architecture first, then weights (DARTS, algorithm 1)."""
        config = self.config
        epoch_steps = self._train.steps_per_epoch
        rate = config.learning_rate * cosine(step, config.epochs * epoch_steps)
        train = self._batch(self._train, step)
        metrics: Metrics = {}
        if step >= config.warmup_epochs * epoch_steps:
            metrics |= self._architecture_step(self._batch(self._validation, step), train, rate)
        for group in self._sgd.param_groups:
            group["lr"] = rate
        weights = self.cells.weights().detach()
        logits = self._logits(train[0], weights)
        loss = F.cross_entropy(logits, train[1])
        loss.backward()
        if config.clip is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters, config.clip)
        self._sgd.step()
        self._sgd.zero_grad()
        with torch.no_grad():
            right = (logits.argmax(1) == train[1]).float().mean()
        return {"loss": loss.detach(), "train_accuracy": right} | metrics

    def _architecture_step(self, batch: tuple[Tensor, Tensor], train: tuple[Tensor, Tensor], rate: float) -> Metrics:
        """Equation 4 of DCA-NAS: Adam descends on loss and limits, gradient ascent lifts the multiplier of a limit that is broken."""
        parameters = list(self.cells.parameters())
        loss, right, gradients = self._gradients(batch, train, rate, parameters)
        metrics: Metrics = {"val_loss": loss, "val_accuracy": right}
        if self.limits:
            choices = self.cells.choices(self.config.cost_temperature)
            costs = [limit.table.expectation(choices).sum() for limit in self.limits]
            each = zip(self.limits, costs, self.bounds, strict=True)
            broken = torch.stack([limit.broken(cost, bound) for limit, cost, bound in each])
            held = torch.autograd.grad(broken @ self.multipliers, parameters, allow_unused=True)
            gradients = [g if h is None else g + h for g, h in zip(gradients, held, strict=True)]
            self.multipliers = (self.multipliers + self._ascent * broken.detach()).clamp_min(0)
            for limit, cost, multiplier in zip(self.limits, costs, self.multipliers, strict=True):
                metrics |= {f"expected_{limit.table.name}": cost.detach(), f"multiplier_{limit.table.name}": multiplier}
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.to(parameter.dtype)
        self._adam.step()
        self._rederive()
        return metrics

    def _gradients(
        self,
        batch: tuple[Tensor, Tensor],
        train: tuple[Tensor, Tensor],
        rate: float,
        parameters: list[torch.nn.Parameter],
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Loss and accuracy on the architecture's images, and the loss's gradient: of first order, or of second (DARTS, eq. 7, 8)."""
        if not self.config.second_order:
            loss, right = self._loss(batch)
            return loss.detach(), right, list(torch.autograd.grad(loss, parameters))
        own, held = self._parameters, [p.detach().clone() for p in self._parameters]
        # derived cells run some of the operations only
        ahead = torch.autograd.grad(self._loss(train)[0], own, allow_unused=True)
        with torch.no_grad():
            for p, g in zip(own, ahead, strict=True):
                if g is not None:
                    p.sub_(rate * g)
        loss, right = self._loss(batch)
        found = torch.autograd.grad(loss, [*parameters, *own], allow_unused=True)
        outer, inner = found[: len(parameters)], found[len(parameters) :]
        size = _FINITE_STEP / torch.stack([g.norm() for g in inner if g is not None]).norm().clamp_min(1e-12)
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                for p, w, g in zip(own, held, inner, strict=True):
                    p.copy_(w if g is None else w + sign * size * g)
            sides.append(torch.autograd.grad(self._loss(train)[0], parameters))
        with torch.no_grad():
            for p, w in zip(own, held, strict=True):
                p.copy_(w)
        curved = [(a - b) / (2 * size) for a, b in zip(*sides, strict=True)]
        return loss.detach(), right, [g - rate * c for g, c in zip(outer, curved, strict=True)]

    def _loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Loss, with its graph, and accuracy of the mixture."""
        logits = self._logits(batch[0], self.cells.weights())
        right = (logits.detach().argmax(1) == batch[1]).float().mean()
        return F.cross_entropy(logits, batch[1]), right

    def _logits(self, x: Tensor, weights: Tensor) -> Tensor:
        """Of a mixture, computed in the run's precision; as exact as its weights.

        A second order is a difference between weights that lie closer together than bf16 tells apart: it is computed in full precision.
        """
        with nullcontext() if self.config.second_order else self.fabric.autocast():
            logits: Tensor = self.network(x, weights, self._derived).to(weights.dtype)
        return logits

    def _batch(self, batches: Batches, step: int) -> tuple[Tensor, Tensor]:
        images, labels = batches.batch(step)
        x = normalise(self._augmented(images), self.images.mean, self.images.std, channels_last=True)
        return resized(x, self.space.resolution), labels

    def _rederive(self) -> None:
        """The operations of the cells that are not mixed."""
        if self.config.derived_cells:
            self._derived = self.target.edge_operations(self._derive(self._finite_scores()))[0].tolist()

    def _derive(self, scores: NDArray[np.float64], limits: Sequence[Limit] = ()) -> Population:
        """Cells without the search's own limits, (1, d)."""
        return derive(self.target, scores, limits, self.never or (self._nothing,))

    def _finite_scores(self) -> NDArray[np.float64]:
        scores = self.cells.scores()
        if not np.isfinite(scores).all():
            raise TrainingError(
                "search: the architecture's weights are no longer finite; the last checkpoint is as it was. Lower the learning rates "
                "and start anew with --fresh"
            )
        return scores

    # -- selection by perturbation -------------------------------------------------------------------------------------

    @torch.no_grad()
    def perturbation_scores(self) -> NDArray[np.float64]:
        """How much accuracy each operation's absence costs: (edges, operations), in place of :meth:`RelaxedCells.scores`.

        An operation is left out by a weight of 0, the others of its edge sharing what it had. An edge counts by what all of it is
        worth, and its operations by what they are worth in comparison, so that nodes choose edges and edges operations (Wang et
        al., section 4; their tuning between two decisions is left out, and all are taken on one network).
        """
        weights = self.cells.weights()
        whole = self._accuracy(weights)
        worth = np.zeros((len(self.space.edges), weights.shape[1]))
        for e, edge in enumerate(self.space.edges):
            for o in range(len(edge.operations)):
                some = weights.clone()
                some[e, o] = 0
                some[e] *= weights[e].sum() / some[e].sum().clamp_min(1e-12)
                worth[e, o] = whole - self._accuracy(some)
            worth[e] -= worth[e, edge.offset :].max()
            if edge.inputs is not None:
                some = weights.clone()
                some[e] = 0
                worth[e] += whole - self._accuracy(some)
        return worth

    def _accuracy(self, weights: Tensor) -> float:
        right = []
        for step in range(min(self.config.perturbation_batches, self._validation.steps_per_epoch)):
            images, labels = self._validation.whole(step)
            x = normalise(images, self.images.mean, self.images.std, channels_last=True)
            logits = self._logits(resized(x, self.space.resolution), weights)
            right.append((logits.argmax(1) == labels).float().mean().item())
        return math.fsum(right) / len(right)

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def _save(self, step: int, seconds: float) -> None:
        """Write a checkpoint; that of an epoch's end holds what the epoch has come to, so that no stop comes between."""
        if step == (len(self.history) + 1) * self._train.steps_per_epoch:
            self._note(len(self.history))
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"cells.{name}": tensor for name, tensor in self.cells.state_dict().items()}
        tensors |= {f"sgd.{name}": t for name, t in optimizer_tensors(self._sgd, self.network).items()}
        tensors |= {f"adam.{name}": t for name, t in optimizer_tensors(self._adam, self.cells).items()}
        tensors["multipliers"] = self.multipliers
        state = {
            "step": step,
            "made_with": self.made_with,
            "seconds": seconds,
            "log": self.log.mark(),
            "history": self.history,
            "ended": self._ended,
        }
        save_checkpoint(self.path, tensors, state)

    def _resume(self) -> tuple[int, float]:
        """Step to go on from, and the seconds that it took to get there."""
        if not self.path.exists():
            self.log.go_on_from({})
            return 0, 0.0
        tensors, state = load_checkpoint(self.path)
        check_made_with(self.path, state, self.made_with)
        self.network.load_state_dict(split_prefix(tensors, "network"))
        self.cells.load_state_dict(split_prefix(tensors, "cells"))
        load_optimizer(self._sgd, self.network, split_prefix(tensors, "sgd"))
        load_optimizer(self._adam, self.cells, split_prefix(tensors, "adam"))
        self.multipliers = tensors["multipliers"].to(self.fabric.device)
        self.history, self._ended = list(state["history"]), state["ended"]
        self.log.go_on_from(state.get("log", {}))
        return state["step"], float(state["seconds"])


def check_made_with(path: Path, state: Mapping[str, Any], made_with: Fingerprint) -> None:
    """Refuse to go on with the checkpoint of another search.

    Args:
        path: of the checkpoint.
        state: that it holds.
        made_with: what it must have been made with.

    Raises:
        TrainingError: names what differs.
    """
    if differ := describe_differences(state.get("made_with"), made_with):
        raise TrainingError(
            f"{path} was made by another search (not the same {differ}); give another --out, or --fresh to throw it away"
        )

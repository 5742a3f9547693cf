"""Training of the supernet: stages, each with its policy; a teacher; superclass dropout.

Progressive shrinking with a frozen teacher is EAS's (sections 3.1 and 4), the sandwich rule with in-place distillation
AttentiveNAS's (equation 3), uniform sampling SPOS's: each is a recipe. What all of them are::

    for stage in recipe.stages:
        sort channels by importance, if this stage is the first to leave some out
        for images, labels in batches:                        # as many as the stage has epochs
            archs = policy.choose(policy.draw(step))          # rows; BestUp asks a predictor or the losses; sandwich: largest first
            for arch in archs:
                mask = superclass_dropout(labels, rate)       # logits that stay; rate 0 while the teacher is trained
                logits = supernet(augment(images), arch)      # nothing is switched on: the architecture is an argument
                loss = cross_entropy(logits, labels, mask)
                if there is a teacher: loss += weight * distillation(logits, teacher(images), mask)
                in a sandwich, all but the largest: loss = distillation(logits, the largest's, mask)
                backward(loss / len(archs))
            average gradients over ranks; clip; SGD at the rate of the schedule; moving average
        if the stage trained the largest alone: teacher = extract(largest), frozen
        save a checkpoint                                     # also once a minute, and at Ctrl-C
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snugnet.bundles import FAMILY, PREDICTOR
from snugnet.data import Augment, Batches, GroupedImages, normalise
from snugnet.errors import SnugnetError, TrainingError
from snugnet.files import locked, remove_temporaries
from snugnet.fingerprint import Fingerprint, describe_differences, digest, file_digest, fingerprint
from snugnet.nn.network import Network, build, with_layout
from snugnet.progress import show_note
from snugnet.recipe import PLACES, Recipe, StageConfig
from snugnet.spaces import Population
from snugnet.supernets import Supernet, begin_at_shortcuts
from snugnet.supernets.sorting import channel_axes, narrows, sort_channels
from snugnet.training.ahead import ahead
from snugnet.training.average import Average
from snugnet.training.calibration import calibrate
from snugnet.training.checkpoint import load_checkpoint, load_optimizer, optimizer_tensors, split_prefix
from snugnet.training.device import resolve_device
from snugnet.training.dropout import cross_entropy, distillation_loss
from snugnet.training.graphs import TrainingGraphs, recorder_for
from snugnet.training.inputs import faults
from snugnet.training.loop import SCHEDULES, RunLog, run_phase, step_rng
from snugnet.training.optimizer import make_optimizer
from snugnet.training.policies import Estimate, Uniform, make_policy
from snugnet.training.ranks import Metrics, Ranks
from snugnet.training.step import StepBatch, StepMeans

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SHAPING = ("seed", "precision", "data", "augment", "space", "training")
"""Sections of a recipe that shape the supernet's weights."""
TEACHER_IMAGES = 512
"""At least so many measure the batch norm of a teacher that is taken out of a supernet."""


def made_with(recipe: Recipe, data: GroupedImages) -> Fingerprint:
    """What a checkpoint must have been made with to be gone on with: all that shapes the supernet's weights.

    What a training started from is checked apart: a run that has begun no longer needs that file.

    Raises:
        TrainingError: the predictor that the training asks, or the cost table that it draws from, cannot be read.
    """
    content = recipe.model_dump(mode="json", exclude_defaults=True, include=set(SHAPING))
    for key in ("source", "groups", *PLACES):  # what they hold counts, below, not where it lies
        content["data"].pop(key, None)
    for key in ("checkpoint_seconds", "graphs", "log_every", "start"):
        content["training"].pop(key, None)
    if recipe.training.predictor is not None:  # its index holds the checksums of its arrays
        content["training"]["predictor"] = _checksum(
            "training.predictor", Path(recipe.training.predictor) / PREDICTOR.index
        )
    if (cost := recipe.training.cost) in recipe.costs:
        content["training"]["cost"] = _checksum(f"costs.{cost}", recipe.cost_file(cost))
    groups = {name: list(classes) for name, classes in data.groups.items()}
    images = digest(data.mean, data.std, *data.train.contents(), *data.validation.contents())
    device, precision = resolve_device(recipe)  # each draws and rounds in its own way
    content |= {
        "device": device,
        "precision": precision,
        "classes": list(data.classes),
        "groups": groups,
        "images": images,
    }
    return fingerprint(**content)


def _checksum(key: str, path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise TrainingError(f"{key}: cannot read {path}: {error.strerror or error}") from error


@dataclass
class SupernetTraining:
    """One training of a supernet, which can be stopped and gone on with.

    Attributes:
        recipe: what to do.
        supernet: trained in place.
        data: the images, on the device.
        fabric: device and precision, and the ranks that train together.
        folder: the checkpoint ``supernet.ckpt.safetensors`` is kept here.
        log: where scalars go.
        progress: whether to show bars.
        predict: the accuracy predictor that BestUp and WorstUp ask, from rows (n, d) to (n,).
        spent: seconds of training so far, earlier runs of the same training included.
        narrowed: whether networks of fewer channels have been trained, so that channels have an order that must stay.
    """

    recipe: Recipe
    supernet: Supernet
    data: GroupedImages
    fabric: Fabric
    folder: Path
    log: RunLog
    progress: bool = True
    predict: Estimate | None = None
    spent: float = 0.0
    narrowed: bool = False

    def __post_init__(self) -> None:
        self.path = self.folder / FAMILY.checkpoint
        self.ranks = Ranks.of(self.fabric)
        self.made_with = made_with(self.recipe, self.data)
        self.teacher: Network | None = None
        self._graphs: TrainingGraphs | None = None
        self._teacher_graph: Callable[[Tensor], Tensor] | None = None
        self.started_from: str | None = None  # checksum
        self.class_to_group = self.data.class_to_group.to(self.fabric.device)
        config, (size, seed) = self.recipe.augment, (self.recipe.training.batch_size, self.recipe.seed)
        device, shard, crop = self.fabric.device, (self.ranks.index, self.ranks.count), config.random_resized_crop
        self.batches = Batches(self.data.train, size, seed, device=device, shard=shard, crop=crop)
        self.augment = Augment(config, self.data.mean, cropped=self.batches.cropped)

    def run(self) -> Supernet:
        """Train to the end, from the checkpoint if there is one.

        Raises:
            BusyError: another process trains in this folder.
            TrainingError: the loss is not finite, or the checkpoint belongs to another recipe; another rank does not answer.
        """
        with closing(self.batches):
            if not self.ranks.first:
                return self._run()
            with locked(self.folder):
                remove_temporaries(self.path)
                return self._run()

    def _run(self) -> Supernet:
        self.ranks.agree(self.made_with)
        with_layout(self.supernet.to(self.fabric.device), torch.channels_last)
        stage, step, held = self._resume()
        recorder = recorder_for(self.fabric.device) if self.recipe.training.graphs == "auto" else None
        if recorder is not None:
            precision = resolve_device(self.recipe)[1]
            self._graphs = TrainingGraphs(
                self.supernet, self.batches.rows, recorder, precision, self._note, self.progress and self.ranks.first
            )
        self._since = time.monotonic() - self.spent
        stages = self.recipe.training.stages
        for index in range(stage, len(stages)):
            if step == 0 and not self.narrowed:
                self._sort(index, stages[index])
            self._run_stage(index, stages[index], step, held)
            step, held = 0, _Held()
            if self.recipe.training.trains_teacher(index):
                self.teacher = self._frozen(self.supernet.extract(self.supernet.space.largest))
            self.ranks.align(self.supernet)
            # of the last stage too: what starts from it begins with the average, where there is one
            self._save(index + 1, 0, None)
        self._graphs = self._teacher_graph = None  # and their memory
        return self.supernet.eval()

    def _sort(self, index: int, stage: StageConfig) -> None:
        """Bring channels into order of importance, where the stage is the first to leave some out; fresh weights have none.

        No optimizer has begun: each stage has its own.
        """
        axes = channel_axes(self.supernet.space)
        self.narrowed = narrows(axes, Uniform(self.supernet.space, stage.elastic).used.tolist())
        if self.narrowed and self.recipe.training.sort_channels and (index > 0 or self.started_from is not None):
            sort_channels(axes, self.supernet.network.state_dict())

    def _steps(self, stage: StageConfig) -> int:
        return max(1, round(stage.epochs * self.batches.steps_per_epoch))

    def _run_stage(self, index: int, stage: StageConfig, start: int, held: _Held) -> None:
        config = self.recipe.training
        total = self._steps(stage)
        before = sum(self._steps(earlier) for earlier in config.stages[:index])  # batches seen, so that none come twice
        warmup = round(stage.warmup_epochs * self.batches.steps_per_epoch)
        optimizer = make_optimizer(self.supernet, config.momentum, config.weight_decay)
        load_optimizer(optimizer, self.supernet, held.optimizer)
        self.ranks.align(self.supernet, self.teacher)
        average = Average(self.supernet, stage.average, held.average) if stage.average else None
        model, wrapped = self.fabric.setup(self.supernet, optimizer)
        falling = SCHEDULES[stage.schedule]
        policy = make_policy(stage, self.recipe.cost_table(self.supernet.space, config.cost))
        rate = 0.0 if config.trains_teacher(index) else config.superclass_dropout
        over_ranks = self.ranks.averaging(self.supernet)
        self.supernet.train()
        graphs, run = self._graphs, model
        if graphs is not None and start < total:
            self._teacher_graph = None  # before another one takes memory
            run = graphs.for_stage(stage, Uniform(self.supernet.space, stage.elastic).used, model)
            taught = None if stage.sandwich or config.distillation == 0 else self.teacher
            self._teacher_graph = None if taught is None else graphs.teacher(taught)

        def draw(step: int) -> Population:
            return policy.draw(step_rng(self.recipe.seed, index, step))

        def step_of(step: int, _: np.random.Generator) -> Metrics:
            for group in optimizer.param_groups:
                group["lr"] = stage.learning_rate * falling(step, total, warmup, stage.floor)
            self.ranks.own_draws()
            images, labels = self.batches.batch(before + step)
            x = normalise(self.augment(images), self.data.mean, self.data.std, channels_last=True)
            batch = StepBatch(x, labels, self.class_to_group, rate)
            archs = policy.choose(drawn(step), self.predict or partial(self._minus_losses, run, batch))
            if graphs is not None:
                graphs.begin_step(archs)
            else:
                optimizer.zero_grad(set_to_none=True)
            metrics = self._sandwich(run, batch, archs) if stage.sandwich else self._taught(run, batch, archs)
            metrics = over_ranks(metrics)
            if config.clip_value is not None:
                self.fabric.clip_gradients(model, wrapped, clip_val=config.clip_value)
            wrapped.step()
            if average is not None:
                average.update(step)
            return metrics

        with ahead(draw, total, self.fabric.device) as drawn:
            run_phase(
                f"supernet: {stage.name}",
                step_of,
                lambda done: self._save(index, done, optimizer, average),
                phase=index,
                start=start,
                total=total,
                seed=self.recipe.seed,
                log=self.log,
                log_every=config.log_every,
                checkpoint_seconds=config.checkpoint_seconds,
                progress=self.progress,
                inputs=lambda step: faults(self.batches.batch(before + step)[0], self.data.mean, self.data.std),
                ranks=self.ranks,
            )
        if graphs is not None:
            graphs.end_stage()
        if average is not None:
            average.hand_over()

    def _taught(self, model: Any, batch: StepBatch, archs: Population) -> Metrics:
        """Every sub-network learns from the labels, and from the frozen teacher where there is one."""
        config = self.recipe.training
        taught = None
        if self.teacher is not None and config.distillation > 0:
            with torch.no_grad(), self.fabric.autocast():
                taught = (self._teacher_graph or self.teacher)(batch.x)
        metrics = StepMeans(batch, len(archs))
        for arch in archs:
            mask = batch.mask()
            logits = model(batch.x, arch)
            loss = cross_entropy(logits, batch.labels, mask, config.label_smoothing)
            if taught is not None:
                loss = loss + config.distillation * self._distilled(logits, taught, batch, mask)
            self.fabric.backward(loss / self._share(archs))
            metrics.add(loss, logits)
        return metrics.result()

    def _share(self, archs: Population) -> int:
        """What the losses of a step's sub-networks are divided by before their gradients are added up."""
        return len(archs) if self.recipe.training.gradients == "mean" else 1

    def _distilled(self, logits: Tensor, taught: Tensor, batch: StepBatch, mask: Tensor | None) -> Tensor:
        """The loss against a teacher, over the logits that stay in the loss against the labels or over a draw of its own."""
        config = self.recipe.training
        if config.distillation_dropout is not None:
            mask = batch.mask(config.distillation_dropout)
        return distillation_loss(logits, taught, mask, config.temperature, config.divergence)

    def _sandwich(self, model: Any, batch: StepBatch, archs: Population) -> Metrics:
        """The largest, first, learns from the labels, with dropout; the others from its logits alone (AttentiveNAS 3.1)."""
        config = self.recipe.training
        metrics = StepMeans(batch, len(archs))
        taught: Tensor | None = None
        for arch in archs:
            mask = batch.mask()
            if taught is None:
                logits = model(
                    batch.x,
                    arch,
                    dropout=config.dropout,
                    drop_connect=config.drop_connect,
                    drop_connect_stages=config.drop_connect_stages,
                )
                loss = cross_entropy(logits, batch.labels, mask, config.label_smoothing)
                taught = logits.detach()
            else:
                logits = model(batch.x, arch)
                loss = self._distilled(logits, taught, batch, mask)
            self.fabric.backward(loss / self._share(archs))
            metrics.add(loss, logits)
        return metrics.result()

    @torch.no_grad()
    def _minus_losses(self, model: Any, batch: StepBatch, archs: Population) -> NDArray[np.float64]:
        """How well candidates do on this step's images, under one mask for all: (n,), higher is better.

        They run in training mode, on the batch's own statistics; the running averages that this touches are recalibrated
        before any use.
        """
        mask = batch.mask()
        smoothing = self.recipe.training.label_smoothing
        losses = [cross_entropy(model(batch.x, arch), batch.labels, mask, smoothing) for arch in archs]
        return -self.ranks.mean(torch.stack(losses).double()).cpu().numpy()

    def _note(self, text: str) -> None:
        """What there is to say, in the log and beside the bars."""
        if self.ranks.first:
            self.log.note("supernet", text)
            if self.progress:
                show_note(text)

    def _frozen(self, teacher: Network) -> Network:
        return with_layout(teacher.to(self.fabric.device), torch.channels_last).eval().requires_grad_(False)

    def _save(
        self, stage: int, step: int, optimizer: torch.optim.Optimizer | None, average: Average | None = None
    ) -> None:
        tensors = {f"supernet.{name}": tensor for name, tensor in self.supernet.state_dict().items()}
        if self.teacher is not None:
            tensors |= {f"teacher.{name}": tensor for name, tensor in self.teacher.state_dict().items()}
        if optimizer is not None:
            tensors |= {f"optimizer.{name}": t for name, t in optimizer_tensors(optimizer, self.supernet).items()}
        if average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in average.tensors.items()}
        self.spent = time.monotonic() - self._since
        state = {
            "stage": stage,
            "step": step,
            "made_with": self.made_with,
            "seconds": self.spent,
            "narrowed": self.narrowed,
        }
        begun = self.recipe.training.stages[: stage + (step > 0)]
        alone = self.started_from is None and all(each.largest_only for each in begun)
        self.ranks.save(
            self.path, tensors, {**state, "start": self.started_from, "largest_only": alone, "log": self.log.mark()}
        )

    def _resume(self) -> tuple[int, int, _Held]:
        """Stage and step to go on from, and what the stage had gathered by then."""
        checkpoint = self.ranks.load(self.path)
        if checkpoint is None:
            self.log.go_on_from({})
            if self.recipe.training.start is not None:
                self._start_from(Path(self.recipe.training.start))
            elif self.recipe.training.zero_init_residual:
                begin_at_shortcuts(self.supernet.network)
            return 0, 0, _Held()
        tensors, state = checkpoint
        self.started_from = state.get("start")
        differ = describe_differences(state.get("made_with"), self.made_with)
        if differ or not self._same_start():
            raise TrainingError(
                f"{self.path} was made by another recipe (not the same {differ or 'training.start'}); give another output, or "
                "--fresh to throw it away"
            )
        self._take(tensors, state)
        self.spent = float(state.get("seconds", 0.0))
        self.log.go_on_from(state.get("log", {}))
        held = _Held(split_prefix(tensors, "optimizer"), split_prefix(tensors, "average"))
        return state["stage"], state["step"], held

    def _same_start(self) -> bool:
        """Whether this run began as the recipe says; what it started from may be gone by now."""
        start = self.recipe.training.start
        if start is None or self.started_from is None:
            return (start is None) == (self.started_from is None)
        return not Path(start).exists() or _checksum("training.start", Path(start)) == self.started_from

    def _start_from(self, path: Path) -> None:
        self.started_from = _checksum("training.start", path)
        try:
            tensors, state = load_checkpoint(path)
        except TrainingError as error:  # this file is not the run's own: nothing to be deleted
            raise TrainingError(
                f"training.start: {path} is no checkpoint of a supernet's training; such a file is named {self.path.name}"
            ) from error
        try:
            self._take(tensors, state)
        except (RuntimeError, SnugnetError) as error:
            reason = " ".join(str(error).split())[:160]
            raise TrainingError(f"training.start: {path} is of another space or other classes ({reason})") from error
        if self.teacher is None:
            teacher = self.supernet.extract(self.supernet.space.largest)
            if not state.get("largest_only"):  # batch norm has averaged over all the networks that were trained
                self._calibrate(teacher)
            self.teacher = self._frozen(teacher)

    def _calibrate(self, network: Network) -> None:
        """Measure a network's own batch-norm statistics, on the first batches that the training will see."""
        with_layout(network.to(self.fabric.device), torch.channels_last)
        images = (self.batches.whole(step)[0] for step in range(-(-TEACHER_IMAGES // self.batches.rows)))
        calibrate(network, (normalise(x, self.data.mean, self.data.std, channels_last=True) for x in images))

    def _take(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Weights, and the teacher where one was kept."""
        # a checkpoint from before channels were sorted does not say
        self.narrowed = bool(state.get("narrowed", not state.get("largest_only")))
        self.supernet.load_state_dict(split_prefix(tensors, "supernet"))
        largest = self.supernet.space.largest
        teacher = split_prefix(tensors, "teacher")
        if teacher:
            self.teacher = self._frozen(build(self.supernet.space.blueprint(largest), teacher))


@dataclass(frozen=True)
class _Held:
    """What a stage that was stopped had gathered, by name: the optimizer's state, and averages."""

    optimizer: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)

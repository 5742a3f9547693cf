"""Training of one network: what it sees, what it learns from, and that it can be stopped anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snugnet.data import ImageSet, normalise
from snugnet.errors import DataError, TrainingError
from snugnet.fingerprint import fingerprint
from snugnet.nn.auxiliary import auxiliary_head
from snugnet.nn.network import Network, build
from snugnet.recipe import Recipe, parse_recipe
from snugnet.retraining_config import ScratchConfig
from snugnet.spaces import SearchSpace, get_space
from snugnet.training import loop
from snugnet.training.checkpoint import load_checkpoint
from snugnet.training.device import make_fabric
from snugnet.training.dropout import cross_entropy, distillation_loss
from snugnet.training.loop import RunLog
from snugnet.training.retraining import ClassImages, NetworkTraining

SPACE = get_space(
    "ofa-mobilenet-v3", width_mult=0.1, resolution=8, num_classes=3, stem_stride=1, stage_strides=[2, 2, 1, 1, 1],
    depths=[1], kernel_sizes=[3], expand_ratios=[2],
)  # fmt: skip
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def some_images(n: int, seed: int) -> ImageSet:
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.integers(0, 256, (n, 3, 8, 8)).astype(np.uint8))
    return ImageSet(images, torch.from_numpy(rng.integers(0, 3, n)))


IMAGES = ClassImages(some_images(40, 0), some_images(20, 1), MEAN, STD)


CELLS = get_space("darts", resolution=8, num_classes=3, channels=3, cells=3, nodes=2)
AS_DARTS = {
    "drop_path": 0.4,
    "auxiliary": 0.4,
    "clip": 1.0,
    "nesterov": False,
    "schedule": "cosine",
    "label_smoothing": 0,
}


def recipe(**changes: Any) -> Recipe:
    content = {
        "name": "one", "output": "unused", "device": "cpu", "data": {"source": "digits", "resolution": 8},
        "training": {"stages": [{"name": "a", "epochs": 1, "learning_rate": 0.1}]}, "augment": {"crop_padding": 1, "cutout": 4},
    }  # fmt: skip
    return parse_recipe({**content, **changes})


def training(
    folder: Path, log: RunLog, teacher: Network | None = None, space: SearchSpace = SPACE, **settings: Any
) -> NetworkTraining:
    config = ScratchConfig(**{"epochs": 3, "batch_size": 8, "log_every": 1, **settings}).resolved(8)
    made_with = fingerprint(settings=config.model_dump(mode="json", exclude={"checkpoint_seconds", "log_every"}))
    network = build(space.blueprint(space.largest), seed=1)
    return NetworkTraining(
        recipe(), config, network, teacher, IMAGES, made_with, make_fabric(recipe()), folder, log, progress=False,
        auxiliary=space.auxiliary_block,
    )  # fmt: skip


def run(folder: Path, **settings: Any) -> NetworkTraining:
    with RunLog(folder) as log:
        one = training(folder, log, **settings)
        one.run()
    return one


def scalars(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("stop", [0, 1, 6, 14])
@pytest.mark.parametrize("how", ["taught", "as DARTS"])
def test_stopped_anywhere_it_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, stop: int
) -> None:
    teacher = build(SPACE.blueprint(SPACE.largest), seed=2)
    given: dict[str, Any] = {"teacher": teacher, "distillation": 0.5}
    if how == "as DARTS":
        given = {"space": CELLS, **AS_DARTS}
    whole = run(tmp_path / "whole", **given)
    seen = 0
    real = loop.seed_step

    def stopping(seed: int, phase: int, step: int) -> np.random.Generator:
        nonlocal seen
        seen += 1
        if seen == stop + 1:
            raise KeyboardInterrupt
        return real(seed, phase, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "seed_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", **given, checkpoint_seconds=0)
    parts = run(tmp_path / "parts", **given, checkpoint_seconds=0)
    assert same(whole.network, parts.network)
    assert scalars(tmp_path / "whole") == scalars(tmp_path / "parts")
    again = run(tmp_path / "parts", **given)  # nothing is left to do
    assert same(whole.network, again.network)
    assert same(whole.trained, again.trained)  # the auxiliary classifier goes on too


def test_another_training_s_checkpoint_is_left_alone(tmp_path: Path) -> None:
    one = run(tmp_path)
    before = one.path.read_bytes()
    with pytest.raises(TrainingError, match=r"not the same settings\.momentum\); give another --out, or --fresh"):
        run(tmp_path, momentum=0.5)
    assert one.path.read_bytes() == before
    run(tmp_path, log_every=7, checkpoint_seconds=3)  # these shape nothing


def test_a_step_is_sgd_on_labels_and_teacher_with_a_rate_that_falls_linearly(tmp_path: Path) -> None:
    """Against torch by hand: two epochs of one batch each, without augmentation."""
    teacher = build(SPACE.blueprint(SPACE.largest), seed=2).eval()
    settings = {"epochs": 2, "batch_size": 40, "learning_rate": 0.1, "distillation": 0.7, "weight_decay": 1e-3}
    with RunLog(tmp_path) as log:
        one = training(tmp_path, log, teacher, **settings)
        one.augment = lambda images: images  # type: ignore[assignment]
        one.run()
    network = build(SPACE.blueprint(SPACE.largest), seed=1).to(memory_format=torch.channels_last).train()
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 1e-3}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    for step, rate in enumerate((0.1, 0.05)):
        for group in optimizer.param_groups:
            group["lr"] = rate
        images, labels = one.batches.batch(step)
        x = normalise(images, MEAN, STD, channels_last=True)
        logits = network(x)
        loss = cross_entropy(logits, labels, None, 0.1) + 0.7 * distillation_loss(logits, teacher(x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for got, wanted in zip(one.network.state_dict().values(), network.state_dict().values(), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    assert not one.network.training
    assert not any(p.requires_grad for p in one.network.parameters())
    assert all(p.grad is None for p in teacher.parameters())


def test_a_step_with_an_auxiliary_classifier_and_a_clipped_gradient(tmp_path: Path) -> None:
    """Against torch by hand, with plain momentum; the classifier is trained, and not handed out."""
    settings = {
        **AS_DARTS, "drop_path": 0, "epochs": 2, "batch_size": 40, "learning_rate": 0.1, "schedule": "linear", "clip": 0.3,
        "weight_decay": 1e-3,
    }  # fmt: skip
    with RunLog(tmp_path) as log:
        one = training(tmp_path, log, space=CELLS, **settings)
        one.augment = lambda images: images  # type: ignore[assignment]
        one.run()
    network = build(CELLS.blueprint(CELLS.largest), seed=1).to(memory_format=torch.channels_last).train()
    own = network.block("cell3.output")
    head = auxiliary_head(own, 3, seed=0).to(memory_format=torch.channels_last).train()
    parameters = [*network.parameters(), *head.parameters()]
    decayed, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 1e-3}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    for step, rate in enumerate((0.1, 0.05)):
        for group in optimizer.param_groups:
            group["lr"] = rate
        images, labels = one.batches.batch(step)
        logits, inner = network(normalise(images, MEAN, STD, channels_last=True), also=own.name)
        loss = cross_entropy(logits, labels) + 0.4 * cross_entropy(head(inner), labels)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).norm()
        assert norm > 0.3  # so that it is cut
        for p in parameters:
            if p.grad is not None:
                p.grad *= 0.3 / norm
        optimizer.step()
    for got, wanted in zip(
        (*one.network.state_dict().values(), *one.trained.head.state_dict().values()),  # type: ignore[union-attr]
        (*network.state_dict().values(), *head.state_dict().values()),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    assert one.network.state_dict().keys() == build(CELLS.blueprint(CELLS.largest)).state_dict().keys()


def test_drop_path_rises_linearly_from_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    real = Network.forward

    def watched(self: Network, x: Tensor, drop_path: float = 0.0, also: str | None = None) -> Any:
        rates.extend([drop_path] * self.training)
        return real(self, x, drop_path, also)

    monkeypatch.setattr(Network, "forward", watched)
    run(tmp_path, space=CELLS, epochs=2, drop_path=0.2)
    assert rates == pytest.approx([0.02 * step for step in range(10)])


def test_validation_accuracy_comes_after_every_epoch_and_at_the_end(tmp_path: Path) -> None:
    one = run(tmp_path, epochs=2.4)
    lines = [line for line in scalars(tmp_path) if line["phase"] == "validation"]
    assert [line["step"] for line in lines] == [5, 10, 12]
    x = normalise(IMAGES.validation.images, MEAN, STD, channels_last=True)
    right = (one.network(x).argmax(1) == IMAGES.validation.labels).double().mean()
    assert lines[-1]["accuracy"] == one.validation_accuracy() == pytest.approx(float(right))
    _, state = load_checkpoint(one.path)
    assert state["step"] == 12


def test_a_network_and_its_teacher_get_images_at_their_own_resolution(tmp_path: Path) -> None:
    sizes: dict[str, list[int]] = {"network": [], "teacher": []}

    def watch(name: str) -> Any:
        def hook(_: Any, inputs: tuple[Tensor, ...]) -> None:
            sizes[name].append(inputs[0].shape[-1])

        return hook

    large = SPACE.with_options(resolution=8)
    small = SPACE.with_options(resolution=6)
    network, teacher = build(small.blueprint(small.largest)), build(large.blueprint(large.largest))
    network.register_forward_pre_hook(watch("network"))
    teacher.register_forward_pre_hook(watch("teacher"))
    config = ScratchConfig(epochs=1, batch_size=20, distillation=1.0).resolved(8)
    with RunLog(tmp_path) as log:
        NetworkTraining(
            recipe(), config, network, teacher, IMAGES, {}, make_fabric(recipe()), tmp_path, log, progress=False
        ).run()
    assert sizes == {"network": [6, 6, 6], "teacher": [8, 8]}  # two steps, and once the validation images


def test_too_few_images() -> None:
    with pytest.raises(DataError, match="1 training images of the network's classes; at least 2"):
        ClassImages(some_images(1, 0), some_images(0, 0), MEAN, STD)


def test_without_validation_images_nothing_is_judged(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        one = training(tmp_path, log, epochs=1)
        one.validation = some_images(0, 0)
        one.run()
        assert np.isnan(one.validation_accuracy())
    assert {line["phase"] for line in scalars(tmp_path)} == {"network"}


def test_rates_are_those_of_the_protocol_in_proportion_to_the_batch() -> None:
    assert ScratchConfig().resolved(1024).learning_rate == 0.5
    assert ScratchConfig().resolved(64).learning_rate == pytest.approx(0.5 / 16)
    assert ScratchConfig(batch_size=512).resolved(64).learning_rate == 0.25
    assert ScratchConfig(learning_rate=0.3).resolved(64).learning_rate == 0.3
    defaults = ScratchConfig().resolved(1024)
    assert (defaults.epochs, defaults.schedule, defaults.weight_decay) == (240, "linear", 4e-5)
    assert (defaults.momentum, defaults.label_smoothing, defaults.distillation) == (0.9, 0.1, 0)
    assert (defaults.nesterov, defaults.clip, defaults.drop_path, defaults.auxiliary) == (True, None, 0, 0)

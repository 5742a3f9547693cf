"""What a training step does under each policy, against its definition, gradient by gradient."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from snugnet.data import GroupedImages, load_data
from snugnet.errors import BusyError, ConfigError, TrainingError
from snugnet.files import locked
from snugnet.pipeline import make_space, read_predictor, train_supernet
from snugnet.predictors import fit_predictor
from snugnet.recipe import Recipe, parse_recipe
from snugnet.spaces import Population
from snugnet.supernets import Supernet
from snugnet.training import supernet as supernet_training
from snugnet.training.calibration import calibrate
from snugnet.training.checkpoint import load_checkpoint, save_checkpoint
from snugnet.training.device import make_fabric
from snugnet.training.dropout import cross_entropy, distillation_loss
from snugnet.training.loop import RunLog
from snugnet.training.step import StepBatch
from snugnet.training.supernet import SupernetTraining, made_with

ALL = {"name": "all", "epochs": 0.2, "learning_rate": 0.05, "elastic": "all"}


def recipe(output: Path, *stages: dict[str, Any], **training: Any) -> Recipe:
    return parse_recipe(
        {
            "name": "tiny", "output": str(output), "device": "cpu", "threads": 1,
            "data": {"source": "digits", "resolution": 8, "groups": "digits", "validation": 0.2, "train_rows": 320},
            "space": {"width_mult": 0.1, "stem_stride": 1, "stage_strides": [2, 1, 1, 1, 1]},
            "training": {"batch_size": 32, "superclass_dropout": 0.0, "stages": list(stages), **training},
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> GroupedImages:
    return load_data(recipe(tmp_path_factory.mktemp("unused"), ALL).data, progress=False)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RunLog]:
    with RunLog(tmp_path) as opened:
        yield opened


def run(made: Recipe, data: GroupedImages, log: RunLog) -> Supernet:
    return train_supernet(made, data, make_fabric(made), log, progress=False)[0]


def training_of(made: Recipe, data: GroupedImages, log: RunLog) -> SupernetTraining:
    supernet = Supernet(make_space(made, data), seed=1).train()
    return SupernetTraining(made, supernet, data, make_fabric(made), log.folder, log, progress=False)


def batch_of(training: SupernetTraining) -> StepBatch:
    images, labels = training.batches.batch(0)
    return StepBatch(images.float() / 255, labels, training.class_to_group, 0.0)


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def test_sandwich_the_largest_learns_from_labels_and_teaches_the_others(data: GroupedImages, log: RunLog) -> None:
    training = training_of(recipe(log.folder, {**ALL, "sandwich": True}), data, log)
    supernet, batch = training.supernet, batch_of(training)
    space = supernet.space
    archs = np.concatenate([space.largest, space.sample(2, np.random.default_rng(0)), space.smallest])
    training._sandwich(supernet, batch, archs)
    got = gradients(supernet)
    supernet.zero_grad()
    taught = supernet(batch.x, archs[0])
    loss = cross_entropy(taught, batch.labels, None, 0.1)
    for arch in archs[1:]:
        loss = loss + distillation_loss(supernet(batch.x, arch), taught.detach())
    (loss / len(archs)).backward()
    expected = gradients(supernet)
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, msg=lambda m, name=name: f"{name}: {m}")


def test_only_the_largest_is_regularised(data: GroupedImages, log: RunLog) -> None:
    asked: list[tuple[bool, dict[str, Any]]] = []
    rates = {"dropout": 0.2, "drop_connect": 0.3, "drop_connect_stages": 2}
    made = recipe(log.folder, {**ALL, "sandwich": True, "subnets": 2}, **rates)
    training = training_of(made, data, log)
    supernet, batch = training.supernet, batch_of(training)
    largest = supernet.space.largest

    def spy(x: torch.Tensor, arch: NDArray[np.int16], **rates: Any) -> torch.Tensor:
        asked.append((bool((arch == largest).all()), rates))
        return supernet(x, arch, **rates)

    training._sandwich(spy, batch, np.concatenate([largest, supernet.space.smallest]))
    assert asked == [(True, rates), (False, {})]


@pytest.mark.parametrize("step", ["_taught", "_sandwich"])
def test_gradients_are_averaged_or_added_up(data: GroupedImages, log: RunLog, step: str) -> None:
    got = {}
    for way in ("mean", "sum"):
        training = training_of(recipe(log.folder, {**ALL, "sandwich": step == "_sandwich"}, gradients=way), data, log)
        space = training.supernet.space
        archs = np.concatenate([space.largest, space.sample(2, np.random.default_rng(0))])
        getattr(training, step)(training.supernet, batch_of(training), archs)
        got[way] = gradients(training.supernet)
    assert got["mean"].keys() == got["sum"].keys()
    for name, gradient in got["mean"].items():
        torch.testing.assert_close(3 * gradient, got["sum"][name], msg=lambda m, name=name: f"{name}: {m}")


def test_every_component_of_the_gradient_is_cut(
    data: GroupedImages, log: RunLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen by the optimizer, which cuts nothing itself."""
    seen: list[float] = []
    step = torch.optim.SGD.step

    def watched(self: torch.optim.SGD, *args: Any) -> Any:
        seen.append(
            max(float(p.grad.abs().max()) for g in self.param_groups for p in g["params"] if p.grad is not None)
        )
        return step(self, *args)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    run(recipe(log.folder / "free", ALL), data, log)
    assert max(seen) > 1e-3
    seen.clear()
    run(recipe(log.folder / "cut", ALL, clip_value=1e-3), data, RunLog(log.folder / "cut"))
    assert seen
    assert max(seen) <= 1.001e-3


def test_the_loss_against_the_teacher_has_its_own_draw_and_temperature(
    data: GroupedImages, log: RunLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no superclass dropped there, that loss is over all classes, whatever the labels' loss drops."""
    made = recipe(
        log.folder, ALL, superclass_dropout=1.0, distillation_dropout=0.0, temperature=2.0, divergence="alpha"
    )
    training = training_of(made, data, log)
    training.teacher = training._frozen(training.supernet.extract(training.supernet.space.largest))
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        supernet_training, "distillation_loss", lambda *each: (asked.append(each), distillation_loss(*each))[1]
    )
    images = batch_of(training)
    batch = StepBatch(images.x, images.labels, images.class_to_group, 1.0)
    training._taught(training.supernet, batch, training.supernet.space.smallest)
    ((_, _, mask, temperature, divergence),) = asked
    assert mask is None
    assert (temperature, divergence) == (2.0, "alpha")


def test_a_network_that_begins_at_its_shortcuts(data: GroupedImages, log: RunLog) -> None:
    """Every block with something added around it hands that on, in the supernet as in what is taken out of it."""
    training = training_of(recipe(log.folder, ALL, zero_init_residual=True), data, log)
    training._resume()
    network = training.supernet.extract(training.supernet.space.largest)
    around = [module for module in network.block_modules().values() if module.block.shortcut is not None]
    assert around
    for module in around:
        x = torch.randn(2, module.block.in_channels, 6, 6)
        beside = x
        for layer in module.block.shortcut or ():
            beside = module.layer_modules()[layer.name](beside)
        assert torch.equal(module(x), beside)
    plain = training_of(recipe(log.folder / "plain", ALL), data, log)
    plain._resume()
    changed = [
        n for n, t in training.supernet.state_dict().items() if not torch.equal(t, plain.supernet.state_dict()[n])
    ]
    assert len(changed) == len(around)


def test_the_average_takes_the_place_of_the_weights(data: GroupedImages, log: RunLog) -> None:
    """Against the sum it is defined as, over the weights that every step left."""
    made = recipe(log.folder, {**ALL, "epochs": 0.5, "average": 0.3}, checkpoint_seconds=0.0)
    left: list[dict[str, torch.Tensor]] = []

    class Watched(SupernetTraining):
        def _save(self, stage: int, step: int, *held: Any) -> None:
            if held and held[0] is not None:
                left.append({name: tensor.clone() for name, tensor in self.supernet.state_dict().items()})
            super()._save(stage, step, *held)

    supernet = Supernet(make_space(made, data), seed=1)
    first = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    Watched(made, supernet, data, make_fabric(made), log.folder, log, progress=False).run()
    assert len(left) == 5
    for name, tensor in supernet.state_dict().items():
        if not tensor.is_floating_point():
            assert torch.equal(tensor, left[-1][name]), name
            continue
        expected = first[name].double()
        for step, each in enumerate(left):
            decay = min(0.3, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * each[name].double()
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    saved, _ = load_checkpoint(
        log.folder / "supernet.ckpt.safetensors"
    )  # what starts from it, such as a study's supernets
    assert all(torch.equal(tensor, saved[f"supernet.{name}"]) for name, tensor in supernet.state_dict().items())
    assert not any(name.startswith("average.") for name in saved)


def test_candidates_are_judged_by_their_loss_on_the_batch(data: GroupedImages, log: RunLog) -> None:
    training = training_of(recipe(log.folder, {**ALL, "sampling": "best-up"}), data, log)
    supernet, batch = training.supernet, batch_of(training)
    archs = supernet.space.sample(3, np.random.default_rng(0))
    scores = training._minus_losses(supernet, batch, archs)
    assert gradients(supernet) == {}
    for arch, score in zip(archs, scores, strict=True):
        loss = torch.nn.functional.cross_entropy(supernet(batch.x, arch), batch.labels, label_smoothing=0.1)
        assert score == pytest.approx(-loss.item(), abs=1e-5)


def test_another_predictor_under_the_same_name_is_noticed(data: GroupedImages, tmp_path: Path) -> None:
    def made(folder: str) -> Recipe:
        return recipe(tmp_path / "run", {**ALL, "sampling": "best-up"}, predictor=str(tmp_path / folder))

    space = make_space(recipe(tmp_path, ALL), data)
    rows = space.sample(40, np.random.default_rng(0))
    for seed, folder in enumerate(("one", "two", "copy")):
        fit_predictor("forest", space, rows, rows.sum(1).astype(float), seed=seed % 2).save(tmp_path / folder)
    assert made_with(made("one"), data) == made_with(made("copy"), data) != made_with(made("two"), data)
    with pytest.raises(TrainingError, match=r"training\.predictor: cannot read .*none"):
        made_with(made("none"), data)


@pytest.mark.parametrize(
    "settings", [{"sampling": "best-up"}, {"sampling": "worst-up", "sandwich": True}, {"sampling": "cost"}]
)
def test_training_under_a_policy_is_stopped_and_goes_on_bit_for_bit(
    data: GroupedImages, tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = {**ALL, **settings, "epochs": 0.6}
    made = recipe(tmp_path, stage, superclass_dropout=0.5, checkpoint_seconds=0.0, log_every=1)
    with RunLog(tmp_path / "whole") as log:
        whole = run(made, data, log).state_dict()
    with RunLog(tmp_path / "stopped") as log:
        training = training_of(made, data, log)
        batch = training.batches.batch

        def stopping(step: int) -> Any:
            if step == 2:
                raise KeyboardInterrupt
            return batch(step)

        training.supernet = Supernet(make_space(made, data), seed=made.seed)
        monkeypatch.setattr(training.batches, "batch", stopping)
        with pytest.raises(KeyboardInterrupt):
            training.run()
    with RunLog(tmp_path / "stopped") as log:
        resumed = run(made, data, log).state_dict()
    lines = [
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("whole", "stopped")
    ]
    assert len(lines[0]) > 2
    for one, other in zip(*lines, strict=True):  # no step is done twice, and each does the same
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    fresh = Supernet(make_space(made, data), seed=made.seed).state_dict()
    assert any(not torch.equal(fresh[key], whole[key]) for key in fresh if key.endswith("conv.weight"))


def test_a_predictor_is_asked_for_the_best_candidates(data: GroupedImages, log: RunLog, tmp_path: Path) -> None:
    made = recipe(log.folder, {**ALL, "sampling": "best-up"}, predictor=str(tmp_path / "predictor"))
    space = make_space(made, data)
    rows = space.sample(40, np.random.default_rng(0))
    fit_predictor("forest", space, rows, rows.sum(1).astype(float), targets=("accuracy",), seed=0).save(
        tmp_path / "predictor"
    )
    predict = read_predictor(made, space)
    assert predict is not None
    asked: list[Population] = []

    def spy(rows: Population) -> NDArray[np.float64]:
        asked.append(rows)
        return predict(rows)

    training = training_of(made, data, log)
    training.predict = spy
    training.run()
    assert [len(rows) for rows in asked] == [3] * training._steps(made.training.stages[0])
    other = parse_recipe({**made.to_json(), "space": {"name": "ofa-mobilenet-v3", "width_mult": 0.2}})
    with pytest.raises(ConfigError, match=r"training\.predictor"):
        read_predictor(other, make_space(other, data))


def test_a_training_starts_from_a_checkpoint_whose_largest_network_teaches(data: GroupedImages, tmp_path: Path) -> None:
    first = recipe(tmp_path / "teacher", {"name": "largest", "epochs": 1, "learning_rate": 0.1})
    with RunLog(tmp_path / "teacher") as log:
        teacher = run(first, data, log)
    start = str(tmp_path / "teacher" / "supernet.ckpt.safetensors")
    made = recipe(
        tmp_path / "next", {**ALL, "learning_rate": 1e-12}, start=start, weight_decay=0.0, sort_channels=False
    )
    with RunLog(tmp_path / "next") as log:
        training = SupernetTraining(
            made, Supernet(make_space(made, data), seed=5), data, make_fabric(made), log.folder, log, progress=False
        )
        training.run()
    for name, parameter in teacher.named_parameters():
        torch.testing.assert_close(dict(training.supernet.named_parameters())[name], parameter, msg=name)
    assert training.teacher is not None
    x = data.validation.images[:8].float() / 255
    largest = teacher.eval().extract(teacher.space.largest)
    torch.testing.assert_close(training.teacher(x), largest(x), rtol=1e-4, atol=1e-5)


def test_a_teacher_out_of_a_supernet_has_statistics_of_its_own(data: GroupedImages, tmp_path: Path) -> None:
    with RunLog(tmp_path / "first") as log:
        run(recipe(log.folder, {**ALL, "epochs": 2}), data, log)
    start = str(tmp_path / "first" / "supernet.ckpt.safetensors")
    made = recipe(tmp_path / "next", ALL, start=start)
    with RunLog(tmp_path / "next") as log:
        training = training_of(made, data, log)
        training._resume()
    assert training.teacher is not None
    reference = training.supernet.extract(training.supernet.space.largest).eval()
    x = torch.cat([training.batches.batch(step)[0] for step in range(16)]).float() / 255  # TEACHER_IMAGES of them
    x = (x - torch.tensor(data.mean)[:, None, None]) / torch.tensor(data.std)[:, None, None]
    calibrate(reference, x.split(32))
    torch.testing.assert_close(training.teacher(x[:64]), reference(x[:64]), rtol=1e-3, atol=1e-4)


def test_a_run_that_has_begun_no_longer_needs_what_it_started_from(data: GroupedImages, tmp_path: Path) -> None:
    with RunLog(tmp_path / "first") as log:
        run(recipe(log.folder, ALL), data, log)
    start = tmp_path / "first" / "supernet.ckpt.safetensors"
    made = recipe(tmp_path / "next", ALL, start=str(start))
    with RunLog(tmp_path / "next") as log:
        trained = run(made, data, log)
        content = start.read_bytes()
        start.write_bytes(content + b" ")
        with pytest.raises(TrainingError, match="made by another recipe"):
            run(made, data, log)
        start.unlink()
        again = run(made, data, log)
        with pytest.raises(TrainingError, match="made by another recipe"):
            run(recipe(tmp_path / "next", ALL), data, log)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_starts_that_cannot_be_made(data: GroupedImages, tmp_path: Path) -> None:
    with RunLog(tmp_path / "small") as log:
        run(recipe(log.folder, ALL), data, log)
    start = str(tmp_path / "small" / "supernet.ckpt.safetensors")
    wide = recipe(tmp_path / "wide", ALL, start=start).to_json()
    wide["space"]["width_mult"] = 0.3
    for made, says in (
        (parse_recipe(wide), "is of another space or other classes"),
        (recipe(tmp_path / "wide", ALL, start=str(tmp_path / "none")), "cannot read .*none"),
    ):
        with RunLog(tmp_path / "wide") as log, pytest.raises(TrainingError, match=says):
            run(made, data, log)


def test_stages_go_on_with_the_batches_where_the_last_one_stopped(
    data: GroupedImages, log: RunLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(log.folder, {"name": "largest", "epochs": 0.3, "learning_rate": 0.1}, ALL, ALL)
    training = training_of(made, data, log)
    seen: list[int] = []
    batch = training.batches.batch
    monkeypatch.setattr(training.batches, "batch", lambda step: (seen.append(step), batch(step))[1])
    training.run()
    assert seen == list(range(sum(training._steps(stage) for stage in made.training.stages)))


def test_what_a_step_of_the_smallest_network_moves(data: GroupedImages, log: RunLog) -> None:
    """Parameters of blocks and layers that it does not run get no gradient, and so neither weight decay nor momentum; all the
    others move, also where only a part of them is used (docs/studies.md)."""
    made = recipe(log.folder, ALL, weight_decay=0.1)
    training = training_of(made, data, log)
    supernet, space = training.supernet, training.supernet.space
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    batch = batch_of(training)

    def step(arch: Population) -> dict[str, float]:
        """By parameter, the share of its entries that have moved; those that have not are left out."""
        before = {name: p.detach().clone() for name, p in supernet.named_parameters()}
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(supernet(batch.x, arch), batch.labels).backward()
        optimizer.step()
        shares = {name: float((p != before[name]).float().mean()) for name, p in supernet.named_parameters()}
        return {name: share for name, share in shares.items() if share > 0}

    everything = {name for name, _ in supernet.named_parameters()}
    assert set(step(space.largest)) == everything  # from here on every parameter has momentum
    shares = step(space.smallest)
    moved = set(shares)
    weights = {name: share for name, share in shares.items() if supernet.get_parameter(name).ndim > 1}
    assert set(weights.values()) == {1.0}  # channels and pixels of kernels that it does not use as well
    assert moved == set(dict(supernet.extract(space.smallest).named_parameters(prefix="network")))
    assert (len(everything), len(everything - moved)) == (243, 114)


@pytest.mark.parametrize("stage", [{**ALL, "subnets": 3}, {**ALL, "sandwich": True}])
def test_each_backward_pass_comes_before_the_next_forward_pass(
    data: GroupedImages, log: RunLog, monkeypatch: pytest.MonkeyPatch, stage: dict[str, Any]
) -> None:
    """With several ranks, two forward passes before two backward passes leave the ranks with different gradients, silently."""
    passes: list[str] = []
    forward = Supernet.forward

    def spy(self: Supernet, *arguments: Any, **others: Any) -> torch.Tensor:
        passes.append("forward")
        logits = forward(self, *arguments, **others)
        if logits.requires_grad:
            logits.register_hook(lambda _: passes.append("backward"))
        return logits

    monkeypatch.setattr(Supernet, "forward", spy)
    run(recipe(log.folder, stage), data, log)
    assert passes[::2] == ["forward"] * (len(passes) // 2)
    assert passes[1::2] == ["backward"] * (len(passes) // 2)
    assert len(passes) >= 6


def test_a_run_is_not_gone_on_with_in_another_precision(data: GroupedImages, log: RunLog) -> None:
    """``auto`` is bfloat16 on a GPU and float32 elsewhere: what counts is what it came to."""
    asked = recipe(log.folder, ALL)
    run(asked.model_copy(update={"precision": "bf16-mixed"}), data, log)
    with pytest.raises(
        TrainingError, match=r"made by another recipe \(not the same precision\); give another output, or --fresh"
    ):
        run(asked, data, log)
    assert made_with(asked, data) == made_with(asked.model_copy(update={"precision": "32-true"}), data)


def test_a_run_is_not_gone_on_with_on_another_kind_of_device(
    data: GroupedImages, log: RunLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU draws other crops and masks from the same seed."""
    asked = recipe(log.folder, ALL).model_copy(update={"device": "auto", "precision": "32-true"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run(asked, data, log)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    training = SupernetTraining(
        asked, Supernet(make_space(asked, data)), data, make_fabric(recipe(log.folder, ALL)), log.folder, log, False
    )
    with pytest.raises(TrainingError, match=r"made by another recipe \(not the same device\)"):
        training.run()


def test_a_checkpoint_of_an_earlier_snugnet_is_refused_as_such(data: GroupedImages, log: RunLog) -> None:
    run(recipe(log.folder, ALL), data, log)
    path = log.folder / "supernet.ckpt.safetensors"
    tensors, state = load_checkpoint(path)
    save_checkpoint(path, tensors, {**state, "made_with": "0123456789abcdef"})
    with pytest.raises(TrainingError, match="not the same format of the checkpoint"):
        run(recipe(log.folder, ALL), data, log)


def test_a_training_has_its_folder_for_itself_and_clears_it(data: GroupedImages, log: RunLog) -> None:
    left = log.folder / ".supernet.ckpt.safetensors.0123.tmp"
    left.write_bytes(b"half of a checkpoint")
    with ThreadPoolExecutor(1) as pool:
        with locked(log.folder), pytest.raises(BusyError, match="in use by"):
            pool.submit(run, recipe(log.folder, ALL), data, log).result()
        assert left.exists()
        pool.submit(run, recipe(log.folder, ALL), data, log).result()
    assert not left.exists()


def test_a_refusal_names_what_differs(data: GroupedImages, log: RunLog) -> None:
    run(recipe(log.folder, ALL), data, log)
    other = recipe(log.folder, {**ALL, "subnets": 2}, weight_decay=0.5)
    with pytest.raises(TrainingError, match=r"not the same training.stages.0.subnets, training.weight_decay\)"):
        run(other, data, log)


def test_only_the_first_stage_trains_the_teacher(tmp_path: Path) -> None:
    alone = {**ALL, "elastic": {}}
    training = recipe(tmp_path, alone, alone, ALL).training
    assert [training.trains_teacher(i) for i in range(3)] == [True, False, False]
    assert not recipe(tmp_path, ALL, alone).training.trains_teacher(1)
    # gone on with from a checkpoint, as a study does: the teacher is there
    assert not recipe(tmp_path, alone, ALL, start="x.safetensors").training.trains_teacher(0)


@pytest.mark.parametrize(("schedule", "last"), [("linear", 1 / 4), ("cosine", 0.5 * (1 + np.cos(np.pi * 3 / 4)))])
def test_the_learning_rate_falls_as_the_stage_says(
    data: GroupedImages, log: RunLog, monkeypatch: pytest.MonkeyPatch, schedule: str, last: float
) -> None:
    rates: list[float] = []
    real = supernet_training.make_optimizer

    def watched(*arguments: Any) -> torch.optim.SGD:
        optimizer = real(*arguments)
        optimizer.register_step_pre_hook(lambda own, *_: rates.append(own.param_groups[0]["lr"]))
        return optimizer

    monkeypatch.setattr(supernet_training, "make_optimizer", watched)
    made = recipe(log.folder, {"name": "a", "epochs": 1, "learning_rate": 0.1, "schedule": schedule})
    epoch = training_of(made, data, log).batches.steps_per_epoch
    stage = {"name": "a", "epochs": 4 / epoch, "learning_rate": 0.1, "schedule": schedule}
    run(recipe(log.folder, stage), data, log)
    assert len(rates) == 4
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.1 * last)

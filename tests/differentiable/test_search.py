"""The search: its gradients and multipliers by their definitions, that it can be stopped anywhere, and how it ends."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.func import functional_call

from snugnet.costs import counted_table, disconnected
from snugnet.data import AugmentConfig, ImageSet
from snugnet.differentiable import search as search_module
from snugnet.differentiable.config import CellSearchConfig
from snugnet.differentiable.relaxed import Limit, derive
from snugnet.differentiable.search import CHECKPOINT, CellSearch, Found, SearchImages
from snugnet.errors import DataError, TrainingError
from snugnet.fingerprint import fingerprint
from snugnet.spaces import get_space
from snugnet.spaces.cells import CellSpace
from snugnet.training.checkpoint import load_checkpoint
from snugnet.training.loop import Metrics, RunLog

SPACES: dict[str, dict[str, Any]] = {
    "darts": {"channels": 4, "cells": 3, "nodes": 2, "operations": ["skip_connect", "max_pool_3x3", "sep_conv_3x3"]},
    "nas-bench-201": {"channels": 4, "cells": 1},
}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
CLASSES = 3
FABRIC = Fabric(accelerator="cpu", devices=1, precision="32-true")


def make(name: str, **options: Any) -> CellSpace:
    space = get_space(name, resolution=8, num_classes=CLASSES, **{**SPACES[name], **options})
    assert isinstance(space, CellSpace)
    return space


def some_images(n: int, seed: int = 0) -> ImageSet:
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.integers(0, 256, (n, 3, 8, 8)).astype(np.uint8))
    return ImageSet(images, torch.from_numpy(rng.integers(0, CLASSES, n)))


def halves(images: ImageSet | None = None, share: float = 0.5) -> SearchImages:
    return SearchImages.of(images or some_images(24), share, MEAN, STD, seed=3)


def make_search(
    folder: Path,
    name: str = "nas-bench-201",
    limits: dict[str, float] | None = None,
    *,
    at_least: bool = False,
    kind: type[CellSearch] = CellSearch,
    target: dict[str, Any] | None = None,
    images: SearchImages | None = None,
    log: RunLog | None = None,
    **changes: Any,
) -> CellSearch:
    """A search on two halves of 12 images, 3 steps of 4 an epoch; bounds are shares of the costs' ranges."""
    settings = {
        "epochs": 2,
        "batch_size": 4,
        "log_every": 1,
        "checkpoint_seconds": 0.0,
        "bottleneck": 1,
        "multiplier_rate": 0.1,
        **changes,
    }
    config = CellSearchConfig(**settings).resolved()
    space = make(name)
    found = space.with_options(**(target or {}))
    tables = {cost: counted_table(found, cost) for cost in limits or {}}
    assert all(isinstance(each, CellSpace) for each in (space, found))
    bounds = [
        tables[c].range[0] + share * (tables[c].range[1] - tables[c].range[0]) for c, share in (limits or {}).items()
    ]
    return kind(
        config, space, found, [Limit(t, b, at_least) for t, b in zip(tables.values(), bounds, strict=True)], bounds,
        images or halves(), AugmentConfig(crop_padding=1, flip=True), 5, FABRIC, folder,
        fingerprint(config=config.model_dump(mode="json"), bounds=bounds), log or RunLog(folder), progress=False,
        never=(disconnected(found),) if name == "nas-bench-201" else (),
    )  # fmt: skip


def state(search: CellSearch) -> dict[str, Tensor]:
    return {**search.network.state_dict(), **{f"cells.{k}": v for k, v in search.cells.state_dict().items()}}


def lines(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


# -- images ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.99])
@pytest.mark.parametrize("n", [4, 25])
def test_two_parts_share_no_image_and_leave_none_out(n: int, share: float) -> None:
    images = ImageSet(torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 3, 8, 8), torch.arange(n) % 3)
    parts = halves(images, share)
    seen = [part.images[:, 0, 0, 0].tolist() for part in (parts.weights, parts.architecture)]
    assert sorted(seen[0] + seen[1]) == list(range(n))
    assert min(map(len, seen)) >= 2
    assert len(seen[1]) == min(max(2, round(share * n)), n - 2)
    for part, own in zip((parts.weights, parts.architecture), seen, strict=True):
        assert part.labels.tolist() == [i % 3 for i in own]
    assert parts.digest() == halves(images, share).digest()
    assert n == 4 or parts.digest() != SearchImages.of(images, share, MEAN, STD, seed=4).digest()


def test_too_few_images_to_divide() -> None:
    with pytest.raises(DataError, match="there are 3 training images; a search divides at least 4"):
        halves(some_images(3))


def test_weights_and_architecture_learn_from_their_own_images(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    for batches, part in ((search._train, search.images.weights), (search._validation, search.images.architecture)):
        own = {image.numpy().tobytes() for image in part.images}
        drawn = [batches.batch(step)[0] for step in range(batches.steps_per_epoch)]
        assert {image.numpy().tobytes() for image in torch.cat(drawn)} == own


# -- gradients ---------------------------------------------------------------------------------------------------------


def in_float64(search: CellSearch, seed: int = 0) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Make the search exact, its mixture uneven, and give it a batch of either half."""
    search.network.double()
    search.cells.double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in search.cells.parameters():
            p.copy_(0.5 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    search._rederive()
    batches = []
    for _ in range(2):
        images = torch.randn(6, 3, 8, 8, generator=generator, dtype=torch.float64)
        batches.append((images, torch.randint(0, CLASSES, (6,), generator=generator)))
    return batches[0], batches[1]


METHODS: dict[str, dict[str, Any]] = {
    "darts": {"method": "darts"},
    "dca": {"method": "dca", "bottleneck": 2},
    "pc-darts": {"method": "pc-darts", "partial_channels": 2},
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", SPACES)
def test_first_order_is_the_gradient_on_the_architecture_s_images(tmp_path: Path, name: str, method: str) -> None:
    search = make_search(tmp_path, name, **METHODS[method])
    batch, train = in_float64(search)
    parameters = list(search.cells.parameters())
    loss, right, gradients = search._gradients(batch, train, 0.1, parameters)
    logits = search.network(batch[0], search.cells.weights(), search._derived)
    expected = F.cross_entropy(logits, batch[1])
    assert loss.item() == pytest.approx(expected.item())
    assert right.item() == pytest.approx((logits.argmax(1) == batch[1]).double().mean().item())
    for own, other in zip(gradients, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(own, other)
    assert all(p.grad is None for p in search.network.parameters())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", SPACES)
def test_second_order_is_the_gradient_one_step_of_the_weights_ahead(
    tmp_path: Path, name: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DARTS, equation 7: of the loss on the architecture's images at ``w - rate * gradient``, which depends on the architecture too.

    The finite step of equation 8 crosses the kinks of ReLUs; a smaller one shows that it is that gradient.
    """
    monkeypatch.setattr(search_module, "_FINITE_STEP", 1e-6)
    search = make_search(tmp_path, name, second_order=True, **METHODS[method])
    batch, train = in_float64(search)
    held = {key: tensor.clone() for key, tensor in search.network.named_parameters()}
    parameters, rate = list(search.cells.parameters()), 0.3
    _, _, gradients = search._gradients(batch, train, rate, parameters)
    for key, tensor in search.network.named_parameters():
        assert torch.equal(tensor, held[key])

    own = {key: p for key, p in search.network.named_parameters() if p.requires_grad}

    def loss(weights: dict[str, Tensor], images: tuple[Tensor, Tensor]) -> Tensor:
        logits = functional_call(search.network, weights, (images[0], search.cells.weights(), search._derived))
        return F.cross_entropy(logits, images[1])

    def ahead() -> Tensor:
        """The loss of equation 7 as it is written."""
        steps = torch.autograd.grad(loss(own, train), list(own.values()), create_graph=True, allow_unused=True)
        moved = {k: p if g is None else p - rate * g for (k, p), g in zip(own.items(), steps, strict=True)}
        return loss(moved, batch)

    exact = torch.autograd.grad(ahead(), parameters)
    first = torch.autograd.grad(search._loss(batch)[0], parameters)
    for parameter, gradient, whole, plain in zip(parameters, gradients, exact, first, strict=True):
        assert (gradient - whole).norm() < 1e-6 * whole.norm()
        assert (plain - whole).norm() > 0.1 * whole.norm()
        flat = parameter.data.view(-1)
        for i in (0, flat.numel() // 2, flat.numel() - 1):
            sides = []
            for step in (1e-7, -1e-7):
                flat[i] += step
                sides.append(ahead().item())
                flat[i] -= step
            expected = (sides[0] - sides[1]) / 2e-7
            assert gradient.view(-1)[i].item() == pytest.approx(expected, rel=1e-3, abs=1e-5 * whole.norm().item())


@pytest.mark.parametrize("second_order", [False, True])
def test_a_second_order_is_not_rounded_to_bf16(tmp_path: Path, second_order: bool) -> None:
    """Its two sides differ by less than bf16 tells apart; a first order is computed as the run's precision says."""
    found = []
    for precision in ("32-true", "bf16-mixed"):
        search = make_search(tmp_path, method="darts", second_order=second_order)
        search.fabric = Fabric(accelerator="cpu", devices=1, precision=precision)  # type: ignore[arg-type]
        torch.manual_seed(0)
        batch = search._batch(search._validation, 0)
        parameters = list(search.cells.parameters())
        found.append(search._gradients(batch, search._batch(search._train, 0), 0.1, parameters)[2][0])
    assert torch.equal(*found) == second_order


def test_of_the_limits_the_gradient_is_multiplier_times_share(tmp_path: Path) -> None:
    search = make_search(tmp_path, limits={"params": 0.2, "madds": 0.4}, method="darts", cost_temperature=0.5)
    batch, train = in_float64(search)
    search.multipliers = torch.tensor([0.7, 0.0], dtype=torch.float64)
    choices = search.cells.choices(search.config.cost_temperature)
    costs = [limit.table.expectation(choices).sum() for limit in search.limits]
    lagrangian = search._loss(batch)[0] + 0.7 * (costs[0] / search.bounds[0] - 1)
    (expected,) = torch.autograd.grad(lagrangian, [search.cells.alpha])
    metrics = search._architecture_step(batch, train, 0.1)
    assert search.cells.alpha.grad is not None
    torch.testing.assert_close(search.cells.alpha.grad, expected)
    shares = [cost.item() / bound - 1 for cost, bound in zip(costs, search.bounds, strict=True)]
    rate = 0.1 / (search.config.epochs * search._train.steps_per_epoch)  # over the whole search
    assert search.multipliers.tolist() == pytest.approx(
        [max(0, m + rate * s) for m, s in zip((0.7, 0), shares, strict=True)]
    )
    assert metrics["expected_params"].item() == pytest.approx(costs[0].item())


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_least", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_multiplier_rises_while_its_limit_is_broken_and_never_falls_below_0(
    tmp_path: Path, share: float, at_least: bool
) -> None:
    with RunLog(tmp_path) as log:
        search = make_search(
            tmp_path,
            limits={"params": share},
            at_least=at_least,
            log=log,
            architecture_learning_rate=0.3,
            epochs=6,
            cost_temperature=1.0,
        )
        search.run()
    steps = [line for line in lines(tmp_path) if line["phase"] == "search"]
    assert len(steps) == 18
    before, sign = 0.0, -1 if at_least else 1
    for line in steps:
        broken = sign * (line["expected_params"] / search.bounds[0] - 1)
        assert line["multiplier_params"] == pytest.approx(max(0.0, before + 0.1 / 18 * broken), rel=1e-6, abs=1e-9)
        assert line["multiplier_params"] >= 0
        assert broken <= 0 or line["multiplier_params"] > before
        before = line["multiplier_params"]
    first = sign * (steps[0]["expected_params"] / search.bounds[0] - 1)
    assert (first > 0) == (steps[0]["multiplier_params"] > 0)
    assert search.history[-1]["multipliers"] == {"params": pytest.approx(before)}


@pytest.mark.parametrize(("name", "share", "at_least"), [("darts", 0.15, False), ("nas-bench-201", 0.8, True)])
def test_a_limit_pulls_the_expected_cost_to_its_bound(tmp_path: Path, name: str, share: float, at_least: bool) -> None:
    """Images of noise say nothing of the architecture, so where it goes is the limit's doing: as far as the bound and not to the end."""
    search = make_search(
        tmp_path, name, {"params": share}, at_least=at_least, epochs=40, images=halves(some_images(16)), batch_size=8,
        architecture_learning_rate=0.1, multiplier_rate=20.0, cost_temperature=1.0, log_every=100, checkpoint_seconds=1000.0,
    )  # fmt: skip
    bound, sign = search.bounds[0], search.limits[0].sign
    broken = [sign * (note["expected"]["params"] / bound - 1) for note in run(search).history]
    assert broken[0] > 0.4
    assert max(broken[30:]) < 0
    assert min(broken) > -0.35


def test_costs_are_those_of_the_found_network_and_not_of_the_search_s(tmp_path: Path) -> None:
    search = make_search(tmp_path, limits={"params": 0.5}, target={"channels": 16, "cells": 3}, epochs=1)
    note = search.run().history[0]
    row = search.target.from_dict(note["architecture"])
    assert note["derived"]["params"] == search.target.blueprint(row).params
    low, high = counted_table(search.target, "params").range
    assert low < note["expected"]["params"] < high


@pytest.mark.parametrize("second_order", [False, True])
def test_derived_cells_see_their_images_where_none_is_strongest(tmp_path: Path, second_order: bool) -> None:
    """Without a path from input to output the loss would not depend on the architecture, and the search could not go on."""
    search = make_search(tmp_path, "nas-bench-201", method="dca", bottleneck=1, second_order=second_order, epochs=1)
    with torch.no_grad():
        search.cells.alpha[:, 0] = 2.0
    row = derive(search.target, search.cells.scores())
    assert disconnected(search.target)(row)[0] == 1
    found = run(search)
    row = search.target.from_dict(found.history[0]["architecture"])
    assert disconnected(search.target)(row)[0] == 0


# -- stopping and going on ---------------------------------------------------------------------------------------------


class Stop(Exception):
    """What ends a process."""


@dataclass
class Stopped(CellSearch):
    """Ends at a step: in its middle, when the architecture has moved and the weights have not; or once its checkpoint is written."""

    stop: int = field(default=-1, kw_only=True)
    written: bool = field(default=False, kw_only=True)
    now: int = field(default=0, kw_only=True)

    def _step(self, step: int, rng: np.random.Generator) -> Metrics:
        self.now = step
        if step == self.stop and not self.written and step < self.config.warmup_epochs * self._train.steps_per_epoch:
            raise Stop
        return super()._step(step, rng)

    def _architecture_step(self, batch: tuple[Tensor, Tensor], train: tuple[Tensor, Tensor], rate: float) -> Metrics:
        metrics = super()._architecture_step(batch, train, rate)
        if self.now == self.stop and not self.written:
            raise Stop
        return metrics

    def _save(self, step: int, seconds: float) -> None:
        super()._save(step, seconds)
        if step == self.stop and self.written:
            raise Stop


def run(search: CellSearch) -> Found:
    with search.log:
        return search.run()


def stopped_and_gone_on_with(
    folder: Path, stop: int, written: bool, arguments: dict[str, Any]
) -> tuple[CellSearch, Found]:
    first = make_search(folder, kind=Stopped, **arguments)
    assert isinstance(first, Stopped)
    first.stop, first.written = stop, written
    with pytest.raises(Stop):
        run(first)
    second = make_search(folder, **arguments)
    return second, run(second)


RUNS: dict[str, dict[str, Any]] = {
    "dca": {"name": "darts", "limits": {"params": 0.2, "madds": 0.3}, "bottleneck": 2},
    "pc-darts": {"name": "darts", "method": "pc-darts", "partial_channels": 2, "limits": {"params": 0.2}, "warmup_epochs": 1},
    "second order": {"name": "nas-bench-201", "method": "darts", "second_order": True},
    "nas-bench-201": {"name": "nas-bench-201", "limits": {"params": 0.8}, "at_least": True, "max_skips": 1},
}  # fmt: skip


@pytest.mark.parametrize("which", RUNS)
def test_stopped_anywhere_it_goes_on_bit_for_bit(tmp_path: Path, which: str) -> None:
    arguments = {"images": halves(some_images(16)), "architecture_learning_rate": 0.2, **RUNS[which]}
    whole = make_search(tmp_path / "whole", **arguments)
    expected = run(whole)
    assert whole._train.steps_per_epoch == 2
    done = 2 * len(expected.history)  # a search may have ended before its last epoch
    for stop, written in ((1, False), (2, True), (3, True), (4, True))[:: 1 if which == "nas-bench-201" else 3]:
        if stop + (not written) > done:
            continue
        folder = tmp_path / f"{stop}-{written}"
        search, found = stopped_and_gone_on_with(folder, stop, written, arguments)
        assert np.array_equal(found.scores, expected.scores)
        assert found.history == expected.history
        assert found.ended == expected.ended
        assert torch.equal(search.multipliers, whole.multipliers)
        for key, tensor in state(whole).items():
            assert torch.equal(state(search)[key], tensor), key
        assert lines(folder) == lines(tmp_path / "whole")


def test_a_search_that_has_ended_is_found_again_and_not_run(tmp_path: Path) -> None:
    expected = run(make_search(tmp_path, limits={"params": 0.5}))
    before = (tmp_path / CHECKPOINT).read_bytes()
    found = run(make_search(tmp_path, limits={"params": 0.5}))
    assert (found.scores == expected.scores).all()
    assert found.history == expected.history
    assert found.seconds == pytest.approx(expected.seconds, abs=5)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_another_search_s_checkpoint_is_refused(tmp_path: Path) -> None:
    run(make_search(tmp_path, limits={"params": 0.5}))
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(
        TrainingError, match=r"was made by another search \(not the same bounds\.0\); give another --out, or --fresh"
    ):
        run(make_search(tmp_path, limits={"params": 0.4}))
    with pytest.raises(TrainingError, match=r"not the same config\.second_order\)"):
        run(make_search(tmp_path, limits={"params": 0.5}, second_order=True))
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_in_the_warmup_only_the_weights_learn(tmp_path: Path) -> None:
    search = make_search(tmp_path, warmup_epochs=1, architecture_learning_rate=0.1)
    first = search.cells.alpha.detach().clone()
    weights = {key: tensor.clone() for key, tensor in search.network.named_parameters()}
    found = run(search)
    scores = first.double().log_softmax(1).numpy()
    assert np.array_equal(found.history[0]["scores"], scores)
    assert not np.array_equal(found.history[1]["scores"], scores)
    assert ["val_loss" in line for line in lines(tmp_path)] == [False] * 3 + [True] * 3
    moved = [key for key, tensor in search.network.named_parameters() if not torch.equal(tensor, weights[key])]
    assert any(key.startswith("operations") for key in moved)
    assert any(key.startswith("blocks") for key in moved)


def test_the_learning_rate_falls_by_a_cosine_over_the_whole_search(tmp_path: Path) -> None:
    rates = []

    class Watched(CellSearch):
        def _step(self, step: int, rng: np.random.Generator) -> Metrics:
            metrics = super()._step(step, rng)
            rates.append([group["lr"] for group in self._sgd.param_groups])
            return metrics

    run(make_search(tmp_path, kind=Watched, learning_rate=0.2))
    assert np.array(rates) == pytest.approx(np.repeat(0.1 * (1 + np.cos(np.pi * np.arange(6) / 6))[:, None], 2, axis=1))


# -- how it ends -------------------------------------------------------------------------------------------------------


@dataclass
class Skipping(CellSearch):
    """A search in which, from a step on, nothing is as strong as a skip connection."""

    at: int = 4

    def _architecture_step(self, batch: tuple[Tensor, Tensor], train: tuple[Tensor, Tensor], rate: float) -> Metrics:
        metrics = super()._architecture_step(batch, train, rate)
        self.at -= 1
        if self.at <= 0:
            with torch.no_grad():
                self.cells.alpha[:, [e.index("skip_connect") for e in [self.space.edges[0].operations]]] = 5.0
        return metrics


@pytest.mark.parametrize("at", [1, 4])
@pytest.mark.parametrize("most", [0, 1, 2])
@pytest.mark.parametrize("name", SPACES)
def test_more_skip_connections_end_the_search(tmp_path: Path, name: str, most: int, at: int) -> None:
    """Whatever the epoch before, or the start, derives: what is handed out has no more than are allowed."""
    search = make_search(tmp_path, name, kind=Skipping, max_skips=most, epochs=4)
    assert isinstance(search, Skipping)
    search.at = at
    initial = search.cells.scores()
    found = run(search)
    assert len(found.history) < 4
    assert found.ended == f"epoch {len(found.history)} derives a cell of more than {most} skip connections"
    assert found.history[-1]["skips"] <= most
    last = found.history[-2]["scores"] if len(found.history) > 1 else initial
    assert np.array_equal(found.scores, last)
    row = search.target.from_dict(found.history[-1]["architecture"])
    kind = search.target.edges[0].name.rpartition(".")[0]
    chosen = zip(search.target.edges, search.target.edge_operations(row)[0], strict=True)
    skips = [e.operations[o] == "skip_connect" for e, o in chosen if e.name.rpartition(".")[0] == kind]
    assert sum(skips) == found.history[-1]["skips"]
    again = make_search(tmp_path, name, kind=Skipping, max_skips=most, epochs=4)
    assert run(again).history == found.history


@dataclass
class Poisoned(CellSearch):
    """A search whose weights break at a step."""

    at: int = 2

    def _step(self, step: int, rng: np.random.Generator) -> Metrics:
        if step == self.at:
            with torch.no_grad():
                next(iter(self.network.parameters())).fill_(torch.nan)
        return super()._step(step, rng)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("warmup", [0, 1])
def test_a_loss_that_is_not_finite_leaves_the_last_checkpoint(tmp_path: Path, method: str, warmup: int) -> None:
    search = make_search(tmp_path, kind=Poisoned, warmup_epochs=warmup, **METHODS[method])
    with pytest.raises(TrainingError, match=r"(not|no longer) finite.*the last checkpoint is as it was.*--fresh"):
        run(search)
    tensors, kept = load_checkpoint(tmp_path / CHECKPOINT)
    assert kept["step"] == 2
    assert all(tensor.isfinite().all() for tensor in tensors.values())


# -- selection by perturbation -----------------------------------------------------------------------------------------

VITAL = {"nas-bench-201": [(3, "nor_conv_3x3")], "darts": [(2, "sep_conv_3x3"), (8, "sep_conv_3x3")]}
"""Edges and operations through which all goes: edge03; normal.edge03 and reduce.edge13."""


def one_vital_path(folder: Path, name: str) -> CellSearch:
    """A search whose network tells its images apart, and sees them only through :data:`VITAL`: all other operations give zeros."""
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8)
    labels = torch.arange(24) % CLASSES
    images = colours[labels][:, :, None, None].repeat(1, 1, 8, 8)
    search = make_search(folder, name, images=halves(ImageSet(images, labels)), method="darts", batch_size=12)
    vital = dict(VITAL[name])
    edges = {
        block.replace(".", "_"): e
        for e, each in enumerate(search.space.edges)
        for block in search.space.positions[each.name]
    }
    with torch.no_grad():
        search.cells.alpha.zero_()
        for o, operation in enumerate(search.space.edges[0].operations):
            if "pool" in operation or operation == "skip_connect":
                search.cells.alpha[:, o] = -1e4
        for block, operations in search.network.operations.items():
            assert isinstance(operations, nn.ModuleDict)
            for operation, module in operations.items():
                for parameter in module.parameters():
                    if vital.get(edges[block]) != operation:
                        parameter.zero_().requires_grad_(False)
    trained = [p for p in search.network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.02)
    weights = search.cells.weights().detach()
    for step in range(30):
        x, y = search._batch(search._validation, step)
        loss = F.cross_entropy(search.network(x, weights), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert search._accuracy(weights) == 1.0
    return search


@pytest.mark.parametrize("name", SPACES)
def test_what_ruins_the_network_when_it_is_gone_scores_highest(tmp_path: Path, name: str) -> None:
    search = one_vital_path(tmp_path, name)
    assert [search.space.edges[e].name for e, _ in VITAL[name]] in (["edge03"], ["normal.edge03", "reduce.edge13"])
    scores = search.perturbation_scores()
    cells = derive(search.target, scores)
    chosen = search.target.edge_operations(cells)[0]
    rest = scores.copy()
    for e, operation in VITAL[name]:
        o = search.space.edges[e].operations.index(operation)
        assert search.space.edges[e].operations[chosen[e]] == operation
        assert scores[e].argmax() == o
        others = np.delete(scores[e], o)
        assert (scores[e, o] - others > 0.5).all()  # from all to one in three
        rest[e] = 0
    assert np.abs(rest).max() < 0.2  # of all else nothing is missed


def test_perturbation_leaves_weights_and_architecture_alone(tmp_path: Path) -> None:
    search = make_search(tmp_path, "darts", perturbation_batches=1)
    run(search)
    before = {
        key: tensor.clone() for key, tensor in state(search).items() if "running" not in key and "tracked" not in key
    }
    one, two = search.perturbation_scores(), search.perturbation_scores()
    assert np.array_equal(one, two)
    assert one.shape == (len(search.space.edges), len(search.space.edges[0].operations))
    for key, tensor in before.items():
        assert torch.equal(state(search)[key], tensor)

"""Blocks that split their input and are joined by concatenation: against networks written by hand, and under gates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import onnx
import pytest
import torch
from tiny_spaces import TINY_SPACES
from torch import Tensor, nn
from under_gates import check_gradients, one_hot

from snugnet.costs import counted_table, sample
from snugnet.deploy import onnx_bytes
from snugnet.deploy.sessions import onnx_session
from snugnet.nn.gated import GatedSupernet
from snugnet.nn.gates import Encoding
from snugnet.plots import architecture_figure, shape_of
from snugnet.spaces import Block, Choice, Layer, Part, SearchSpace, get_space
from snugnet.supernets import Supernet
from snugnet.testing import check_space
from snugnet.testing.contract import ContractError

NAME = "spos-shufflenet-v2"
ENCODINGS: list[Encoding] = ["single-path", "multi-path"]


# -- the published units, written by hand ------------------------------------------------------------------------------


def shuffled(x: Tensor) -> tuple[Tensor, Tensor]:
    """ShuffleNet's channel shuffle in two groups, then the split in halves: what passes, and what is worked on."""
    n, c, h, w = x.shape
    pairs = x.reshape(n, c // 2, 2, h, w).transpose(1, 2).reshape(n, c, h, w)
    return pairs[:, : c // 2], pairs[:, c // 2 :]


class ByHand(nn.Module):
    """Conv and batch norm layers in the order of the published code, and how a unit runs them."""

    def __init__(self, arch: dict[str, Any], options: dict[str, Any]) -> None:
        super().__init__()
        self.units = nn.ModuleList()
        self.stem = self.conv(3, options["stem"], 3, options["stem_stride"])
        channels, at = options["stem"], 0
        for count, out, stride in zip(options["blocks"], options["channels"], options["stage_strides"], strict=True):
            for b in range(count):
                before = channels if b == 0 else out // 2
                mid, kind = out // 2 * round(10 * arch["channels"][at]) // 10, arch["blocks"][at]
                self.units.append(self.unit(before, mid, out - before, kind, stride if b == 0 else 1, b == 0))
                channels, at = out, at + 1
        self.last = self.conv(channels, options["last"], 1)
        self.classifier = nn.Linear(options["last"], options["num_classes"], bias=False)

    def conv(self, before: int, after: int, kernel: int, stride: int = 1, relu: bool = True) -> nn.Sequential:
        groups = before if not relu else 1
        conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(after), *([nn.ReLU()] if relu else []))

    def unit(self, before: int, mid: int, after: int, kind: int, stride: int, first: bool) -> nn.ModuleDict:
        kernel = (3, 5, 7, 3)[kind]
        if kind == 3:
            main = [
                self.conv(before, before, 3, stride, relu=False), self.conv(before, mid, 1),
                self.conv(mid, mid, 3, relu=False), self.conv(mid, mid, 1),
                self.conv(mid, mid, 3, relu=False), self.conv(mid, after, 1),
            ]  # fmt: skip
        else:
            main = [
                self.conv(before, mid, 1), self.conv(mid, mid, kernel, stride, relu=False), self.conv(mid, after, 1)
            ]  # fmt: skip
        around = [self.conv(before, before, kernel, stride, relu=False), self.conv(before, before, 1)] if first else []
        return nn.ModuleDict({"main": nn.Sequential(*main), "around": nn.Sequential(*around)})

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for unit in self.units:
            assert isinstance(unit, nn.ModuleDict)
            passed, used = (x, x) if len(unit["around"]) else shuffled(x)
            x = torch.cat([unit["around"](passed), unit["main"](used)], 1)
        return self.classifier(self.last(x).mean((2, 3)))


@pytest.fixture(scope="module")
def supernet(randomise: Callable[[nn.Module, int], None]) -> Supernet:
    supernet = Supernet(get_space(NAME, **TINY_SPACES[NAME]), seed=1).double()
    randomise(supernet, 2)
    return supernet


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def images(n: int, size: int = 9) -> Tensor:
    return torch.randn(n, 3, size, size, dtype=torch.float64)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_a_sub_network_is_the_one_written_by_hand(supernet: Supernet, seed: int, training: bool) -> None:
    space = supernet.space
    row = space.sample(1, np.random.default_rng(seed))
    network = supernet.train(training).extract(row)
    hand = ByHand(space.to_dict(row), space.options).double().train(training)
    ours, theirs = network.state_dict(), hand.state_dict()
    # both list a unit's main branch, then its other one, each first layer to last
    order = [key for key in ours if "classifier" not in key and not key.startswith("head")]
    order += [key for key in ours if key.startswith("head")]
    names = [key for key in theirs if not key.startswith(("last", "classifier", "stem"))]
    names = [
        *(k for k in theirs if k.startswith("stem")),
        *names,
        *(k for k in theirs if k.startswith(("last", "class"))),
    ]
    assert [ours[a].shape for a in order] == [theirs[b].shape for b in names]
    hand.load_state_dict({b: ours[a] for a, b in zip(order, names, strict=True)})
    x = images(5)
    expected = hand(x)
    torch.testing.assert_close(network(x), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(supernet(x, row), expected, rtol=1e-9, atol=1e-9)
    classes = [3, 1]
    torch.testing.assert_close(supernet.eval()(x, row, classes), supernet(x, row)[:, classes], rtol=1e-9, atol=1e-9)
    cut = supernet.extract(row, classes)
    torch.testing.assert_close(cut(x), supernet(x, row)[:, classes], rtol=1e-9, atol=1e-9)
    assert sum(p.numel() for p in cut.parameters()) == cut.blueprint.params


def test_gradients_are_on_the_path_alone(supernet: Supernet) -> None:
    row = supernet.space.sample(1, np.random.default_rng(3))
    supernet.train().zero_grad(set_to_none=True)
    supernet(images(4), row).square().sum().backward()
    own = {f"network.{name}" for name, _ in supernet.extract(row).named_parameters()}
    assert {name for name, p in supernet.named_parameters() if p.grad is not None} == own
    for block in supernet.space.blueprint(row).blocks:
        for layer in block.all_layers:
            if layer.op == "conv":
                gradient = supernet.module_of(block).layer_modules()[layer.name].conv.weight.grad
                inside = gradient[: layer.out_channels, : layer.in_channels // layer.groups]
                assert gradient.count_nonzero() == inside.count_nonzero() > 0
    supernet.zero_grad(set_to_none=True)


def test_onnx_runtime_gives_torchs_logits(supernet: Supernet) -> None:
    for row in supernet.space.sample(6, np.random.default_rng(1)):
        network = supernet.eval().extract(row).float()
        content = onnx_bytes(network, {})
        x = images(3).float()
        (got,) = onnx_session(content).run(["logits"], {"image": x.numpy()})
        expected = network(x).detach().numpy()
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
        model = onnx.load_from_string(content)
        ops = [node.op_type for node in model.graph.node]
        splits = sum(block.split for block in network.blueprint.blocks)
        assert ops.count("Split") == ops.count("Transpose") == splits == 1
        assert ops.count("Concat") == 5
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        for value in inferred.graph.value_info:  # nothing has more axes than a picture, and only the batch is open
            shape = value.type.tensor_type.shape.dim
            assert len(shape) <= 4
            assert all(axis.dim_value > 0 for axis in shape[1:])


def test_a_limit_is_drawn_under_exactly() -> None:
    space = get_space(NAME, **{**TINY_SPACES[NAME], "channel_scales": (0.6, 1.0), "block_choices": (0, 2)})
    every = np.indices(space.num_options.tolist()).reshape(space.d, -1).T.astype(np.int16)
    table = counted_table(space, "madds")
    limit = float(np.quantile(table(every), 0.3))
    fits = every[table(every) <= limit]
    drawn = np.unique(sample(table, 40 * len(fits), np.random.default_rng(0), limit), axis=0)
    assert np.array_equal(drawn, np.unique(fits, axis=0))


# -- splits and concatenations of elastic widths -----------------------------------------------------------------------


class Woven(SearchSpace):
    """Every join beside every other: a width that is split, concatenations whose parts are elastic, a block that is skipped."""

    name = "woven"

    @classmethod
    def create(cls, /, **options: Any) -> Self:
        classes = options.get("num_classes", 3)
        choices = (
            Choice("stem.width", (4, 6, 8), "width", (0, 0)),
            Choice("fork.block", ("dense", "halves", "skip"), "block", (1, 1)),
            Choice("fork.width", (3, 5), "width", (1,), "fork.block", (True, False, False)),
            Choice("fork.around", (2, 4), "width", (1,), "fork.block", (True, False, False)),
            Choice("sum.kernel", (3, 5), "kernel", (2,)),
        )
        parts = (
            Part("stem", (0,), stem),
            Part("fork", (0, 1, 2, 3), fork),
            Part("sum", (0, 1, 2, 3, 4), halves_added),
            Part("head", (0, 1, 2, 3), lambda *chosen: head(classes, *chosen)),
        )
        return cls(dict(options), choices, parts, 3, options.get("resolution", 6))


def conv(name: str, before: int, after: int, kernel: int = 1, groups: int = 1) -> Layer:
    return Layer(name, "conv", before, after, 6, kernel, groups=groups, norm=True, activation="h_swish")


def stem(width: int) -> tuple[Block, ...]:
    return (Block("stem", (conv("conv", 3, width, 3),)),)


def fork(width: int, kind: str, out: int, around: int) -> tuple[Block, ...]:
    """The input goes on and something is put behind it; or it is split, and the halves swap places; or nothing."""
    if kind == "dense":
        beside = (conv("beside", width, around),)
        return (Block("fork", (conv("conv", width, out, 3),), beside, kind, "concat"),)
    if kind == "halves":
        half = width // 2
        return (Block("fork", (conv("conv", half, half, 3, half),), (), kind, "concat", True),)
    return ()


def width_behind(width: int, kind: str, out: int, around: int) -> int:
    return out + around if kind == "dense" else width


def halves_added(width: int, kind: str, out: int, around: int, kernel: int) -> tuple[Block, ...]:
    """Behind an odd width the identity; of an even one the odd channels are convolved and added to the even ones."""
    before = width_behind(width, kind, out, around)
    if before % 2:
        return (Block("sum", (conv("conv", before, before, kernel, before),), ()),)
    half = before // 2
    return (Block("sum", (conv("conv", half, half, kernel, half),), (), "halves", "add", True),)


def head(classes: int, width: int, kind: str, out: int, around: int) -> tuple[Block, ...]:
    before = width_behind(width, kind, out, around)
    before = before if before % 2 else before // 2
    layers = (
        Layer("pool", "pool", before, before, 6),
        Layer("flatten", "flatten", before, before, 1),
        Layer("classifier", "linear", before, classes, 1, bias=True),
    )
    return (Block("head", layers),)


WOVEN = Woven.create()
ROWS = np.unique(
    WOVEN.canonical(np.indices(WOVEN.num_options.tolist()).reshape(WOVEN.d, -1).T.astype(np.int16)), axis=0
)


def test_the_laws_hold() -> None:
    check_space(WOVEN)


@pytest.fixture(scope="module")
def woven(randomise: Callable[[nn.Module, int], None]) -> Supernet:
    supernet = Supernet(WOVEN, seed=1).double().requires_grad_(False)
    randomise(supernet, 2)
    return supernet


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_hard_gates_give_each_sub_network(woven: Supernet, encoding: Encoding) -> None:
    woven.train()
    x = images(4 * len(ROWS), 6).unflatten(0, (4, len(ROWS)))
    out = GatedSupernet(WOVEN, woven.network)(x, one_hot(WOVEN, ROWS), encoding)
    state = {name: tensor.clone() for name, tensor in woven.state_dict().items()}
    for p, row in enumerate(ROWS):
        torch.testing.assert_close(out[:, p], woven(x[:, p], row), rtol=1e-10, atol=1e-10)
    woven.load_state_dict(state)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("hard", [False, True])
def test_gradients_against_finite_differences(woven: Supernet, encoding: Encoding, hard: bool) -> None:
    rows = WOVEN.sample(3, np.random.default_rng(3)) if hard else None
    check_gradients(GatedSupernet(WOVEN, woven.network), images(12, 6).unflatten(0, (4, 3)), encoding, rows)


def test_branches_say_what_is_read_and_where_it_is_written() -> None:
    (dense,), (halves,) = fork(6, "dense", 5, 4), fork(6, "halves", 0, 0)
    assert [branch[1:] for branch in dense.branches] == [(0, 1, 4, 5), (0, 1, 0, 4)]
    assert [branch[1:] for branch in halves.branches] == [(1, 2, 3, 3), (0, 2, 0, 3)]
    assert (dense.in_channels, dense.out_channels, halves.in_channels, halves.out_channels) == (6, 9, 6, 6)
    text = str(WOVEN.blueprint(WOVEN.from_choices({"stem.width": 8, "fork.block": "halves", "sum.kernel": 3})))
    assert "fork.halves (beside half of the input)" in text
    assert "sum.halves (+ half of the input)" in text


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (Block("fork", (conv("conv", 4, 4),), None, "", "concat"), "between the layers and a shortcut"),
        (Block("fork", (conv("conv", 4, 4),), (), "", "add", True), "takes what comes before it, 2 channels"),
        (Block("fork", (conv("conv", 4, 5),), ()), "equally many channels"),
        (Block("fork", (conv("conv", 4, 4), conv("next", 3, 4))), "takes what conv gives, 4 channels"),
        (Block("fork", (conv("conv", 4, 4),), (Layer("half", "avg_pool", 4, 4, 6, 2, 2),)), "one resolution"),
    ],
)
def test_blocks_that_do_not_fit_are_found(block: Block, words: str) -> None:
    choices = (Choice("stem.width", (2, 4), "width", (0,)),)

    def tail(width: int) -> tuple[Block, ...]:
        return head(3, 4, "skip", 0, 0)

    class Broken(Woven):
        @classmethod
        def create(cls, /, **options: Any) -> Self:
            parts = (Part("stem", (), lambda: stem(4)), Part("fork", (), lambda: (block,)), Part("head", (0,), tail))
            return cls(dict(options), choices, parts, 3, 6)

    with pytest.raises(ContractError, match=words):
        check_space(Broken.create(), networks=False)


def test_pictures() -> None:
    space = get_space(NAME, channel_scales=[0.6, 1.0])
    kinds = space.from_dict({"blocks": [0, 1, 2, 3] * 5, "channels": [0.6, 0.6, 0.6, 0.6, 1.0] * 4})
    shapes = [shape_of(block) for block in space.blueprint(kinds).blocks[1:5]]
    assert shapes == [(3, 19 / 16), (5, 19 / 32), (7, 19 / 32), (3, 19 / 32)]
    assert architecture_figure(space, {"one": kinds}, "units").startswith(b"\x89PNG")

"""Blocks that read each other: against a network written by hand, under gates, as ONNX, and what is held in memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from under_gates import check_gradients

from snugnet.deploy import onnx_bytes
from snugnet.errors import SpaceError
from snugnet.nn import build
from snugnet.nn.gated import GatedSupernet
from snugnet.nn.gates import Encoding
from snugnet.plots import architecture_figure
from snugnet.spaces import Block, Blueprint, Choice, Layer, Part, SearchSpace
from snugnet.spaces.effects import effects
from snugnet.spaces.graph import IMAGE, flow, in_order, steps
from snugnet.supernets import Supernet
from snugnet.testing import check_space
from snugnet.testing.contract import ContractError

ENCODINGS: list[Encoding] = ["single-path", "multi-path"]


class Wired(SearchSpace):
    """Every kind of layer in a graph: edges of four alternatives, sums and a concatenation, elastic widths and kernels."""

    name = "wired"

    @classmethod
    def create(cls, /, **options: Any) -> Self:
        edges = ("zero", "pool", "halves", "dilated")
        choices = (
            Choice("left", edges, "operation", (0, 0, 0)),
            Choice("right", edges, "operation", (1, 1, 1)),
            Choice("kernel", (1, 3, 5), "kernel", (2, 2)),
            Choice("width", (2, 3, 5), "width", (2, 2)),
            Choice("beside", ("zero", "same"), "operation", (3,)),
        )
        size = options.get("resolution", 7)
        half = -(-size // 2)
        parts = (
            Part("stem", (), lambda: (Block("stem", (conv("conv", 3, 4, size, 3),)),)),
            Part("left", (0,), lambda kind: (edge("left", kind, size),)),
            Part("right", (1,), lambda kind: (edge("right", kind, size),)),
            Part("sum", (2,), lambda kernel: (total(kernel, half),)),
            Part("beside", (4,), lambda kind: (beside(kind, half),)),
            Part("wide", (3,), lambda width: (Block("wide", (conv("conv", 4, width, half),), reads=("sum",)),)),
            Part("tall", (3,), lambda width: (Block("tall", (conv("conv", 4, width, half, 3),), reads=("left",)),)),
            Part("both", (3,), lambda width: (both(width, half),)),
            Part("head", (3,), lambda width: head(width, half, options.get("num_classes", 3))),
        )
        return cls(dict(options), choices, parts, 3, size)


def conv(name: str, before: int, after: int, size: int, kernel: int = 1, **more: Any) -> Layer:
    return Layer(name, "conv", before, after, size, kernel, norm=True, activation="h_swish", **more)


def edge(name: str, kind: str, size: int) -> Block:
    """Half the size, by what the operation says."""
    around: tuple[Layer, ...] | None = None
    if kind == "zero":
        layers: tuple[Layer, ...] = (Layer("zero", "zero", 4, 4, size, stride=2),)
    elif kind == "pool":
        op = "avg_pool" if name == "left" else "max_pool"
        layers = (Layer("pool", op, 4, 4, size, 3, 2), Layer("norm", "norm", 4, 4, -(-size // 2), activation="relu"))
    elif kind == "halves":
        layers = (Layer("shift", "shift", 4, 4, size), conv("second", 4, 2, size, stride=2))
        around = (conv("first", 4, 2, size, stride=2),)
    else:
        layers = (conv("dilated", 4, 4, size, 3, stride=2, dilation=2),)
    return Block(name, layers, around, kind, "concat" if kind == "halves" else "add", reads=("stem",))


def total(kernel: int, size: int) -> Block:
    depthwise = conv("depthwise", 4, 4, size, kernel, groups=4, dilation=2)
    return Block("sum", (depthwise, Layer("norm", "norm", 4, 4, size)), (), reads=("left", "right"))


def beside(kind: str, size: int) -> Block:
    return Block("beside", (Layer("layer", "zero" if kind == "zero" else "identity", 4, 4, size),), None, kind)


def both(width: int, size: int) -> Block:
    """Sums of an elastic width, behind what has a fixed one."""
    own = Layer("norm", "norm", width, width, size, activation="relu")
    return Block("both", (own,), reads=("wide", "tall"))


def head(width: int, size: int, classes: int) -> tuple[Block, ...]:
    layers = (
        conv("expand", 4 + width, 6, size),
        Layer("pool", "pool", 6, 6, size),
        Layer("flatten", "flatten", 6, 6, 1),
        Layer("classifier", "linear", 6, classes, 1, bias=True),
    )
    return (Block("head", layers, reads=("beside", "both"), gather="concat"),)


SPACE = Wired.create()
ROWS = SPACE.rows(
    [SPACE.from_choices({"left": a, "right": b, "kernel": k, "width": w, "beside": c})[0] for a, b, k, w, c in [
        ("dilated", "halves", 3, 3, "same"),
        ("zero", "pool", 5, 5, "same"),
        ("pool", "zero", 1, 2, "zero"),
        ("zero", "zero", 3, 2, "same"),
        ("halves", "dilated", 5, 3, "zero"),
    ]]
)  # fmt: skip


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def supernet(randomise: Callable[[nn.Module, int], None]) -> Supernet:
    made = Supernet(SPACE, seed=1).double()
    randomise(made, 2)
    return made


def images(n: int) -> Tensor:
    return torch.randn(n, 3, 7, 7, dtype=torch.float64)


def test_the_laws_hold() -> None:
    check_space(SPACE)
    check_space(SPACE.with_options(resolution=8), networks=False)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row.tolist()))
def test_a_sub_network_is_the_one_written_by_hand(supernet: Supernet, row: np.ndarray, training: bool) -> None:
    network = supernet.train(training).extract(row)
    named = {module.block.name: module for module in network.block_modules().values()}
    x = images(4)
    stem = named["stem"](x)
    left, right = named["left"](stem), named["right"](stem)
    summed = named["sum"](left + right)
    both = named["both"](named["wide"](summed) + named["tall"](left))
    expected = named["head"](torch.cat((named["beside"](summed), both), 1))
    torch.testing.assert_close(network(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(supernet(x, row), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("hard", [False, True])
def test_gradients_against_finite_differences(supernet: Supernet, encoding: Encoding, hard: bool) -> None:
    supernet.eval().requires_grad_(False)
    gated, x = GatedSupernet(SPACE, supernet.network), images(12).unflatten(0, (4, 3))
    check_gradients(gated, x, encoding, ROWS[:3] if hard else None)
    supernet.requires_grad_(True)


def test_zeros_are_neither_added_nor_run_and_what_they_cut_off_neither() -> None:
    def ran(row: int) -> dict[str, tuple[str, ...]]:
        return {step.node.name: step.sources for step in steps(SPACE.blueprint(ROWS[row]))}

    assert ran(0)["sum"] == ("left", "right")
    assert ran(0)["beside"] == ("sum",)
    assert "left" in ran(1)  # another block reads it, so somebody needs its zeros
    assert ran(1)["left"] == (IMAGE,)
    assert ran(1)["sum"] == ("right",)
    assert "right" not in ran(2)
    assert ran(2)["beside"] == (IMAGE,)
    assert ran(3)["sum"] == ("left",)
    assert "stem" not in ran(3)
    names = [block.name for block in SPACE.blueprint(ROWS[3]).blocks]
    assert names == [step.node.name for step in in_order(SPACE.blueprint(ROWS[3]).blocks)]


def test_onnx_has_no_zeros_that_are_added(supernet: Supernet) -> None:
    for row, zeros in zip(ROWS, (0, 1, 1, 1, 1), strict=True):
        model = onnx.load_from_string(onnx_bytes(supernet.eval().extract(row).float(), {}))
        assert sum(each.name.endswith(".zeros") for each in model.graph.initializer) == zeros
        onnx.shape_inference.infer_shapes(model, strict_mode=True)


# -- the order of things -----------------------------------------------------------------------------------------------


def chain(length: int) -> Blueprint:
    blocks = [Block(f"block{i}", (conv("conv", 3, 3, 4, 3),)) for i in range(length)]
    layers = (
        Layer("pool", "pool", 3, 3, 4),
        Layer("flatten", "flatten", 3, 3, 1),
        Layer("classifier", "linear", 3, 2, 1),
    )
    return Blueprint((*blocks, Block("head", layers)), 3, 4)


def most_alive(blueprint: Blueprint) -> int:
    """The most outputs of blocks that are alive while a block runs."""
    network, alive, counts = build(blueprint), weakref.WeakSet[Tensor](), list[int]()
    for module in network.children():
        module.register_forward_pre_hook(lambda *_: counts.append(len(alive)))
        module.register_forward_hook(lambda module, args, out: alive.add(out))
    with torch.no_grad():
        network(torch.randn(1, 3, 4, 4))
    return max(counts)


def test_an_output_is_held_until_it_is_read_for_the_last_time() -> None:
    in_a_row = chain(6)
    assert most_alive(in_a_row) == 1
    later = replace(in_a_row.blocks[4], reads=("block3", "block0"))
    assert most_alive(replace(in_a_row, blocks=(*in_a_row.blocks[:4], later, *in_a_row.blocks[5:]))) == 2
    done = [step.done for step in in_order((*in_a_row.blocks[:4], later))]
    assert done == [(IMAGE,), (), ("block1",), ("block2",), ("block0", "block3")]


def test_what_flows_can_be_anything() -> None:
    blocks = (*chain(3).blocks[:3], replace(chain(4).blocks[3], reads=("block0", "block2", "block0")))
    text = flow(in_order(blocks), "x", lambda outputs, _: "+".join(outputs), lambda block, x: f"{block.name}({x})")
    assert text == "block3(block0(x)+block2(block1(block0(x)))+block0(x))"


# -- what is refused ---------------------------------------------------------------------------------------------------


class Broken(Wired):
    """With blocks in the place of others."""

    changes: Callable[[Block, Any], tuple[Block, ...]]

    @classmethod
    def create(cls, /, **options: Any) -> Self:
        made = super().create(**options)

        def changed(build: Callable[..., tuple[Block, ...]]) -> Callable[..., tuple[Block, ...]]:
            return lambda *chosen: tuple(new for block in build(*chosen) for new in cls.changes(block, chosen))

        made.parts = tuple(replace(part, build=changed(part.build)) for part in made.parts)
        return made


def reading(name: str, *reads: str, **more: Any) -> Callable[[Block, Any], tuple[Block, ...]]:
    return lambda block, _: (replace(block, reads=reads, **more) if block.name == name else block,)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (reading("sum", "left", "middle"), "no such block before it"),
        (reading("sum", "left", "both"), "no such block before it"),
        (reading("sum", "left", "stem"), "is of one resolution"),
        (reading("both", "wide", "sum"), "equally many channels"),
        (reading("head", "both", "beside", gather="concat"), "both, whose width is elastic"),
        (
            lambda b, chosen: (replace(b, reads=("left",)) if b.name == "sum" and chosen == (1,) else b,),
            "another under some options",
        ),
        (
            lambda b, chosen: () if b.name == "beside" and chosen == ("zero",) else (b,),
            "no such block before it",
        ),
        (
            lambda b, chosen: () if b.name == "sum" and chosen == (1,) else (replace(b, reads=()),) if b.name == "wide" else (b,),
            "sum is skipped under some options, but stands in a graph",
        ),
        (
            lambda b, _: (replace(b, layers=(replace(b.layers[0], out_channels=5), *b.layers[1:])),) if b.name == "beside" else (b,),
            "gives as many channels as it takes",
        ),
    ],
)  # fmt: skip
def test_graphs_that_do_not_fit_are_refused(
    changes: Callable[[Block, Any], tuple[Block, ...]], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Broken, "changes", staticmethod(changes), raising=False)
    with pytest.raises(ContractError, match=words):
        check_space(Broken.create(), networks=False)


def test_effects_refuse_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Broken, "changes", staticmethod(reading("tall", "low")), raising=False)
    with pytest.raises(SpaceError, match="tall reads 'low', and there is no such block before it"):
        effects(Broken.create())


# -- for people --------------------------------------------------------------------------------------------------------


def test_a_printed_blueprint_says_what_is_read() -> None:
    text = str(SPACE.blueprint(ROWS[0]))
    assert "sum <- left + right (+ input)\n" in text
    assert "head <- beside | both\n" in text
    assert "left.dilated <- stem\n" in text
    assert "3x3 /2 dil 2" in text


def test_pictures() -> None:
    assert architecture_figure(SPACE, {"one": ROWS[0], "two": ROWS[1]}, "graphs").startswith(b"\x89PNG")

"""The space of DARTS: published counts, genotypes, options, the network by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_spaces import TINY_SPACES
from torch import Tensor, nn

from snugnet.costs import counted_table
from snugnet.errors import SpaceError
from snugnet.plots import architecture_figure, cells_of
from snugnet.spaces import get_space
from snugnet.spaces.darts import DARTS, OPERATIONS, _operation
from snugnet.spaces.graph import steps
from snugnet.supernets import Supernet
from snugnet.testing import check_space

NAME = "darts"
SPACE = DARTS.create()
CONCAT = [2, 3, 4, 5]
V2: dict[str, Any] = {
    "normal": [["sep_conv_3x3", 0], ["sep_conv_3x3", 1], ["sep_conv_3x3", 0], ["sep_conv_3x3", 1],
               ["sep_conv_3x3", 1], ["skip_connect", 0], ["skip_connect", 0], ["dil_conv_3x3", 2]],
    "normal_concat": CONCAT,
    "reduce": [["max_pool_3x3", 0], ["max_pool_3x3", 1], ["skip_connect", 2], ["max_pool_3x3", 1],
               ["max_pool_3x3", 0], ["skip_connect", 2], ["skip_connect", 2], ["max_pool_3x3", 1]],
    "reduce_concat": CONCAT,
}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "params", "madds"),
    [
        ({}, 3_349_342, 528_359_040),
        ({"stem": "imagenet", "channels": 48, "cells": 14}, 4_718_752, 529_911_552),
    ],
)
def test_published_counts(options: dict[str, Any], params: int, madds: int) -> None:
    space = get_space(NAME, **options)
    row = space.from_dict(V2)
    blueprint = space.blueprint(row)
    assert (blueprint.params, blueprint.madds) == (params, madds)
    tables = [counted_table(space, count) for count in ("params", "madds")]
    assert [table(row).item() for table in tables] == [params, madds]


def test_the_order_in_which_a_node_s_two_are_written_does_not_matter() -> None:
    form = SPACE.to_dict(SPACE.from_dict(V2))
    assert form["normal"][:4] == V2["normal"][:4]
    assert form["reduce"][2:4] == [["max_pool_3x3", 1], ["skip_connect", 2]]
    assert json.loads(json.dumps(form)) == form
    assert np.array_equal(SPACE.from_dict(form), SPACE.from_dict(V2))
    assert SPACE.to_dict(SPACE.from_dict(form)) == form


def test_every_row_is_another_pair_of_cells() -> None:
    assert SPACE.size == (1 * 3 * 6 * 10 * 49**4) ** 2
    small = get_space(NAME, **{**TINY_SPACES[NAME], "operations": ["skip_connect", "sep_conv_5x5"]})
    every = np.indices(small.num_options.tolist()).reshape(small.d, -1).T.astype(np.int16)[::37]
    every = np.unique(small.canonical(every), axis=0)
    assert len({json.dumps(small.to_dict(row)) for row in every}) == len(every)


def changed(key: str, value: Any, at: int | None = None) -> dict[str, Any]:
    if at is not None:
        value = [*V2[key][:at], value, *V2[key][at + 1 :]]
    return {**V2, key: value}


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (changed("normal", ["none", 0], 0), "normal: node 2 has 'none'; allowed: skip_connect, max_pool_3x3"),
        (changed("reduce", ["sep_conv_7x7", 1], 3), "reduce: node 3 has 'sep_conv_7x7'"),
        (changed("normal", ["skip_connect", 2], 0), "normal: node 2 takes nodes 0 to 1, got 2"),
        (changed("normal", ["skip_connect", -1], 7), "node 5 takes nodes 0 to 4, got -1"),
        (changed("normal", ["skip_connect", True], 7), "node 5 takes nodes 0 to 4, got True"),
        (changed("normal", ["skip_connect", 0], 7), "normal: node 5 takes node 0 twice"),
        (changed("normal", "skip_connect", 7), "an edge of node 5 is a list"),
        (changed("normal", ["skip_connect"], 7), "an edge of node 5 has 2 entries"),
        (changed("reduce", V2["reduce"][:6]), "reduce has 8 entries, got 6"),
        (changed("normal_concat", []), r"normal_concat is [2, 3, 4, 5], all nodes of a cell, got []"),
        (changed("reduce_concat", [3, 4, 5, 6]), "reduce_concat is"),
        ({"normal": V2["normal"], "normal_concat": CONCAT}, "lacks 'reduce'"),
        ({**V2, "resolution": 16}, "resolution 16, this space 32"),
    ],
)
def test_genotypes_of_another_space_are_refused(form: dict[str, Any], words: str) -> None:
    with pytest.raises(SpaceError) as caught:
        SPACE.from_dict(form)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cells": 2}, "cells are at least 3"),
        ({"channels": 1}, "channels at least 2"),
        ({"nodes": 0}, "nodes is a whole number"),
        ({"stem": "mnist"}, "stem is one of cifar, imagenet, got 'mnist'"),
        ({"operations": []}, "operations are some of skip_connect"),
        ({"operations": ["none", "skip_connect"]}, "operations are some of"),
        ({"operations": ["sep_conv_3x3", "skip_connect"]}, "in that order"),
        ({"width": 3}, "unknown option 'width'"),
    ],
)
def test_options_that_make_no_network_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        get_space(NAME, **options)


def test_the_automaton_remembers_the_inputs_alone() -> None:
    """What an edge costs is a function of its node's inputs and of its own operation."""
    steps = counted_table(SPACE, "madds").automaton().steps
    assert max(step.sources for step in steps) == 10
    assert max(len(step.rows) for step in steps) <= 10 * 7


def test_an_operation_matters_where_its_edge_is_one_of_the_two() -> None:
    rows = SPACE.sample(50, np.random.default_rng(0))
    operations = SPACE.edge_operations(rows)
    for row, chosen in zip(rows, operations, strict=True):
        form = SPACE.to_dict(row)
        written = {
            f"{kind}.edge{source}{2 + i // 2}": operation
            for kind in ("normal", "reduce")
            for i, (operation, source) in enumerate(form[kind])
        }
        named = {edge.name: edge.operations[o] for edge, o in zip(SPACE.edges, chosen, strict=True)}
        assert {name: o for name, o in named.items() if o != "none"} == written
    assert [len(blocks) for blocks in SPACE.positions.values()] == [18] * 14 + [2] * 14


def test_pictures_show_each_cell_once() -> None:
    row = SPACE.from_dict(V2)
    cells = cells_of(SPACE.blueprint(row))
    assert list(cells) == ["cell1", "cell7"]
    assert [len(cell) for cell in cells.values()] == [2 + 8 + 4 + 1] * 2
    assert architecture_figure(SPACE, {"DARTS V2": row}, "cells").startswith(b"\x89PNG")


def test_edges_that_are_not_there_are_not_run() -> None:
    blueprint = SPACE.blueprint(SPACE.from_dict(V2))
    ran = [step.node for step in steps(blueprint)]
    assert not any(block.zero for block in ran)
    assert sum(".edge" in block.name for block in ran) == 20 * 8
    assert sum(".edge" in block.name for block in blueprint.blocks) == 20 * 14


@pytest.mark.parametrize(
    "changes",
    [
        {"resolution": 16, "stem": "imagenet", "nodes": 1, "operations": ["skip_connect", "max_pool_3x3"]},
        {"resolution": None, "resolutions": [5, 8], "nodes": 3, "operations": ["dil_conv_3x3"]},
    ],
)
def test_the_laws_hold_for_other_options(changes: dict[str, Any]) -> None:
    check_space(get_space(NAME, **{**TINY_SPACES[NAME], **changes}))


# -- the published network, written by hand ----------------------------------------------------------------------------


def conv_bn(before: int, after: int, kernel: int, stride: int, padding: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, kernel, stride, padding, bias=False), nn.BatchNorm2d(after)]


def separable(channels: int, kernel: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel - 1) // 2
    depthwise = nn.Conv2d(channels, channels, kernel, stride, padding, dilation, channels, bias=False)
    return [nn.ReLU(), depthwise, *conv_bn(channels, channels, 1, 1, 0)]


class FactorizedReduce(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(before, after // 2, 1, 2, bias=False)
        self.conv_2 = nn.Conv2d(before, after // 2, 1, 2, bias=False)
        self.bn = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        return self.bn(torch.cat([self.conv_1(x), self.conv_2(x[:, :, 1:, 1:])], 1))


def operation(name: str, channels: int, stride: int) -> nn.Module:
    kernel = int(name[-1]) if name[-1].isdigit() else 0
    match name[:3]:
        case "max":
            return nn.MaxPool2d(3, stride, 1)
        case "avg":
            return nn.AvgPool2d(3, stride, 1, count_include_pad=False)
        case "sep":
            return nn.Sequential(*separable(channels, kernel, stride), *separable(channels, kernel, 1))
        case "dil":
            return nn.Sequential(*separable(channels, kernel, stride, 2))
        case _:
            return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)


class Cell(nn.Module):
    def __init__(self, edges: list[Any], befores: tuple[int, int], channels: int, stride: int, halved: bool) -> None:
        super().__init__()
        relu = [nn.ReLU(), *conv_bn(befores[0], channels, 1, 1, 0)]
        self.input0 = FactorizedReduce(befores[0], channels) if halved else nn.Sequential(*relu)
        self.input1 = nn.Sequential(nn.ReLU(), *conv_bn(befores[1], channels, 1, 1, 0))
        self.edges = edges
        self.ops = nn.ModuleList(operation(name, channels, stride if i < 2 else 1) for name, i in edges)

    def forward(self, x0: Tensor, x1: Tensor) -> Tensor:
        nodes = [self.input0(x0), self.input1(x1)]
        for i in range(0, len(self.ops), 2):
            first, second = (
                op(nodes[edge[1]]) for op, edge in zip(self.ops[i : i + 2], self.edges[i : i + 2], strict=True)
            )
            nodes.append(first + second)
        return torch.cat(nodes[2:], 1)


class ByHand(nn.Module):
    def __init__(self, form: dict[str, Any], channels: int, cells: int, classes: int, imagenet: bool) -> None:
        super().__init__()
        nodes, c = len(form["normal_concat"]), channels
        if imagenet:
            self.stem0 = nn.Sequential(*conv_bn(3, c // 2, 3, 2, 1), nn.ReLU(), *conv_bn(c // 2, c, 3, 2, 1))
            self.stem1 = nn.Sequential(nn.ReLU(), *conv_bn(c, c, 3, 2, 1))
        else:
            self.stem0, self.stem1 = nn.Sequential(*conv_bn(3, 3 * c, 3, 1, 1)), nn.Sequential()
        befores, halved = ((c, c) if imagenet else (3 * c, 3 * c)), imagenet
        self.cells = nn.ModuleList()
        for i in range(cells):
            reduces = i in (cells // 3, 2 * cells // 3)
            c *= 1 + reduces
            self.cells.append(Cell(form["reduce" if reduces else "normal"], befores, c, 1 + reduces, halved))
            befores, halved = (befores[1], nodes * c), reduces
        self.classifier = nn.Linear(befores[1], classes)

    def forward(self, x: Tensor) -> Tensor:
        x0 = self.stem0(x)
        x1 = self.stem1(x0)
        for cell in self.cells:
            x0, x1 = x1, cell(x0, x1)
        return self.classifier(x1.mean((2, 3)))


def halves_swapped(blueprint: Any, state: dict[str, Tensor]) -> list[Tensor]:
    """The tensors in the order of the published modules: of a factorized reduction both convolutions, then the batch norm."""
    tensors: list[Tensor] = []
    for block in blueprint.blocks:
        prefix = block.key.replace(".", "_") + "."
        if block.join == "concat":
            first, second = (
                {k.removeprefix(f"{prefix}{which}."): v for k, v in state.items() if k.startswith(f"{prefix}{which}.")}
                for which in ("first", "second")
            )
            tensors += [first["conv.weight"], second["conv.weight"]]
            for key in ("weight", "bias", "running_mean", "running_var"):
                tensors.append(torch.cat([first[f"norm.{key}"], second[f"norm.{key}"]]))
            tensors.append(first["norm.num_batches_tracked"])
        else:
            tensors += [v for k, v in state.items() if k.startswith(prefix)]
    return tensors


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("imagenet", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_network_is_the_one_written_by_hand(
    randomise: Callable[[nn.Module, int], None], seed: int, imagenet: bool, training: bool
) -> None:
    torch.manual_seed(seed)
    size = 64 if imagenet else 16
    stem = "imagenet" if imagenet else "cifar"
    space = get_space(NAME, resolution=size, num_classes=5, channels=4, cells=4, nodes=3, stem=stem)
    supernet = Supernet(space, seed=seed).double()
    randomise(supernet, seed)
    row = space.sample(1, np.random.default_rng(seed))
    network = supernet.train(training).extract(row)
    hand = ByHand(space.to_dict(row), 4, 4, 5, imagenet).double().train(training)
    tensors = halves_swapped(network.blueprint, network.state_dict())
    hand.load_state_dict(dict(zip(hand.state_dict(), tensors, strict=True)))
    assert sum(p.numel() for p in hand.parameters()) == network.blueprint.params
    x = torch.randn(3, 3, size, size, dtype=torch.float64)
    expected = hand(x)
    torch.testing.assert_close(network(x), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(supernet(x, row), expected, rtol=1e-9, atol=1e-9)


def test_operations_are_in_the_order_of_their_cost() -> None:
    """At stride 1; at stride 2 a ``skip_connect`` has convolutions."""
    blocks = [_operation("cell", 0, 2, 16, 1, 8, each)[0] for each in OPERATIONS]
    costs = [sum(layer.madds for layer in block.all_layers) for block in blocks]
    assert costs == sorted(costs)

"""The space of NAS-Bench-201: counts and classes of all its architectures as published, forms, options, the network by hand."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

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
from snugnet.spaces.nas_bench_201 import EDGES, OPERATIONS, NASBench201
from snugnet.supernets import Supernet
from snugnet.testing import check_space

NAME = "nas-bench-201"
SPACE = NASBench201.create()
DATA_SETS = {"cifar10": (32, 10), "cifar100": (32, 100), "in16": (16, 120)}
BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


@pytest.fixture(scope="module")
def table(shared_folder: Path) -> list[dict[str, str]]:
    path = shared_folder / "data" / NAME / "accuracy.csv.gz"
    if not path.is_file():
        pytest.skip(f"no published table at {path}")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("data", DATA_SETS)
def test_counts_of_all_architectures_are_the_published_ones(table: list[dict[str, str]], data: str) -> None:
    resolution, classes = DATA_SETS[data]
    space = SPACE.with_options(resolution=resolution, num_classes=classes)
    rows = np.concatenate([space.from_str(line["arch_str"]) for line in table])
    assert len(np.unique(rows, axis=0)) == len(rows) == space.size == 15_625
    madds, params = (counted_table(space, name)(rows) for name in ("madds", "params"))
    for line, m, p in zip(table, madds, params, strict=True):
        assert float(line[f"flops_m_{data}"]) == round((m + classes) / 1e6, 6)
        assert float(line[f"params_m_{data}"]) == round(p / 1e6, 6)
    for i in range(0, len(rows), 1000):
        blueprint = space.blueprint(rows[i])
        assert (blueprint.madds, blueprint.params) == (madds[i], params[i])
        assert space.benchmark_flops(rows[i]) == madds[i] + classes


def test_isomorphic_cells_are_those_of_the_benchmark(table: list[dict[str, str]]) -> None:
    pairs = {(SPACE.isomorphism_class(SPACE.from_str(line["arch_str"])), line["iso_string"]) for line in table}
    assert len({ours for ours, _ in pairs}) == len({theirs for _, theirs in pairs}) == len(pairs) == 6466


def test_arch_strings_are_printed_as_they_are_read(table: list[dict[str, str]]) -> None:
    for line in table:
        row = SPACE.from_dict({"arch_str": line["arch_str"], "cifar10_test_200": 94.37})
        assert SPACE.to_dict(row) == {"arch_str": line["arch_str"]}
        assert [OPERATIONS[i] for i in row[0]] == [line[f"op_{a}{b}"] for a, b in EDGES]


def test_counts_without_the_table() -> None:
    blueprint = SPACE.blueprint(SPACE.from_str(BEST))
    assert (blueprint.madds, blueprint.params) == (184_730_240, 1_288_506)


def test_what_is_equal_for_isomorphic_cells() -> None:
    def of(text: str) -> str:
        return SPACE.isomorphism_class(SPACE.from_str(text))

    apart = "|nor_conv_3x3~0|+|avg_pool_3x3~0|none~1|+|none~0|nor_conv_1x1~1|skip_connect~2|"
    swapped = "|avg_pool_3x3~0|+|nor_conv_3x3~0|none~1|+|none~0|skip_connect~1|nor_conv_1x1~2|"
    dead = "|none~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_1x1~1|none~2|"
    assert of(apart) == "#+#+(0)@avg_pool_3x3+((0)@nor_conv_3x3)@nor_conv_1x1"
    assert of(dead) == "#+#+0"
    assert of(swapped) != of(apart)  # the benchmark keeps the zero of a sum, wherever it stands
    assert of(BEST) != of(BEST.replace("skip_connect", "avg_pool_3x3"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BEST.replace("skip_connect", "skip"), "arch_str holds 'skip'"),
        (BEST.replace("~1", "~0"), "allowed: |op~0|+|op~0|op~1|+|op~0|op~1|op~2|, each op one of none, skip_connect"),
        (BEST[:-1], "arch_str holds"),
        (BEST + "\n", "arch_str holds"),
        ("", "arch_str holds ''"),
        (BEST + "+|none~0|none~1|none~2|none~3|", "arch_str holds"),
        (None, "arch_str holds None"),
        ([BEST], "arch_str holds"),
    ],
)
def test_strings_that_are_no_architecture_are_refused(text: object, words: str) -> None:
    with pytest.raises(SpaceError) as caught:
        SPACE.from_dict({"arch_str": text})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_form_needs_its_field() -> None:
    with pytest.raises(SpaceError, match="lacks 'arch_str'"):
        SPACE.from_dict({"arch": BEST})
    assert json.loads(json.dumps(SPACE.to_dict(SPACE.from_str(BEST)))) == {"arch_str": BEST}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cells": 0}, "cells is a whole number"),
        ({"channels": 1.5}, "channels is a whole number"),
        ({"depth": 3}, "unknown option 'depth'"),
    ],
)
def test_options_that_make_no_network_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        get_space(NAME, **options)


def test_pictures_show_the_cell_once() -> None:
    row = SPACE.from_str(BEST.replace("nor_conv_3x3~2", "none~2"))
    (cell,) = cells_of(SPACE.blueprint(row)).values()
    assert [step.node.name.rpartition(".")[2] for step in cell] == ["edge01", "node1", "edge03", "edge13", "node3"]
    assert architecture_figure(SPACE, {"one": row}, "cell").startswith(b"\x89PNG")


def test_tables_are_over_one_choice_each() -> None:
    """All cells share their choices, so their tables are added up, and the automaton is six steps without a state."""
    for name in ("madds", "params", "activations"):
        steps = counted_table(SPACE, name).automaton().steps
        assert [(step.scope, len(step.rows), step.sources) for step in steps] == [((c,), 5, 1) for c in range(6)]


def test_the_resolution_can_be_a_choice() -> None:
    space = SPACE.with_options(resolutions=[16, 32])
    assert space.resolution == 32
    form = {"arch_str": BEST, "resolution": 16}
    row = space.from_dict(form)
    assert space.to_dict(row) == form
    assert space.blueprint(row).madds == (184_730_240 - 640) // 4 + 640
    with pytest.raises(SpaceError, match="lacks 'resolution'"):
        space.from_dict({"arch_str": BEST})
    with pytest.raises(SpaceError, match="resolution 16, this space 32"):
        SPACE.from_dict(form)


SEVERAL = {"resolution": None, "resolutions": [5, 8]}


@pytest.mark.parametrize("changes", [{"resolution": 8}, SEVERAL, {"channels": 2, "cells": 2, "resolution": 5}])
def test_the_laws_hold_for_other_options(changes: dict[str, object]) -> None:
    check_space(get_space(NAME, **{**TINY_SPACES[NAME], **changes}))


# -- the published network, written by hand ----------------------------------------------------------------------------


class ReLUConvBN(nn.Sequential):
    def __init__(self, before: int, after: int, kernel: int, stride: int = 1) -> None:
        conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
        super().__init__(nn.ReLU(), conv, nn.BatchNorm2d(after))


class Cell(nn.Module):
    def __init__(self, arch: str, channels: int) -> None:
        super().__init__()
        self.nodes = [[edge.split("~")[0] for edge in node[1:-1].split("|")] for node in arch.split("+")]
        kernels = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}
        self.edges = nn.ModuleDict(
            {
                f"{a}{b}": ReLUConvBN(channels, channels, kernels[operation])
                for b, node in enumerate(self.nodes, start=1)
                for a, operation in enumerate(node)
                if operation in kernels
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        for b, node in enumerate(self.nodes, start=1):
            total = torch.zeros_like(x)
            for a, operation in enumerate(node):
                if operation == "skip_connect":
                    total = total + outputs[a]
                elif operation == "avg_pool_3x3":
                    total = total + F.avg_pool2d(outputs[a], 3, 1, 1, count_include_pad=False)
                elif operation != "none":
                    total = total + self.edges[f"{a}{b}"](outputs[a])
            outputs.append(total)
        return outputs[-1]


class Reduction(nn.Module):
    def __init__(self, before: int) -> None:
        super().__init__()
        self.main = nn.Sequential(ReLUConvBN(before, 2 * before, 3, 2), ReLUConvBN(2 * before, 2 * before, 3))
        self.around = nn.Sequential(nn.AvgPool2d(2, 2, 0), nn.Conv2d(before, 2 * before, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x) + self.around(x)


def by_hand(arch: str, channels: int, cells: int, classes: int) -> nn.Sequential:
    stages: list[nn.Module] = []
    for stage in range(3):
        stages += [Reduction(channels << stage - 1)] if stage else []
        stages += [Cell(arch, channels << stage) for _ in range(cells)]
    width = 4 * channels
    stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
    ends = (nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))
    return nn.Sequential(stem, *stages, *ends)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_a_network_is_the_one_written_by_hand(
    randomise: Callable[[nn.Module, int], None], seed: int, training: bool
) -> None:
    torch.manual_seed(seed)
    space = get_space(NAME, resolution=8, num_classes=5, channels=4, cells=2)
    supernet = Supernet(space, seed=seed).double()
    randomise(supernet, seed)
    row = space.sample(1, np.random.default_rng(seed))
    network = supernet.train(training).extract(row)
    hand = by_hand(space.to_dict(row)["arch_str"], 4, 2, 5).double().train(training)
    assert sum(p.numel() for p in hand.parameters()) == network.blueprint.params
    # both list layers in the order in which they run
    hand.load_state_dict(dict(zip(hand.state_dict(), network.state_dict().values(), strict=True)))
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    expected = hand(x)
    torch.testing.assert_close(network(x), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(supernet(x, row), expected, rtol=1e-10, atol=1e-10)

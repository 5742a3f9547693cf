"""Drop path in static networks: what is dropped, how often, and that nothing else changes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from snugnet.nn import build
from snugnet.nn.layers import dropped
from snugnet.spaces import SearchSpace, get_space
from snugnet.spaces.graph import operations, steps

CELL = get_space("darts", resolution=8, num_classes=3, channels=4, cells=3, nodes=2)


def cell(**operations: str) -> dict[str, Any]:
    """A pair of cells in which every edge is one operation."""
    kinds = {"normal": "sep_conv_3x3", "reduce": "sep_conv_3x3", **operations}
    form: dict[str, Any] = {}
    for kind, each in kinds.items():
        first, _, second = each.partition("+")
        form[kind] = [[first, 0], [second or first, 1]] * 2
        form[f"{kind}_concat"] = [2, 3]
    return form


def test_an_image_is_dropped_or_scaled_and_the_mean_is_kept() -> None:
    torch.manual_seed(0)
    n, rate = 20_000, 0.3
    x = torch.randn(1, 3, 2, 2).expand(n, 3, 2, 2)
    out = dropped(x, rate)
    kept = out.abs().sum((1, 2, 3)) > 0
    assert torch.equal(out[~kept], torch.zeros_like(out[~kept]))
    torch.testing.assert_close(out[kept], x[kept] / (1 - rate))
    assert abs(int(kept.sum()) - n * (1 - rate)) < 5 * math.sqrt(n * rate * (1 - rate))
    torch.testing.assert_close(out.mean(0), x[0], atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("edges", "ways"), [("skip_connect", 1), ("skip_connect+sep_conv_3x3", 2), ("dil_conv_3x3+max_pool_3x3", 4)]
)
def test_in_a_cell_each_operation_is_dropped_on_its_own_and_identities_stay(edges: str, ways: int) -> None:
    network = build(CELL.blueprint(CELL.from_dict(cell(normal=edges))), seed=1).train()
    torch.manual_seed(0)
    n, rate = 4000, 0.25
    x = torch.randn(2, 3, 8, 8).repeat(n // 2, 1, 1, 1)
    _, whole = network(x, also="cell1.node2")
    _, out = network(x, rate, also="cell1.node2")
    own, wanted = out[::2], whole[0]  # of one image; batch norm sees the same batch every time before the first drop
    found, counts = own.flatten(1).mul(1e3).round().unique(dim=0, return_counts=True)
    assert len(found) == ways
    torch.testing.assert_close(own.mean(0), wanted, atol=0.15, rtol=0)
    if ways == 1:
        torch.testing.assert_close(own[0], wanted)
    else:
        expected = [rate, 1 - rate] if ways == 2 else [rate**2, rate * (1 - rate), rate * (1 - rate), (1 - rate) ** 2]
        for count, share in zip(sorted(counts.tolist()), sorted(expected), strict=True):
            assert abs(count - share * n / 2) < 5 * math.sqrt(share * n / 2)


def test_a_factorized_reduction_is_no_identity() -> None:
    blueprint = CELL.blueprint(CELL.from_dict(cell(normal="skip_connect", reduce="skip_connect")))
    names = operations(steps(blueprint))
    assert names == {f"cell{c}.edge{a}{b}" for c in (2, 3) for a in (0, 1) for b in (2, 3)}


def test_what_stands_alone_is_not_dropped() -> None:
    """Without the only operation that leads to a node there would be no image left."""
    space = get_space("nas-bench-201", resolution=8, channels=4, cells=1)

    def names(text: str) -> set[str]:
        return {name for name in operations(steps(space.blueprint(space.from_str(text)))) if name.startswith("stage1")}

    edge = "stage1.cell1.edge"
    assert names("|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_3x3~2|") == set()
    assert names("|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|avg_pool_3x3~1|none~2|") == {f"{edge}13"}
    assert names("|none~0|+|none~0|none~1|+|nor_conv_1x1~0|nor_conv_3x3~1|none~2|") == {f"{edge}03", f"{edge}13"}


def test_nothing_else_changes(tiny_space: SearchSpace) -> None:
    """In eval mode a rate is nothing; in training mode a rate of 0 draws nothing, and a rate drops where there is what can be."""
    blueprint = tiny_space.blueprint(tiny_space.largest)
    network = build(blueprint, seed=1)
    x = torch.randn(64, 3, blueprint.resolution, blueprint.resolution)
    before = torch.get_rng_state()
    network.eval()
    assert torch.equal(network(x, 0.9), network(x))
    network.train()
    plain = network(x)
    assert torch.equal(network(x, 0.0), plain)
    assert torch.equal(torch.get_rng_state(), before)
    around = any(block.shortcut == () and block.join == "add" for block in blueprint.blocks)
    drops = around or bool(operations(steps(blueprint)))
    assert torch.equal(network(x, 0.5), plain) != drops
    assert torch.equal(torch.get_rng_state(), before) != drops

"""The network of a differentiable search: mixtures, and each way to make it cheap, against networks made otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snugnet.errors import ConfigError
from snugnet.nn.network import Network, build, module_name
from snugnet.spaces import get_space
from snugnet.spaces.cells import CellSpace
from snugnet.supernets.mixed import MixedNetwork, narrowed

SPACES: dict[str, dict[str, Any]] = {
    "darts": {"channels": 8, "cells": 4, "nodes": 3, "operations": ["skip_connect", "dil_conv_3x3", "sep_conv_3x3"]},
    "nas-bench-201": {"channels": 8, "cells": 2},
}


def make(name: str, **options: Any) -> CellSpace:
    space = get_space(name, resolution=8, num_classes=5, **{**SPACES[name], **options})
    assert isinstance(space, CellSpace)
    return space


def one_hot(space: CellSpace, chosen: Any) -> Tensor:
    weights = torch.zeros(len(space.edges), len(space.edges[0].operations), dtype=torch.float64)
    weights[torch.arange(len(space.edges)), torch.as_tensor(chosen)] = 1
    return weights


def row_without_pools(space: CellSpace, seed: int) -> Any:
    rows = space.sample(200, np.random.default_rng(seed))
    named = [[e.operations[o] for e, o in zip(space.edges, each, strict=True)] for each in space.edge_operations(rows)]
    return next(row for row, names in zip(rows, named, strict=True) if not any("pool" in name for name in names))


def static(mixed: MixedNetwork, row: Any) -> Network:
    """The static network of a row with the mixed network's weights, each operation's found by its edge."""
    space = mixed.space
    network = build(space.blueprint(row)).double()
    edges = {block: e for e, edge in enumerate(space.edges) for block in space.positions[edge.name]}
    for block in network.blueprint.blocks:
        module = network._modules[module_name(block)]
        assert module is not None
        if block.name not in edges:
            if block.name.replace(".", "_") in mixed.blocks:
                module.load_state_dict(mixed.blocks[block.name.replace(".", "_")].state_dict())
        elif not block.zero:
            key = mixed._fans[block.name].blocks[0].replace(".", "_")
            operations = mixed.operations[key]
            assert isinstance(operations, nn.ModuleDict)
            module.load_state_dict(operations[block.alternative].state_dict())
    return network.train()


@pytest.mark.parametrize(
    "savings", [{}, {"weight_sharing": True}, {"derived_cells": True}, {"weight_sharing": True, "derived_cells": True}]
)
@pytest.mark.parametrize("name", SPACES)
def test_at_one_hot_weights_it_is_the_static_network(name: str, savings: dict[str, bool]) -> None:
    space = make(name)
    mixed = MixedNetwork(space, **savings, seed=1).double().train()
    row = row_without_pools(space, 3)
    chosen = space.edge_operations(row[None])[0].tolist()
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(mixed(x, one_hot(space, chosen), chosen), static(mixed, row)(x), rtol=1e-9, atol=1e-9)


def test_an_edge_is_the_weighted_sum_of_its_operations() -> None:
    """DARTS, equation 2, on a cell written by hand."""
    space = make("nas-bench-201", cells=1)
    mixed = MixedNetwork(space).double().train()
    torch.manual_seed(0)
    weights = torch.rand(6, 5, dtype=torch.float64)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)

    def edge(stage: int, number: int, name: str, x: Tensor) -> Tensor:
        operations = mixed.operations[f"stage{stage}_cell1_{name}"]
        assert isinstance(operations, nn.ModuleDict)
        each = enumerate(space.edges[number].operations)
        return sum((weights[number, o] * operations[op](x) for o, op in each if op != "none"), torch.zeros(()))

    nodes = [mixed.blocks["stem"](x)]
    for stage in (1, 2, 3):
        if stage > 1:
            nodes = [mixed.blocks[f"reduction{stage - 1}"](nodes[-1])]
        numbers = iter(range(6))
        for node in (1, 2, 3):
            edges = [edge(stage, next(numbers), f"edge{a}{node}", nodes[a]) for a in range(node)]
            nodes.append(sum(edges[1:], edges[0]))
    torch.testing.assert_close(mixed(x, weights), mixed.blocks["head"](nodes[-1]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("savings", [{}, {"weight_sharing": True}, {"bottleneck": 2}, {"partial_channels": 2}])
@pytest.mark.parametrize("name", SPACES)
def test_the_gradient_of_a_weight_is_what_more_of_it_would_change(name: str, savings: dict[str, Any]) -> None:
    space = make(name, **({"nodes": 2, "cells": 3} if name == "darts" else {"cells": 1}))
    mixed = MixedNetwork(space, **savings).double().train()
    torch.manual_seed(0)
    weights = torch.rand(len(space.edges), len(space.edges[0].operations), dtype=torch.float64, requires_grad=True)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(mixed(x, weights).square().mean(), weights)
    for e, o in ((0, 1), (1, 2), (len(weights) - 1, weights.shape[1] - 1)):
        with torch.no_grad():
            sides = []
            for sign in (1, -1):
                moved = weights.clone()
                moved[e, o] += sign * 1e-5
                sides.append(mixed(x, moved).square().mean())
        assert gradient[e, o].item() == pytest.approx(((sides[0] - sides[1]) / 2e-5).item(), rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("name", SPACES)
def test_what_is_shared_is_counted_once(name: str) -> None:
    """Equation 5 of DCA-NAS: one instance of an operation for each node that edges leave."""
    space = make(name)
    apart, shared = MixedNetwork(space), MixedNetwork(space, weight_sharing=True)
    edges = sum(len(blocks) for blocks in space.positions.values())
    sources = {
        block.reads[0] for block in space.union.blocks if block.name in {b for p in space.positions.values() for b in p}
    }
    assert len(apart.operations) == edges
    assert len(shared.operations) == len(sources) < edges


def test_derived_cells_need_an_architecture() -> None:
    space = make("nas-bench-201")
    with pytest.raises(ConfigError, match="some cells are derived"):
        MixedNetwork(space, derived_cells=True)(torch.zeros(2, 3, 8, 8), torch.ones(6, 5))


def test_a_cell_of_nothing_gives_zeros() -> None:
    space = make("nas-bench-201")
    mixed = MixedNetwork(space, derived_cells=True).train()
    logits = mixed(torch.randn(3, 3, 8, 8), torch.zeros(6, 5), [0] * 6)
    assert torch.equal(logits, logits[:1].expand(3, -1))


@pytest.mark.parametrize("savings", [{"bottleneck": 4}, {"partial_channels": 4}])
@pytest.mark.parametrize("name", SPACES)
def test_fewer_channels_cost_less(name: str, savings: dict[str, int]) -> None:
    space = make(name)

    def size(network: MixedNetwork) -> int:
        return sum(p.numel() for each in network.operations.values() for p in each.parameters() if p.ndim > 1)

    mixed = MixedNetwork(space, **savings)
    assert mixed(torch.randn(2, 3, 8, 8), torch.rand(len(space.edges), len(space.edges[0].operations))).shape == (2, 5)
    assert 3 * size(mixed) < size(MixedNetwork(space))
    with pytest.raises(ConfigError, match="which 3 does not divide"):
        MixedNetwork(space, **dict.fromkeys(savings, 3))


def test_two_ways_to_fewer_channels_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match="switch one off"):
        MixedNetwork(make("nas-bench-201"), bottleneck=2, partial_channels=2)


def test_batch_norms_of_operations_learn_no_scale() -> None:
    mixed = MixedNetwork(make("darts", operations=["skip_connect", "max_pool_3x3", "sep_conv_3x3"]))
    norms = [m for each in mixed.operations.values() for m in each.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(p.requires_grad for norm in norms for p in norm.parameters())
    pools = [each["max_pool_3x3"] for each in mixed.operations.values()]  # type: ignore[index]
    assert all(isinstance(pool[-1], nn.BatchNorm2d) for pool in pools)


def test_a_narrowed_block_has_one_channel_in_so_many() -> None:
    space = make("darts")
    block = next(b for b in space.union.blocks if b.alternative == "sep_conv_3x3")
    small = narrowed(block, 4)
    assert [layer.out_channels * 4 for layer in small.layers] == [layer.out_channels for layer in block.layers]
    assert [layer.depthwise for layer in small.layers] == [layer.depthwise for layer in block.layers]
    assert narrowed(block, 1) is block

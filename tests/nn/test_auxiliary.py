"""The classifier beside a network: the published one, at every size, and gone when the training is over."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snugnet.errors import SpaceError
from snugnet.nn import build
from snugnet.nn.auxiliary import WithAuxiliary, auxiliary_head
from snugnet.spaces import Block, Layer, SearchSpace, get_space


def block(channels: int, size: int) -> Block:
    return Block("inner", (Layer("identity", "identity", channels, channels, size),))


@pytest.mark.parametrize(("size", "stride"), [(8, 3), (7, 2)])  # DARTS's CIFAR and ImageNet networks
def test_it_is_that_of_darts(size: int, stride: int) -> None:
    published = nn.Sequential(
        nn.ReLU(),
        nn.AvgPool2d(5, stride=stride, padding=0, count_include_pad=False),
        nn.Conv2d(6, 128, 1, bias=False),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.Conv2d(128, 768, 2, bias=False),
        nn.BatchNorm2d(768),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(768, 5),
    )
    head = auxiliary_head(block(6, size), 5, seed=1)
    published.load_state_dict(head.state_dict())
    x = torch.randn(4, 6, size, size)
    assert torch.equal(head(x), published(x))
    assert head(x).shape == (4, 5)


@pytest.mark.parametrize("size", range(1, 33))
def test_every_size_becomes_two_by_two_and_no_pixel_is_left_out(size: int) -> None:
    pool = auxiliary_head(block(1, size), 2, seed=0)[1]
    x = torch.ones(1, 1, size, size, requires_grad=True)
    out = pool(x)
    assert torch.equal(out, torch.ones(1, 1, 2, 2))
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.min() > 0


def test_fresh_weights_are_those_of_their_seed() -> None:
    one, other, third = (auxiliary_head(block(3, 8), 4, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    assert not torch.equal(one[2].weight, third[2].weight)


@pytest.mark.parametrize(("cells", "where"), [(20, "cell14.output"), (14, "cell10.output"), (3, "cell3.output")])
def test_in_darts_it_stands_on_the_second_reduction_cell(cells: int, where: str) -> None:
    space = get_space("darts", cells=cells, channels=4)
    blueprint = space.blueprint(space.smallest)
    sizes = {each.name: each.out_resolution for each in blueprint.blocks}
    assert space.auxiliary_block == where
    assert sizes[where] == 8
    before = f"cell{int(where[4:].split('.')[0]) - 1}.output"
    assert sizes[before] == 16


def test_a_block_s_output_beside_the_logits(tiny_space: SearchSpace) -> None:
    blueprint = tiny_space.blueprint(tiny_space.largest)
    network = build(blueprint, seed=1).eval()
    x = torch.randn(2, 3, blueprint.resolution, blueprint.resolution)
    for each in (blueprint.blocks[0], blueprint.blocks[-1]):
        logits, inner = network(x, also=each.name)
        assert torch.equal(logits, network(x))
        assert inner.shape[:2] == (2, each.out_channels)
    assert torch.equal(inner, logits)
    if tiny_space.auxiliary_block is not None:
        own = network.block(tiny_space.auxiliary_block)
        both = WithAuxiliary(network, own)
        logits, beside = both(x)
        assert torch.equal(logits, network(x))
        assert beside.shape == logits.shape
        assert {name.split(".")[0] for name in both.state_dict()} == {"network", "head"}
    alone = WithAuxiliary(network, None)
    assert torch.equal(alone(x)[0], network(x))
    assert alone(x)[1] is None


def test_a_block_that_the_output_does_not_depend_on() -> None:
    space = get_space("nas-bench-201", channels=4, cells=1)
    network = build(space.blueprint(space.smallest))  # every edge is none
    with pytest.raises(SpaceError, match="no block 'reduction2' that its output depends on"):
        network.block("reduction2")

"""ResNets with bits to choose: published counts and BitOps, JSON, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from snugnet.costs import counted_table, sample
from snugnet.errors import SpaceError
from snugnet.spaces import Blueprint, SearchSpace, get_space
from snugnet.spaces.effects import effects

NAME = "resnet-mixed-precision"
QUANTISED = {18: 19, 34: 35}  # convolutions in residual blocks: 8 or 16 pairs, and three shortcuts


def uniform(depth: int, bits: int) -> Blueprint:
    """The network with those bits and the original channels everywhere."""
    space = get_space(NAME, depth=depth, bits=[[bits, bits]])
    n = space.d // 2
    return space.blueprint(
        space.from_dict({"weight_bits": [bits] * n, "activation_bits": [bits] * n, "channels": [1.0] * n})
    )


@pytest.mark.parametrize(
    ("depth", "madds", "params"), [(18, 1_814_073_344, 11_689_512), (34, 3_663_761_408, 21_797_672)]
)
def test_the_published_resnets(depth: int, madds: int, params: int) -> None:
    assert (uniform(depth, 32).madds, uniform(depth, 32).params) == (madds, params)
    assert uniform(depth, 4).madds == madds
    assert uniform(depth, 4).params == params + QUANTISED[depth]  # a learned clip each
    assert not uniform(depth, 32).quantised


@pytest.mark.parametrize(
    ("depth", "bits", "published"),
    [(18, 2, 6.32), (18, 3, 14.21), (18, 4, 25.27), (34, 2, 13.21), (34, 3, 29.72), (34, 4, 52.83)],
)
def test_the_published_bitops(depth: int, bits: int, published: float) -> None:
    """Table 6 counts all convolutions of residual blocks, those of shortcuts included, in units of 2^30."""
    bitops = sum(layer.bitops for layer in uniform(depth, bits).layers())
    assert round(bitops / 2**30, 2) == published


def test_bitops_to_the_unit() -> None:
    """MAdds of ResNet-18 without the first convolution and the classifier."""
    inside = 1_814_073_344 - 7 * 7 * 3 * 64 * 112**2 - 512 * 1000
    assert [sum(layer.bitops for layer in uniform(18, k).layers()) for k in (2, 3, 4)] == [
        4 * inside, 9 * inside, 16 * inside
    ]  # fmt: skip
    assert sum(layer.bitops for layer in uniform(18, 32).layers()) == 0


@pytest.mark.parametrize(("depth", "blocks"), [(18, 8), (34, 16)])
def test_the_papers_space(depth: int, blocks: int) -> None:
    space = get_space(NAME, depth=depth)
    assert space.size == 18**blocks
    n = blocks
    form = {
        "resolution": 224,
        "weight_bits": ([1, 2, 1, 2, 3, 4] * n)[:n],
        "activation_bits": ([2, 2, 4, 4, 4, 4] * n)[:n],
        "channels": ([0.5, 1.0, 1.5] * n)[:n],
    }
    row = space.from_dict(form)
    assert space.to_dict(row) == form
    block = space.blueprint(row).blocks[1]
    assert [(layer.name, layer.out_channels, layer.weight_bits, layer.activation_bits) for layer in block.layers] == [
        ("conv1", 32, 1, 2), ("conv2", 64, 1, 2)
    ]  # fmt: skip


def test_the_first_convolution_and_the_classifier_are_in_float() -> None:
    space = get_space(NAME)
    for row in space.extremes().values():
        in_float = [layer.name for layer in space.blueprint(row).layers() if layer.madds and not layer.bitops]
        assert in_float == ["conv", "classifier"]


def test_samples_under_a_limit_on_bitops_are_uniform() -> None:
    """Of all 4^8 architectures of a small space, those that fit are drawn equally often: every choice as often as counted."""
    space = few()
    table = counted_table(space, "bitops")
    every = np.indices(space.num_options.tolist()).reshape(space.d, -1).T.astype(np.int16)
    costs = table(every)
    limit = float(np.quantile(costs, 0.2))
    fitting = every[costs <= limit]
    drawn = sample(table, 20_000, np.random.default_rng(0), limit)
    assert (table(drawn) <= limit).all()
    assert table(drawn).max() == table(fitting).max()
    np.testing.assert_allclose(drawn.mean(0), fitting.mean(0), atol=0.02)


def few() -> SearchSpace:
    return get_space(NAME, resolution=16, bits=[[1, 2], [4, 4]], channels=[0.5, 1.0], widths=[8, 8, 16, 16])


def test_what_choices_do_has_rows_for_every_pair_of_bits() -> None:
    """A quantised weight is no part of a wider one: its levels are those of the whole tensor."""
    space = get_space(NAME, resolution=16, widths=[8, 8, 16, 16])
    plan = {position.name: position for position in effects(space).positions}
    assert len(plan["stage1.block1"].rows) == 18 + 1  # and the input
    assert len(plan["stage2.block1"].rows) == 18 + 6  # the shortcut's convolution has bits, not channels to choose


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"depth": 50}, "depth is 18 or 34, got 50"),
        ({"bits": [[0, 2]]}, "bits are different"),
        ({"bits": [[9, 2]]}, "from 1 to 8"),
        ({"bits": [[2, 2], [2, 2]]}, "different"),
        ({"bits": [[32, 32], [2, 2]]}, r"or \[\[32, 32\]\]"),
        ({"bits": []}, "bits are"),
        ({"bits": [2]}, "bits is a list"),
        ({"channels": [1.0, 0.5]}, "rising"),
        ({"channels": [0.1], "widths": [8, 16, 16, 16]}, "leaves nothing of a width of 8"),
        ({"widths": [64, 128, 256]}, "widths has 4 entries"),
        ({"stem_kernel": 4}, "stem_kernel is an odd"),
        ({"stem_pool": 1}, "stem_pool is true or false"),
        ({"stage_strides": [1, 3, 1, 1]}, "strides are 1 or 2"),
    ],
)
def test_options_that_make_no_network(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SpaceError, match=said):
        get_space(NAME, **options)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"weight_bits": [4] + [2] * 7},
            r"stage1.block1.bits = '4W2A' is not in this space; allowed: \['1W2A', '2W2A'",
        ),
        (
            {"channels": [0.7] + [1.0] * 7},
            r"stage1.block1.channels = 0.7 is not in this space; allowed: \[0.5, 1.0, 1.5\]",
        ),
        ({"channels": [1.0] * 16}, "channels has 8 entries, got 16"),
        ({"resolution": 192}, "resolution 192, this space 224"),
        ({"weight_bits": None}, "weight_bits is a list"),
    ],
)
def test_architectures_that_are_not_in_the_space(changes: dict[str, Any], said: str) -> None:
    form = {"weight_bits": [2] * 8, "activation_bits": [2] * 8, "channels": [1.0] * 8}
    with pytest.raises(SpaceError, match=said):
        get_space(NAME).from_dict({**form, **changes})
    with pytest.raises(SpaceError, match="lacks 'channels'"):
        get_space(NAME).from_dict({key: form[key] for key in ("weight_bits", "activation_bits")})

"""What there is to measure: each distinct block once, under a name that tells what it computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from snugnet.costs.units import block_name, distinct_blocks, is_silent, named_row, network_name
from snugnet.spaces import Layer, SearchSpace, get_space


def test_every_network_is_made_of_measured_blocks(tiny_space: SearchSpace) -> None:
    distinct = distinct_blocks(tiny_space, [2, 3], 1)
    for row in tiny_space.sample(20, np.random.default_rng(0)):
        blocks = tiny_space.blueprint(row).blocks
        assert {block_name(block, 1) for block in blocks if not is_silent(block)} <= distinct.keys()
        for width in (2, 3):
            assert block_name(tiny_space.blueprint(row).with_classes(width).blocks[-1], 1) in distinct


def test_equal_blocks_are_measured_once() -> None:
    space = get_space("ofa-mobilenet-v3")
    every = sum(len(part) for part in _blocks(space).values())
    distinct = distinct_blocks(space, [], 1)
    # stem, first and head; of each stage 9 first blocks, and 9 that stand at up to three places
    assert len(distinct) == 3 + 5 * (9 + 9)
    assert every > 1.5 * len(distinct)


def _blocks(space: SearchSpace) -> dict[int, set[object]]:
    found: dict[int, set[object]] = {}
    for i, part in enumerate(space.parts):
        shape = [len(space.choices[c].options) for c in part.choices]
        found[i] = {block for at in np.ndindex(*shape) for block in space.part_blocks(i, at)}
    return found


def test_the_name_tells_sizes_and_batch_and_not_the_place() -> None:
    space = get_space("ofa-mobilenet-v3", resolution=32, num_classes=4)
    block = space.blueprint(space.smallest).blocks[3]
    assert block_name(replace(block, name="elsewhere"), 1) == block_name(block, 1)
    layers = list(block.layers)
    names = {block_name(block, 1), block_name(block, 8)}
    for field in ("in_channels", "out_channels", "resolution", "kernel", "stride"):
        changed = replace(layers[0], **{field: getattr(layers[0], field) + 2})
        names.add(block_name(replace(block, layers=(changed, *layers[1:])), 1))
    names.add(
        block_name(replace(block, shortcut=()), 1)
        if block.shortcut is None
        else block_name(replace(block, shortcut=None), 1)
    )
    assert len(names) == 8


def test_a_layers_name_does_not_matter() -> None:
    space = get_space("ofa-mobilenet-v3", resolution=32, num_classes=4)
    block = space.blueprint(space.smallest).blocks[0]
    other: Layer = replace(block.layers[0], name="other")
    assert block_name(replace(block, layers=(other,)), 1) == block_name(block, 1)


@given(seed=st.integers(0, 2**16), batch=st.sampled_from([1, 4]))
def test_a_networks_name_gives_its_row_back(seed: int, batch: int) -> None:
    space = get_space("ofa-mobilenet-v3", resolution=32, num_classes=4)
    row = space.sample(1, np.random.default_rng(seed))
    name = network_name(space, row, batch)
    found = named_row(space, name, batch)
    assert found is not None
    assert (found == row).all()
    assert named_row(space, name, batch + 1) is None
    assert named_row(space.with_options(resolution=48), name, batch) is None
    assert named_row(space, name[:-1], batch) is None

"""Blocks as recordings give what blocks give, whatever runs before and after them. (On a GPU: tests/gpu.)"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from stand_in import StandIn
from torch import Tensor, nn

from snugnet.errors import TrainingError
from snugnet.nn.network import with_layout
from snugnet.spaces import Block, SearchSpace, get_space
from snugnet.spaces.graph import steps
from snugnet.spaces.variants import block_variants
from snugnet.supernets import Supernet
from snugnet.supernets.gradients import StandingGradients
from snugnet.supernets.graphs import BlockGraphs, fitting, recorded_output

IMAGES = 4
OFA = {"width_mult": 0.1, "resolution": 9, "num_classes": 4, "stem_stride": 1, "stage_strides": (2, 1, 2, 1, 1)}

ROUNDED = ("darts", "resnet-mixed-precision")
"""Spaces in which a block's gradient comes in another layout than its output (spread out from a mean): a CPU's kernels then sum in another
order."""


def supernet_of(space: SearchSpace) -> Supernet:
    return with_layout(Supernet(space, seed=1), torch.channels_last).train()


def images_of(space: SearchSpace, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(IMAGES, space.in_channels, space.resolution, space.resolution, generator=generator)
    return x.to(memory_format=torch.channels_last)


def graphs_of(supernet: Supernet, recorder: StandIn, precision: Any = nullcontext, dtype: Any = torch.float32) -> Any:
    return BlockGraphs(supernet, IMAGES, recorder, dtype, precision)


def learn(supernet: Supernet, archs: np.ndarray, **how: Any) -> list[Tensor]:
    """Forward and backward of each on images of its own: the logits, and gradients added up."""
    logits = []
    for i, arch in enumerate(archs):
        out = supernet(images_of(supernet.space, i), arch, **how)
        logits.append(out.detach().clone())
        (out.float() ** 2).sum().backward()
    return logits


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def blocks_of(space: SearchSpace, archs: np.ndarray) -> list[Block]:
    """Those that some architectures run."""
    return list(dict.fromkeys(step.node for arch in archs for step in steps(space.blueprint(arch))))


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_every_architecture_is_a_walk_over_the_variants(tiny_space: SearchSpace) -> None:
    variants = block_variants(tiny_space)
    blocks = {variant.block for variant in variants}
    assert len(blocks) == len(variants)
    for arch in tiny_space.sample(40, np.random.default_rng(0)):
        assert blocks.issuperset(tiny_space.blueprint(arch).blocks)
    assert all(0 < variant.share <= 1 for variant in variants)
    largest = block_variants(tiny_space, np.ones(tiny_space.d, dtype=np.int64))
    assert {variant.block for variant in largest} >= set(tiny_space.blueprint(tiny_space.largest).blocks)
    assert len(largest) < len(variants)


def test_few_variants_of_a_large_space() -> None:
    assert len(block_variants(get_space("ofa-mobilenet-v3"))) == 183  # 20 blocks of 3 kernels and 3 ratios, and 3 more


def test_gradients_statistics_and_logits_are_the_same_bit_for_bit(tiny_space: SearchSpace) -> None:
    eager, graphed = supernet_of(tiny_space), supernet_of(tiny_space)
    archs = np.concatenate([tiny_space.largest, tiny_space.sample(4, np.random.default_rng(0)), tiny_space.smallest])
    recorder = StandIn()
    graphs = graphs_of(graphed, recorder)
    assert graphs.add(blocks_of(tiny_space, archs)) == ""
    assert_same(dict(eager.state_dict()), dict(graphed.state_dict()))  # warming up leaves no traces
    assert gradients(graphed) == {}
    for _ in range(2):  # the second step finds buffers that are not zero
        eager.zero_grad(set_to_none=True)
        graphs.begin(archs)
        before = recorder.repeated
        for one, other in zip(learn(eager, archs), learn(graphed, archs, blocks=graphs), strict=True):
            assert torch.equal(one, other)
        assert recorder.repeated - before == 2 * sum(
            len(list(graphed.parameters_of(step.node))) > 0
            for arch in archs
            for step in steps(tiny_space.blueprint(arch))
        )
        if tiny_space.name in ROUNDED:
            for name, gradient in gradients(eager).items():
                torch.testing.assert_close(gradients(graphed)[name], gradient, msg=lambda m, name=name: f"{name}: {m}")
        else:
            assert_same(gradients(eager), gradients(graphed))
        assert_same(dict(eager.state_dict()), dict(graphed.state_dict()))
    assert not graphs.missed


def test_under_autocast_too() -> None:
    space = get_space("ofa-mobilenet-v3", **OFA)
    eager, graphed = supernet_of(space), supernet_of(space)
    archs = space.sample(3, np.random.default_rng(0))
    cast = partial(torch.autocast, "cpu", torch.bfloat16, cache_enabled=False)
    graphs = graphs_of(graphed, StandIn(), cast, torch.bfloat16)
    graphs.add(blocks_of(space, archs))
    graphs.begin(archs)
    with torch.autocast("cpu", torch.bfloat16):
        learn(eager, archs)
        learn(graphed, archs, blocks=graphs)
    assert_same(gradients(eager), gradients(graphed))
    assert not graphs.missed


def test_a_block_without_a_graph_runs_among_those_that_have_one() -> None:
    space = get_space("ofa-mobilenet-v3", **OFA)
    eager, graphed = supernet_of(space), supernet_of(space)
    archs = np.concatenate([space.largest, space.smallest])
    graphs = graphs_of(graphed, StandIn())
    graphs.add(space.blueprint(space.largest).blocks[::2])
    graphs.begin(archs)
    learn(eager, archs)
    learn(graphed, archs, blocks=graphs)
    assert_same(gradients(eager), gradients(graphed))


def test_what_draws_runs_by_itself() -> None:
    space = get_space("ofa-mobilenet-v3", **OFA)
    eager, graphed = supernet_of(space), supernet_of(space)
    recorder = StandIn()
    graphs = graphs_of(graphed, recorder)
    graphs.add(space.blueprint(space.largest).blocks)
    graphs.begin(space.largest)
    rates = {"dropout": 0.3, "drop_connect": 0.5, "drop_connect_stages": 1}
    torch.manual_seed(3)
    learn(eager, space.largest, **rates)
    torch.manual_seed(3)
    before = recorder.repeated
    learn(graphed, space.largest, blocks=graphs, **rates)
    assert_same(gradients(eager), gradients(graphed))
    blocks = space.blueprint(space.largest).blocks
    drawing = 1 + sum(block.name.startswith("stage5") and block.shortcut == () for block in blocks)
    assert (recorder.repeated - before) // 2 == len(blocks) - drawing


def test_other_images_than_were_recorded_run_by_themselves() -> None:
    space = get_space("ofa-mobilenet-v3", **OFA)
    supernet = supernet_of(space)
    graphs = graphs_of(supernet, StandIn())
    graphs.add(space.blueprint(space.largest).blocks)
    graphs.begin(space.largest)
    x = images_of(space, 0)[:3]
    assert supernet(x, space.largest, blocks=graphs).shape == (3, 4)
    assert graphs.missed == set(space.blueprint(space.largest).blocks)
    graphs.missed.clear()
    supernet.eval()
    with torch.no_grad():
        assert torch.equal(supernet(x, space.largest, blocks=graphs), supernet(x, space.largest))
    assert not graphs.missed


def test_candidates_without_gradients_do_not_disturb() -> None:
    """As BestUp asks them, before the step's own sub-networks run."""
    space = get_space("ofa-mobilenet-v3", **OFA)
    eager, graphed = supernet_of(space), supernet_of(space)
    graphs = graphs_of(graphed, StandIn())
    archs = space.sample(4, np.random.default_rng(0))
    graphs.add(blocks_of(space, archs))
    graphs.begin(archs[:1])
    with torch.no_grad():
        for arch in archs:
            assert torch.equal(graphed(images_of(space, 0), arch, blocks=graphs), eager(images_of(space, 0), arch))
    learn(eager, archs[:1])
    learn(graphed, archs[:1], blocks=graphs)
    assert_same(gradients(eager), gradients(graphed))


def test_a_backward_pass_that_comes_too_late_is_refused() -> None:
    space = get_space("ofa-mobilenet-v3", **OFA)
    supernet = supernet_of(space)
    graphs = graphs_of(supernet, StandIn())
    graphs.add(space.blueprint(space.largest).blocks)
    graphs.begin(space.largest)
    first = supernet(images_of(space, 0), space.largest, blocks=graphs).sum()
    second = supernet(images_of(space, 1), space.largest, blocks=graphs).sum()
    second.backward()
    with pytest.raises(TrainingError, match="only the last forward pass"):
        first.backward()


def test_the_largest_network_as_one_graph() -> None:
    space = get_space("ofa-mobilenet-v3", **OFA)
    eager, graphed = supernet_of(space), supernet_of(space)
    recorder = StandIn()
    graphs = graphs_of(graphed, recorder)
    whole = graphs.whole(space.largest)
    assert recorder.recorded == 2
    for seed in range(2):
        x = images_of(space, seed)
        eager.zero_grad(set_to_none=True)
        graphs.begin(space.largest)
        out = whole(x)
        assert torch.equal(out, eager(x, space.largest))
        (eager(x, space.largest) ** 2).sum().backward()
        (whole(x) ** 2).sum().backward()
        assert_same(gradients(eager), gradients(graphed))
    assert_same(dict(eager.state_dict()), dict(graphed.state_dict()))


def test_what_a_step_does_not_reach_has_no_gradient() -> None:
    space = get_space("ofa-mobilenet-v3", **OFA)
    supernet = supernet_of(space)
    standing = StandingGradients(supernet)
    graphs = graphs_of(supernet, StandIn())
    for arch in np.concatenate([space.largest, space.smallest]):
        supernet.zero_grad(set_to_none=True)
        supernet(images_of(space, 0), arch).sum().backward()
        reached = gradients(supernet).keys()
        graphs.begin(arch[None])
        assert gradients(supernet).keys() == reached
        assert all(not gradient.any() for gradient in gradients(supernet).values())
    weight = supernet.classifier.linear.weight
    standing.begin([weight, weight])
    part = weight.detach()[1:3, :5]
    standing.of(part).fill_(2.0)
    assert weight.grad is not None
    assert weight.grad.sum() == 20
    assert weight.grad[1:3, :5].sum() == 20
    kept = weight.grad
    standing.begin([weight])
    assert weight.grad is kept
    assert not kept.any()
    standing.end()
    assert weight.grad is None


def test_memory_decides_how_many_are_recorded() -> None:
    variants = block_variants(get_space("ofa-mobilenet-v3", stem_stride=1, resolution=64))
    everything, size = fitting(variants, 256, 2, 1e12)
    assert everything == [variant.block for variant in variants]
    assert 4 < size / 2**30 < 8  # 24 GiB were measured where no position shared its memory
    half, less = fitting(variants, 256, 2, size / 2)
    assert 0 < len(half) < len(everything)
    assert less <= size / 2
    assert fitting(variants, 256, 2, 0) == ([], 0)
    shares = {variant.block: variant.share for variant in variants}
    stem = everything[0]
    assert shares[stem] == 1
    assert stem in half  # what every architecture has comes first


def test_memory_that_ends_early_leaves_the_rest_without_graphs() -> None:
    space = get_space("ofa-mobilenet-v3", **OFA)
    eager, graphed = supernet_of(space), supernet_of(space)
    graphs = graphs_of(graphed, StandIn(capacity=7))
    blocks = space.blueprint(space.largest).blocks
    found = graphs.add(blocks)
    assert found.startswith(f"{blocks[3].key}: CUDA out of memory")
    assert len(graphs) == 3
    graphs.begin(space.largest)
    learn(eager, space.largest)
    learn(graphed, space.largest, blocks=graphs)
    assert_same(gradients(eager), gradients(graphed))


def test_a_frozen_network_as_one_graph() -> None:
    space = get_space("ofa-mobilenet-v3", **OFA)
    network = supernet_of(space).extract(space.smallest).eval()
    run = recorded_output(network, images_of(space, 0), StandIn(), nullcontext)
    for seed in (1, 2):
        with torch.no_grad():
            assert torch.equal(run(images_of(space, seed)), network(images_of(space, seed)))

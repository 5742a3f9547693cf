"""Channels in order of importance: the same largest network, and narrower ones that begin with what matters."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from snugnet.spaces import SearchSpace, get_space
from snugnet.supernets import Supernet
from snugnet.supernets.sorting import ChannelAxis, Dim, channel_axes, importances, narrows, sort_channels
from snugnet.testing.networks import images, randomise
from snugnet.training.optimizer import make_optimizer

OFA: dict[str, Any] = {"width_mult": 0.1, "resolution": 16, "num_classes": 5}
SPACES = {
    "ofa-mobilenet-v3": OFA,
    "mobilenet-v2": OFA,
    "attentive-nas": {"resolution": 32, "num_classes": 5},
    "attentive-nas, shortcuts of some widths": {
        "resolutions": [8],
        "num_classes": 5,
        "stem_stride": 1,
        "stage_strides": [1, 2, 1, 1, 2, 1, 1],
        "widths": [[4, 8], [4, 8], [8], [8], [8, 12], [12], [12], [12, 16], [24, 40]],
        "depths": [[1], [1, 2], [1], [1, 2], [1], [1], [1]],
        "expand_ratios": [[1], [2, 3], [2], [2, 3], [2], [2], [2]],
    },
    "spos-shufflenet-v2": {"resolution": 32, "num_classes": 5},
    "resnet-mixed-precision": {"resolution": 16, "num_classes": 5},
}


@cache
def space_of(name: str) -> SearchSpace:
    return get_space(name.partition(",")[0], **SPACES[name])


@cache
def axes_of(name: str) -> tuple[ChannelAxis, ...]:
    return channel_axes(space_of(name))


def made(name: str, seed: int = 0) -> Supernet:
    supernet = Supernet(space_of(name), seed=seed).double()
    randomise(supernet, seed + 1)
    return supernet.eval()


def state(supernet: Supernet) -> dict[str, torch.Tensor]:
    return dict(supernet.network.state_dict())


def at(axes: tuple[ChannelAxis, ...], dim: Dim) -> ChannelAxis:
    return next(axis for axis in axes if dim in axis.places)


@pytest.mark.parametrize("name", SPACES)
def test_the_largest_network_stays_the_same_and_channels_fall_in_importance(name: str) -> None:
    supernet = made(name)
    space, axes = supernet.space, axes_of(name)
    x = images(space, 2, 0)
    with torch.no_grad():
        before = supernet(x, space.largest)
        old = {key: tensor.clone() for key, tensor in state(supernet).items()}
        sort_channels(axes, state(supernet))
        after = supernet(x, space.largest)
    assert float((after - before).abs().max() / before.abs().max()) < 1e-12
    assert sum(not torch.equal(old[key], tensor) for key, tensor in state(supernet).items()) > len(axes)
    for axis in axes:
        found = importances(axis, state(supernet))
        assert (found[:-1] >= found[1:] - 1e-9).all()
    again = {key: tensor.clone() for key, tensor in state(supernet).items()}
    sort_channels(axes, state(supernet))
    assert all(torch.equal(again[key], tensor) for key, tensor in state(supernet).items())


@pytest.mark.parametrize("name", SPACES)
def test_every_elastic_width_is_an_axis(name: str) -> None:
    """Read off the blueprints: a convolution whose width differs from one architecture to the next makes an axis."""
    space = space_of(name)
    seen: dict[str, set[int]] = {}
    drawn = space.sample(200, np.random.default_rng(0))
    for row in np.concatenate([space.largest, space.smallest, drawn]):
        for block in space.blueprint(row).blocks:
            for layer in block.all_layers:
                if layer.op == "conv" and not layer.depthwise:
                    seen.setdefault(f"{block.key.replace('.', '_')}.{layer.name}.conv.weight", set()).add(
                        layer.out_channels
                    )
    elastic = {weight for weight, widths in seen.items() if len(widths) > 1}
    found = {d.tensor for axis in axes_of(name) for d in axis.places if d.axis == 0 and d.tensor in seen}
    assert elastic
    assert elastic <= found


@pytest.mark.parametrize("name", ["darts", "nas-bench-201"])
def test_a_space_without_elastic_widths_has_nothing_to_sort(name: str) -> None:
    assert channel_axes(get_space(name)) == ()


def test_an_expanding_convolution_shares_its_channels_with_all_that_the_block_has_of_them() -> None:
    space = space_of("ofa-mobilenet-v3")
    block = next(b for b in space.blueprint(space.largest).blocks if any(layer.op == "se" for layer in b.layers))
    prefix = block.key.replace(".", "_")
    names = [layer.name for layer in block.layers]
    expand, depthwise, squeeze, project = names
    axis = at(axes_of("ofa-mobilenet-v3"), Dim(f"{prefix}.{expand}.conv.weight", 0))
    norm = ("weight", "bias", "running_mean", "running_var")
    expected = {Dim(f"{prefix}.{layer}.norm.{each}", 0) for layer in (expand, depthwise) for each in norm}
    expected |= {Dim(f"{prefix}.{layer}.conv.weight", 0) for layer in (expand, depthwise)}
    expected |= {Dim(f"{prefix}.{layer}.conv.bias", 0) for layer in (expand, depthwise)}
    expected |= {Dim(f"{prefix}.{squeeze}.expand.{each}", 0) for each in ("weight", "bias")}
    expected |= {Dim(f"{prefix}.{squeeze}.reduce.weight", 1), Dim(f"{prefix}.{project}.conv.weight", 1)}
    assert set(axis.places) == expected
    assert axis.readers == (Dim(f"{prefix}.{project}.conv.weight", 1),)
    assert {space.choices[column].kind for column in axis.columns} == {"expand_ratio"}


def test_a_narrower_block_takes_the_channels_that_the_next_layer_weighs_most() -> None:
    supernet = made("mobilenet-v2")
    axes = axes_of("mobilenet-v2")
    axis = axes[-1]
    (reader,) = [dim for dim in axis.readers if dim.tensor.endswith("conv.weight")][:1]
    made_by = next(dim for dim in axis.places if dim.tensor.endswith("conv.weight") and dim.axis == 0)
    read, rows = state(supernet)[reader.tensor].clone(), state(supernet)[made_by.tensor].clone()
    weighed = read.abs().sum((0, 2, 3)).numpy()
    expected = np.argsort(-weighed, kind="stable")
    sort_channels([axis], state(supernet))
    assert torch.equal(state(supernet)[made_by.tensor], rows[expected.copy()])
    assert torch.equal(state(supernet)[reader.tensor], read[:, expected.copy()])


def test_what_belongs_to_the_parameters_follows() -> None:
    """Sorted between two steps with momentum, a training goes on to the same network."""
    plain, moved = made("ofa-mobilenet-v3"), made("ofa-mobilenet-v3")
    space = plain.space
    x, y = images(space, 8, 1), torch.arange(8) % 5
    held = []
    for supernet in (plain, moved):
        optimizer = make_optimizer(supernet, 0.9, 1e-4)
        for step in range(3):
            if supernet is moved and step == 2:
                names = {p: name.removeprefix("network.") for name, p in supernet.named_parameters()}
                momentum = {names[p]: each["momentum_buffer"] for p, each in optimizer.state.items()}
                sort_channels(axes_of("ofa-mobilenet-v3"), state(supernet), momentum)
            for group in optimizer.param_groups:
                group["lr"] = 0.05
            optimizer.zero_grad()
            F.cross_entropy(supernet.train()(x, space.largest), y).backward()
            optimizer.step()
        held.append(supernet.eval()(x, space.largest).detach())
    assert float((held[0] - held[1]).abs().max() / held[0].abs().max()) < 1e-9


def test_channels_are_left_out_where_some_option_in_use_leaves_them_out() -> None:
    space = space_of("ofa-mobilenet-v3")
    axes = axes_of("ofa-mobilenet-v3")

    def in_use(kind: str) -> list[int]:
        return [2 if choice.kind == kind else 1 for choice in space.choices]

    assert narrows(axes, in_use("expand_ratio"))
    assert not narrows(axes, in_use("kernel_size"))
    assert not narrows(axes, in_use("depth"))
    assert narrows(axes, space.num_options.tolist())
    assert not narrows((), space.num_options.tolist())


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_whatever_the_weights(seed: int) -> None:
    supernet = made("ofa-mobilenet-v3", seed % 1000)
    twin, space = copy.deepcopy(supernet), supernet.space
    x = images(space, 1, seed)
    sort_channels(axes_of("ofa-mobilenet-v3"), state(twin))
    with torch.no_grad():
        off = (twin(x, space.largest) - supernet(x, space.largest)).abs().max()
    assert float(off) < 1e-10 * max(1.0, float(supernet(x, space.largest).detach().abs().max()))

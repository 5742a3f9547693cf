"""One set of weights, every architecture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snugnet.errors import SpaceError
from snugnet.spaces import get_space
from snugnet.supernets import Supernet

SPACE = get_space(
    "ofa-mobilenet-v3", width_mult=0.2, resolution=17, num_classes=7, stem_stride=1, stage_strides=[2, 1, 2, 1, 1]
)


def supernet(seed: int = 0) -> Supernet:
    """With running statistics that are not those of a fresh network."""
    made = Supernet(SPACE, seed=seed).train()
    with torch.no_grad():
        made(torch.randn(8, 3, 17, 17, generator=torch.Generator().manual_seed(seed)), SPACE.largest)
    return made


def drawn(seed: int) -> np.ndarray:
    return SPACE.sample(1, np.random.default_rng(seed))[0]


@pytest.mark.parametrize("arch", [*SPACE.extremes().values(), *(drawn(seed) for seed in range(12))])
@pytest.mark.parametrize("training", [True, False])
def test_extract_is_the_subnetwork(arch: np.ndarray, training: bool) -> None:
    net = supernet().train(training)
    static = net.extract(arch)
    x = torch.randn(5, 3, 17, 17)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    torch.testing.assert_close(net(x, arch), static(x), rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in static.parameters()) == SPACE.blueprint(arch).params
    if training:  # the same running statistics were updated in the same way
        again = net.extract(arch).state_dict()
        for key, value in static.state_dict().items():
            torch.testing.assert_close(again[key], value, rtol=1e-4, atol=1e-5)
    else:
        assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 6), min_size=1, max_size=7, unique=True))
def test_cut_heads(seed: int, classes: list[int]) -> None:
    net, arch, x = supernet().eval(), drawn(seed), torch.randn(1, 3, 17, 17)
    whole = net(x, arch)
    torch.testing.assert_close(net(x, arch, classes), whole[:, classes], rtol=1e-4, atol=1e-5)
    static = net.extract(arch, classes)
    torch.testing.assert_close(static(x), whole[:, classes], rtol=1e-4, atol=1e-5)
    assert static.blueprint == SPACE.blueprint(arch).with_classes(len(classes))


def test_copies_share_nothing() -> None:
    net = supernet().eval()
    arch, x = SPACE.centroid, torch.randn(2, 3, 17, 17)
    static, before = net.extract(arch), net(x, arch)
    with torch.no_grad():
        for tensor in static.parameters():
            tensor.zero_()
    assert torch.equal(net(x, arch), before)


@pytest.mark.parametrize("seed", range(4))
def test_only_used_weights_get_a_gradient(seed: int) -> None:
    """Leading channels, the centre of the kernel, leading blocks; each of them and nothing else."""
    net, arch = supernet(), drawn(seed)
    net(torch.randn(6, 3, 17, 17), arch).square().sum().backward()
    used = {block.name: block for block in SPACE.blueprint(arch).blocks}
    for name, module in net.network.block_modules().items():
        if name not in used:
            assert all(p.grad is None for p in module.parameters()), name
            continue
        for layer in used[name].layers:
            if layer.op != "conv":
                continue
            gradient = module.layer_modules()[layer.name].conv.weight.grad
            edge = (gradient.shape[-1] - layer.kernel) // 2
            inside = torch.zeros_like(gradient, dtype=torch.bool)
            inside[
                : layer.out_channels,
                : layer.in_channels // layer.groups,
                edge : edge + layer.kernel,
                edge : edge + layer.kernel,
            ] = True
            assert not gradient[~inside].any(), (name, layer.name)
            assert gradient[inside].abs().sum() > 0, (name, layer.name)
            if layer.depthwise:
                assert layer.kernel < 7 or inside.all() or layer.out_channels < gradient.shape[0]


def test_two_threads_run_two_subnetworks() -> None:
    net = supernet().eval()
    x = torch.randn(4, 3, 17, 17)
    archs = [drawn(seed) for seed in range(4)]
    with torch.no_grad():
        alone = [net(x, arch) for arch in archs]
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(lambda i: net(x, archs[i % 4]), range(16)))
    for i, out in enumerate(together):
        torch.testing.assert_close(out, alone[i % 4])


def test_what_is_no_architecture_or_class() -> None:
    net, x = supernet().eval(), torch.randn(1, 3, 17, 17)
    with pytest.raises(SpaceError, match="shape"):
        net(x, [0, 1, 2])
    with pytest.raises(SpaceError, match="options 0 to"):
        net(x, SPACE.largest + 1)
    with pytest.raises(SpaceError, match="one architecture"):
        net.extract(SPACE.sample(2, np.random.default_rng(0)))
    for classes in ([], [7], [-1]):
        with pytest.raises(SpaceError, match="classes are indices"):
            net.extract(SPACE.smallest, classes)

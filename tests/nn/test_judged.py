"""Networks as they are judged: the numbers of calibration and of eval mode, by other means."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snugnet.nn import ConvLayer, Network, with_layout
from snugnet.nn.judged import FoldedConv, MeasuringConv, folded, measuring
from snugnet.spaces import Layer, SearchSpace
from snugnet.supernets import Supernet
from snugnet.training.calibration import calibrate


@pytest.fixture
def networks(tiny_space: SearchSpace, randomise: Callable[[nn.Module, int], None]) -> list[Network]:
    """Some of every space, with weights and statistics that are not those of the start."""
    supernet = Supernet(tiny_space, seed=1).eval()
    randomise(supernet, 2)
    return [supernet.extract(row) for row in tiny_space.sample(3, np.random.default_rng(0))]


def close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_folding_changes_no_logit(networks: list[Network], layout: torch.memory_format) -> None:
    for network in networks:
        size = network.blueprint.resolution
        images = torch.randn(17, 3, size, size).contiguous(memory_format=layout)
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        twin = folded(with_layout(network, layout))
        assert any(isinstance(module, FoldedConv) for module in twin.modules())
        close(twin(images), network(images))
        assert not any(isinstance(module, FoldedConv) for module in network.modules())
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@torch.no_grad()
def test_measured_statistics_are_calibrated_ones(networks: list[Network]) -> None:
    """In float64 to its rounding: what is foreseen, what is measured, and layers of batch norm that stay."""
    for network in networks:
        size = network.blueprint.resolution
        batches = [torch.randn(n, 3, size, size, dtype=torch.float64) for n in (9, 9, 5)]
        expected = network.double().train()(batches[0])
        torch.testing.assert_close(measuring(network)(batches[0]), expected, rtol=1e-6, atol=1e-9)
        network.eval()
        twin = measuring(network)
        calibrate(twin, batches)
        calibrate(network, batches)
        kept = [
            module for module in twin.modules() if isinstance(module, MeasuringConv) and module.batches
        ]  # not behind zeros
        assert kept
        for module in kept:
            (norm,) = module._norm
            torch.testing.assert_close(module.mean / 3, norm.running_mean, rtol=1e-7, atol=1e-9)
            torch.testing.assert_close(module.var / 3, norm.running_var, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(folded(twin)(batches[0]), network(batches[0]), rtol=1e-6, atol=1e-9)


@torch.no_grad()
def test_statistics_far_from_zero(randomise: Callable[[nn.Module, int], None]) -> None:
    """A mean of a hundred deviations in float32: what is foreseen is then no worse."""
    conv = ConvLayer(Layer("expand", "conv", 8, 32, 6, norm=True))
    randomise(conv, 1)
    images = torch.randn(64, 8, 6, 6) + 100
    module = MeasuringConv(conv)
    assert module.ahead
    module(images)
    var, mean = torch.var_mean(conv.conv.double()(images.double()), (0, 2, 3), correction=1)
    torch.testing.assert_close(module.mean.float(), mean.float(), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(module.var.float(), var.float(), rtol=1e-3, atol=0)

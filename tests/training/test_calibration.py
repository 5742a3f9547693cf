"""Recalibrated statistics are exact averages; accuracy is a share of images."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from snugnet.errors import TrainingError
from snugnet.spaces import get_space
from snugnet.supernets import Supernet
from snugnet.training.calibration import accuracy, calibrate

SPACE = get_space("ofa-mobilenet-v3", width_mult=0.1, resolution=9, num_classes=4, stem_stride=1)


def batches(n: int, size: int = 6) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    return [torch.randn(size, 3, 9, 9, generator=generator) * (i + 1) for i in range(n)]


@pytest.mark.parametrize("training", [False, True])
def test_statistics_are_the_averages_over_the_batches(training: bool) -> None:
    network = Supernet(SPACE).extract(SPACE.smallest).double().train(training)
    norms = {name: m for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for norm in norms.values():  # stale statistics and an odd momentum
        norm.running_mean.fill_(7)
        norm.running_var.fill_(9)
        norm.momentum = 0.37
    means: dict[str, list[torch.Tensor]] = {name: [] for name in norms}
    variances: dict[str, list[torch.Tensor]] = {name: [] for name in norms}
    hooks = []
    for name, norm in norms.items():

        def hook(_m: nn.Module, inputs: tuple[torch.Tensor, ...], name: str = name) -> None:
            means[name].append(inputs[0].mean((0, 2, 3)))
            variances[name].append(inputs[0].var((0, 2, 3), unbiased=True))

        hooks.append(norm.register_forward_pre_hook(hook))
    weights = {name: parameter.clone() for name, parameter in network.named_parameters()}
    calibrate(network, (batch.double() for batch in batches(3)))  # any iterable
    for name, norm in norms.items():
        assert len(means[name]) == 3
        torch.testing.assert_close(norm.running_mean, torch.stack(means[name]).mean(0))
        torch.testing.assert_close(norm.running_var, torch.stack(variances[name]).mean(0))
        assert norm.momentum == 0.37
        assert norm.num_batches_tracked == 3
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(parameter, weights[name]) for name, parameter in network.named_parameters())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_calibrating_twice_is_calibrating_once() -> None:
    network = Supernet(SPACE).extract(SPACE.centroid)
    calibrate(network, batches(2))
    first = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    calibrate(network, batches(2))
    assert all(torch.equal(tensor, first[name]) for name, tensor in network.state_dict().items())


def test_a_copy_is_calibrated_and_the_supernet_is_not() -> None:
    supernet = Supernet(SPACE)
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    calibrate(supernet.extract(SPACE.largest), batches(1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())


def test_a_batch_that_breaks_leaves_momentum_and_mode_in_order() -> None:
    network = Supernet(SPACE).extract(SPACE.smallest)
    with pytest.raises(RuntimeError):
        calibrate(network, [torch.randn(2, 5, 9, 9)])
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.momentum == 0.1 for norm in norms)
    assert not any(module.training for module in network.modules())


def test_accuracy() -> None:
    network = nn.Identity()
    logits = torch.eye(4)
    assert accuracy(network, [(logits, torch.tensor([0, 1, 2, 3]))]) == 1.0
    assert accuracy(network, [(logits, torch.tensor([1, 0, 3, 2]))]) == 0.0
    # batches of different sizes: a share of the images, not of the batches
    assert accuracy(network, [(logits, torch.tensor([0, 1, 2, 0])), (logits[:1], torch.tensor([1]))]) == 3 / 5
    assert math.isnan(accuracy(network, []))
    assert math.isnan(accuracy(network, [(logits[:0], torch.empty(0, dtype=torch.long))]))
    assert isinstance(accuracy(network, [(logits, torch.arange(4))]), float)


def test_there_is_nothing_to_calibrate_on() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    with pytest.raises(TrainingError, match="without images"):
        calibrate(network, [])


def test_nothing_is_read_off_the_device_while_statistics_are_measured() -> None:
    """A counter that every batch norm reads for every batch would have the host wait for a GPU each time."""
    network = Supernet(SPACE).extract(SPACE.smallest)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        calibrate(network, batches(3))
    assert not [event.name for event in seen.events() if event.name in ("aten::item", "aten::_local_scalar_dense")]

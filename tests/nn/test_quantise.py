"""Weights and activations at a few bits: values and gradients against the rules that the module states."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from snugnet.nn import quantise
from snugnet.nn.gated import GatedSupernet
from snugnet.nn.layers import ConvLayer
from snugnet.nn.network import Network, build
from snugnet.nn.quantise import quantised_activation, quantised_weight, weight_codes
from snugnet.spaces import get_space
from snugnet.spaces.effects import Encoding
from snugnet.supernets import Supernet
from snugnet.training.supernet import make_optimizer

BITS = [1, 2, 3, 4, 8]
SMALL = {
    "resolution": 16, "widths": [8, 8, 12, 16], "stem_kernel": 3, "stem_stride": 1, "stem_pool": False, "num_classes": 5
}  # fmt: skip


def test_weights_by_hand() -> None:
    weight = torch.tensor([-2.0, -0.5, 0.0, 1.5])
    assert quantised_weight(weight, 0) is weight
    assert quantised_weight(weight, 1).tolist() == [-1, -1, 1, 1]  # the mean magnitude is 1
    # tanh: -0.964 -0.462 0 0.905; over the largest: -1 -0.479 0 0.939; in thirds of [-1, 1], the tie of 0 to the even level
    torch.testing.assert_close(quantised_weight(weight, 2), torch.tensor([-1, -1 / 3, 1 / 3, 1]))


def test_activations_by_hand() -> None:
    clip = torch.full((1, 1, 1, 1), 3.0)
    x = torch.tensor([-1.0, 0.0, 0.4, 0.6, 1.5, 2.6, 3.0, 9.0])
    assert quantised_activation(x, clip, 2).tolist() == [0, 0, 0, 1, 2, 3, 3, 3]
    assert quantised_activation(x, clip, 1).tolist() == [0, 0, 0, 0, 0, 3, 3, 3]


@pytest.mark.parametrize("bits", BITS)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-6, 0.1, 1.0, 30.0]))
def test_a_tensor_has_at_most_so_many_levels(bits: int, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(8, 16, 3, 3, generator=generator) * scale
    for made in (quantised_weight(x, bits), quantised_activation(x, torch.full((1,), 2.0), bits)):
        assert made.shape == x.shape
        assert made.isfinite().all()
        assert len(made.unique()) <= 2**bits
    codes = weight_codes(x, bits).codes
    assert set(codes.unique().tolist()) <= set(range(2**bits))


@pytest.mark.parametrize("weight", [torch.zeros(2, 3, 1, 1), torch.full((1, 1, 1, 1), -0.5)])
@pytest.mark.parametrize("bits", BITS)
def test_weights_that_are_all_alike(weight: Tensor, bits: int) -> None:
    weight = weight.requires_grad_()
    made = quantised_weight(weight, bits)
    made.sum().backward()
    assert made.isfinite().all()
    assert weight.grad.isfinite().all()


def _finite_differences(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-6) -> Tensor:
    slopes = []
    for i in range(at.numel()):
        move = torch.zeros_like(at).view(-1)
        move[i] = step
        move = move.view_as(at)
        slopes.append((function(at + move) - function(at - move)) / (2 * step))
    return torch.stack(slopes).view_as(at)


@pytest.mark.parametrize("bits", BITS)
def test_the_gradient_of_a_weight_is_its_surrogates(bits: int) -> None:
    torch.manual_seed(bits)
    weight = torch.randn(3, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    direction = torch.randn_like(weight)
    (gradient,) = torch.autograd.grad((quantised_weight(weight, bits) * direction).sum(), weight)

    def surrogate(at: Tensor) -> Tensor:
        if bits == 1:
            return (at * direction).sum()
        bounded = torch.tanh(at)
        return (bounded / bounded.abs().max() * direction).sum()

    torch.testing.assert_close(gradient, _finite_differences(surrogate, weight.detach()), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bits", BITS)
def test_the_gradient_of_an_activation_is_the_clips(bits: int) -> None:
    torch.manual_seed(bits)
    x = torch.randn(50, dtype=torch.float64).mul(3).requires_grad_()
    clip = torch.full((1, 1, 1, 1), 2.5, dtype=torch.float64, requires_grad=True)
    direction = torch.randn_like(x)
    d_x, d_clip = torch.autograd.grad((quantised_activation(x, clip, bits) * direction).sum(), (x, clip))
    inside, above = (x > 0) & (x < 2.5), x >= 2.5
    assert torch.equal(d_x, direction * inside)
    torch.testing.assert_close(d_clip.item(), float(direction[above].sum()))
    smooth = [
        _finite_differences(lambda at: (at.clamp(min=0).minimum(clip) * direction).sum(), x.detach()),
        _finite_differences(lambda at: (x.clamp(min=0).minimum(at) * direction).sum(), clip.detach()),
    ]
    for got, expected in zip((d_x, d_clip), smooth, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7)


def test_without_rounding_both_rules_are_their_surrogates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise, "nearest", lambda x: x)
    x = torch.randn(40, dtype=torch.float64)
    bounded = torch.tanh(x)
    torch.testing.assert_close(quantised_weight(x, 2), bounded / bounded.abs().max(), rtol=0, atol=1e-6)
    torch.testing.assert_close(quantised_activation(x, torch.ones(1, dtype=torch.float64), 2), x.clamp(0, 1))


def test_a_clip_that_has_gone_below_zero_stays_harmless() -> None:
    clip = torch.full((1, 1, 1, 1), -1.0, requires_grad=True)
    made = quantised_activation(torch.randn(20), clip, 2)
    made.sum().backward()
    assert made.isfinite().all()
    assert clip.grad.item() > 0  # it is on its way back up, or down as the loss says


# -- networks ----------------------------------------------------------------------------------------------------------


def _seen(network: Network, x: Tensor) -> list[tuple[ConvLayer, Tensor, Tensor]]:
    """Every quantised convolution of a run, with its input and weight as the convolution sees them."""
    seen = []
    hooks = [
        module.register_forward_pre_hook(
            lambda module, args: seen.append((module, *module.operands(args[0], args[1])[:2]))
        )
        for module in network.modules()
        if isinstance(module, ConvLayer) and module.layer.weight_bits
    ]
    network(x)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("training", [True, False])
def test_levels_in_a_network(training: bool) -> None:
    space = get_space("resnet-mixed-precision", **SMALL)
    supernet = Supernet(space, seed=1)
    rng = np.random.default_rng(0)
    for row in space.sample(3, rng):
        network = supernet.train(training).extract(row)
        seen = _seen(network, torch.randn(4, 3, 16, 16))
        assert len(seen) == 19
        for module, x, weight in seen:
            assert len(weight.unique()) <= 2**module.layer.weight_bits
            assert len(x.unique()) <= 2**module.layer.activation_bits
            assert x.min() >= 0


def test_a_supernets_slices_are_quantised_as_the_slices_that_they_are() -> None:
    space = get_space("resnet-mixed-precision", **SMALL)
    supernet = Supernet(space, seed=1)
    for row in space.sample(4, np.random.default_rng(3)):
        x = torch.randn(4, 3, 16, 16)
        assert torch.equal(supernet.train()(x, row), supernet.train().extract(row)(x))


def test_weight_decay_reaches_clips_as_it_does_weights() -> None:
    network = build(get_space("resnet-mixed-precision", **SMALL).union)
    clips = [parameter for name, parameter in network.named_parameters() if name.endswith("clip")]
    assert len(clips) == 19
    assert all(clip.item() == quantise.INITIAL_CLIP for clip in clips)
    decayed, left = make_optimizer(network, 0.9, 1e-4).param_groups
    ids = {id(parameter) for parameter in decayed["params"]}
    assert all(id(clip) in ids for clip in clips)
    assert {id(m.weight) for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {
        id(parameter) for parameter in left["params"] if parameter.ndim == 1
    } - {id(p) for name, p in network.named_parameters() if name.endswith("bias")}


@pytest.mark.parametrize("encoding", ["single-path", "multi-path"])
def test_hard_gates_are_the_sub_network_at_each_of_the_six(encoding: Encoding) -> None:
    space = get_space("resnet-mixed-precision", **SMALL)
    supernet = Supernet(space, seed=1).double().requires_grad_(False).train()
    rows = np.zeros((6, space.d), dtype=np.int16)
    rows[:, ::2] = (np.arange(6)[:, None] + np.arange(8)) % 6
    rows[:, 1::2] = (np.arange(6)[:, None] + np.arange(8)) % 3
    x = torch.randn(2, 6, 3, 16, 16, dtype=torch.float64)
    expected = torch.stack([supernet(x[:, p], row) for p, row in enumerate(rows)], 1)
    hot = [torch.from_numpy(np.eye(n)[rows[:, c]]).requires_grad_() for c, n in enumerate(space.num_options.tolist())]
    got = GatedSupernet(space, supernet.network)(x, hot, encoding)
    torch.testing.assert_close(got.detach(), expected, rtol=0, atol=1e-9)
    for choice, gradient in zip(space.choices, torch.autograd.grad(got.square().sum(), hot), strict=True):
        assert gradient.isfinite().all(), choice.name
        assert gradient.abs().max() > 0, choice.name


def test_reduced_precision_keeps_the_levels() -> None:
    network = build(get_space("resnet-mixed-precision", **SMALL).blueprint([5, 1] * 8)).train()
    with torch.autocast("cpu", torch.bfloat16):
        for module, x, weight in _seen(network, torch.randn(4, 3, 16, 16)):
            assert len(x.unique()) <= 2**module.layer.activation_bits
            assert len(weight.bfloat16().unique()) <= 2**module.layer.weight_bits
        network(torch.randn(4, 3, 16, 16)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())

"""Elastic layers: a smaller layer is the leading channels and the centre of the kernel, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from snugnet.nn import BlockModule, ConvLayer, LinearLayer, SELayer
from snugnet.nn.convolution import convolve
from snugnet.nn.layers import NormLayer, batch_norm, cropped
from snugnet.spaces import Block, Layer

DEPTHWISE = Layer("depthwise", "conv", 6, 6, 9, 7, 2, groups=6, norm=True, activation="relu")
POINTWISE = Layer("expand", "conv", 4, 6, 9, norm=True, activation="h_swish")
SE = Layer("se", "se", 8, 8, 5, hidden=4)
LINEAR = Layer("classifier", "linear", 8, 5, 1, bias=True)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_the_smaller_kernel_is_the_centre_of_the_larger() -> None:
    weight = torch.arange(49.0).reshape(1, 1, 7, 7)
    assert cropped(weight, 1, 1, 3)[0, 0].tolist() == [[16, 17, 18], [23, 24, 25], [30, 31, 32]]
    assert cropped(weight, 1, 1, 1).item() == 24
    assert torch.equal(cropped(weight, 1, 1, 7), weight)


def test_a_layer_at_full_size_slices_nothing() -> None:
    """A slice of everything costs a copy into zeros in the backward pass: only what is left out is sliced away."""
    block = Block("b", (POINTWISE, replace(DEPTHWISE, resolution=9), replace(SE, in_channels=6, out_channels=6)))
    module = BlockModule(block).train()
    alike = Block(
        block.name, tuple(replace(layer) for layer in block.layers)
    )  # equal, not the very layers: the elastic way
    smaller = Block(block.name, (block.layers[0], replace(block.layers[1], kernel=3), block.layers[2]))
    counts = []
    for sizes in (alike, smaller):
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            module(torch.randn(2, 4, 9, 9), sizes).sum().backward()
        counts.append(sum(event.name == "aten::slice_backward" for event in seen.events()))
    assert counts == [0, 2]  # the rows and the columns of the kernel


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 7, 9])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("columns", [3, 7])
def test_depthwise_weight_gradients_by_columns(
    size: int, kernel: int, stride: int, layout: torch.memory_format, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snugnet.nn.convolution._columns", lambda: columns)
    layer = Layer("depthwise", "conv", 5, 5, size, kernel, stride, groups=5)
    x = torch.randn(3, 5, size, size, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(5, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    expected = F.conv2d(x, weight, bias, stride, kernel // 2, groups=5)
    got = convolve(x, weight, bias, layer)
    assert got.shape == expected.shape == (3, 5, layer.out_resolution, layer.out_resolution)
    torch.testing.assert_close(got, expected)
    if size > 1:  # of one pixel every layout is the other
        assert got.is_contiguous(memory_format=layout)
    gradient = torch.randn_like(expected)
    inputs = (x, weight, bias)
    for ours, plain in zip(*(torch.autograd.grad(y, inputs, gradient) for y in (got, expected)), strict=True):
        torch.testing.assert_close(ours, plain)
    with torch.no_grad():
        assert torch.equal(convolve(x, weight, bias, layer), expected)


@pytest.mark.parametrize("size", [1, 2, 7, 8])
@pytest.mark.parametrize("stride", [2, 3])
def test_strided_1x1_convolutions(size: int, stride: int) -> None:
    layer = Layer("shortcut", "conv", 16, 8, size, 1, stride)
    x = torch.randn(3, 16, size, size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, 16, 1, 1, dtype=torch.float64, requires_grad=True)
    expected = F.conv2d(x, weight, None, stride)
    got = convolve(x, weight, None, layer)
    torch.testing.assert_close(got, expected)
    gradient = torch.randn_like(expected)
    for ours, plain in zip(*(torch.autograd.grad(y, (x, weight), gradient) for y in (got, expected)), strict=True):
        torch.testing.assert_close(ours, plain)


def test_smaller_widths_are_the_leading_channels() -> None:
    weight = torch.arange(24.0).reshape(4, 6, 1, 1)
    assert cropped(weight, 2, 3, 1).flatten().tolist() == [0, 1, 2, 6, 7, 8]


@pytest.mark.parametrize("channels", [1, 4, 6])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("training", [False, True])
def test_a_depthwise_convolution_by_hand(channels: int, kernel: int, training: bool) -> None:
    module = ConvLayer(DEPTHWISE).train(training)
    module.norm.running_mean.normal_()
    module.norm.running_var.uniform_(0.5, 2)
    mean, var = module.norm.running_mean.clone(), module.norm.running_var.clone()
    x = torch.randn(3, channels, 9, 9)
    edge = (7 - kernel) // 2
    weight = module.conv.weight[:channels, :, edge : 7 - edge, edge : 7 - edge]
    out = F.conv2d(x, weight, None, 2, kernel // 2, groups=channels)
    own = [t[:channels].clone() for t in (mean, var)]
    out = F.relu(F.batch_norm(out, *own, module.norm.weight[:channels], module.norm.bias[:channels], training))
    smaller = replace(DEPTHWISE, in_channels=channels, out_channels=channels, groups=channels, kernel=kernel)
    torch.testing.assert_close(module(x, smaller), out)
    assert out.shape[-1] == smaller.out_resolution == 5
    # the statistics of the leading channels moved, the others did not
    assert torch.equal(module.norm.running_mean, torch.cat([own[0], mean[channels:]]))
    assert torch.equal(module.norm.running_var, torch.cat([own[1], var[channels:]]))
    assert int(module.norm.num_batches_tracked) == int(training)


@pytest.mark.parametrize(
    ("whole", "smaller"),
    [
        (DEPTHWISE, replace(DEPTHWISE, in_channels=2, out_channels=2, groups=2, kernel=3)),
        (POINTWISE, replace(POINTWISE, in_channels=3, out_channels=5)),
        (replace(POINTWISE, norm=False, bias=True), replace(POINTWISE, norm=False, bias=True, out_channels=1)),
        (SE, replace(SE, in_channels=5, out_channels=5, hidden=2)),
        (LINEAR, replace(LINEAR, in_channels=6, out_channels=2)),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_what_a_smaller_layer_does_not_use_does_not_matter(whole: Layer, smaller: Layer, training: bool) -> None:
    """All that its views leave out is poisoned: the output is that of a module made from the views."""
    kind = {"conv": ConvLayer, "se": SELayer, "linear": LinearLayer}[whole.op]
    module, static = kind(whole).train(training), kind(smaller).train(training)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
        state = {name: view.clone() for name, view in module.views(smaller).items()}
        static.load_state_dict(state)
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.fill_(torch.nan)
        for name, view in module.views(smaller).items():
            view.copy_(state[name])  # views share memory with the weights
    x = torch.randn(4, smaller.in_channels, *([] if whole.op == "linear" else [whole.resolution] * 2))
    before = x.clone()
    torch.testing.assert_close(module(x, smaller), static(x), rtol=1e-5, atol=1e-5)
    assert torch.equal(x, before)
    assert {name: tuple(view.shape) for name, view in module.views(smaller).items()} == {
        name: tuple(tensor.shape) for name, tensor in static.state_dict().items()
    }


@pytest.mark.parametrize("layer", [DEPTHWISE, POINTWISE, SE, LINEAR])
@pytest.mark.parametrize("training", [False, True])
def test_at_full_size_the_description_changes_nothing(layer: Layer, training: bool) -> None:
    kind = {"conv": ConvLayer, "se": SELayer, "linear": LinearLayer}[layer.op]
    module = kind(layer).train(training)
    x = torch.randn(2, layer.in_channels, *([] if layer.op == "linear" else [layer.resolution] * 2))
    whole = module(x)
    assert torch.equal(module(x, layer), whole)
    torch.testing.assert_close(module(x, replace(layer)), whole)  # equal, but another object: the elastic way


@pytest.mark.parametrize("momentum", [0.1, 0.5, None])
def test_batch_norm_over_leading_channels_updates_as_torch_does(momentum: float | None) -> None:
    norm, expected = torch.nn.BatchNorm2d(5, momentum=momentum), torch.nn.BatchNorm2d(3, momentum=momentum)
    for _ in range(3):
        x = torch.randn(4, 3, 2, 2)
        torch.testing.assert_close(batch_norm(x, norm, 3), expected(x))
    torch.testing.assert_close(norm.running_mean[:3], expected.running_mean)
    torch.testing.assert_close(norm.running_var[:3], expected.running_var)
    assert norm.running_mean[3:].tolist() == [0, 0]
    assert norm.running_var[3:].tolist() == [1, 1]
    assert norm.num_batches_tracked == expected.num_batches_tracked


def test_a_shortcut_adds_the_input_and_leaves_it_as_it_is() -> None:
    layers = (replace(POINTWISE, out_channels=8), replace(POINTWISE, name="project", in_channels=8, out_channels=4))
    plain, added = (BlockModule(Block("b", layers, shortcut)).eval() for shortcut in (None, ()))
    added.load_state_dict(plain.state_dict())
    x = torch.randn(2, 4, 9, 9)
    before = x.clone()
    torch.testing.assert_close(added(x), plain(x) + x)
    smaller = Block("b", (replace(layers[0], out_channels=3), replace(layers[1], in_channels=3)), ())
    torch.testing.assert_close(added(x, smaller), plain(x, replace(smaller, shortcut=None)) + x)
    assert torch.equal(x, before)


# -- what cells are made of --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("stride", [1, 2])
def test_pools_over_an_odd_kernel_leave_out_what_lies_beyond_the_edge(size: int, stride: int) -> None:
    x = torch.randn(2, 3, size, size)
    average = BlockModule(Block("pool", (layer := Layer("pool", "avg_pool", 3, 3, size, 3, stride),)))(x)
    torch.testing.assert_close(average, torch.nn.AvgPool2d(3, stride, 1, count_include_pad=False)(x))
    greatest = BlockModule(Block("pool", (replace(layer, op="max_pool"),)))(x)
    torch.testing.assert_close(greatest, F.max_pool2d(x, 3, stride, 1))
    assert average.shape[-1] == greatest.shape[-1] == layer.out_resolution == -(-size // stride)
    assert layer.madds == layer.params == 0


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_dilated_convolution(kernel: int, stride: int, groups: int) -> None:
    layer = Layer("conv", "conv", 4, 4, 9, kernel, stride, groups=groups, dilation=2)
    module, x = ConvLayer(layer), torch.randn(2, 4, 9, 9)
    expected = F.conv2d(x, module.conv.weight, None, stride, kernel - 1, 2, groups)
    torch.testing.assert_close(module(x), expected)
    torch.testing.assert_close(module(x, replace(layer)), expected)
    assert expected.shape[-1] == layer.out_resolution
    assert (layer.madds, layer.params) == (
        kernel**2 * 4 // groups * 4 * layer.out_resolution**2,
        kernel**2 * 4 // groups * 4,
    )


@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_alone(training: bool) -> None:
    layer = Layer("norm", "norm", 4, 4, 5, activation="relu")
    module, plain = NormLayer(layer).train(training), torch.nn.BatchNorm2d(4).train(training)
    plain.load_state_dict(module.norm.state_dict())
    x = torch.randn(3, 4, 5, 5)
    before = x.clone()
    torch.testing.assert_close(module(x), F.relu(plain(x)))
    assert torch.equal(x, before)
    assert (layer.madds, layer.params) == (0, sum(p.numel() for p in module.parameters()))
    smaller = replace(layer, in_channels=2, out_channels=2)
    module, static = NormLayer(layer).train(training), NormLayer(smaller).train(training)
    static.load_state_dict(module.views(smaller))
    torch.testing.assert_close(module(x[:, :2], smaller), static(x[:, :2]))


def test_zeros_and_identities() -> None:
    x = torch.randn(2, 3, 9, 9).half()
    zero = BlockModule(Block("edge", (layer := Layer("zero", "zero", 3, 3, 9, stride=2),)))(x)
    assert zero.dtype == x.dtype
    assert zero.shape == (2, 3, 5, 5)
    assert not zero.any()
    assert (layer.madds, layer.params, layer.activations) == (0, 0, 0)
    assert BlockModule(Block("edge", (Layer("identity", "identity", 3, 3, 9),)))(x) is x


def test_the_factorized_reduction_of_darts() -> None:
    """Two strided 1x1 convolutions, the second one pixel further on; odd sizes see zeros there."""
    layers = (Layer("shift", "shift", 3, 3, 8), Layer("second", "conv", 3, 4, 8, stride=2, norm=True))
    around = (Layer("first", "conv", 3, 4, 8, stride=2, norm=True),)
    module = BlockModule(Block("reduce", layers, around, join="concat"))
    x = torch.randn(5, 3, 8, 8)
    first, second = (module.layer_modules()[name].conv.weight for name in ("first", "second"))
    out = torch.cat((F.conv2d(x, first, None, 2), F.conv2d(x[:, :, 1:, 1:], second, None, 2)), 1)
    torch.testing.assert_close(module(x), F.batch_norm(out, None, None, training=True))
    assert module(torch.randn(5, 3, 9, 9)).shape[-1] == replace(layers[1], resolution=9).out_resolution

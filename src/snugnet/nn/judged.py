"""A static network as it is run to be judged: batch norm is measured on the way in as few passes as will do, then folded away.

Twins of a network that share its weights: :func:`measuring` for batches whose statistics are wanted, :func:`folded` for all others.
No gradients. What holds weights at a few bits keeps its batch norm as a layer: scaled channel by channel they would be rounded to other
levels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snugnet.nn.convolution import depthwise_on_cuda
from snugnet.nn.layers import ACTIVATIONS, BlockModule, ConvLayer, SELayer
from snugnet.nn.network import Network, structure
from snugnet.spaces import Layer
from snugnet.spaces.blueprint import Activation

_NUMBERS = 2**18  # normalised at once on a CPU: a megabyte, what a core's cache holds
_POST_OPS: dict[Activation, tuple[str, list[int]]] = {
    "none": ("none", []),
    "relu": ("relu", []),
    "relu6": ("hardtanh", [0, 6]),
    "h_swish": ("hardswish", []),
    "swish": ("swish", []),
}
_FUSED: Any = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)  # torch's own fusions; no public name has them


def run(x: Tensor, weight: Tensor, bias: Tensor | None, layer: Layer, activation: Activation) -> Tensor:
    """A convolution and an activation, (n, in, h, h) -> (n, out, h', h'), without a gradient.

    On a CPU one call of oneDNN with the activation inside: torch's own choice for 1x1 convolutions of few images writes the bias first, and
    the activation is one more pass over memory.
    """
    window = layer.stride, layer.padding, layer.dilation
    if _FUSED is not None and x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and not _autocast(x):
        stride, padding, dilation = ([each] * 2 for each in window)
        post, scalars = _POST_OPS[activation]
        out: Tensor = _FUSED(x, weight, bias, padding, stride, dilation, layer.groups, post, scalars, "")
        return out
    if layer.depthwise and x.is_cuda:
        x = depthwise_on_cuda(x, weight, bias, layer)
    else:
        x = F.conv2d(x, weight, bias, *window, layer.groups)
    return ACTIVATIONS[activation](x)


def _autocast(x: Tensor) -> bool:
    return torch.is_autocast_enabled(x.device.type)


def _affine(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift, float64 (c,), that batch norm with these statistics is."""
    scale = norm.weight.double() / (var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - mean.double() * scale


def _scaled(weight: Tensor, scale: Tensor) -> Tensor:
    """A convolution's weight with its output channels scaled, computed in float64."""
    scaled = (weight.double() * scale[:, None, None, None]).to(weight.dtype)
    return scaled.contiguous(memory_format=torch.channels_last)


class FoldedConv(nn.Module):
    """A convolution with its batch norm in weight and bias: ``norm(conv(x))`` has weight ``w * s`` and bias ``b * s + beta - mean * s``
    where ``s = gamma / sqrt(var + eps)``, computed in float64, so that the only rounding is that of the result."""

    def __init__(self, layer: Layer, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.layer, self.weight, self.bias = layer, weight, bias

    @classmethod
    def of(cls, layer: Layer, conv: nn.Conv2d, norm: nn.BatchNorm2d, mean: Tensor, var: Tensor) -> FoldedConv:
        """The convolution, then batch norm with these statistics."""
        scale, shift = _affine(norm, mean, var)
        if conv.bias is not None:
            shift = shift + conv.bias.double() * scale
        return cls(layer, _scaled(conv.weight, scale), shift.to(conv.weight.dtype))

    def cast(self, dtype: torch.dtype) -> None:
        """Hold weight and bias in another type."""
        self.weight, self.bias = self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype)

    def forward(self, x: Tensor, layer: Layer | None = None) -> Tensor:
        """Run it; the size is its own."""
        return run(x, self.weight, self.bias, self.layer, self.layer.activation)


class MeasuringConv(nn.Module):
    """A convolution and batch norm by the batch's own statistics, which are kept: their averages over batches are what recalibrated
    running statistics are (the variance the unbiased one).

    A 1x1 convolution to more channels than twice those it reads knows the statistics of its output beforehand: mean ``W m`` and variances
    the diagonal of ``W C W^T``, of the mean and the covariance of its input. So it runs with batch norm folded in, and what is largest in
    such a network is written once.
    """

    def __init__(self, module: ConvLayer) -> None:
        super().__init__()
        assert module.norm is not None
        layer = module.layer
        self.layer, self.conv, self._norm = layer, module.conv, (module.norm,)  # in a tuple: no module of this one
        self.ahead = layer.kernel == layer.stride == layer.groups == 1 and 2 * layer.in_channels <= layer.out_channels
        self.batches = 0
        self.mean = self.var = torch.zeros((), dtype=torch.float64)

    def forward(self, x: Tensor, layer: Layer | None = None) -> Tensor:
        """Run it; the size is its own."""
        own, (norm,), conv = self.layer, self._norm, self.conv
        if self.ahead:
            mean, var = self._foreseen(x)
            self._keep(mean, var, x.numel() // x.shape[1])
            folded = FoldedConv.of(own, conv, norm, mean, var)
            out: Tensor = folded(x)
            return out
        x = run(x, conv.weight, conv.bias, own, "none")
        mean, var = torch.batch_norm_update_stats(x, None, None, 0.0)
        self._keep(mean, var, x.numel() // x.shape[1])
        scale, shift = (each.to(x.dtype)[:, None, None] for each in _affine(norm, mean, var))
        images = max(1, _NUMBERS * len(x) // x.numel()) if x.device.type == "cpu" else len(x)
        for part in x.split(images):
            ACTIVATIONS[own.activation](torch.addcmul(shift, part, scale, out=part))
        return x

    def _foreseen(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the output, float64 (out,)."""
        pixels = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        centre = pixels.mean(0)
        pixels = pixels - centre  # else the difference of two large numbers would be the variance
        covariance = (pixels.T @ pixels).double() / len(pixels)
        weight = self.conv.weight.flatten(1).double()
        mean = weight @ centre.double()
        if self.conv.bias is not None:
            mean = mean + self.conv.bias.double()
        return mean, ((weight @ covariance) * weight).sum(1).clamp_min(0)

    def _keep(self, mean: Tensor, var: Tensor, n: int) -> None:
        self.batches += 1
        self.mean = self.mean.to(mean.device) + mean
        self.var = self.var.to(var.device) + var.double() * (n / max(n - 1, 1))

    def folded(self) -> FoldedConv:
        """The convolution with the averages of what was measured."""
        return FoldedConv.of(self.layer, self.conv, self._norm[0], self.mean / self.batches, self.var / self.batches)


class JudgedSE(nn.Module):
    """Squeeze-and-excitation whose two layers are matrix products: as convolutions of one pixel they take up to twice as long on a CPU."""

    def __init__(self, module: SELayer) -> None:
        super().__init__()
        self.reduce, self.expand = module.reduce, module.expand

    def forward(self, x: Tensor, layer: Layer | None = None) -> Tensor:
        """Run it; the size is its own."""
        hidden = F.linear(x.mean((2, 3)), self.reduce.weight.flatten(1), self.reduce.bias)
        gates = F.linear(F.relu(hidden, inplace=True), self.expand.weight.flatten(1), self.expand.bias)
        return x * F.hardsigmoid(gates)[:, :, None, None]


def measuring(network: Network) -> Network:
    """A twin that normalises each batch by its own statistics and keeps them; layers of batch norm that are left are to be calibrated."""
    return _with(network, lambda module: MeasuringConv(module) if _folds(module) else module)


def folded(network: Network) -> Network:
    """A twin whose convolutions hold their batch norm: by what a :func:`measuring` network has kept, or else by running statistics."""

    def one(module: nn.Module) -> nn.Module:
        if isinstance(module, MeasuringConv):
            return module.folded() if module.batches else module  # what no output depends on is not run
        if not isinstance(module, ConvLayer) or not _folds(module):
            return module
        norm = module.norm
        assert norm is not None
        assert norm.running_mean is not None
        assert norm.running_var is not None
        return FoldedConv.of(module.layer, module.conv, norm, norm.running_mean, norm.running_var)

    return _with(network, one)


def _folds(module: nn.Module) -> bool:
    return (
        isinstance(module, ConvLayer)
        and module.norm is not None
        and not module.layer.weight_bits
        and not module.layer.activation_bits
    )


def _with(network: Network, one: Any) -> Network:
    """A twin of a network whose layers are others; all else is shared."""
    twin = structure(network)
    for block in twin.modules():
        if isinstance(block, BlockModule):
            for name, module in block.named_children():
                block._modules[name] = JudgedSE(module) if isinstance(module, SELayer) else one(module)
    return twin

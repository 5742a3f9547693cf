"""Layers whose size is an argument of ``forward``.

Each module is made from a blueprint :class:`~snugnet.spaces.Layer` and holds plain ``nn.Conv2d`` / ``nn.BatchNorm2d`` /
``nn.Linear``. Called with no description it is an ordinary static layer; called with the description of a smaller layer it
runs that one on a part of its weights: leading channels, and the centre of the kernel (EAS shares kernel weights without
OFA's transformation matrices, section 4). No state says which size is on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snugnet.nn.convolution import convolve
from snugnet.nn.quantise import INITIAL_CLIP, quantised_activation, quantised_weight
from snugnet.spaces.blueprint import Activation, Block, Branch, Layer

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": lambda x: F.relu(x, inplace=True),
    "relu6": lambda x: F.relu6(x, inplace=True),
    "h_swish": lambda x: F.hardswish(x, inplace=True),
    "swish": lambda x: F.silu(x, inplace=True),
}


def leading(tensor: Tensor, *sizes: int) -> Tensor:
    """The leading parts of a tensor's first axes, as a view; the tensor itself where that is all of it.

    A slice of everything would cost a copy into zeros in the backward pass, for each tensor.
    """
    for axis, size in enumerate(sizes):
        if tensor.shape[axis] != size:
            tensor = tensor.narrow(axis, 0, size)
    return tensor


def cropped(weight: Tensor, out_channels: int, in_channels: int, kernel: int) -> Tensor:
    """The view of a convolution's weight that a smaller convolution uses.

    Args:
        weight: shape (out, in, k, k).
        out_channels: leading output channels to keep.
        in_channels: leading input channels to keep.
        kernel: side of the centre to keep.
    """
    weight, edge = leading(weight, out_channels, in_channels), (weight.shape[-1] - kernel) // 2
    return weight.narrow(2, edge, kernel).narrow(3, edge, kernel) if edge else weight


class ConvLayer(nn.Module):
    """Convolution, then batch norm or a bias or neither, then an activation. (n, in, h, w) -> (n, out, h', w').

    Where the layer has bits, weight and input are quantised first (:mod:`snugnet.nn.quantise`). The clip of the input has as
    many axes as a weight, so that weight decay, which leaves out vectors, reaches it as PACT asks.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer
        self.conv = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel,
            layer.stride,
            layer.padding,
            layer.dilation,
            groups=layer.groups,
            bias=layer.bias,
        )
        self.norm = nn.BatchNorm2d(layer.out_channels) if layer.norm else None
        self.clip = nn.Parameter(torch.full((1, 1, 1, 1), INITIAL_CLIP)) if layer.activation_bits else None

    def forward(self, x: Tensor, layer: Layer | None = None) -> Tensor:
        """Run at full size, or at the size of ``layer``."""
        layer = layer or self.layer
        if layer is self.layer and not layer.weight_bits and not layer.activation_bits:
            x = convolve(x, self.conv.weight, self.conv.bias, layer)
            if self.norm is not None:
                x = self.norm(x)
            return ACTIVATIONS[self.layer.activation](x)
        x, weight, bias = self.operands(x, layer)
        x = convolve(x, weight, bias, layer)
        if self.norm is not None:
            x = batch_norm(x, self.norm, layer.out_channels)
        return ACTIVATIONS[layer.activation](x)

    def operands(self, x: Tensor, layer: Layer) -> tuple[Tensor, Tensor, Tensor | None]:
        """Input, weight and bias as the convolution of that size takes them: quantised where the layer is."""
        weight, bias = self.weights(layer)
        if self.clip is not None:
            x = quantised_activation(x, self.clip, layer.activation_bits)
        return x, quantised_weight(weight, layer.weight_bits), bias

    def weights(self, layer: Layer) -> tuple[Tensor, Tensor | None]:
        """Views of the weight and bias that a layer of that size uses."""
        weight = cropped(self.conv.weight, layer.out_channels, layer.in_channels // layer.groups, layer.kernel)
        bias = None if self.conv.bias is None else leading(self.conv.bias, layer.out_channels)
        return weight, bias

    def views(self, layer: Layer) -> dict[str, Tensor]:
        """State of the static layer of that size, as views."""
        weight, bias = self.weights(layer)
        state = {"conv.weight": weight} | ({} if bias is None else {"conv.bias": bias})
        if self.clip is not None:
            state["clip"] = self.clip
        if self.norm is not None:
            state |= norm_views(self.norm, layer.out_channels)
        return state


def norm_views(norm: nn.BatchNorm2d, channels: int) -> dict[str, Tensor]:
    """State of a batch norm over the leading channels, as views."""
    state = norm.state_dict(keep_vars=True)
    return {f"norm.{name}": leading(tensor, channels) if tensor.ndim else tensor for name, tensor in state.items()}


def batch_norm(x: Tensor, norm: nn.BatchNorm2d, channels: int) -> Tensor:
    """Batch norm over the leading channels; in training mode their running statistics are updated in place."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    momentum = norm.momentum
    if norm.training:
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        if momentum is None:  # cumulative average: how statistics are recalibrated
            momentum = 1.0 / float(norm.num_batches_tracked)
    return F.batch_norm(
        x,
        leading(norm.running_mean, channels),
        leading(norm.running_var, channels),
        leading(norm.weight, channels),
        leading(norm.bias, channels),
        norm.training,
        momentum or 0.0,
        norm.eps,
    )


class NormLayer(nn.Module):
    """Batch norm alone, then an activation. Shape is kept."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer
        self.norm = nn.BatchNorm2d(layer.out_channels)

    def forward(self, x: Tensor, layer: Layer | None = None) -> Tensor:
        """Run at full size, or on the leading channels."""
        layer = layer or self.layer
        x = self.norm(x) if layer is self.layer else batch_norm(x, self.norm, layer.out_channels)
        return ACTIVATIONS[layer.activation](x)

    def views(self, layer: Layer) -> dict[str, Tensor]:
        """State of the static layer of that size, as views."""
        return norm_views(self.norm, layer.out_channels)


class SELayer(nn.Module):
    """Squeeze-and-excitation: each channel scaled by a gate read off all channels' means. Shape is kept."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer
        self.reduce = nn.Conv2d(layer.in_channels, layer.hidden, 1)
        self.expand = nn.Conv2d(layer.hidden, layer.in_channels, 1)

    def forward(self, x: Tensor, layer: Layer | None = None) -> Tensor:
        """Run at full size, or at the size of ``layer``."""
        pooled = x.mean((2, 3), keepdim=True)
        if layer is None or layer is self.layer:
            return x * F.hardsigmoid(self.expand(F.relu(self.reduce(pooled), inplace=True)))
        state = self.views(layer)
        hidden = F.relu(F.conv2d(pooled, state["reduce.weight"], state["reduce.bias"]), inplace=True)
        return x * F.hardsigmoid(F.conv2d(hidden, state["expand.weight"], state["expand.bias"]))

    def views(self, layer: Layer) -> dict[str, Tensor]:
        """State of the static layer of that size, as views."""
        assert self.reduce.bias is not None
        assert self.expand.bias is not None
        return {
            "reduce.weight": cropped(self.reduce.weight, layer.hidden, layer.in_channels, 1),
            "reduce.bias": leading(self.reduce.bias, layer.hidden),
            "expand.weight": cropped(self.expand.weight, layer.in_channels, layer.hidden, 1),
            "expand.bias": leading(self.expand.bias, layer.in_channels),
        }


class PoolLayer(nn.Module):
    """Global average pool: (n, c, h, w) -> (n, c, 1, 1)."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, layer: Layer | None = None) -> Tensor:
        """Mean over height and width."""
        return x.mean((2, 3), keepdim=True)

    def views(self, layer: Layer) -> dict[str, Tensor]:
        """Nothing: a pool has no state."""
        return {}


class AvgPoolLayer(PoolLayer):
    """Average pool: (n, c, h, w) -> (n, c, h', w').

    Over an odd kernel, what lies beyond the edge does not count; over an even one, zeros that are added around an odd size do.
    """

    def forward(self, x: Tensor, layer: Layer | None = None) -> Tensor:
        """Means over squares of pixels."""
        kernel, padding = self.layer.kernel, (layer or self.layer).padding
        return F.avg_pool2d(x, kernel, self.layer.stride, padding, count_include_pad=kernel % 2 == 0)


class MaxPoolLayer(PoolLayer):
    """Max pool: (n, c, h, w) -> (n, c, h', w')."""

    def forward(self, x: Tensor, layer: Layer | None = None) -> Tensor:
        """Maxima over squares of pixels."""
        return F.max_pool2d(x, self.layer.kernel, self.layer.stride, self.layer.padding)


class ActivationLayer(PoolLayer):
    """An activation alone. Shape is kept, and so is the input, which a shortcut may still need."""

    def forward(self, x: Tensor, layer: Layer | None = None) -> Tensor:
        """Apply it to a copy."""
        return ACTIVATIONS[self.layer.activation](x.clone())


class IdentityLayer(PoolLayer):
    """What comes in."""

    def forward(self, x: Tensor, layer: Layer | None = None) -> Tensor:
        """Hand it on as it is."""
        return x


class ZeroLayer(PoolLayer):
    """Zeros: (n, ...) -> (n, c, h', w'). Of the input only n is looked at."""

    def forward(self, x: Tensor, layer: Layer | None = None) -> Tensor:
        """Of the layer's output size."""
        layer = layer or self.layer
        return x.new_zeros((x.shape[0], layer.out_channels, layer.out_resolution, layer.out_resolution))


class ShiftLayer(PoolLayer):
    """The pixel below and to the right of each, zero beyond the edge. Shape is kept.

    With a stride of 2 behind it, it takes the pixels that the same stride leaves out (the second half of DARTS's factorized
    reduction; there odd sizes have no place).
    """

    def forward(self, x: Tensor, layer: Layer | None = None) -> Tensor:
        """Shift up and left."""
        return F.pad(x, (-1, 1, -1, 1))


class FlattenLayer(PoolLayer):
    """(n, c, 1, 1) -> (n, c)."""

    def forward(self, x: Tensor, layer: Layer | None = None) -> Tensor:
        """Drop the two spatial axes."""
        return torch.flatten(x, 1)


class LinearLayer(nn.Module):
    """The classifier: (n, in) -> (n, classes)."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer
        self.linear = nn.Linear(layer.in_channels, layer.out_channels, bias=layer.bias)

    def forward(self, x: Tensor, layer: Layer | None = None) -> Tensor:
        """Run at full size, or on the leading features and classes."""
        if layer is None or layer is self.layer:
            out: Tensor = self.linear(x)
            return out
        return F.linear(x, *self.views(layer).values())

    def views(self, layer: Layer) -> dict[str, Tensor]:
        """State of the static layer of that size, as views."""
        state = {"linear.weight": leading(self.linear.weight, layer.out_channels, layer.in_channels)}
        if layer.bias:
            state["linear.bias"] = leading(self.linear.bias, layer.out_channels)
        return state


ElasticLayer = ConvLayer | NormLayer | SELayer | PoolLayer | LinearLayer
LAYERS: dict[str, type[ElasticLayer]] = {
    "conv": ConvLayer,
    "norm": NormLayer,
    "se": SELayer,
    "activation": ActivationLayer,
    "avg_pool": AvgPoolLayer,
    "max_pool": MaxPoolLayer,
    "pool": PoolLayer,
    "flatten": FlattenLayer,
    "linear": LinearLayer,
    "identity": IdentityLayer,
    "zero": ZeroLayer,
    "shift": ShiftLayer,
}


def dropped(x: Tensor, rate: float) -> Tensor:
    """Some images' outputs as zeros, each with the probability ``rate``; what is kept is scaled by 1 / (1 - rate).

    Args:
        x: shape (n, c, h, w).
        rate: in (0, 1).
    """
    kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= rate
    return x * (kept / (1 - rate)).to(x)


class BlockModule(nn.Module):
    """Layers in a row, with a shortcut around or beside them where the block has one."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block
        for layer in block.all_layers:
            self.add_module(layer.name, LAYERS[layer.op](layer))

    def layer_modules(self) -> dict[str, ElasticLayer]:
        """The layers' modules by name."""
        return dict(self.named_children())  # type: ignore[arg-type]

    def forward(self, x: Tensor, block: Block | None = None, drop: float = 0.0) -> Tensor:
        """Run at full size, or at the sizes of ``block``.

        Args:
            x: shape (n, c, h, w).
            block: the sizes.
            drop: in training mode and where an identity is added, the probability that an image takes the shortcut only
                (stochastic depth); see :func:`dropped`.
        """
        block = block or self.block
        own, *around = block.branches
        out = self._branch(x, own)
        if not around:
            return out
        beside = self._branch(x, around[0])
        if block.join == "concat":
            return torch.cat((beside, out), 1)
        if drop and self.training and block.shortcut == ():
            out = dropped(out, drop)
        return out + beside

    def _branch(self, x: Tensor, branch: Branch) -> Tensor:
        if branch.step > 1:
            x = x[:, branch.first :: branch.step]
        for layer in branch.layers:
            x = self._modules[layer.name](x, layer)  # type: ignore[misc]
        return x

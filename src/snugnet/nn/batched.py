"""Layers run for many architectures at once.

Activations of P architectures are kept as (b, P * C, h, w): a depthwise convolution with P * C groups then gives every
architecture its own kernel, and batch norm its own batch statistics, in one call each; a 1x1 convolution sees the same
memory as (b * P, C, h, w).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from snugnet.nn.layers import ACTIVATIONS, ConvLayer, SELayer
from snugnet.spaces import Layer


def split(x: Tensor, archs: int) -> Tensor:
    """(b, P * C, h, w) -> (b * P, C, h, w), the same memory."""
    return x.reshape(x.shape[0] * archs, -1, *x.shape[2:])


def grouped(x: Tensor, archs: int) -> Tensor:
    """(b * P, C, h, w) -> (b, P * C, h, w), the same memory."""
    return x.reshape(x.shape[0] // archs, -1, *x.shape[2:])


def scaled(x: Tensor, factors: Tensor | None) -> Tensor:
    """Scale (b, P * C, h, w) by (P, C) or (P, 1); without factors not at all."""
    if factors is None:
        return x
    b, _, h, w = x.shape
    return (x.view(b, len(factors), -1, h, w) * factors.to(x)[None, :, :, None, None]).view(b, -1, h, w)


def with_channels(x: Tensor, archs: int, channels: int) -> Tensor:
    """(b, P * C, h, w) -> (b, P * channels, h, w): the leading channels of each architecture, or zeros behind them."""
    b, _, h, w = x.shape
    each = x.view(b, archs, -1, h, w)
    have = each.shape[2]
    if have == channels:
        return x
    each = each[:, :, :channels] if have > channels else F.pad(each, (0, 0, 0, 0, 0, channels - have))
    return each.reshape(b, -1, h, w)


def placed(x: Tensor, archs: int, at: int, channels: int, width: int) -> Tensor:
    """(b, P * C, h, w) -> (b, P * width, h, w): each architecture's leading ``channels`` (all that fit, if 0) from ``at`` on."""
    x = with_channels(x, archs, channels or width - at)
    if not at and x.shape[1] == archs * width:
        return x
    each = x.unflatten(1, (archs, -1))
    return F.pad(each, (0, 0, 0, 0, at, width - at - each.shape[2])).flatten(1, 2)


def batched_conv(step: ConvLayer, layer: Layer, x: Tensor, archs: int) -> Tensor:
    """A convolution of that size with the same weight for all architectures; batch statistics are each one's own."""
    x, weight, bias = step.operands(x, layer)
    if layer.depthwise:
        x = F.conv2d(x, weight.repeat(archs, 1, 1, 1), None, layer.stride, layer.padding, layer.dilation, x.shape[1])
    else:
        x = split(x, archs)
        x = grouped(F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups), archs)
    return batched_norm(step.norm, layer, x, archs)


def batched_depthwise(
    step: ConvLayer, layer: Layer, x: Tensor, archs: int, kept: Tensor, kernels: Sequence[int]
) -> Tensor:
    """A depthwise convolution whose kernel is gated architecture by architecture: kept is (P, m), "kernel i or larger"."""
    weight = step.weights(layer)[0].detach()
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    out = _NestedDepthwise.apply(x, kept, weight, tuple(kernels), layer.stride, layer.dilation)  # type: ignore[no-untyped-call]
    return batched_norm(step.norm, layer, out, archs)


def batched_se(
    step: SELayer, layer: Layer, x: Tensor, archs: int, mask: Tensor | None, hidden_mask: Tensor | None
) -> Tensor:
    """Squeeze-and-excitation of that size.

    Args:
        step: the supernet's.
        layer: its size.
        x: (b, P * C, h, w), not masked; nor is the result.
        archs: P.
        mask: (P, C), which channels there are to be squeezed.
        hidden_mask: (P, hidden), which hidden units.
    """
    state = step.views(layer)
    pooled = split(scaled(x.mean((2, 3), keepdim=True), mask), archs)
    hidden = F.relu(F.conv2d(pooled, state["reduce.weight"], state["reduce.bias"]))
    hidden = split(scaled(grouped(hidden, archs), hidden_mask), archs)
    return x * grouped(F.hardsigmoid(F.conv2d(hidden, state["expand.weight"], state["expand.bias"])), archs)


def batched_norm(norm: nn.BatchNorm2d | None, layer: Layer, x: Tensor, archs: int) -> Tensor:
    """Batch norm, if any, with each architecture's own batch statistics, then the layer's activation."""
    if norm is not None:
        gamma, beta = (each[: layer.out_channels].repeat(archs) for each in (norm.weight, norm.bias))
        x = F.batch_norm(x, None, None, gamma, beta, training=True, eps=norm.eps)
    return ACTIVATIONS[layer.activation](x)


def nested_mask(kept: Tensor, rings: Tensor) -> Tensor:
    """Sum of the rings that are kept.

    Args:
        kept: (P, m), "option i or larger".
        rings: (m, ...), what option i adds to option i - 1.

    Returns:
        (P, ...), each entry the gate of the ring that it lies in.
    """
    out: Tensor = torch.tensordot(kept, rings.to(kept), 1)
    return out


@lru_cache(maxsize=64)
def kernel_rings(kernels: tuple[int, ...], device: torch.device) -> Tensor:
    """(m, k, k): what each kernel adds to the one before, centred in the largest; made once for a device, and not to be changed."""
    size = kernels[-1]
    squares = torch.zeros(len(kernels), size, size)
    for i, kernel in enumerate(kernels):
        edge = (size - kernel) // 2
        squares[i, edge : edge + kernel, edge : edge + kernel] = 1
    return torch.cat([squares[:1], squares[1:] - squares[:-1]]).to(device)


class _NestedDepthwise(torch.autograd.Function):
    """A depthwise convolution whose kernel is gated ring by ring, architecture by architecture; the weight itself is frozen.

    Autograd would take the gradient of every architecture's weight and only then sum it up to one number a gate; on a CPU that
    costs twenty times the convolution itself. A gate's gradient is also the product of the output's gradient with the
    output that its ring alone would give, which takes one more convolution a kernel size.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kept: Tensor, weight: Tensor, kernels: tuple[int, ...], stride: int, dilation: int
    ) -> Tensor:
        """x (b, P * C, h, w), kept (P, m), weight (C, 1, k, k) -> (b, P * C, h', w')."""
        mask = nested_mask(kept, kernel_rings(kernels, x.device)).to(weight)
        gated = (weight[None] * mask[:, None, None]).flatten(0, 1)
        ctx.save_for_backward(x, gated, weight, kept)
        ctx.kernels, ctx.stride, ctx.dilation = kernels, stride, dilation
        return F.conv2d(x, gated, None, stride, weight.shape[-1] // 2 * dilation, dilation, x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and kept."""
        (gradient,) = gradients
        x, gated, weight, kept = ctx.saved_tensors
        channels, archs = x.shape[1], len(kept)
        size, dilation = weight.shape[-1], ctx.dilation
        d_x = torch.ops.aten.convolution_backward(
            gradient, x, gated, None, [ctx.stride] * 2, [size // 2 * dilation] * 2, [dilation] * 2, False, [0, 0], channels,
            [True, False, False],
        )[0]  # fmt: skip
        whole = []  # for each kernel size, the product with what that whole kernel would give
        for kernel in ctx.kernels:
            edge = (size - kernel) // 2
            centre = weight[:, :, edge : edge + kernel, edge : edge + kernel].repeat(archs, 1, 1, 1)
            out = F.conv2d(x, centre, None, ctx.stride, kernel // 2 * dilation, dilation, channels)
            whole.append((out * gradient).sum((0, 2, 3), dtype=kept.dtype).view(archs, -1).sum(1))
        d_kept = torch.stack([whole[0], *(b - a for a, b in pairwise(whole))], 1)
        return d_x, d_kept, None, None, None, None

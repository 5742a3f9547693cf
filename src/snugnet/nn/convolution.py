"""Convolutions for training, by the way that is fast on the device that they run on."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from snugnet.spaces.blueprint import Layer


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, layer: Layer) -> Tensor:
    """The convolution of a layer's stride, dilation and groups, zeros around it: (n, in, h, h) -> (n, out, h', h').

    For gradients on a CPU some are done in another way, which gives the same numbers: :class:`_Depthwise` where oneDNN has no kernel for
    the weight's gradient; and a strided 1x1 convolution first takes the pixels that it reads (some of few channels have brought
    torch 2.13 down).

    Args:
        x: the input.
        weight: shape (out, in / groups, k, k).
        bias: shape (out,), or none.
        layer: stride, dilation and groups; the kernel is the weight's.
    """
    kernel, stride, dilation = weight.shape[-1], layer.stride, layer.dilation
    if x.is_cuda and layer.depthwise and x.is_contiguous(memory_format=torch.channels_last):
        return depthwise_on_cuda(x, weight, bias, layer)
    if x.device.type == "cpu" and torch.is_grad_enabled():
        if kernel == 1 and stride > 1:
            layout = (
                torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
            )
            x, stride = x[:, :, ::stride, ::stride].contiguous(memory_format=layout), 1
        elif layer.depthwise and dilation == 1 and _by_columns(x, kernel, stride):
            out: Tensor = _Depthwise.apply(x, weight, stride)  # type: ignore[no-untyped-call]
            return out if bias is None else out + bias[:, None, None]
    return F.conv2d(x, weight, bias, stride, kernel // 2 * dilation, dilation, layer.groups)


def depthwise_on_cuda(x: Tensor, weight: Tensor, bias: Tensor | None, layer: Layer) -> Tensor:
    """A depthwise convolution, run in contiguous layout: (n, c, h, h) -> (n, c, h', h'), channels last.

    In channels-last layout it goes to cuDNN, which compiles for each new shape: 0.7 to 6 s forward and backward, and a space has hundreds.
    Contiguous it is torch's own kernel, there at once and about as fast (forward and backward, H100, bf16: 0.4 to 1.3 ms against 0.7 to
    1.2).
    """
    kernel, dilation = weight.shape[-1], layer.dilation
    plain = weight.clone(memory_format=torch.contiguous_format)  # the strides of a 1 are looked at, too
    x = F.conv2d(x.contiguous(), plain, bias, layer.stride, kernel // 2 * dilation, dilation, layer.groups)
    return x.contiguous(memory_format=torch.channels_last)


def _by_columns(x: Tensor, kernel: int, stride: int) -> bool:
    """Whether oneDNN has no kernel of its own for a depthwise weight's gradient, and making one by columns is faster."""
    if torch.is_autocast_enabled("cpu"):
        return False
    size = x.shape[-1]
    return size < kernel or (kernel > _columns() and stride == 1 and size < 2 * kernel)


@cache
def _columns() -> int:
    """How wide a kernel oneDNN's depthwise weight gradients take: 3 columns without AVX-512."""
    return 3 if torch.backends.cpu.get_cpu_capability() in ("AVX2", "DEFAULT") else 7


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution whose weight's gradient is made a few columns of the kernel at a time.

    oneDNN gives a depthwise weight's gradient to a kernel for dense ones, several times as slow, where the map is smaller than the
    kernel and, without AVX-512, where the kernel is wider than three. Columns of it are such gradients as well, of the input
    moved sideways, in zeros as wide as they reach. Writing these takes longer than it saves where the map is large.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (x, weight), stride = ctx.saved_tensors, ctx.stride
        wants_x, wants_weight, _ = ctx.needs_input_grad
        of_x = _gradients(grad, x, weight, stride, weight.shape[-1] // 2, (True, False, False))[0] if wants_x else None
        return of_x, _Depthwise.of_weight(grad, x, weight.shape[-1], stride) if wants_weight else None, None

    @staticmethod
    def of_weight(grad: Tensor, x: Tensor, kernel: int, stride: int) -> Tensor:
        """(n, channels, out, out) and (n, channels, size, size) -> (channels, 1, kernel, kernel)."""
        (n, channels, size, _), reach, pad = x.shape, (grad.shape[-1] - 1) * stride, kernel // 2
        layout = (
            torch.channels_last if grad.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        )
        rows, made = min(size, reach + kernel - pad), []
        for first in range(0, kernel, _columns()):
            columns = min(_columns(), kernel - first)
            shape = (n, channels, reach + kernel, reach + columns)
            moved = torch.empty(shape, dtype=x.dtype, memory_format=layout).zero_()
            left, skipped = max(0, pad - first), max(0, first - pad)
            seen = min(reach + columns - left, size - skipped)
            if seen > 0:
                moved[:, :, pad : pad + rows, left : left + seen] = x[:, :, :rows, skipped : skipped + seen]
            part = x.new_empty(channels, 1, kernel, columns)
            made.append(_gradients(grad, moved, part, stride, 0, (False, True, False))[1])
        return torch.cat(made, 3)


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, pad: int, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Those of a depthwise convolution's input, weight and bias, as far as they are wanted."""
    sides = [stride] * 2, [pad] * 2, [1, 1]
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        grad, x, weight, None, *sides, False, [0, 0], len(weight), list(wanted)
    )
    return found

"""Weights and activations at a few bits, with straight-through gradients.

Two rules, each written as a rounding of a smooth *surrogate*; backward, the rounding is the identity, so a gradient is
exactly that of the surrogate:

* **weights** (DoReFa, Zhou et al. 2016, equations 7-9). At 1 bit the sign of the weight times the mean magnitude of the
  tensor; its surrogate is the weight itself. At k > 1 bits ``r = tanh(w) / max |tanh(w)|`` in [-1, 1], rounded to the
  2^k levels ``2 q / n - 1``, q = 0 ... n = 2^k - 1; its surrogate is ``r``, the maximum included.
* **activations** (PACT, Choi et al. 2018, equations 1-3). ``clip(x, 0, alpha)`` rounded to the levels ``q alpha / n``; its
  surrogate is the clip, whose derivative is 1 in x between 0 and alpha and 1 in alpha from alpha on, else 0.

So a tensor at k bits has at most 2^k different values. One float weight serves all bit widths. The mean and the maximum
are those of the tensor at hand: a narrower convolution is quantised as the slice that it is, in the supernet as outside.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

INITIAL_CLIP = 6.0
"""Where a clip begins: well above the activations behind batch norm; weight decay and its gradient bring it down."""
SMALLEST_CLIP = 1e-3
TINY = 1e-12


class Codes(NamedTuple):
    """A quantised weight: ``codes * step - offset``, computed in that order.

    Attributes:
        codes: q, whole numbers from 0 to 2^bits - 1, as floats.
        step: between two levels, a number without axes.
        offset: the magnitude of the lowest level, a number without axes.
    """

    codes: Tensor
    step: Tensor
    offset: Tensor

    @property
    def values(self) -> Tensor:
        """The weight."""
        return self.codes * self.step - self.offset


nearest = torch.round
"""To the nearest whole number, ties to even. Without it both rules are their surrogates."""


class _Round(torch.autograd.Function):
    """To the nearest whole number; backward the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return nearest(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class _Binary(torch.autograd.Function):
    """Sign times mean magnitude; backward the identity."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return _binary(weight).values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class _Pact(torch.autograd.Function):
    """Clipped to [0, alpha] and rounded; backward the clip's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, clip: Tensor, bits: int) -> Tensor:
        ctx.save_for_backward(x, clip)
        scale = activation_scale(clip, bits).to(x)
        return nearest(x / scale).clamp_(0, 2**bits - 1) * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, clip = ctx.saved_tensors
        above = x >= clip.clamp(min=SMALLEST_CLIP)
        d_clip = (gradient * above).sum(dtype=clip.dtype).reshape(clip.shape)
        return gradient * ((x > 0) & ~above), d_clip, None


def _binary(weight: Tensor) -> Codes:
    mean = weight.abs().mean(dtype=torch.float64).to(weight)  # exact where all magnitudes are one
    return Codes((weight >= 0).to(weight), 2 * mean, mean)


def weight_codes(weight: Tensor, bits: int) -> Codes:
    """What a weight is at some bits, at least 1; see the module for the rule."""
    if bits == 1:
        return _binary(weight)
    steps = 2**bits - 1
    bounded = torch.tanh(weight)
    share = bounded / bounded.abs().max().clamp(min=TINY)
    codes = _Round.apply((share * 0.5 + 0.5) * steps)  # type: ignore[no-untyped-call]
    return Codes(codes, torch.full((), 2 / steps).to(weight), torch.ones(()).to(weight))


def quantised_weight(weight: Tensor, bits: int) -> Tensor:
    """A weight at some bits (0 for float: as it is), of the same shape."""
    if not bits:
        return weight
    if bits == 1:
        out: Tensor = _Binary.apply(weight)  # type: ignore[no-untyped-call]
        return out
    return weight_codes(weight, bits).values


def quantised_activation(x: Tensor, clip: Tensor, bits: int) -> Tensor:
    """Activations, clipped to [0, clip], at some bits; of the same shape.

    Args:
        x: of any shape.
        clip: the learned alpha, a single number.
        bits: at least 1.
    """
    out: Tensor = _Pact.apply(x, clip, bits)  # type: ignore[no-untyped-call]
    return out


def activation_scale(clip: Tensor, bits: int) -> Tensor:
    """What one level of the activations is worth, a number without axes."""
    out: Tensor = clip.detach().reshape(()).clamp(min=SMALLEST_CLIP) / (2**bits - 1)
    return out

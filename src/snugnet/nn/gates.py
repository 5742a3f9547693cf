"""Gates: architectures that gradients can reach, and the supernet run under them.

Two encodings of a choice with m options, both relaxed so that ``forward`` uses hard values and ``backward`` soft ones:

* **single-path** (EAS section 3.2, equations 5-10): m - 1 nested binary gates; option i is taken when the gates up to i
  are open and the next is closed. A larger kernel contains the smaller one, a wider block the narrower one, a deeper stage
  the shallower one, so one pass over the largest network holds every architecture.
* **multi-path** (the paper's comparison, after DARTS and FBNet): a softmax over the m options; every pair of kernel and
  width is run and the outputs are mixed.

Either way an architecture is a list of ``probabilities``: for each choice a tensor (pairs, m), one-hot in value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from snugnet.nn.layers import ACTIVATIONS, BlockModule, ConvLayer, FlattenLayer, LinearLayer, SELayer
from snugnet.nn.network import module_name
from snugnet.spaces import Block, Layer, Part, SearchSpace

Encoding = Literal["single-path", "multi-path"]
Probabilities = Sequence[Tensor]


def logistic_noise(like: Tensor) -> Tensor:
    """log u - log(1 - u) for u uniform on (0, 1): the difference of two Gumbel draws (equation 9)."""
    u = torch.rand_like(like).clamp(1e-6, 1 - 1e-6)
    return u.log() - (1 - u).log()


def binary_gates(logits: Tensor, temperature: float, noise: Tensor | None = None) -> Tensor:
    """Open or closed, drawn from Bernoulli(sigmoid(logits)), with a straight-through gradient (equations 8-10).

    Args:
        logits: any shape.
        temperature: of the relaxation; smaller is closer to hard.
        noise: the logistic noise; 0 gives the more probable value.

    Returns:
        0 or 1 in value; the gradient is that of ``sigmoid((logits + noise) / temperature)``.
    """
    soft = torch.sigmoid((logits + (logistic_noise(logits) if noise is None else noise)) / temperature)
    return (soft > 0.5).to(soft) + (soft - soft.detach())  # the brackets keep 0 and 1 exact


def one_of(logits: Tensor, temperature: float, noise: Tensor | None = None) -> Tensor:
    """One option of the last axis, drawn by Gumbel softmax, with a straight-through gradient."""
    if noise is None:
        noise = -torch.log(-torch.log(torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)))
    soft = torch.softmax((logits + noise) / temperature, -1)
    hard = F.one_hot(soft.argmax(-1), logits.shape[-1]).to(soft)
    return hard + (soft - soft.detach())


def thermometer(gates: Tensor) -> Tensor:
    """From m - 1 nested gates (pairs, m - 1) to "option i or larger" (pairs, m): 1, g1, g1 g2, ..."""
    return (
        torch.cat([torch.ones_like(gates[:, :1]), torch.cumprod(gates, 1)], 1)
        if gates.shape[1]
        else gates.new_ones(len(gates), 1)
    )


def from_thermometer(kept: Tensor) -> Tensor:
    """From "option i or larger" (pairs, m) to option probabilities (pairs, m)."""
    return kept - F.pad(kept[:, 1:], (0, 1))


def to_thermometer(probabilities: Tensor) -> Tensor:
    """The inverse of :func:`from_thermometer`."""
    return probabilities.flip(1).cumsum(1).flip(1)


def num_gates(space: SearchSpace, encoding: Encoding) -> list[int]:
    """How many numbers of the generator's output belong to each choice."""
    return [len(c.options) - (encoding == "single-path") for c in space.choices]


def relax(
    logits: Tensor, space: SearchSpace, encoding: Encoding, temperature: float, *, noisy: bool = True
) -> list[Tensor]:
    """Draw an architecture a row from gate logits.

    Args:
        logits: (pairs, gates), choice by choice as :func:`num_gates` counts them.
        space: whose choices they are.
        encoding: how a choice is encoded.
        temperature: of the relaxation.
        noisy: draw; otherwise take the more probable value of each gate.

    Returns:
        For each choice (pairs, m): one-hot in value, soft in gradient.
    """
    result = []
    for part in logits.split(num_gates(space, encoding), 1):
        noise = None if noisy else torch.zeros_like(part)
        if encoding == "single-path":
            result.append(from_thermometer(thermometer(binary_gates(part, temperature, noise))))
        else:
            result.append(one_of(part, temperature, noise))
    return result


def option_scores(logits: Tensor, space: SearchSpace, encoding: Encoding) -> Tensor:
    """Log-probability of every option of every choice: (pairs, sum of options), in one-hot layout."""
    scores = []
    for part in logits.split(num_gates(space, encoding), 1):
        if encoding == "multi-path":
            scores.append(F.log_softmax(part, 1))
            continue
        opened = F.pad(F.logsigmoid(part).cumsum(1), (1, 0))
        closed = F.pad(F.logsigmoid(-part), (0, 1))
        scores.append(opened + closed)
    return torch.cat(scores, 1)


class GatedSupernet:
    """A frozen supernet under the gates of many architectures at once.

    The batch holds ``b`` images for each of ``P`` architectures. Activations are kept as (b, P * C, h, w): a depthwise
    convolution with P * C groups then gives every architecture its own kernel, and batch norm its own batch statistics,
    in one call each; a 1x1 convolution sees the same memory as (b * P, C, h, w).

    Attributes:
        space: the search space.
        network: the supernet's largest network.
    """

    def __init__(self, space: SearchSpace, network: nn.Module) -> None:
        self.space = space
        self.network = network
        self.parts = [_GatedPart(space, i, part) for i, part in enumerate(space.parts)]

    def __call__(self, images: Tensor, probabilities: Probabilities, encoding: Encoding = "single-path") -> Tensor:
        """Run all architectures.

        Args:
            images: (b, P, c, h, w), normalised: ``images[:, p]`` are for architecture p.
            probabilities: for each choice (P, m), one-hot in value.
            encoding: how gradients reach the probabilities.

        Returns:
            Logits over all classes, (b, P, classes).
        """
        b, pairs = images.shape[:2]
        x = images.flatten(1, 2)
        for part in self.parts:
            x = part(self.network, x, pairs, probabilities, encoding)
        return x.reshape(b, pairs, -1)


class _GatedPart:
    """One part of the space, with what each of its choices does to its layers read off the blueprint."""

    def __init__(self, space: SearchSpace, index: int, part: Part) -> None:
        largest = tuple(len(space.choices[c].options) - 1 for c in part.choices)
        self.blocks = space.part_blocks(index, largest)
        self.columns = {space.choices[c].kind: c for c in part.choices}
        self.variants: dict[
            str, list[Block]
        ] = {}  # the block under each option of one choice, the rest at their largest
        self.first_depth = 0  # the smallest option of the stage's depth with which the block is there
        for position, c in enumerate(part.choices):
            choice = space.choices[c]
            made = [
                space.part_blocks(index, (*largest[:position], i, *largest[position + 1 :]))
                for i in range(len(choice.options))
            ]
            if choice.kind == "depth":
                self.first_depth = [bool(blocks) for blocks in made].index(True)
            else:
                self.variants[choice.kind] = [blocks[0] for blocks in made]

    def __call__(
        self, network: nn.Module, x: Tensor, pairs: int, probabilities: Probabilities, encoding: Encoding
    ) -> Tensor:
        if not self.columns:
            for block in self.blocks:
                x = run_plain(_module(network, block), x, pairs)
            return x
        (block,) = self.blocks
        module = _module(network, block)
        chosen = {kind: probabilities[c] for kind, c in self.columns.items()}
        out = (self._single_path if encoding == "single-path" else self._multi_path)(module, block, x, pairs, chosen)
        if "depth" in chosen:  # equation 5: kept or skipped
            kept = to_thermometer(chosen["depth"])[:, self.first_depth]
            out = _per_pair(out, kept[:, None])
        return out + x if block.shortcut == "identity" else out

    def _single_path(
        self, module: BlockModule, block: Block, x: Tensor, pairs: int, chosen: dict[str, Tensor]
    ) -> Tensor:
        kernels = [_layer(b, "depthwise").kernel for b in self.variants["kernel_size"]]
        widths = [_layer(b, "depthwise").out_channels for b in self.variants["expand_ratio"]]
        larger = to_thermometer(chosen["kernel_size"])
        wider = to_thermometer(chosen["expand_ratio"])
        width_mask = nested_mask(wider, _prefixes(widths).to(x.device))
        for layer in block.layers:
            step = module.layer_modules()[layer.name]
            if isinstance(step, SELayer):
                hidden = [_layer(b, layer.name).hidden for b in self.variants["expand_ratio"]]
                x = se_pairs(step, x, pairs, nested_mask(wider, _prefixes(hidden).to(x.device)))
            elif layer.depthwise:
                assert isinstance(step, ConvLayer)
                x = _per_pair(depthwise_pairs(step, x, pairs, larger, kernels), width_mask)
            else:
                assert isinstance(step, ConvLayer)
                x = conv_pairs(step, x, pairs)
        return x

    def _multi_path(
        self, module: BlockModule, block: Block, x: Tensor, pairs: int, chosen: dict[str, Tensor]
    ) -> Tensor:
        total: Tensor | None = None
        for i, by_kernel in enumerate(self.variants["kernel_size"]):
            kernel = _layer(by_kernel, "depthwise").kernel
            for j, by_width in enumerate(self.variants["expand_ratio"]):
                out = x
                for layer in by_width.layers:
                    step = module.layer_modules()[layer.name]
                    if layer.depthwise:
                        layer = replace(layer, kernel=kernel)
                    if isinstance(step, SELayer):
                        out = _grouped(step(_split(out, pairs), layer), pairs)
                    elif isinstance(step, ConvLayer):
                        weight, _ = step.weights(layer)
                        out = _convolve(step, out, pairs, weight, layer.out_channels)
                weight = chosen["kernel_size"][:, i] * chosen["expand_ratio"][:, j]
                out = _per_pair(out, weight[:, None])
                total = out if total is None else total + out
        assert total is not None
        return total


def nested_mask(kept: Tensor, rings: Tensor) -> Tensor:
    """Sum of the rings that are kept.

    Args:
        kept: (pairs, m), "option i or larger".
        rings: (m, ...), what option i adds to option i - 1.

    Returns:
        (pairs, ...), each entry the gate of the ring that it lies in.
    """
    return torch.tensordot(kept, rings.to(kept), 1)


def _rings(kernels: Sequence[int]) -> Tensor:
    """(m, k, k): what each kernel adds to the one before, centred in the largest."""
    size = kernels[-1]
    squares = torch.zeros(len(kernels), size, size)
    for i, kernel in enumerate(kernels):
        edge = (size - kernel) // 2
        squares[i, edge : edge + kernel, edge : edge + kernel] = 1
    return torch.cat([squares[:1], squares[1:] - squares[:-1]])


def _prefixes(widths: list[int]) -> Tensor:
    """(m, c): the channels that each width adds to the one before."""
    filled = (torch.arange(widths[-1]) < torch.tensor(widths)[:, None]).float()
    return torch.cat([filled[:1], filled[1:] - filled[:-1]])


def _layer(block: Block, name: str) -> Layer:
    return next(layer for layer in block.layers if layer.name == name)


def _module(network: nn.Module, block: Block) -> BlockModule:
    module = network._modules[module_name(block)]
    assert isinstance(module, BlockModule)
    return module


def _split(x: Tensor, pairs: int) -> Tensor:
    """(b, P * C, h, w) -> (b * P, C, h, w), the same memory."""
    return x.reshape(x.shape[0] * pairs, -1, *x.shape[2:])


def _grouped(x: Tensor, pairs: int) -> Tensor:
    """(b * P, C, h, w) -> (b, P * C, h, w), the same memory."""
    return x.reshape(x.shape[0] // pairs, -1, *x.shape[2:])


def _per_pair(x: Tensor, factors: Tensor) -> Tensor:
    """Scale (b, P * C, h, w) by (P, C) or (P, 1)."""
    b, _, h, w = x.shape
    return (x.view(b, len(factors), -1, h, w) * factors.to(x)[None, :, :, None, None]).view(b, -1, h, w)


def _convolve(step: ConvLayer, x: Tensor, pairs: int, weight: Tensor, channels: int) -> Tensor:
    """A convolution with the same weight (out, in, k, k) for all pairs, its batch norm and activation."""
    layer = step.layer
    padding = weight.shape[-1] // 2
    if layer.depthwise:
        x = F.conv2d(x, weight.repeat(pairs, 1, 1, 1), None, layer.stride, padding, groups=x.shape[1])
    else:
        bias = None if step.conv.bias is None else step.conv.bias[:channels]
        x = _grouped(F.conv2d(_split(x, pairs), weight, bias, layer.stride, padding, groups=layer.groups), pairs)
    return _finish(step, x, pairs, channels)


def _finish(step: ConvLayer, x: Tensor, pairs: int, channels: int) -> Tensor:
    """Batch norm with each pair's own batch statistics, then the activation."""
    if step.norm is not None:
        gamma, beta = step.norm.weight[:channels].repeat(pairs), step.norm.bias[:channels].repeat(pairs)
        x = F.batch_norm(x, None, None, gamma, beta, training=True, eps=step.norm.eps)
    return ACTIVATIONS[step.layer.activation](x)


class _NestedDepthwise(torch.autograd.Function):
    """A depthwise convolution whose kernel is gated ring by ring, pair by pair; the weight itself is frozen.

    Autograd would take the gradient of every pair's weight and only then sum it up to one number a gate; on a CPU that
    costs twenty times the convolution itself. A gate's gradient is also the product of the output's gradient with the
    output that its ring alone would give, which takes one more convolution a kernel size.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor, weight: Tensor, kernels: Sequence[int], stride: int) -> Tensor:
        """x (b, P * C, h, w), kept (P, m), weight (C, 1, k, k) -> (b, P * C, h', w')."""
        mask = nested_mask(kept, _rings(kernels).to(x.device)).to(weight)
        gated = (weight[None] * mask[:, None, None]).flatten(0, 1)
        ctx.save_for_backward(x, gated, weight, kept)
        ctx.kernels, ctx.stride = kernels, stride
        return F.conv2d(x, gated, None, stride, weight.shape[-1] // 2, groups=x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and kept."""
        (gradient,) = gradients
        x, gated, weight, kept = ctx.saved_tensors
        channels, pairs = x.shape[1], len(kept)
        size = weight.shape[-1]
        d_x = torch.ops.aten.convolution_backward(
            gradient, x, gated, None, [ctx.stride] * 2, [size // 2] * 2, [1, 1], False, [0, 0], channels,
            [True, False, False],
        )[0]  # fmt: skip
        whole = []  # for each kernel size, the product with what that whole kernel would give
        for kernel in ctx.kernels:
            edge = (size - kernel) // 2
            centre = weight[:, :, edge : edge + kernel, edge : edge + kernel].repeat(pairs, 1, 1, 1)
            out = F.conv2d(x, centre, None, ctx.stride, kernel // 2, groups=channels)
            whole.append((out * gradient).sum((0, 2, 3), dtype=kept.dtype).view(pairs, -1).sum(1))
        d_kept = torch.stack([whole[0], *(b - a for a, b in pairwise(whole))], 1)
        return d_x, d_kept, None, None, None


def conv_pairs(step: ConvLayer, x: Tensor, pairs: int) -> Tensor:
    """A convolution at its largest; batch statistics are each pair's own."""
    return _convolve(step, x, pairs, step.conv.weight, step.layer.out_channels)


def depthwise_pairs(step: ConvLayer, x: Tensor, pairs: int, kept: Tensor, kernels: Sequence[int]) -> Tensor:
    """A depthwise convolution at its largest, its kernel gated pair by pair: kept is (P, m), "kernel i or larger"."""
    weight = step.conv.weight.detach()
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    out = _NestedDepthwise.apply(x, kept, weight, tuple(kernels), step.layer.stride)
    return _finish(step, out, pairs, step.layer.out_channels)


def se_pairs(step: SELayer, x: Tensor, pairs: int, hidden_mask: Tensor) -> Tensor:
    """Squeeze-and-excitation at its largest, with its hidden units masked pair by pair (P, hidden)."""
    pooled = _split(x.mean((2, 3), keepdim=True), pairs)
    hidden = _per_pair(_grouped(F.relu(step.reduce(pooled)), pairs), hidden_mask)
    return x * _grouped(F.hardsigmoid(step.expand(_split(hidden, pairs))), pairs)


def run_plain(module: BlockModule, x: Tensor, pairs: int) -> Tensor:
    """A block that no choice shapes, with each pair's own batch statistics."""
    out = x
    for step in module.layer_modules().values():
        if isinstance(step, ConvLayer):
            out = conv_pairs(step, out, pairs)
        elif isinstance(step, LinearLayer):
            out = step(_split(out, pairs).flatten(1))
        elif not isinstance(step, FlattenLayer):
            out = _grouped(step(_split(out, pairs)), pairs)
    return out + x if module.block.shortcut == "identity" else out

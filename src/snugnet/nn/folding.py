"""Batch norm that is a constant by now, taken into the convolutions before it."""

from __future__ import annotations

import torch
from torch import nn

from snugnet.nn.layers import ConvLayer
from snugnet.nn.network import Network


@torch.no_grad()
def fold_norms(network: Network) -> None:
    """Fold every batch norm's statistics and affine pair into the convolution before it, in place.

    Not where the weights are at a few bits: scaled channel by channel they would be rounded to other levels.

    In eval mode ``norm(conv(x))`` is a convolution with weight ``w * s`` and bias ``b * s + beta - mean * s``, where
    ``s = gamma / sqrt(var + eps)``. It is computed in float64, so the only rounding is that of the result.
    """
    for module in network.modules():
        if isinstance(module, ConvLayer) and module.norm is not None and not module.layer.weight_bits:
            conv, norm = module.conv, module.norm
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
            bias = norm.bias.double() - norm.running_mean.double() * scale
            if conv.bias is not None:
                bias += conv.bias.double() * scale
            weight = (conv.weight.double() * scale[:, None, None, None]).to(conv.weight.dtype)
            conv.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
            conv.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=False)
            module.norm = None

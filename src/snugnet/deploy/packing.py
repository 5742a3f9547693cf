"""Whole numbers of a few bits, side by side in bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snugnet.nn.network import module_name
from snugnet.nn.quantise import TINY, weight_codes
from snugnet.spaces.blueprint import Blueprint, Layer


def packed(codes: NDArray[np.uint8], bits: int) -> bytes:
    """Numbers below 2^bits as bytes: number i in bits ``i * bits`` and up, lowest bit first.

    Args:
        codes: shape (n,).
        bits: of one, 1 to 8.

    Returns:
        ``ceil(n * bits / 8)`` bytes; the last is filled up with zeros.
    """
    return np.packbits(
        np.unpackbits(codes[:, None], axis=1, count=bits, bitorder="little"), bitorder="little"
    ).tobytes()


def unpacked(content: bytes, bits: int, n: int) -> NDArray[np.uint8]:
    """The n numbers that :func:`packed` packed: shape (n,).

    Raises:
        ValueError: there are more or fewer bytes than these take.
    """
    if len(content) != -(-n * bits // 8):
        raise ValueError(f"{n} numbers of {bits} bits take {-(-n * bits // 8)} bytes, got {len(content)}")
    each = np.unpackbits(np.frombuffer(content, np.uint8), count=n * bits, bitorder="little").reshape(n, bits)
    return np.packbits(each, axis=1, bitorder="little").reshape(n)


def packed_state(blueprint: Blueprint, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A static network's state with every quantised weight at its bit width: what there is to store.

    Args:
        blueprint: of the network.
        state: by name.

    Returns:
        The state, but in place of each quantised ``conv.weight`` its ``conv.codes`` (bytes, :func:`packed`) and
        ``conv.offset`` (see :class:`snugnet.nn.quantise.Codes`).
    """
    made = {name: tensor.detach() for name, tensor in state.items()}
    for prefix, layer in _quantised(blueprint):
        codes, _, offset = weight_codes(made.pop(f"{prefix}.weight"), layer.weight_bits)
        content = packed(codes.flatten().to(torch.uint8).cpu().numpy(), layer.weight_bits)
        made[f"{prefix}.codes"] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        made[f"{prefix}.offset"] = offset
    return made


def unpacked_state(blueprint: Blueprint, content: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state from what :func:`packed_state` made.

    The float weights that had these codes are gone; these are others that have them, so that the network built from the
    state is the same function. A weight that is there in float stays as it is.
    """
    made = dict(content)
    for prefix, layer in _quantised(blueprint):
        if f"{prefix}.codes" not in made:
            continue  # kept in float
        shape = (layer.out_channels, layer.in_channels // layer.groups, layer.kernel, layer.kernel)
        held, offset = made.pop(f"{prefix}.codes"), made.pop(f"{prefix}.offset")
        codes = torch.from_numpy(unpacked(held.cpu().numpy().tobytes(), layer.weight_bits, math.prod(shape)))
        level = codes.reshape(shape) * 2.0 / (2**layer.weight_bits - 1) - 1
        if layer.weight_bits == 1:
            weight = level * offset
        elif level.abs().max() == 1:  # the inverse of tanh(w) / max |tanh(w)|, for a maximum of one half
            weight = torch.atanh(level / 2)
        else:  # of weights that were all as good as zero
            weight = level * TINY
        made[f"{prefix}.weight"] = weight.to(offset)
    return made


def _quantised(blueprint: Blueprint) -> Iterator[tuple[str, Layer]]:
    """The layers with quantised weights, and the prefix of their weights in a state."""
    for block in blueprint.blocks:
        for layer in block.all_layers:
            if layer.weight_bits:
                yield f"{module_name(block)}.{layer.name}.conv", layer

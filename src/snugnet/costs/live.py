"""What is in memory while a network runs: the operations of each block, and the tensors that they read and make.

An interpreter runs the operations of the exported graph one after the other, one image at a time. At each of them it holds what the
operation reads, what it makes, and every other tensor that is still to be read: the image, the input of a block that a shortcut hands
on, the nodes of a cell. A tensor is freed after the operation that reads it last. Nothing is run in place.

An operation is a layer: the batch norm and the activation of a layer, and the clip and the levels of its quantised input, are
computed in it, as runtimes do, and hold no tensor of their own. An activation or a norm that is a layer by itself (those in front of a
convolution in a cell or a ResNet) does. Squeeze-and-excitation is a pool, two convolutions and a product; the split of a ShuffleNet unit
a transpose and a cut; zeros around a pool or a shift are a copy. A flatten, a reshape and an identity hand on the very tensor.

Weights are not counted: they are a cost of their own, ``weight_memory``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from snugnet.spaces import Block, Blueprint, Layer
from snugnet.spaces.graph import IMAGE, steps

ZERO = 1
"""Values of the image that zeros are made of: of it they need the number of images alone."""


class Program(NamedTuple):
    """A block as far as its memory goes; sizes are numbers of values, for one image.

    Attributes:
        free: the most that is held at once, its input for as long as the block itself reads it.
        beside: the most that is held at once beside its input.
        bare: whether nothing is run: the output is the input.
    """

    free: int
    beside: int
    bare: bool


def peak_values(blueprint: Blueprint) -> int:
    """The most values that are held at once while a network runs, for one image."""
    order = steps(blueprint)
    tensor, size = {IMAGE: IMAGE}, {IMAGE: blueprint.in_channels * blueprint.resolution**2}
    last: dict[str, int] = {}
    for i, (block, sources, _) in enumerate(order):
        last.update((tensor[name], i) for name in sources)
        bare = len(sources) == 1 and program(block).bare
        tensor[block.name] = tensor[sources[0]] if bare else block.name
        size.setdefault(tensor[block.name], block.out_channels * block.out_resolution**2)
    last[tensor[order[-1].node.name]] = len(order)
    alive, peak = {IMAGE}, 0
    for i, (block, sources, _) in enumerate(order):
        own, stays = program(block), {name for name in alive if last[name] > i}
        beside = sum(size[name] for name in stays)
        if block.zero:
            first = beside + ZERO + (0 if IMAGE in stays else size[IMAGE])
            peak = max(peak, first, beside + own.beside)
        elif len(sources) > 1:
            peak = max(peak, sum(size[name] for name in alive) + gathered(block), beside + own.free)
        else:
            peak = max(peak, beside + (own.beside if tensor[sources[0]] in stays else own.free))
        alive = stays | {tensor[block.name]}
    return peak


def gathered(block: Block) -> int:
    """Values of what a block takes, brought together."""
    return block.in_channels * block.layers[0].resolution ** 2


@dataclass
class _Operations:
    """Operations as they are written; tensors are numbers, the first is the block's input."""

    sizes: list[int]
    reads: list[tuple[int, ...]] = field(default_factory=list)
    made: list[int] = field(default_factory=lambda: [-1])
    """By which operation each tensor is made."""

    def add(self, reads: tuple[int, ...], *sizes: int) -> int:
        """An operation that makes tensors of these sizes; returns the first of them."""
        self.made += [len(self.reads)] * len(sizes)
        self.reads.append(reads)
        self.sizes += sizes
        return len(self.sizes) - len(sizes)

    def row(self, layers: tuple[Layer, ...], tensor: int) -> int:
        """Layers, one after the other."""
        for layer in layers:
            tensor = self.layer(layer, tensor)
        return tensor

    def layer(self, layer: Layer, tensor: int) -> int:
        """One layer, as ``deploy.onnx`` writes it."""
        match layer.op:
            case "identity" | "flatten":
                return tensor
            case "se":
                gate = self.add((tensor,), layer.in_channels)
                for size in (layer.hidden, layer.in_channels):
                    gate = self.add((gate,), size)
                return self.add((tensor, gate), _values(layer))
            case "zero":  # one number of each image, and that times 0
                tensor = self.add((self.add((tensor,), ZERO),), ZERO)
            case "shift":
                tensor = self.add((tensor,), layer.in_channels * (layer.resolution + 1) ** 2)
            case "avg_pool" if layer.kernel % 2 == 0 and layer.padding:
                reach = (layer.out_resolution - 1) * layer.stride + layer.kernel
                side = max(reach, layer.padding + layer.resolution)
                tensor = self.add((tensor,), layer.in_channels * side**2)
        return self.add((tensor,), _values(layer))

    def program(self, result: int) -> Program:
        """What is held at most, with the given tensor as the output."""
        last = list(self.made)
        for i, reads in enumerate(self.reads):
            for tensor in reads:
                last[tensor] = i
        last[result] = len(self.reads)
        steps = range(len(self.reads))
        held = [[self.made[t] <= i <= last[t] for t in range(len(self.sizes))] for i in steps]
        sums = [[size * there for size, there in zip(self.sizes, at, strict=True)] for at in held]
        most, beside = max(map(sum, sums), default=0), max((sum(at[1:]) for at in sums), default=0)
        return Program(most, beside, result == 0)


def _values(layer: Layer) -> int:
    return layer.out_channels * layer.out_resolution**2


@lru_cache(maxsize=2**16)
def program(block: Block) -> Program:
    """The operations of a block, and what they hold."""
    own, *around = block.branches
    made = _Operations([0 if block.zero else gathered(block)])  # zeros take the image, whatever stands before them
    odd = even = 0
    if block.split:
        half = made.sizes[0] // 2
        odd = made.add((made.add((0,), 2 * half),), half, half)
        even = odd + 1
    result = made.row(own.layers, odd)
    if around:
        beside = made.row(around[0].layers, even)
        result = made.add((result, beside), block.out_channels * block.out_resolution**2)
    return made.program(result)

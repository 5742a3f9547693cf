"""Blueprints: the plain list of layers that stands between choices and modules.

Everything that must agree about a network reads its blueprint: the static module, the multiply-adds and parameter
counts, the ONNX file, the printed picture. Nothing here imports torch.

What is counted:

* **MAdds**: multiply-accumulates of convolutions and linear layers (squeeze-and-excitation included), once each.
  No batch norm, activation, pooling or bias. (Tools that report FLOPs often report twice this number.)
* **params**: what is trainable in the static network: biases, the affine pair of each batch norm and the learned clip of each
  layer with quantised activations included.
* **BitOps**: MAdds times weight bits times activation bits, of the layers where both are quantised; layers in float have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from snugnet.errors import SpaceError

Op = Literal[
    "conv", "se", "norm", "activation", "avg_pool", "max_pool", "pool", "flatten", "linear", "identity", "zero", "shift"
]
Activation = Literal["none", "relu", "relu6", "h_swish", "swish"]
Join = Literal["add", "concat"]
Over = Literal["sum", "max"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: an operation and its sizes.

    Attributes:
        name: name inside its block, such as ``"depthwise"``; the parameters' prefix in a state dict.
        op: ``conv`` (optionally batch norm, then activation), ``se`` (squeeze-and-excitation: pool, 1x1, ReLU, 1x1,
            hard sigmoid, scale), ``norm`` (batch norm alone, then activation), ``activation`` alone, ``avg_pool``, ``max_pool``,
            ``pool`` (global average), ``flatten``, ``linear``, ``identity``, ``zero`` (what is not there: zeros), or ``shift`` (up
            and left by one pixel, zeros behind).
        in_channels: channels (or features) in.
        out_channels: channels (or features) out.
        resolution: height and width of the input, in pixels.
        kernel: side of the square kernel.
        stride: of the convolution, the pool, or the zeros.
        groups: convolution groups; ``in_channels`` for a depthwise convolution.
        hidden: inner width of squeeze-and-excitation.
        norm: whether batch norm follows (a convolution has a bias only where none does).
        bias: whether the operation has a bias.
        activation: what follows.
        weight_bits: of a convolution's weight; 0 for float.
        activation_bits: of a convolution's input, which is then clipped to [0, a learned clip]; 0 for float.
        dilation: pixels from one tap of a convolution's kernel to the next.
    """

    name: str
    op: Op
    in_channels: int
    out_channels: int
    resolution: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    hidden: int = 0
    norm: bool = False
    bias: bool = False
    activation: Activation = "none"
    weight_bits: int = 0
    activation_bits: int = 0
    dilation: int = 1

    @property
    def depthwise(self) -> bool:
        """Whether each channel is convolved on its own."""
        return self.op == "conv" and self.groups > 1

    @property
    def padding(self) -> int:
        """Pixels on each side that an output may see beyond the edge: half the kernel, so that a stride rounds up.

        Zeros for a convolution; nothing for a pool with a middle. An average over an even kernel counts one of zeros where the
        size is odd (as in AttentiveNAS).
        """
        if self.op == "avg_pool" and self.kernel % 2 == 0:
            return self.resolution % 2
        return self.kernel // 2 * self.dilation

    @property
    def out_resolution(self) -> int:
        """Height and width of the output, in pixels (``ceil(resolution / stride)``, odd sizes included)."""
        if self.op in ("pool", "flatten", "linear"):
            return 1
        return (self.resolution + 2 * self.padding - self.dilation * (self.kernel - 1) - 1) // self.stride + 1

    @property
    def madds(self) -> int:
        """Multiply-accumulates for one image."""
        match self.op:
            case "conv":
                taps = self.kernel**2 * (self.in_channels // self.groups)
                return taps * self.out_channels * self.out_resolution**2
            case "se":
                return 2 * self.in_channels * self.hidden
            case "linear":
                return self.in_channels * self.out_channels
            case _:
                return 0

    @property
    def params(self) -> int:
        """Trainable parameters."""
        extra = (self.out_channels if self.bias else 0) + (2 * self.out_channels if self.norm else 0)
        extra += self.activation_bits > 0  # the clip
        match self.op:
            case "conv":
                return self.kernel**2 * (self.in_channels // self.groups) * self.out_channels + extra
            case "se":
                return 2 * self.in_channels * self.hidden + self.hidden + self.in_channels
            case "linear":
                return self.in_channels * self.out_channels + extra
            case "norm":
                return 2 * self.out_channels
            case _:
                return 0

    @property
    def weight_bytes(self) -> int:
        """Bytes of what is trained, as it stands in the exported file: float32, batch norm folded into the convolution before it.

        A quantised convolution has codes of a byte each, where its weights have bits, and keeps its batch norm (four vectors).
        Constants (steps, limits, shapes) are not counted.
        """
        match self.op:
            case "conv":
                taps = self.kernel**2 * (self.in_channels // self.groups) * self.out_channels
                quantised = self.weight_bits > 0 or self.activation_bits > 0
                vectors = self.bias + 4 * self.norm if quantised else int(self.bias or self.norm)
                return taps * (1 if self.weight_bits else 4) + 4 * vectors * self.out_channels
            case "norm":
                return 4 * 4 * self.out_channels
            case _:
                return 4 * self.params

    @property
    def weight_bytes_int8(self) -> int:
        """The same in an int8 file: weights a byte each, biases four (32 bits), batch norm folded where a convolution is before it.

        What has no weights to multiply by (a batch norm by itself) stays in float, and a layer at a few bits stays as it is.
        """
        if self.op == "norm" or self.weight_bits > 0 or self.activation_bits > 0:
            return self.weight_bytes
        taps = self.madds // self.out_resolution**2 if self.op == "conv" else self.madds
        biases = (self.weight_bytes - 4 * taps) // 4
        return taps + 4 * biases

    @property
    def bitops(self) -> int:
        """MAdds times weight bits times activation bits, for one image; 0 in float."""
        return self.madds * self.weight_bits * self.activation_bits

    @property
    def activations(self) -> int:
        """Numbers in the output for one image: what has to be held in memory at least once; zeros need not be."""
        return 0 if self.op == "zero" else self.out_channels * self.out_resolution**2

    def __str__(self) -> str:
        size = f"{self.in_channels}->{self.out_channels}"
        detail = {
            "conv": f"{'dw ' if self.depthwise else ''}{self.kernel}x{self.kernel}"
            + (f" /{self.stride}" if self.stride > 1 else "")
            + (f" dil {self.dilation}" if self.dilation > 1 else ""),
            "se": f"hidden {self.hidden}",
            "avg_pool": f"{self.kernel}x{self.kernel} /{self.stride}",
            "max_pool": f"{self.kernel}x{self.kernel} /{self.stride}",
        }.get(self.op, "")
        extras = " ".join(
            filter(
                None,
                [
                    f"{self.weight_bits}W{self.activation_bits}A" if self.weight_bits or self.activation_bits else "",
                    "bn" if self.norm else "",
                    "" if self.activation == "none" else self.activation,
                ],
            )
        )
        return f"{self.name:<13} {self.op:<8} {size:<12} {detail:<10} @{self.resolution:<4} {extras:<10}".rstrip()


class Branch(NamedTuple):
    """One way through a block: what it reads of the block's input, and where its output stands in the block's.

    Attributes:
        layers: one after the other; none of them for what is handed on as it is.
        first, step: it reads the input's channels ``first``, ``first + step``, and so on.
        at: channel of the block's output at which its own begins.
        channels: of its output.
    """

    layers: tuple[Layer, ...]
    first: int
    step: int
    at: int
    channels: int


@dataclass(frozen=True, slots=True)
class Block:
    """Layers in a row, with or without a shortcut around them.

    Attributes:
        name: of its position, such as ``"stage1.block2"``; unique in the blueprint of an architecture.
        layers: at least one.
        shortcut: the layers that the block's input goes through before it is joined to the output: none of them for an
            identity; ``None`` where nothing is joined. Their names differ from those of ``layers``.
        alternative: which of several blocks with weights of their own stands at this position; empty where there is one.
        join: how shortcut and layers come together: ``add``, or ``concat`` (the shortcut's channels, then the layers').
        split: whether the input, of an even number of channels, is split between the two: the layers take its odd channels
            (counted from 0), the shortcut the even ones. Behind a ``concat`` that is ShuffleNet's channel shuffle and split.
        reads: names of the blocks before this one whose outputs are its input, the same in all architectures of a space; none
            of them for the output of the block that stands before it (the image, for the first).
        gather: how several outputs come together: ``add``, or ``concat`` (channels, in the order of ``reads``).
    """

    name: str
    layers: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] | None = None
    alternative: str = ""
    join: Join = "add"
    split: bool = False
    reads: tuple[str, ...] = ()
    gather: Join = "add"

    @property
    def key(self) -> str:
        """The name of its weights: alternatives share a position, not weights."""
        return f"{self.name}.{self.alternative}" if self.alternative else self.name

    @property
    def zero(self) -> bool:
        """Whether the output is zeros, whatever the input: an edge that is not there."""
        return self.shortcut is None and self.layers[-1].op == "zero"

    @property
    def all_layers(self) -> tuple[Layer, ...]:
        """The layers in a row, then those of the shortcut."""
        return (*self.layers, *(self.shortcut or ()))

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The layers and, where there is one, the shortcut: the output is the sum of the two, each at its channels."""
        step, channels = (2 if self.split else 1), self.layers[-1].out_channels
        if self.shortcut is None:
            return (Branch(self.layers, step - 1, step, 0, channels),)
        around = self.shortcut[-1].out_channels if self.shortcut else self.layers[0].in_channels
        at = around if self.join == "concat" else 0
        return Branch(self.layers, step - 1, step, at, channels), Branch(self.shortcut, 0, step, 0, around)

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        return self.layers[0].in_channels * (2 if self.split else 1)

    @property
    def out_channels(self) -> int:
        """Channels (or features) of the output."""
        return max(branch.at + branch.channels for branch in self.branches)

    @property
    def out_resolution(self) -> int:
        """Height and width of the output, in pixels."""
        return self.layers[-1].out_resolution

    @classmethod
    def union(cls, blocks: Sequence[Block]) -> Block:
        """One that holds every layer of some blocks with the same weights, each as large as its largest."""
        largest = blocks[-1]
        shortcuts = [block.shortcut for block in blocks if block.shortcut is not None]
        around = union_of_rows(shortcuts) if shortcuts else None
        return replace(largest, layers=union_of_rows([block.layers for block in blocks]), shortcut=around)


_SIZES = ("in_channels", "out_channels", "resolution", "kernel", "groups", "hidden")


def union_of_rows(rows: Sequence[tuple[Layer, ...]]) -> tuple[Layer, ...]:
    """Every layer of some rows, in the order of the longest, each with the largest of its sizes."""
    same: dict[str, list[Layer]] = {layer.name: [] for layer in max(rows, key=len)}
    for layer in dict.fromkeys(layer for row in rows for layer in row):
        same.setdefault(layer.name, []).append(layer)
    return tuple(
        replace(each[-1], **{size: max(getattr(layer, size) for layer in each) for size in _SIZES})
        for each in same.values()
    )


@dataclass(frozen=True, slots=True)
class Superclasses:
    """What a network says where it tells superclasses: one logit each, of those of the superclass's classes. No MAdds, no params.

    Attributes:
        sizes: classes of each superclass; they stand in this order among the classifier's outputs.
        over: ``sum`` of their probabilities (the log-sum-exp of their logits), or ``max``, the largest of their logits.
    """

    sizes: tuple[int, ...]
    over: Over


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A whole network, first block to last.

    Attributes:
        blocks: in order; of a position with alternatives the one that was chosen.
        in_channels: channels of the image.
        resolution: height and width of the image, in pixels.
        superclasses: what is said of the classifier's outputs; ``None`` for all of them as they are.
    """

    blocks: tuple[Block, ...]
    in_channels: int
    resolution: int
    superclasses: Superclasses | None = None

    def layers(self) -> Iterator[Layer]:
        """All layers, first to last; those of a block's shortcut after the block's own."""
        for block in self.blocks:
            yield from block.all_layers

    @property
    def madds(self) -> int:
        """Multiply-accumulates for one image."""
        return sum(layer.madds for layer in self.layers())

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return sum(layer.params for layer in self.layers())

    @property
    def quantised(self) -> bool:
        """Whether a layer has weights or input at a few bits."""
        return any(layer.weight_bits or layer.activation_bits for layer in self.layers())

    @property
    def num_classes(self) -> int:
        """Width of the classifier."""
        return self.blocks[-1].layers[-1].out_channels

    def with_classes(self, num_classes: int) -> Blueprint:
        """The same network with another width of classifier, whose outputs are said as they are."""
        head = self.blocks[-1]
        classifier = replace(head.layers[-1], out_channels=num_classes)
        blocks = (*self.blocks[:-1], replace(head, layers=(*head.layers[:-1], classifier)))
        return replace(self, blocks=blocks, superclasses=None)

    def with_superclasses(self, superclasses: Superclasses) -> Blueprint:
        """The same network, which tells superclasses.

        Raises:
            SpaceError: they do not hold just the classifier's outputs.
        """
        if sum(superclasses.sizes) != self.num_classes or min(superclasses.sizes) < 1:
            raise SpaceError(
                f"superclasses of {superclasses.sizes} classes are not those of {self.num_classes} outputs"
            )
        return replace(self, superclasses=superclasses)

    def __str__(self) -> str:
        lines = [f"input {self.in_channels} x {self.resolution} x {self.resolution}"]
        for block in self.blocks:
            lines.append(block.key + _taken(block) + _around(block))
            lines += [
                f"  {layer!s:<69} {layer.madds:>12,} MAdds {layer.params:>10,} params" for layer in block.all_layers
            ]
        if self.superclasses is not None:
            sizes = ", ".join(map(str, self.superclasses.sizes))
            lines.append(f"superclasses of {sizes} classes, each the {self.superclasses.over} over its own")
        lines.append(f"total {self.madds:,} MAdds, {self.params:,} params")
        return "\n".join(lines)


def _taken(block: Block) -> str:
    """Whose outputs a block takes, where that is not the block before."""
    return f" <- {(' + ' if block.gather == 'add' else ' | ').join(block.reads)}" if block.reads else ""


def _around(block: Block) -> str:
    """What is joined to a block's layers, in a few words."""
    if block.shortcut is None:
        return ""
    source = "shortcut" if block.shortcut else "input"
    return f" ({'+' if block.join == 'add' else 'beside'} {'half of the ' if block.split else ''}{source})"

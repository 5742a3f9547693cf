"""The space of Single Path One-Shot: blocks of ShuffleNetV2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from snugnet.errors import SpaceError
from snugnet.spaces.blueprint import Block, Layer
from snugnet.spaces.mbconv import (
    Assembly,
    MBConvSpace,
    check_counts,
    check_fields,
    check_options,
    check_resolutions,
    check_strides,
    convolution,
)
from snugnet.spaces.space import Population, check_sequence, register

ALTERNATIVES = ("k3", "k5", "k7", "xception")
"""By the number that they have in an architecture: units of ShuffleNetV2 by kernel, and the Xception-like unit."""
KERNELS = (3, 5, 7, 3)
SCALES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)


@register
class SPOSShuffleNetV2(MBConvSpace):
    """The space of Single Path One-Shot (Guo et al., ECCV 2020, arXiv 1904.00420, Table 1 and section 4.1).

    Every block is one of four units with weights of their own: ShuffleNetV2's with a kernel of 3, 5 or 7, and an
    Xception-like one of three separable convolutions. In the first unit of a stage both branches see the whole input: the
    layers end in as many channels as are missing, the shortcut is a depthwise convolution of the unit's kernel (3 in the
    Xception-like one) and a 1x1. In all others the input's odd channels, counted from 0, go through the layers and the even
    ones go on as they are: with the concatenation before it that is the channel shuffle and the split of the published
    code. The shortcut's channels come first. Depthwise convolutions have no activation.

    The width inside each unit is chosen too (channel search): ``int(out / 2 * scale)``, counted in exact tenths.

    Options:
        resolution: height and width of the image; odd sizes are fine.
        resolutions: where the resolution is to be a choice, its options, smallest first; the largest is ``resolution``.
        num_classes: width of the classifier, which has no bias.
        in_channels: channels of the image.
        stem_stride, stage_strides: 2 and [2, 2, 2, 2] on ImageNet; smaller for images of 16 to 64 pixels.
        blocks: of each stage, [4, 4, 8, 4].
        channels: out of each stage, even and rising, [64, 160, 320, 640].
        stem, last: channels of the first and of the last convolution, 16 and 1024.
        block_choices: alternatives that every block has, of [0, 1, 2, 3] (kernel 3, 5, 7, Xception-like).
        fixed_blocks: instead, one alternative a block: then the channels alone are searched.
        channel_scales: options of every block, multiples of 0.1; [1.0]: then the blocks alone are searched.
    """

    name = "spos-shufflenet-v2"
    json_options = ("resolution",)

    @classmethod
    def _create(
        cls,
        resolution: int | None = None,
        resolutions: Sequence[int] | None = None,
        num_classes: int = 1000,
        in_channels: int = 3,
        stem_stride: int = 2,
        stage_strides: Sequence[int] = (2, 2, 2, 2),
        blocks: Sequence[int] = (4, 4, 8, 4),
        channels: Sequence[int] = (64, 160, 320, 640),
        stem: int = 16,
        last: int = 1024,
        block_choices: Sequence[int] = (0, 1, 2, 3),
        fixed_blocks: Sequence[int] | None = None,
        channel_scales: Sequence[float] = SCALES,
    ) -> Self:
        resolution, sizes = check_resolutions(resolution, resolutions)
        check_counts(resolution=resolution, num_classes=num_classes, in_channels=in_channels, stem=stem, last=last)
        strides = check_strides(stem_stride, stage_strides, 4)
        for count in check_sequence("blocks", blocks, 4):
            check_counts(blocks=count)
        widths = [stem, *check_sequence("channels", channels, 4)]
        if any(type(w) is not int or w % 2 for w in widths[1:]) or widths != sorted(set(widths)):
            raise SpaceError(f"channels are even and rise from the stem's {stem} on, got {list(channels)!r}")
        choices = check_options("block_choices", block_choices, lambda v: type(v) is int and v in range(4))
        units = _units(choices, fixed_blocks, sum(blocks))
        scales = check_options("channel_scales", channel_scales, _is_scale)
        if widths[1] // 2 * tenths(scales[0]) < 10:
            raise SpaceError(f"channel_scales: {scales[0]} of {widths[1] // 2} channels leaves none")

        made = Assembly(resolution, sizes)
        made.part("stem", (), partial(_stem, in_channels, stem, stem_stride), stem_stride)
        position = 0
        for s in range(4):
            for b in range(blocks[s]):
                name, stride = f"stage{s + 1}.block{b + 1}", strides[s] if b == 0 else 1
                columns = tuple(
                    made.choice(f"{name}.{kind}", options, kind, (position,) * (len(options) - 1))
                    for kind, options in (("block", units[position]), ("channels", scales))
                )
                before = widths[s] if b == 0 else widths[s + 1] // 2
                made.part(name, columns, partial(_unit, name, before, widths[s + 1], stride, b == 0), stride)
                position += 1
        made.part("head", (), partial(_head, widths[-1], last, num_classes))
        options = {
            "resolution": resolution,
            "num_classes": num_classes,
            "in_channels": in_channels,
            "stem_stride": stem_stride,
            "stage_strides": list(strides),
            "blocks": list(blocks),
            "channels": widths[1:],
            "stem": stem,
            "last": last,
            "channel_scales": list(scales),
        }
        options |= {"block_choices": list(choices)} if fixed_blocks is None else {"fixed_blocks": list(fixed_blocks)}
        options |= {"resolutions": list(sizes)} if sizes else {}
        return cls(options, tuple(made.choices), tuple(made.parts), in_channels, resolution)

    def to_dict(self, arch: ArrayLike) -> dict[str, Any]:
        """The JSON form: resolution, the number of each block's alternative, and the scale of its channels."""
        named = super().to_dict(arch)
        return {
            "resolution": named.get("resolution", self.resolution),
            "blocks": [ALTERNATIVES.index(option) for name, option in named.items() if name.endswith(".block")],
            "channels": [option for name, option in named.items() if name.endswith(".channels")],
        }

    def from_dict(self, arch: Mapping[str, Any]) -> Population:
        """The row of an architecture in JSON form; without ``channels`` they are 1.0.

        Raises:
            SpaceError: a field is missing or has a value that is not in this space.
        """
        self._check_stated(arch)
        check_fields(arch, ("blocks",))
        row = np.zeros((1, self.d), dtype=np.int16)
        if "resolution" in self.column:
            row[0, 0] = self.choices[0].index(arch.get("resolution"))
        count = sum(self.options["blocks"])
        values = {
            "block": check_sequence("blocks", arch["blocks"], count),
            "channels": check_sequence("channels", arch.get("channels", [1.0] * count), count),
        }
        for kind, each in values.items():
            columns = [i for i, choice in enumerate(self.choices) if choice.kind == kind]
            for column, value in zip(columns, each, strict=True):
                choice = self.choices[column]
                allowed = [ALTERNATIVES.index(o) for o in choice.options] if kind == "block" else list(choice.options)
                if isinstance(value, bool) or value not in allowed:
                    raise SpaceError(f"{choice.name} = {value!r} is not in this space; allowed: {allowed}")
                row[0, column] = allowed.index(value)
        return self.rows(row)


def tenths(scale: float) -> int:
    """A scale in tenths: 0.6 times a number is no exact product of floats."""
    return round(10 * scale)


def _is_scale(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0.1 <= value <= 8 and tenths(value) / 10 == value


def _units(choices: Sequence[int], fixed: Sequence[int] | None, count: int) -> list[tuple[str, ...]]:
    """The alternatives of each block.

    Raises:
        SpaceError: a fixed block is none of them.
    """
    if fixed is None:
        return [tuple(ALTERNATIVES[i] for i in choices)] * count
    for each in check_sequence("fixed_blocks", fixed, count):
        if type(each) is not int or each not in choices:
            raise SpaceError(f"fixed_blocks holds {each!r}; allowed: {list(choices)}")
    return [(ALTERNATIVES[i],) for i in fixed]


# -- blocks ------------------------------------------------------------------------------------------------------------


def _stem(in_channels: int, width: int, stride: int, size: int) -> tuple[Block, ...]:
    return (convolution("stem", in_channels, width, stride, "relu", size),)


def _unit(
    name: str, before: int, width: int, stride: int, first: bool, size: int, alternative: str, scale: float
) -> tuple[Block, ...]:
    """A unit of ``width`` channels out; ``before`` channels enter its layers, all (``first`` of a stage) or half of the input."""
    kernel = KERNELS[ALTERNATIVES.index(alternative)]
    mid, after = width // 2 * tenths(scale) // 10, width - before
    down = _depthwise("depthwise", before, size, kernel, stride)
    small = down.out_resolution
    if alternative == "xception":
        layers: tuple[Layer, ...] = (
            replace(down, name="depthwise1"),
            _pointwise("pointwise1", before, mid, small),
            _depthwise("depthwise2", mid, small, 3, 1),
            _pointwise("pointwise2", mid, mid, small),
            _depthwise("depthwise3", mid, small, 3, 1),
            _pointwise("pointwise3", mid, after, small),
        )
    else:
        layers = (
            _pointwise("expand", before, mid, size),
            _depthwise("depthwise", mid, size, kernel, stride),
            _pointwise("project", mid, after, small),
        )
    around: tuple[Layer, ...] = ()
    if first:
        around = (replace(down, name="shortcut_dw"), _pointwise("shortcut_1x1", before, before, small))
    return (Block(name, layers, around, alternative, join="concat", split=not first),)


def _depthwise(name: str, channels: int, size: int, kernel: int, stride: int) -> Layer:
    return Layer(name, "conv", channels, channels, size, kernel, stride, groups=channels, norm=True)


def _pointwise(name: str, before: int, after: int, size: int) -> Layer:
    return Layer(name, "conv", before, after, size, norm=True, activation="relu")


def _head(in_channels: int, last: int, num_classes: int, size: int) -> tuple[Block, ...]:
    layers = (
        _pointwise("expand", in_channels, last, size),
        Layer("pool", "pool", last, last, size),
        Layer("flatten", "flatten", last, last, 1),
        Layer("classifier", "linear", last, num_classes, 1),
    )
    return (Block("head", layers),)

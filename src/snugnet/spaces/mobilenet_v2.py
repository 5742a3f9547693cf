"""The space of ProxylessNAS and FBNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    check_width_mult,
    convolution,
    is_expand_ratio,
    is_kernel,
    is_positive,
    make_divisible,
    mbconv,
)
from snugnet.spaces.space import Population, check_sequence, register

SKIP = "skip"


@register
class MobileNetV2(MBConvSpace):
    """The MobileNetV2 space that ProxylessNAS (Cai et al., ICLR 2019, section 4.2) and FBNet search, block by block.

    Six stages of MBConv blocks with ReLU6 and without squeeze-and-excitation. Each block has a kernel size and an expand
    ratio of its own, and is skipped or not, whatever the others do; the first of a stage changes resolution and width and
    is always there.

    Options:
        width_mult: multiplies every width (that of the last 1x1 convolution only above 1, as in MobileNetV2).
        resolution: height and width of the image; odd sizes are fine.
        resolutions: where the resolution is to be a choice, its options, smallest first; the largest is ``resolution``.
        num_classes: width of the classifier.
        in_channels: channels of the image.
        stem_stride, stage_strides: 2 and [2, 2, 2, 1, 2, 1] on ImageNet; smaller for images of 16 to 64 pixels.
        blocks: of each stage, [4, 4, 4, 4, 4, 1].
        kernel_sizes, expand_ratios: the options, smallest first.
    """

    name = "mobilenet-v2"
    json_options = ("width_mult", "resolution")

    STAGE_WIDTHS = (24, 32, 64, 96, 160, 320)

    @classmethod
    def _create(
        cls,
        width_mult: float = 1.0,
        resolution: int | None = None,
        resolutions: Sequence[int] | None = None,
        num_classes: int = 1000,
        in_channels: int = 3,
        stem_stride: int = 2,
        stage_strides: Sequence[int] = (2, 2, 2, 1, 2, 1),
        blocks: Sequence[int] = (4, 4, 4, 4, 4, 1),
        kernel_sizes: Sequence[int] = (3, 5, 7),
        expand_ratios: Sequence[float] = (3, 6),
    ) -> Self:
        check_width_mult(width_mult)
        resolution, sizes = check_resolutions(resolution, resolutions)
        check_counts(resolution=resolution, num_classes=num_classes, in_channels=in_channels)
        strides = check_strides(stem_stride, stage_strides, 6)
        blocks = check_sequence("blocks", blocks, 6)
        if any(not is_positive(n) or isinstance(n, bool) for n in blocks):
            raise SpaceError(f"blocks are whole numbers of at least 1, got {list(blocks)!r}")
        kernels = check_options("kernel_sizes", kernel_sizes, is_kernel)
        expands = check_options("expand_ratios", expand_ratios, is_expand_ratio)

        stem, *widths = (make_divisible(c * width_mult) for c in (32, 16, *cls.STAGE_WIDTHS))
        last = make_divisible(1280 * max(1.0, width_mult))
        made = Assembly(resolution, sizes)
        made.part("stem", (), partial(_stem, in_channels, stem, widths[0], stem_stride), stem_stride)
        position = 0
        for s in range(6):
            for b in range(blocks[s]):
                name, stride = f"stage{s + 1}.block{b + 1}", strides[s] if b == 0 else 1
                keep = -1
                if b:
                    keep = made.choice(f"{name}.keep", (0, 1), "depth", (position,))
                below = (f"{name}.keep", (False, True)) if b else ()
                columns = tuple(
                    made.choice(f"{name}.{kind}", options, kind, (position,) * (len(options) - 1), *below)
                    for kind, options in (("kernel_size", kernels), ("expand_ratio", expands))
                )
                build = partial(_stage_block, name, widths[s] if b == 0 else widths[s + 1], widths[s + 1], stride)
                if b == 0:
                    made.part(name, columns, build, stride)
                else:
                    made.optional_part(name, 0, keep, columns, build)
                position += 1
        made.part("head", (), partial(_head, widths[-1], last, num_classes))
        options = {
            "width_mult": width_mult,
            "resolution": resolution,
            "num_classes": num_classes,
            "in_channels": in_channels,
            "stem_stride": stem_stride,
            "stage_strides": list(strides),
            "blocks": list(blocks),
            "kernel_sizes": list(kernels),
            "expand_ratios": list(expands),
        } | ({"resolutions": list(sizes)} if sizes else {})
        return cls(options, tuple(made.choices), tuple(made.parts), in_channels, resolution)

    def to_dict(self, arch: ArrayLike) -> dict[str, Any]:
        """The JSON form: width_mult, resolution, and for each stage a list of blocks such as "k3_e6" or "skip"."""
        named = super().to_dict(arch)
        stages = [
            [_operation(named, f"stage{s + 1}.block{b + 1}") for b in range(n)]
            for s, n in enumerate(self.options["blocks"])
        ]
        return {**{key: named.get(key, self.options[key]) for key in self.json_options}, "blocks": stages}

    def from_dict(self, arch: Mapping[str, Any]) -> Population:
        """The row of an architecture in JSON form; ``blocks`` may be one flat list as well.

        Raises:
            SpaceError: a field is missing or has a value that is not in this space.
        """
        self._check_stated(arch)
        check_fields(arch, ("blocks",))
        row = np.zeros((1, self.d), dtype=np.int16)
        if "resolution" in self.column:
            row[0, 0] = self.choices[0].index(arch.get("resolution"))
        stages = check_sequence("blocks", arch["blocks"])
        if len(stages) == sum(self.options["blocks"]) and not any(isinstance(each, (list, tuple)) for each in stages):
            ends = np.cumsum(self.options["blocks"]).tolist()
            stages = [stages[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        for s, stage in enumerate(check_sequence("blocks", stages, 6)):
            for b, operation in enumerate(check_sequence(f"stage {s + 1}", stage, self.options["blocks"][s])):
                name = f"stage{s + 1}.block{b + 1}"
                known = self._operations(b > 0)
                if not isinstance(operation, str) or operation not in known:
                    raise SpaceError(f"{name} = {operation!r} is not in this space; allowed: {', '.join(known)}")
                for kind, index in known[operation].items():
                    row[0, self.column[f"{name}.{kind}"]] = index
        return self.rows(row)

    def _operations(self, optional: bool) -> dict[str, dict[str, int]]:
        """What a block can be, and the option indices of its choices."""
        keep = {"keep": 1} if optional else {}
        known = {
            f"k{kernel}_e{expand:g}": {**keep, "kernel_size": i, "expand_ratio": j}
            for i, kernel in enumerate(self.options["kernel_sizes"])
            for j, expand in enumerate(self.options["expand_ratios"])
        }
        return known | ({SKIP: {"keep": 0}} if optional else {})


def _operation(named: Mapping[str, Any], block: str) -> str:
    if f"{block}.kernel_size" not in named:
        return SKIP
    return f"k{named[f'{block}.kernel_size']}_e{named[f'{block}.expand_ratio']:g}"


def _stem(in_channels: int, stem: int, first: int, stride: int, size: int) -> tuple[Block, ...]:
    """A 3x3 convolution, and a first block that nothing is chosen in."""
    conv = convolution("stem", in_channels, stem, stride, "relu6", size)
    size = conv.layers[-1].out_resolution
    return conv, mbconv("first", stem, first, size, kernel=3, expand=1, stride=1, activation="relu6", se=False)


def _stage_block(
    name: str, in_channels: int, out_channels: int, stride: int, size: int, kernel: int, expand: float
) -> tuple[Block, ...]:
    return (
        mbconv(
            name, in_channels, out_channels, size, kernel=kernel, expand=expand, stride=stride, activation="relu6",
            se=False,
        ),
    )  # fmt: skip


def _head(in_channels: int, last: int, num_classes: int, size: int) -> tuple[Block, ...]:
    """1x1, pool, classifier (MobileNetV2)."""
    layers = (
        Layer("expand", "conv", in_channels, last, size, norm=True, activation="relu6"),
        Layer("pool", "pool", last, last, size),
        Layer("flatten", "flatten", last, last, 1),
        Layer("classifier", "linear", last, num_classes, 1, bias=True),
    )
    return (Block("head", layers),)

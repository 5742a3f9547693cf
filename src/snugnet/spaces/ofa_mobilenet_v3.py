"""The space of once-for-all, which EAS searches."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from snugnet.errors import SpaceError
from snugnet.spaces.blueprint import Activation, Block
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
    mobilenet_v3_head,
)
from snugnet.spaces.ofa_forms import from_network, from_specification, is_network, is_specification
from snugnet.spaces.space import Population, check_sequence, register


@register
class OFAMobileNetV3(MBConvSpace):
    """The MobileNetV3 space of once-for-all (Cai et al., ICLR 2020) that EAS (section 4, "Search space") searches.

    Five stages of MBConv blocks; each stage has a depth, each block a kernel size and an expand ratio. The first block of
    a stage changes resolution and width and is always there.

    Options:
        width_mult: multiplies every fixed width (1.0 and 1.2 are published).
        resolution: height and width of the image; odd sizes are fine.
        resolutions: where the resolution is to be a choice, its options, smallest first; the largest is ``resolution``.
        num_classes: width of the classifier.
        in_channels: channels of the image.
        stem_stride, stage_strides: 2 and [2, 2, 2, 1, 2] on ImageNet; smaller for images of 16 to 64 pixels.
        depths, kernel_sizes, expand_ratios: the options, smallest first.
    """

    name = "ofa-mobilenet-v3"
    json_options = ("width_mult", "resolution")

    STAGE_WIDTHS = (24, 40, 80, 112, 160)
    STAGE_SE = (False, True, False, True, True)
    STAGE_ACTIVATIONS: tuple[Activation, ...] = ("relu", "relu", "h_swish", "h_swish", "h_swish")

    @classmethod
    def _create(
        cls,
        width_mult: float = 1.0,
        resolution: int | None = None,
        resolutions: tuple[int, ...] | None = None,
        num_classes: int = 1000,
        in_channels: int = 3,
        stem_stride: int = 2,
        stage_strides: tuple[int, ...] = (2, 2, 2, 1, 2),
        depths: tuple[int, ...] = (2, 3, 4),
        kernel_sizes: tuple[int, ...] = (3, 5, 7),
        expand_ratios: tuple[float, ...] = (3, 4, 6),
    ) -> Self:
        check_width_mult(width_mult)
        resolution, sizes = check_resolutions(resolution, resolutions)
        check_counts(resolution=resolution, num_classes=num_classes, in_channels=in_channels)
        strides = check_strides(stem_stride, stage_strides, 5)
        depths = check_options("depths", depths, is_positive)
        kernels = check_options("kernel_sizes", kernel_sizes, is_kernel)
        expands = check_options("expand_ratios", expand_ratios, is_expand_ratio)

        widths = [make_divisible(c * width_mult) for c in (16, *cls.STAGE_WIDTHS)]
        head, last = make_divisible(960 * width_mult), make_divisible(1280 * width_mult)
        made = Assembly(resolution, sizes)
        made.part("stem", (), partial(_stem, in_channels, widths[0], stem_stride), stem_stride)
        for s in range(5):
            stage = f"stage{s + 1}"
            base = s * depths[-1]  # position of the stage's first layer
            depth = made.choice(f"{stage}.depth", depths, "depth", tuple(base + d for d in depths[:-1]))
            for b in range(depths[-1]):
                name = f"{stage}.block{b + 1}"
                here = tuple(depth > b for depth in depths)
                below = () if all(here) else (f"{stage}.depth", here)
                columns = tuple(
                    made.choice(f"{name}.{kind}", options, kind, (base + b,) * (len(options) - 1), *below)
                    for kind, options in (("kernel_size", kernels), ("expand_ratio", expands))
                )
                stride = strides[s] if b == 0 else 1
                build = partial(
                    _stage_block, name, widths[s] if b == 0 else widths[s + 1], widths[s + 1], stride,
                    cls.STAGE_ACTIVATIONS[s], cls.STAGE_SE[s],
                )  # fmt: skip
                if all(here):
                    made.part(name, columns, build, stride)
                else:
                    made.optional_part(name, b, depth, columns, build)
        made.part("head", (), partial(_head, widths[5], head, last, num_classes))
        options = {
            "width_mult": width_mult,
            "resolution": resolution,
            "num_classes": num_classes,
            "in_channels": in_channels,
            "stem_stride": stem_stride,
            "stage_strides": list(strides),
            "depths": list(depths),
            "kernel_sizes": list(kernels),
            "expand_ratios": list(expands),
        } | ({"resolutions": list(sizes)} if sizes else {})
        return cls(options, tuple(made.choices), tuple(made.parts), in_channels, resolution)

    def to_dict(self, arch: ArrayLike) -> dict[str, Any]:
        """The published JSON form: width_mult, resolution, depth, kernel_size and expand_ratio, a list a stage."""
        named = super().to_dict(arch)
        depth = [named[f"stage{s}.depth"] for s in range(1, 6)]
        lists = {
            kind: [[named[f"stage{s + 1}.block{b + 1}.{kind}"] for b in range(depth[s])] for s in range(5)]
            for kind in ("kernel_size", "expand_ratio")
        }
        stated = {key: named.get(key, self.options[key]) for key in self.json_options}
        return {**stated, "depth": depth, **lists}

    @classmethod
    def own_form(cls, arch: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """The published form, also of ``{"ks", "e", "d", "r"}`` (once-for-all, DyNAS-T) and of a network's ``net.config``."""
        if is_network(arch):
            return from_network(arch, options, cls.STAGE_SE, cls.STAGE_ACTIVATIONS, (16, *cls.STAGE_WIDTHS))
        return from_specification(arch) if is_specification(arch) else dict(arch)

    def from_dict(self, arch: Mapping[str, Any]) -> Population:
        """The row of an architecture in the published form, or in one that :meth:`own_form` knows.

        ``kernel_size`` and ``expand_ratio`` hold a list a stage (entries past the stage's depth are not read), or one
        flat list with as many slots a stage as its greatest depth.

        Raises:
            SpaceError: a field is missing or has a value that is not in this space.
        """
        arch = self.own_form(arch, self.options)
        self._check_stated(arch)
        check_fields(arch, ("depth", "kernel_size", "expand_ratio"))
        row = np.zeros((1, self.d), dtype=np.int16)
        if "resolution" in self.column:
            row[0, 0] = self.choices[0].index(arch.get("resolution"))
        slots = max(self.options["depths"])
        depths = list(check_sequence("depth", arch["depth"], 5))
        for s, depth in enumerate(depths):
            column = self.column[f"stage{s + 1}.depth"]
            row[0, column] = self.choices[column].index(depth)
            depths[s] = self.choices[column].options[row[0, column]]  # an int, where JSON has 2.0
        for kind in ("kernel_size", "expand_ratio"):
            values = check_sequence(kind, arch[kind])
            if len(values) == 5 * slots and not any(isinstance(v, (list, tuple)) for v in values):
                values = [values[s * slots : (s + 1) * slots] for s in range(5)]
            check_sequence(kind, values, 5)
            for s, stage in enumerate(values):
                if len(check_sequence(f"{kind} of stage {s + 1}", stage)) < depths[s]:
                    raise SpaceError(f"{kind} of stage {s + 1} has {len(stage)} entries for a depth of {depths[s]}")
                for b in range(depths[s]):
                    column = self.column[f"stage{s + 1}.block{b + 1}.{kind}"]
                    row[0, column] = self.choices[column].index(stage[b])
        return self.rows(row)


def _stem(in_channels: int, width: int, stride: int, size: int) -> tuple[Block, ...]:
    """A 3x3 convolution, and a first block that nothing is chosen in."""
    stem = convolution("stem", in_channels, width, stride, "h_swish", size)
    size = stem.layers[-1].out_resolution
    return stem, mbconv("first", width, width, size, kernel=3, expand=1, stride=1, activation="relu", se=False)


def _stage_block(
    name: str, in_channels: int, out_channels: int, stride: int, activation: Activation, se: bool,
    size: int, kernel: int, expand: float,
) -> tuple[Block, ...]:  # fmt: skip
    return (
        mbconv(
            name, in_channels, out_channels, size, kernel=kernel, expand=expand, stride=stride,
            activation=activation, se=se,
        ),
    )  # fmt: skip


def _head(in_channels: int, head: int, last: int, num_classes: int, size: int) -> tuple[Block, ...]:
    return (mobilenet_v3_head(in_channels, head, last, num_classes, size, "h_swish"),)

"""The space of AttentiveNAS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from snugnet.errors import SpaceError
from snugnet.spaces.blueprint import Block
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
from snugnet.spaces.space import Population, check_sequence, register

Options = Sequence[Sequence[Any]]
"""Of the choices of one kind, one a stage."""


@register
class AttentiveNAS(MBConvSpace):
    """The space of AttentiveNAS (Wang et al., CVPR 2021, section 4.1 and appendix D), FBNetV3-like.

    A 3x3 stem, seven stages of MBConv blocks with swish, and the head of MobileNetV3. All blocks of a stage share one
    width, kernel size and expand ratio. A shortcut goes around every block: an average pool where the stride is 2, a 1x1
    convolution without batch norm where the channels differ.

    Options:
        width_mult: multiplies every width and rounds it to a multiple of 8; options that become equal are one option. 1.0
            leaves the widths as they are given.
        resolutions: options of the resolution, smallest first; odd sizes are fine.
        resolution: the largest of them; where ``resolutions`` is left out, the only one.
        num_classes: width of the classifier.
        in_channels: channels of the image.
        stem_stride, stage_strides: 2 and [1, 2, 2, 2, 1, 2, 1] on ImageNet; smaller for images of 16 to 64 pixels.
        widths: nine lists of options: the stem's, the stages', and that of the last layer before the classifier.
        depths, kernel_sizes, expand_ratios: the options, smallest first: one list for all seven stages, or seven lists. An
            expand ratio of 1 (no first 1x1) is a stage's only option.
    """

    name = "attentive-nas"

    STAGE_SE = (False, False, True, False, True, True, True)
    FIELDS = ("resolution", "width", "depth", "kernel_size", "expand_ratio")

    @classmethod
    def _create(
        cls,
        width_mult: float = 1.0,
        resolution: int | None = None,
        resolutions: Sequence[int] | None = None,
        num_classes: int = 1000,
        in_channels: int = 3,
        stem_stride: int = 2,
        stage_strides: Sequence[int] = (1, 2, 2, 2, 1, 2, 1),
        widths: Options = (
            (16, 24), (16, 24), (24, 32), (32, 40), (64, 72), (112, 120, 128), (192, 200, 208, 216), (216, 224),
            (1792, 1984),
        ),
        depths: Options | Sequence[int] = (
            (1, 2), (3, 4, 5), (3, 4, 5, 6), (3, 4, 5, 6), (3, 4, 5, 6, 7, 8), (3, 4, 5, 6, 7, 8), (1, 2),
        ),
        kernel_sizes: Options | Sequence[int] = (3, 5),
        expand_ratios: Options | Sequence[float] = ((1,), (4, 5, 6), (4, 5, 6), (4, 5, 6), (4, 5, 6), (6,), (6,)),
    ) -> Self:  # fmt: skip
        if resolutions is None:
            resolutions = (192, 224, 256, 288) if resolution is None else (resolution,)
        resolution, sizes = check_resolutions(resolution, resolutions)
        check_width_mult(width_mult)
        check_counts(num_classes=num_classes, in_channels=in_channels)
        strides = check_strides(stem_stride, stage_strides, 7)
        given = [check_options("widths", each, is_positive) for each in check_sequence("widths", widths, 9)]
        wide = [each if width_mult == 1 else _multiplied(each, width_mult) for each in given]
        deep = _stages("depths", depths, is_positive)
        kernels = _stages("kernel_sizes", kernel_sizes, is_kernel)
        expands = _stages("expand_ratios", expand_ratios, lambda v: is_expand_ratio(v) or v == 1)
        if any(1 in each and len(each) > 1 for each in expands):
            raise SpaceError(f"expand_ratios: 1 is a stage's only option, got {[list(each) for each in expands]}")

        made = Assembly(resolution, sizes)
        starts = [1]  # position of each stage's first layer, then of the head
        for each in deep:
            starts.append(starts[-1] + each[-1])
        names = ["stem", *(f"mb{s}" for s in range(1, 8)), "head"]
        width = [
            made.choice(f"{name}.width", each, "width", (start,) * (len(each) - 1))
            for name, each, start in zip(names, wide, (0, *starts), strict=True)
        ]
        depth = [
            made.choice(f"{name}.depth", each, "depth", tuple(start + d for d in each[:-1]))
            for name, each, start in zip(names[1:8], deep, starts, strict=False)
        ]
        kernel, expand = (
            [
                made.choice(f"{name}.{kind}", each, kind, (start,) * (len(each) - 1))
                for name, each, start in zip(names[1:8], options, starts, strict=False)
            ]
            for kind, options in (("kernel_size", kernels), ("expand_ratio", expands))
        )
        made.part("stem", (width[0],), partial(_stem, in_channels, stem_stride), stem_stride)
        for s, (stage, (before, own)) in enumerate(zip(names[1:8], pairwise(width[:8]), strict=True)):
            for b in range(deep[s][-1]):
                name, stride = f"{stage}.block{b + 1}", strides[s] if b == 0 else 1
                columns = (*((before, own) if b == 0 else (own,)), kernel[s], expand[s])
                build = partial(_first if b == 0 else _further, name, stride, cls.STAGE_SE[s])
                if b < deep[s][0]:
                    made.part(name, columns, build, stride)
                else:
                    made.optional_part(name, b, depth[s], columns, build)
        made.part("head", (width[7], width[8]), partial(_head, num_classes))
        options = {
            "width_mult": width_mult,
            "resolution": resolution,
            "resolutions": list(sizes),
            "num_classes": num_classes,
            "in_channels": in_channels,
            "stem_stride": stem_stride,
            "stage_strides": list(strides),
            "widths": [list(each) for each in given],
            "depths": [list(each) for each in deep],
            "kernel_sizes": [list(each) for each in kernels],
            "expand_ratios": [list(each) for each in expands],
        }
        return cls(options, tuple(made.choices), tuple(made.parts), in_channels, resolution)

    def to_dict(self, arch: ArrayLike) -> dict[str, Any]:
        """The published JSON form: resolution, width (9), depth, kernel_size and expand_ratio (7 each)."""
        form: dict[str, Any] = {}
        for field, columns in self._columns().items():
            values = [self.choices[c].options[i] for c, i in zip(columns, self.rows(arch)[0, columns], strict=True)]
            form[field] = values[0] if field == "resolution" else values
        return form

    def from_dict(self, arch: Mapping[str, Any]) -> Population:
        """The row of an architecture in the published form; further keys are left alone.

        Raises:
            SpaceError: a field is missing or has a value that is not in this space.
        """
        check_fields(arch, self.FIELDS)
        row = np.zeros((1, self.d), dtype=np.int16)
        for field, columns in self._columns().items():
            values = [arch[field]] if field == "resolution" else check_sequence(field, arch[field], len(columns))
            row[0, columns] = [self.choices[c].index(value) for c, value in zip(columns, values, strict=True)]
        return self.rows(row)

    def _columns(self) -> dict[str, list[int]]:
        """The columns of each field of the JSON form: the space's columns, in order."""
        return {field: [i for i, c in enumerate(self.choices) if c.kind == field] for field in self.FIELDS}


def _stages(name: str, values: Any, valid: Any) -> list[tuple[Any, ...]]:
    """Options of each of the seven stages, from one list for all or a list of seven."""
    several = check_sequence(name, values)
    if not any(isinstance(each, (list, tuple)) for each in several):
        several = [values] * 7
    return [check_options(name, each, valid) for each in check_sequence(name, several, 7)]


def _multiplied(widths: Sequence[int], width_mult: float) -> tuple[int, ...]:
    """Widths times a number, each once."""
    return tuple(dict.fromkeys(make_divisible(width * width_mult) for width in widths))


def _stem(in_channels: int, stride: int, size: int, width: int) -> tuple[Block, ...]:
    return (convolution("stem", in_channels, width, stride, "swish", size),)


def _first(
    name: str, stride: int, se: bool, size: int, in_channels: int, width: int, kernel: int, expand: float
) -> tuple[Block, ...]:
    return (
        mbconv(
            name, in_channels, width, size, kernel=kernel, expand=expand, stride=stride, activation="swish", se=se,
            always_shortcut=True,
        ),
    )  # fmt: skip


def _further(name: str, stride: int, se: bool, size: int, width: int, kernel: int, expand: float) -> tuple[Block, ...]:
    return _first(name, stride, se, size, width, width, kernel, expand)


def _head(num_classes: int, size: int, width: int, last: int) -> tuple[Block, ...]:
    return (mobilenet_v3_head(width, 6 * width, last, num_classes, size, "swish"),)

"""Stage-wise spaces of MBConv blocks (inverted residuals with squeeze-and-excitation)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from snugnet.errors import SpaceError
from snugnet.spaces.blueprint import Activation, Block, Layer
from snugnet.spaces.space import Choice, Part, Population, SearchSpace, check_sequence, register


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round to the nearest multiple of ``divisor``, never down by more than a tenth (MobileNet's rule)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def mbconv(
    name: str,
    in_channels: int,
    out_channels: int,
    resolution: int,
    *,
    kernel: int,
    expand: float,
    stride: int,
    activation: Activation,
    se: bool,
) -> Block:
    """An MBConv block: 1x1 expand, depthwise, squeeze-and-excitation, 1x1 project; identity shortcut where it fits.

    An expand ratio of 1 leaves out the first 1x1. The activation stands before squeeze-and-excitation, as in OFA.
    """
    mid = make_divisible(round(in_channels * expand))
    layers = []
    if expand != 1:
        layers.append(Layer("expand", "conv", in_channels, mid, resolution, norm=True, activation=activation))
    depthwise = Layer(
        "depthwise", "conv", mid, mid, resolution, kernel, stride, groups=mid, norm=True, activation=activation
    )
    layers.append(depthwise)
    if se:
        layers.append(Layer("se", "se", mid, mid, depthwise.out_resolution, hidden=make_divisible(mid / 4)))
    layers.append(Layer("project", "conv", mid, out_channels, depthwise.out_resolution, norm=True))
    return Block(name, tuple(layers), "identity" if stride == 1 and in_channels == out_channels else "none")


@register
class OFAMobileNetV3(SearchSpace):
    """The MobileNetV3 space of once-for-all (Cai et al., ICLR 2020) that EAS (section 4, "Search space") searches.

    Five stages of MBConv blocks; each stage has a depth, each block a kernel size and an expand ratio. The first block of
    a stage changes resolution and width and is always there.

    Options:
        width_mult: multiplies every fixed width (1.0 and 1.2 are published).
        resolution: height and width of the image; odd sizes are fine.
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
    def create(cls, /, **options: Any) -> Self:
        """Make the space; options as in the class.

        Raises:
            SpaceError: an option is unknown or has a value that makes no network.
        """
        allowed = list(inspect.signature(cls._create).parameters)
        unknown = sorted(set(options) - set(allowed))
        if unknown:
            raise SpaceError(f"unknown option {unknown[0]!r} of space {cls.name}; allowed: {', '.join(allowed)}")
        return cls._create(**options)

    @classmethod
    def _create(
        cls,
        width_mult: float = 1.0,
        resolution: int = 224,
        num_classes: int = 1000,
        in_channels: int = 3,
        stem_stride: int = 2,
        stage_strides: tuple[int, ...] = (2, 2, 2, 1, 2),
        depths: tuple[int, ...] = (2, 3, 4),
        kernel_sizes: tuple[int, ...] = (3, 5, 7),
        expand_ratios: tuple[float, ...] = (3, 4, 6),
    ) -> Self:
        if isinstance(width_mult, bool) or not isinstance(width_mult, (int, float)) or not 0 < width_mult <= 8:
            raise SpaceError(f"width_mult is a number in (0, 8], got {width_mult!r}")
        for key, value, least in (
            ("resolution", resolution, 1),
            ("num_classes", num_classes, 1),
            ("in_channels", in_channels, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise SpaceError(f"{key} is a whole number of at least {least}, got {value!r}")
        strides = check_sequence("stage_strides", stage_strides, 5)
        if any(stride not in (1, 2) or type(stride) is not int for stride in (stem_stride, *strides)):
            raise SpaceError(f"strides are 1 or 2, got stem {stem_stride!r}, stages {list(strides)!r}")
        depths = _options("depths", depths, lambda v: isinstance(v, int) and v >= 1)
        kernels = _options("kernel_sizes", kernel_sizes, lambda v: isinstance(v, int) and v >= 1 and v % 2 == 1)
        expands = _options("expand_ratios", expand_ratios, lambda v: isinstance(v, (int, float)) and 1 < v < 1e3)

        widths = [make_divisible(c * width_mult) for c in (16, *cls.STAGE_WIDTHS)]
        head, last = make_divisible(960 * width_mult), make_divisible(1280 * width_mult)
        stem = Layer(
            "conv", "conv", in_channels, widths[0], resolution, 3, stem_stride, norm=True, activation="h_swish"
        )
        size = stem.out_resolution
        first = mbconv("first", widths[0], widths[0], size, kernel=3, expand=1, stride=1, activation="relu", se=False)
        choices: list[Choice] = []
        parts = [Part("stem", (), lambda: (Block("stem", (stem,)), first))]
        for s in range(5):
            stage = f"stage{s + 1}"
            base = s * depths[-1]  # position of the stage's first layer
            depth_column = len(choices)
            choices.append(Choice(f"{stage}.depth", depths, "depth", tuple(base + d for d in depths[:-1])))
            for b in range(depths[-1]):
                name = f"{stage}.block{b + 1}"
                here = tuple(depth > b for depth in depths)
                columns = (len(choices), len(choices) + 1)
                for kind, options in (("kernel_size", kernels), ("expand_ratio", expands)):
                    gates = (base + b,) * (len(options) - 1)
                    if all(here):
                        choices.append(Choice(f"{name}.{kind}", options, kind, gates))
                    else:
                        choices.append(Choice(f"{name}.{kind}", options, kind, gates, f"{stage}.depth", here))
                stride = strides[s] if b == 0 else 1
                build = partial(
                    _stage_block, name, widths[s] if b == 0 else widths[s + 1], widths[s + 1], size, stride,
                    cls.STAGE_ACTIVATIONS[s], cls.STAGE_SE[s],
                )  # fmt: skip
                if all(here):
                    parts.append(Part(name, columns, build))
                else:
                    parts.append(Part(name, (depth_column, *columns), partial(_optional_block, b, build)))
                if b == 0:
                    size = -(-size // stride)
        parts.append(Part("head", (), lambda: (_head(widths[5], head, last, num_classes, size),)))
        made = {
            "width_mult": width_mult,
            "resolution": resolution,
            "num_classes": num_classes,
            "in_channels": in_channels,
            "stem_stride": stem_stride,
            "stage_strides": list(strides),
            "depths": list(depths),
            "kernel_sizes": list(kernels),
            "expand_ratios": list(expands),
        }
        return cls(made, tuple(choices), tuple(parts), in_channels, resolution)

    def to_dict(self, arch: ArrayLike) -> dict[str, Any]:
        """The published JSON form: width_mult, resolution, depth, kernel_size and expand_ratio, a list a stage."""
        named = super().to_dict(arch)
        depth = [named[f"stage{s}.depth"] for s in range(1, 6)]
        lists = {
            kind: [[named[f"stage{s + 1}.block{b + 1}.{kind}"] for b in range(depth[s])] for s in range(5)]
            for kind in ("kernel_size", "expand_ratio")
        }
        return {**{key: self.options[key] for key in self.json_options}, "depth": depth, **lists}

    def from_dict(self, arch: Mapping[str, Any]) -> Population:
        """The row of an architecture in the published form.

        ``kernel_size`` and ``expand_ratio`` hold a list a stage (entries past the stage's depth are not read), or one
        flat list with as many slots a stage as its greatest depth.

        Raises:
            SpaceError: a field is missing or has a value that is not in this space.
        """
        for key in self.json_options:
            if key in arch and arch[key] != self.options[key]:
                raise SpaceError(f"the architecture has {key} {arch[key]!r}, this space {self.options[key]!r}")
        missing = [key for key in ("depth", "kernel_size", "expand_ratio") if key not in arch]
        if missing:
            raise SpaceError(f"the architecture lacks {missing[0]!r}; needed: depth, kernel_size, expand_ratio")
        row = np.zeros((1, self.d), dtype=np.int16)
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


def _options(name: str, values: Any, valid: Any) -> tuple[Any, ...]:
    """Options of a choice: a non-empty list of valid values, rising."""
    options = tuple(check_sequence(name, values))
    if (
        not options
        or not all(valid(v) and not isinstance(v, bool) for v in options)
        or list(options) != sorted(set(options))
    ):
        raise SpaceError(f"{name} is a rising list of valid options, got {values!r}")
    return options


def _stage_block(
    name: str, in_channels: int, out_channels: int, size: int, stride: int, activation: Activation, se: bool,
    kernel: int, expand: float,
) -> tuple[Block, ...]:  # fmt: skip
    return (
        mbconv(
            name, in_channels, out_channels, size, kernel=kernel, expand=expand, stride=stride,
            activation=activation, se=se,
        ),
    )  # fmt: skip


def _optional_block(position: int, build: Any, depth: int, kernel: int, expand: float) -> tuple[Block, ...]:
    return build(kernel, expand) if depth > position else ()


def _head(in_channels: int, head: int, last: int, num_classes: int, size: int) -> Block:
    """1x1 and pool, then a wide 1x1 without batch norm on the pooled features, then the classifier (MobileNetV3)."""
    return Block(
        "head",
        (
            Layer("expand", "conv", in_channels, head, size, norm=True, activation="h_swish"),
            Layer("pool", "pool", head, head, size),
            Layer("features", "conv", head, last, 1, activation="h_swish"),
            Layer("flatten", "flatten", last, last, 1),
            Layer("classifier", "linear", last, num_classes, 1, bias=True),
        ),
    )

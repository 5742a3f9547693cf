"""What stage-wise spaces of MBConv blocks (inverted residuals) have in common: blocks, options, and putting parts down."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Self

from snugnet.errors import SpaceError
from snugnet.spaces.blueprint import Activation, Block, Layer
from snugnet.spaces.choices import Choice, Part
from snugnet.spaces.space import SearchSpace, check_sequence

Build = Callable[..., tuple[Block, ...]]
"""From the size of the input, then the chosen options, to blocks."""


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round to the nearest multiple of ``divisor``, never down by more than a tenth (MobileNet's rule)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def downsampled(resolution: int, strides: Iterable[int]) -> int:
    """Height and width after convolutions of these strides, in pixels (odd sizes round up)."""
    for stride in strides:
        resolution = -(-resolution // stride)
    return resolution


# -- blocks ------------------------------------------------------------------------------------------------------------


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
    always_shortcut: bool = False,
) -> Block:
    """An MBConv block: 1x1 expand, depthwise, squeeze-and-excitation, 1x1 project, and a shortcut.

    An expand ratio of 1 leaves out the first 1x1. The activation stands before squeeze-and-excitation, as in OFA. The
    shortcut is there where the identity fits, or around every block, see :func:`shortcut`.
    """
    mid = in_channels if expand == 1 else make_divisible(round(in_channels * expand))
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
    around = shortcut(in_channels, out_channels, resolution, stride)
    return Block(name, tuple(layers), around if always_shortcut or around == () else None)


def shortcut(in_channels: int, out_channels: int, resolution: int, stride: int) -> tuple[Layer, ...]:
    """A shortcut that fits around any block (AttentiveNAS): average pool where the size halves, 1x1 where channels differ."""
    layers = []
    if stride > 1:
        layers.append(Layer("shortcut_pool", "avg_pool", in_channels, in_channels, resolution, stride, stride))
        resolution = layers[-1].out_resolution
    if in_channels != out_channels:
        layers.append(Layer("shortcut_conv", "conv", in_channels, out_channels, resolution))
    return tuple(layers)


def convolution(name: str, in_channels: int, width: int, stride: int, activation: Activation, size: int) -> Block:
    """A block of one 3x3 convolution, batch norm and activation."""
    conv = Layer("conv", "conv", in_channels, width, size, 3, stride, norm=True, activation=activation)
    return Block(name, (conv,))


def mobilenet_v3_head(
    in_channels: int, head: int, last: int, num_classes: int, size: int, activation: Activation
) -> Block:
    """1x1 and pool, then a wide 1x1 without batch norm on the pooled features, then the classifier (MobileNetV3)."""
    layers = (
        Layer("expand", "conv", in_channels, head, size, norm=True, activation=activation),
        Layer("pool", "pool", head, head, size),
        Layer("features", "conv", head, last, 1, activation=activation),
        Layer("flatten", "flatten", last, last, 1),
        Layer("classifier", "linear", last, num_classes, 1, bias=True),
    )
    return Block("head", layers)


# -- spaces ------------------------------------------------------------------------------------------------------------


class MBConvSpace(SearchSpace):
    """A space whose options are the keyword arguments of ``_create``."""

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
    @abstractmethod
    def _create(cls) -> Self:
        """Make the space; subclasses add their options as keyword arguments."""


class Assembly:
    """The choices and parts of a space while they are put down, first to last.

    Attributes:
        choices: so far.
        parts: so far.
        sizes: options of the resolution where it is a choice (then the first one), else empty.
        strides: of the parts so far, in a row.
    """

    def __init__(self, resolution: int, sizes: tuple[int, ...] = ()) -> None:
        self.choices: list[Choice] = []
        self.parts: list[Part] = []
        self.sizes = sizes
        self._resolution = resolution
        self.strides: tuple[int, ...] = ()
        if sizes:
            self.choice("resolution", sizes, "resolution", (0,) * (len(sizes) - 1))

    def choice(
        self,
        name: str,
        options: tuple[Any, ...],
        kind: str,
        layers: tuple[int, ...],
        parent: str | None = None,
        active: tuple[bool, ...] = (),
    ) -> int:
        """Add a choice; returns its column."""
        self.choices.append(Choice(name, options, kind, layers, parent, active))
        return len(self.choices) - 1

    def part(
        self,
        name: str,
        columns: tuple[int, ...],
        build: Build,
        stride: int = 1,
        *,
        strides: tuple[int, ...] | None = None,
    ) -> None:
        """Add a part.

        Args:
            name: of the part.
            columns: of the choices that it depends on, but for the resolution.
            build: from the size of the input, then the options of those choices, to blocks.
            stride: by which the size shrinks for all parts that follow.
            strides: of the parts on the way to it, where those are not all before it.
        """
        strides = self.strides if strides is None else strides
        if self.sizes:
            self.parts.append(Part(name, (0, *columns), partial(_at_resolution, build, strides)))
        else:
            self.parts.append(Part(name, columns, partial(build, downsampled(self._resolution, strides))))
        self.strides += (stride,)

    def optional_part(self, name: str, position: int, depth: int, columns: tuple[int, ...], build: Build) -> None:
        """Add a part that is there where the option of the choice in column ``depth`` is above ``position``."""
        self.part(name, (depth, *columns), partial(_optional, position, build))


def _at_resolution(build: Build, strides: tuple[int, ...], resolution: int, *options: Any) -> tuple[Block, ...]:
    return build(downsampled(resolution, strides), *options)


def _optional(position: int, build: Build, size: int, depth: int, *options: Any) -> tuple[Block, ...]:
    return build(size, *options) if depth > position else ()


# -- options -----------------------------------------------------------------------------------------------------------


def is_positive(value: Any) -> bool:
    """Whether an option is a whole number of at least 1."""
    return isinstance(value, int) and value >= 1


def is_kernel(value: Any) -> bool:
    """Whether an option is the side of a kernel that has a centre."""
    return is_positive(value) and value % 2 == 1


def is_expand_ratio(value: Any) -> bool:
    """Whether an option widens."""
    return isinstance(value, (int, float)) and 1 < value < 1e3


def check_options(name: str, values: Any, valid: Callable[[Any], bool]) -> tuple[Any, ...]:
    """Options of a choice: a non-empty list of valid values, rising.

    Raises:
        SpaceError: they are something else.
    """
    options = tuple(check_sequence(name, values))
    if (
        not options
        or not all(valid(v) and not isinstance(v, bool) for v in options)
        or list(options) != sorted(set(options))
    ):
        raise SpaceError(f"{name} is a rising list of valid options, got {values!r}")
    return options


def check_width_mult(width_mult: Any) -> None:
    """Refuse a multiplier of widths that makes no network."""
    if isinstance(width_mult, bool) or not isinstance(width_mult, (int, float)) or not 0 < width_mult <= 8:
        raise SpaceError(f"width_mult is a number in (0, 8], got {width_mult!r}")


def check_counts(**counts: Any) -> None:
    """Refuse what is not a whole number of at least 1."""
    for key, value in counts.items():
        if not is_positive(value) or isinstance(value, bool):
            raise SpaceError(f"{key} is a whole number of at least 1, got {value!r}")


def check_strides(stem_stride: Any, stage_strides: Any, stages: int) -> Sequence[int]:
    """The strides of the stages.

    Raises:
        SpaceError: there is not one a stage, or one is neither 1 nor 2.
    """
    strides = check_sequence("stage_strides", stage_strides, stages)
    if any(stride not in (1, 2) or type(stride) is not int for stride in (stem_stride, *strides)):
        raise SpaceError(f"strides are 1 or 2, got stem {stem_stride!r}, stages {list(strides)!r}")
    return strides


def check_resolutions(resolution: Any, resolutions: Any, default: int = 224) -> tuple[Any, tuple[int, ...]]:
    """The image's resolution, and the options where it is a choice.

    Raises:
        SpaceError: the two do not agree.
    """
    if resolutions is None:
        return default if resolution is None else resolution, ()
    sizes = check_options("resolutions", resolutions, is_positive)
    if resolution not in (None, sizes[-1]):
        raise SpaceError(f"resolution is the largest of resolutions, {sizes[-1]}, or left out; got {resolution!r}")
    return sizes[-1], sizes


def check_fields(arch: Mapping[str, Any], needed: Sequence[str]) -> None:
    """Refuse an architecture in JSON form that lacks a field."""
    missing = [key for key in needed if key not in arch]
    if missing:
        raise SpaceError(f"the architecture lacks {missing[0]!r}; needed: {', '.join(needed)}")

"""The mixed-precision space of Single Path One-Shot: ResNets with bit widths and bottleneck channels to choose, block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Self

from numpy.typing import ArrayLike

from snugnet.errors import SpaceError
from snugnet.spaces.blueprint import Activation, Block, Layer
from snugnet.spaces.mbconv import (
    Assembly,
    MBConvSpace,
    check_counts,
    check_fields,
    check_options,
    check_resolutions,
    check_strides,
    is_kernel,
    is_positive,
)
from snugnet.spaces.space import Population, check_sequence, register

FLOAT = 32
"""What stands for float where bits are given."""

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
"""Blocks of each stage by depth (He et al. 2016, table 1)."""

Bits = tuple[int, int]


@register
class ResNetMixedPrecision(MBConvSpace):
    """ResNet-18 and ResNet-34 with the choices of Single Path One-Shot (Guo et al. 2020, section 4, "Mixed-Precision
    Quantization").

    Each residual block has the bit widths of its weights and activations, the same for its convolutions (that of its
    shortcut included), and its bottleneck channels: the outputs of its first convolution. The first convolution of the
    network and the classifier are in float. What a block takes in goes through a ReLU in it, not behind the sum of the block
    before: the same network, in which the clip of a quantised convolution takes the ReLU's place.

    The paper's BitOps of 2W2A, 3W3A and 4W4A are ``bitops`` in units of 2^30.

    Options:
        depth: 18 or 34.
        bits: the options [weight bits, activation bits], each from 1 to 8; or [[32, 32]] alone, for the network in float.
        channels: the options of the bottleneck channels, as multiples of the stage's width, rising.
        widths: of the four stages; the stem has the first.
        resolution: height and width of the image.
        resolutions: where the resolution is to be a choice, its options, smallest first; the largest is ``resolution``.
        num_classes: width of the classifier.
        in_channels: channels of the image.
        stem_kernel, stem_stride, stem_pool, stage_strides: 7, 2, true (a 3x3 max pool of stride 2) and [1, 2, 2, 2] on
            ImageNet; for images of 16 to 64 pixels 3, 1, false.
    """

    name = "resnet-mixed-precision"
    json_options = ("resolution",)
    FIELDS = ("weight_bits", "activation_bits", "channels")

    @classmethod
    def _create(
        cls,
        depth: int = 18,
        bits: Sequence[Sequence[int]] = ((1, 2), (2, 2), (1, 4), (2, 4), (3, 4), (4, 4)),
        channels: Sequence[float] = (0.5, 1.0, 1.5),
        widths: Sequence[int] = (64, 128, 256, 512),
        resolution: int | None = None,
        resolutions: Sequence[int] | None = None,
        num_classes: int = 1000,
        in_channels: int = 3,
        stem_kernel: int = 7,
        stem_stride: int = 2,
        stem_pool: bool = True,
        stage_strides: Sequence[int] = (1, 2, 2, 2),
    ) -> Self:
        if isinstance(depth, bool) or depth not in BLOCKS:
            raise SpaceError(f"depth is {' or '.join(map(str, BLOCKS))}, got {depth!r}")
        if not isinstance(stem_pool, bool):
            raise SpaceError(f"stem_pool is true or false, got {stem_pool!r}")
        pairs = _check_bits(bits)
        scales = check_options("channels", channels, lambda v: isinstance(v, (int, float)) and 0 < v <= 8)
        if any(not is_positive(w) or isinstance(w, bool) for w in check_sequence("widths", widths, 4)):
            raise SpaceError(f"widths are whole numbers of at least 1, got {list(widths)!r}")
        if any(int(width * scales[0]) < 1 for width in widths):
            raise SpaceError(f"channels {scales[0]!r} leaves nothing of a width of {min(widths)}")
        resolution, sizes = check_resolutions(resolution, resolutions)
        check_counts(resolution=resolution, num_classes=num_classes, in_channels=in_channels)
        if not is_kernel(stem_kernel) or isinstance(stem_kernel, bool):
            raise SpaceError(f"stem_kernel is an odd whole number, got {stem_kernel!r}")
        strides = check_strides(stem_stride, stage_strides, 4)

        made = Assembly(resolution, sizes)
        stem = partial(_stem, in_channels, widths[0], stem_kernel, stem_stride, stem_pool)
        made.part("stem", (), stem, stem_stride * (2 if stem_pool else 1))
        position, before = 0, widths[0]
        names = {_label(pair): pair for pair in pairs}
        for s, (count, width) in enumerate(zip(BLOCKS[depth], widths, strict=True)):
            for b in range(count):
                name, stride = f"stage{s + 1}.block{b + 1}", strides[s] if b == 0 else 1
                columns = (
                    made.choice(f"{name}.bits", tuple(names), "bits", (position,) * (len(names) - 1)),
                    made.choice(f"{name}.channels", scales, "channels", (position,) * (len(scales) - 1)),
                )
                made.part(name, columns, partial(_residual, name, before, width, stride, names), stride)
                position, before = position + 1, width
        made.part("head", (), partial(_head, widths[-1], num_classes))
        options = {
            "depth": depth,
            "bits": [list(pair) for pair in pairs],
            "channels": list(scales),
            "widths": list(widths),
            "resolution": resolution,
            "num_classes": num_classes,
            "in_channels": in_channels,
            "stem_kernel": stem_kernel,
            "stem_stride": stem_stride,
            "stem_pool": stem_pool,
            "stage_strides": list(strides),
        } | ({"resolutions": list(sizes)} if sizes else {})
        return cls(options, tuple(made.choices), tuple(made.parts), in_channels, resolution)

    def to_dict(self, arch: ArrayLike) -> dict[str, Any]:
        """The JSON form: resolution, then weight_bits, activation_bits and channels, one entry a block."""
        row = self.rows(arch)[0]
        resolution, chosen = self.resolution_of(row), row[self.d % 2 :].tolist()
        pairs = [self.options["bits"][i] for i in chosen[::2]]
        return {
            "resolution": resolution,
            "weight_bits": [weight for weight, _ in pairs],
            "activation_bits": [activation for _, activation in pairs],
            "channels": [self.options["channels"][i] for i in chosen[1::2]],
        }

    def from_dict(self, arch: Mapping[str, Any]) -> Population:
        """The row of an architecture in JSON form; further keys are left alone.

        Raises:
            SpaceError: a field is missing or has a value that is not in this space.
        """
        self._check_stated(arch)
        check_fields(arch, self.FIELDS)
        weights, activations, channels = (check_sequence(key, arch[key], self.d // 2) for key in self.FIELDS)
        chosen = [arch.get("resolution")] if "resolution" in self.column else []
        for *pair, scale in zip(weights, activations, channels, strict=True):
            chosen += [_label(pair), scale]
        row = [choice.index(option) for choice, option in zip(self.choices, chosen, strict=True)]
        return self.rows(row)


def _label(pair: Sequence[Any]) -> str:
    """The paper's way to write bits: ``2W4A`` is weights of 2 and activations of 4."""
    return f"{pair[0]}W{pair[1]}A"


def _check_bits(bits: Any) -> tuple[Bits, ...]:
    """The options of the bits, in the order in which they are given.

    Raises:
        SpaceError: they are something else than the class says.
    """
    pairs = tuple((*check_sequence("bits", pair, 2),) for pair in check_sequence("bits", bits))
    if pairs == ((FLOAT, FLOAT),):
        return pairs
    valid = all(is_positive(b) and not isinstance(b, bool) and b <= 8 for pair in pairs for b in pair)
    if not pairs or not valid or len(set(pairs)) < len(pairs):
        raise SpaceError(f"bits are different [weight bits, activation bits] from 1 to 8, or [[32, 32]], got {bits!r}")
    return pairs


def _stem(in_channels: int, width: int, kernel: int, stride: int, pool: bool, size: int) -> tuple[Block, ...]:
    """A convolution in float, and a max pool."""
    conv = Layer("conv", "conv", in_channels, width, size, kernel, stride, norm=True, activation="relu")
    pooled = (Layer("pool", "max_pool", width, width, conv.out_resolution, 3, 2),) if pool else ()
    return (Block("stem", (conv, *pooled)),)


def _residual(
    name: str, before: int, width: int, stride: int, names: Mapping[str, Bits], size: int, bits: str, scale: float
) -> tuple[Block, ...]:
    """Two 3x3 convolutions, and a shortcut that is a 1x1 where the shape changes."""
    weight_bits, activation_bits = (0 if b == FLOAT else b for b in names[bits])
    mid = int(width * scale)
    conv = partial(Layer, op="conv", norm=True, weight_bits=weight_bits, activation_bits=activation_bits)
    relu = () if activation_bits else (_relu("relu", before, size),)
    between: Activation = "none" if activation_bits else "relu"
    first = conv(
        "conv1", in_channels=before, out_channels=mid, resolution=size, kernel=3, stride=stride, activation=between
    )
    second = conv("conv2", in_channels=mid, out_channels=width, resolution=first.out_resolution, kernel=3)
    if stride == 1 and before == width:
        around: tuple[Layer, ...] = (_relu("shortcut_relu", before, size),)
    else:
        project = conv("shortcut_conv", in_channels=before, out_channels=width, resolution=size, stride=stride)
        around = (project,) if activation_bits else (_relu("shortcut_relu", before, size), project)
    return (Block(name, (*relu, first, second), around),)


def _relu(name: str, width: int, size: int) -> Layer:
    return Layer(name, "activation", width, width, size, activation="relu")


def _head(width: int, num_classes: int, size: int) -> tuple[Block, ...]:
    """ReLU, pool, classifier in float."""
    layers = (
        _relu("relu", width, size),
        Layer("pool", "pool", width, width, size),
        Layer("flatten", "flatten", width, width, 1),
        Layer("classifier", "linear", width, num_classes, 1, bias=True),
    )
    return (Block("head", layers),)

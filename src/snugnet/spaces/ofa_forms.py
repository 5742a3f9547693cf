"""Architectures of once-for-all as its own programs, and DyNAS-T, write them: ``ks, e, d, r``, and a network's ``net.config``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from snugnet.errors import SpaceError
from snugnet.spaces.mbconv import check_fields, is_positive, make_divisible
from snugnet.spaces.space import check_sequence

_STAGES = 5
_PUBLISHED = (1.0, 1.2)
"""Multipliers of the widths of the published supernets."""


def is_specification(arch: Mapping[str, Any]) -> bool:
    """Whether keys are those of ``{"ks": [...], "e": [...], "d": [...], "r": [224]}``."""
    return any(key in arch for key in ("ks", "e", "d"))


def from_specification(arch: Mapping[str, Any]) -> dict[str, Any]:
    """Depths, kernel sizes and expand ratios by stage; one number stands for all of a kind, as in ``set_active_subnet``.

    Args:
        arch: ``ks`` and ``e`` have as many slots a stage as its greatest depth; ``r`` (or ``image_size``) is the resolution, alone or
            in a list; ``wid`` is null. Other keys stay.

    Raises:
        SpaceError: a key is missing, or holds something else.
    """
    check_fields(arch, ("ks", "e", "d"))
    own = {"kernel_size": "ks", "expand_ratio": "e", "depth": "d"}
    if twice := [key for key in own if key in arch]:
        raise SpaceError(f"the architecture has {own[twice[0]]!r} and {twice[0]!r}; leave one of them out")
    if arch.get("wid") is not None:
        raise SpaceError(f"wid is null (the widths are those of width_mult), got {arch['wid']!r}")
    depth = arch["d"] if _is_list(arch["d"]) else [arch["d"]] * _STAGES
    check_sequence("d", depth, _STAGES)
    form = {key: value for key, value in arch.items() if key not in (*own.values(), "r", "image_size", "wid")}
    for name, key in (("kernel_size", "ks"), ("expand_ratio", "e")):
        values = arch[key]
        if not _is_list(values):
            form[name] = [[values] * (each if isinstance(each, int) and 0 < each < 100 else 1) for each in depth]
        elif any(map(_is_list, values)):
            form[name] = values
        elif not values or len(values) % _STAGES:
            raise SpaceError(f"{key} has as many entries for each of {_STAGES} stages, got {len(values)}")
        else:
            slots = len(values) // _STAGES
            form[name] = [values[s * slots : (s + 1) * slots] for s in range(_STAGES)]
    sizes = [_one(key, arch[key]) for key in ("r", "image_size") if arch.get(key) is not None]
    if sizes and any(size != sizes[0] for size in sizes):
        raise SpaceError(f"r is {sizes[0]!r} and image_size {sizes[1]!r}; they are one resolution")
    return {**form, "depth": list(depth), **({"resolution": sizes[0]} if sizes else {})}


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _one(name: str, value: Any) -> Any:
    """A number that may stand in a list."""
    return check_sequence(name, value, 1)[0] if _is_list(value) else value


def is_network(arch: Mapping[str, Any]) -> bool:
    """Whether keys are those of a network's configuration."""
    return "first_conv" in arch or "blocks" in arch


def from_network(
    arch: Mapping[str, Any],
    options: Mapping[str, Any],
    se: Sequence[bool],
    activations: Sequence[str],
    widths: Sequence[int],
) -> dict[str, Any]:
    """The architecture of a network that once-for-all describes layer by layer (``net.config``).

    Args:
        arch: ``first_conv``, ``blocks``, ``final_expand_layer``, ``feature_mix_layer``, ``classifier``; a resolution is not in it.
        options: of the space, as far as they are given.
        se, activations: of each stage.
        widths: of the space at a multiplier of 1: stem, stages.

    Raises:
        SpaceError: it is of another space; the message says where they part.
    """
    parts = ("first_conv", "blocks", "final_expand_layer", "feature_mix_layer", "classifier")
    check_fields(arch, parts)
    first, expand, mix, head = (_mapping(name, arch[name]) for name in parts if name != "blocks")
    blocks = [_block(i, each) for i, each in enumerate(check_sequence("blocks", arch["blocks"]))]
    stages: list[list[Mapping[str, Any]]] = []
    for conv, shortcut in blocks[1:]:
        if not shortcut or not stages:
            stages.append([])
        stages[-1].append(conv)
    if len(stages) != _STAGES:
        raise SpaceError(f"blocks have {_STAGES} stages (a stage begins without a shortcut), got {len(stages)}")
    found = [
        _whole(name, part.get("out_channels"))
        for name, part in (
            ("first_conv", first),
            *((f"stage {s}", own[0]) for s, own in enumerate(stages, start=1)),
            ("final_expand_layer", expand),
            ("feature_mix_layer", mix),
        )
    ]
    form: dict[str, Any] = {"width_mult": _width_mult(found, widths, options)}
    strides = [_whole(f"the stride of stage {s}", own[0].get("stride")) for s, own in enumerate(stages, start=1)]
    default = {"stem_stride": 2, "stage_strides": [2, 2, 2, 1, 2]}
    for key, stride in (("stem_stride", first.get("stride")), ("stage_strides", strides)):
        wanted = options.get(key, default[key])
        if stride != (list(wanted) if isinstance(wanted, (list, tuple)) else wanted):
            raise SpaceError(f"the network has {key} {stride!r}, this space {wanted!r}; give -o {key}")
    for s, own in enumerate(stages):
        for name, wanted, given in (("use_se", se[s], bool), ("act_func", activations[s], str)):
            for conv in own:
                if given(conv.get(name)) != wanted:
                    raise SpaceError(f"stage {s + 1} has {name} {conv.get(name)!r}; in this space it is {wanted!r}")
    ratios = options.get("expand_ratios", (3, 4, 6))
    form["depth"] = [len(own) for own in stages]
    form["kernel_size"] = [[conv.get("kernel_size") for conv in own] for own in stages]
    form["expand_ratio"] = [[_expand_ratio(conv, ratios) for conv in own] for own in stages]
    form["num_classes"] = _whole("out_features of the classifier", head.get("out_features"))
    known = {*parts, "name", "bn"}
    return form | {key: value for key, value in arch.items() if key not in known}


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SpaceError(f"{name} is a layer's configuration, got {value!r}")
    return value


def _whole(name: str, value: Any) -> int:
    if not is_positive(value) or isinstance(value, bool):
        raise SpaceError(f"{name} is a whole number, got {value!r}")
    return int(value)


def _block(i: int, block: Any) -> tuple[Mapping[str, Any], bool]:
    """A block's convolutions, and whether it has a shortcut; the older name of the former is taken as well."""
    own = _mapping(f"block {i}", block)
    conv = own.get("conv", own.get("mobile_inverted_conv"))
    around = own.get("shortcut")
    return _mapping(f"conv of block {i}", conv), isinstance(around, Mapping) and around.get("name") != "ZeroLayer"


def _width_mult(found: Sequence[int], widths: Sequence[int], options: Mapping[str, Any]) -> float:
    """The multiplier that gives a network's widths: the given one, else a published one, else the ratio of the last stage."""

    def all_widths(multiplier: float) -> list[int]:
        return [make_divisible(width * multiplier) for width in (*widths, 960, 1280)]

    given = options.get("width_mult")
    tried = [*_PUBLISHED, *(round(found[_STAGES] / widths[-1], digits) for digits in (1, 2, 3))]
    if isinstance(given, (int, float)) and not isinstance(given, bool) and 0 < given <= 8:
        tried = [float(given)]
    for multiplier in tried:
        if all_widths(multiplier) == list(found):
            return multiplier
    shown = ", ".join(map(str, found))
    wanted = ", ".join(map(str, all_widths(tried[0])))
    raise SpaceError(f"the network has widths {shown}; this space at width_mult {tried[0]:g} has {wanted}")


def _expand_ratio(conv: Mapping[str, Any], ratios: Sequence[Any]) -> Any:
    """Of a block: the one that gives its channels in between, where these are stated."""
    inside, ratio = conv.get("mid_channels"), conv.get("expand_ratio")
    if inside is None:
        return ratio
    before = _whole("in_channels of a block", conv.get("in_channels"))
    gives: Callable[[Any], bool] = lambda each: (  # noqa: E731
        isinstance(each, (int, float)) and 0 < each < 1e3 and make_divisible(round(before * each)) == inside
    )
    found = next((each for each in (ratio, *ratios) if gives(each)), None)
    if found is None:
        raise SpaceError(f"no expand ratio of {list(ratios)} makes {inside!r} channels of {before}")
    return found

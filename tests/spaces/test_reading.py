"""Architectures as other programs write them, and what no reader takes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from snugnet.costs import counted_table
from snugnet.errors import ConfigError, SnugnetError, SpaceError
from snugnet.spaces import Layer, SearchSpace, get_space, list_spaces, read_architecture, read_architectures

SPACE = get_space("ofa-mobilenet-v3")
DYNAS = (  # a line of DyNAS-T's own results: counted there with fvcore
    "{'wid': None, 'ks': [7, 3, 3, 7, 5, 3, 3, 3, 7, 3, 7, 7, 7, 3, 7, 5, 3, 3, 3, 3], 'e': [3, 6, 6, 3, 6, 3, 6, 6, 6, 6, "
    "4, 3, 4, 6, 4, 3, 3, 6, 4, 4], 'd': [3, 2, 2, 3, 2], 'r': [224]}",
    4536768,
)
ATTENTIVE = """
arch: 'attentive_nas_static_model'
pareto_models:
    supernet_checkpoint_path: "./attentive_nas_pretrained.pth.tar"
    a0:
        model: "attentive_nas_a0"
        resolution: 192
        width: [16, 16, 24, 32, 64, 112, 192, 216, 1792]
        kernel_size: [3, 3, 3, 3, 3, 3, 3]
        expand_ratio: [1, 4, 4, 4, 4, 6, 6]
        depth: [1, 3, 3, 3, 3, 3, 1]
    a2:
        model: "attentive_nas_a2"
        resolution: 224
        width: [16, 16, 24, 32, 64, 112, 200, 224, 1984]
        kernel_size: [3, 3, 3, 3, 3, 5, 3]
        expand_ratio: [1, 4, 5, 4, 4, 6, 6]
        depth: [1, 3, 3, 3, 3, 4, 1]
batch_size: 256
supernet_config: {resolutions: [192, 224]}
"""


def nested(arch: dict[str, Any], slots: int = 4) -> dict[str, Any]:
    """Once-for-all's dictionary in our own form, by hand."""
    stages = [slice(s * slots, s * slots + depth) for s, depth in enumerate(arch["d"])]
    kinds = {"kernel_size": "ks", "expand_ratio": "e"}
    return {"depth": arch["d"], **{ours: [arch[key][stage] for stage in stages] for ours, key in kinds.items()}}


def specification(space: SearchSpace, row: np.ndarray) -> dict[str, Any]:
    form = space.to_dict(row)
    pad = [
        (kind, [value for stage in form[kind] for value in [*stage, *[7] * (4 - len(stage))]])
        for kind in ("kernel_size", "expand_ratio")
    ]
    flat = dict(pad)
    return {"ks": flat["kernel_size"], "e": flat["expand_ratio"], "d": form["depth"], "r": [form["resolution"]]}


def network_config(space: SearchSpace, row: np.ndarray, old: bool = False) -> dict[str, Any]:
    """``net.config`` of a network, from its layers."""
    stem, *blocks, head = space.blueprint(row).blocks
    (expand,) = (layer for layer in head.layers if layer.name == "expand")
    (mix,) = (layer for layer in head.layers if layer.name == "features")

    def conv(layer: Layer) -> dict[str, Any]:
        return {
            "name": "ConvLayer", "kernel_size": layer.kernel, "stride": layer.stride, "in_channels": layer.in_channels,
            "out_channels": layer.out_channels, "act_func": layer.activation,
        }  # fmt: skip

    described = []
    for block in blocks:
        named = {layer.name: layer for layer in block.layers}
        deep = named["depthwise"]
        before = block.layers[0].in_channels
        inside = {
            "name": "MBInvertedConvLayer" if old else "MBConvLayer", "in_channels": before,
            "out_channels": named["project"].out_channels, "kernel_size": deep.kernel, "stride": deep.stride,
            "expand_ratio": deep.out_channels / before if old else round(deep.out_channels / before),
            "mid_channels": deep.out_channels, "act_func": deep.activation, "use_se": "se" in named,
        }  # fmt: skip
        around = None if block.shortcut is None else {"name": "IdentityLayer", "in_channels": 1, "out_channels": 1}
        described.append(
            {"name": "ResidualBlock", "mobile_inverted_conv" if old else "conv": inside, "shortcut": around}
        )
    return {
        "name": "MobileNetV3", "bn": {"momentum": 0.1, "eps": 1e-5}, "first_conv": conv(stem.layers[0]), "blocks": described,
        "final_expand_layer": conv(expand), "feature_mix_layer": conv(mix),
        "classifier": {"name": "LinearLayer", "in_features": mix.out_channels, "out_features": head.layers[-1].out_channels},
    }  # fmt: skip


def test_the_dictionary_of_once_for_all(cases: Path) -> None:
    arch = json.loads((cases / "ofa-ks-e-d.json").read_text())
    read = read_architectures(cases / "ofa-ks-e-d.json")
    assert read == {"": arch}
    assert (read_architecture(SPACE, arch) == SPACE.from_dict(nested(arch))).all()
    with pytest.raises(SpaceError, match="resolution 224, this space 160"):
        read_architecture(get_space("ofa-mobilenet-v3", resolution=160), arch)


def test_a_line_of_dynas_t(tmp_path: Path) -> None:
    text, params = DYNAS
    (tmp_path / "a.txt").write_text(text)
    row = read_architecture(SPACE, read_architectures(tmp_path / "a.txt")[""])
    assert counted_table(SPACE, "params")(row)[0] == params


@pytest.mark.parametrize("options", [{}, {"width_mult": 1.2, "resolution": 160}, {"resolutions": [160, 192]}])
def test_forms_of_once_for_all_go_round(options: dict[str, Any]) -> None:
    space = get_space("ofa-mobilenet-v3", **options)
    for row in space.sample(20, np.random.default_rng(0)):
        form = specification(space, row)
        assert (read_architecture(space, form)[0] == row).all()
        assert (read_architecture(space, {**form, "wid": None, "r": form["r"][0]})[0] == row).all()
        assert (space.from_dict(form)[0] == row).all()
        if "resolution" not in space.column:
            for old in (False, True):
                assert (read_architecture(space, network_config(space, row, old))[0] == row).all()


@pytest.mark.parametrize("width", [0.35, 1.0, 1.2])
def test_a_network_tells_its_widths(width: float) -> None:
    space = get_space("ofa-mobilenet-v3", width_mult=width, num_classes=10)
    form = space.own_form(network_config(space, space.centroid), {})
    assert space.from_dict({**form, "width_mult": width}).tolist() == space.centroid.tolist()
    assert form["num_classes"] == 10
    again = get_space("ofa-mobilenet-v3", width_mult=form["width_mult"], num_classes=10)
    assert again.blueprint(space.centroid).params == space.blueprint(space.centroid).params


def test_one_number_for_all() -> None:
    assert (read_architecture(SPACE, {"ks": 7, "e": 6, "d": 4}) == SPACE.largest).all()


def test_the_configuration_of_attentive_nas(tmp_path: Path) -> None:
    (tmp_path / "eval.yml").write_text(ATTENTIVE)
    space = get_space("attentive-nas")
    read = read_architectures(tmp_path / "eval.yml")
    rows = np.concatenate([read_architecture(space, arch) for arch in read.values()])
    assert list(read) == ["a0", "a2"]
    assert counted_table(space, "madds")(rows).tolist() == [
        203_389_568,
        316_730_080,
    ]  # as published: 203 and 317 million


@pytest.mark.parametrize("name", list_spaces())
def test_every_space_reads_its_own_form(name: str) -> None:
    space = get_space(name)
    for row in space.sample(5, np.random.default_rng(0)):
        form = {**space.to_dict(row), "macs": 1, "published_top1": 77.3, "num_classes": 7}
        assert (read_architecture(space, json.loads(json.dumps(form)))[0] == row).all()


@pytest.mark.parametrize(
    ("space", "changes", "says"),
    [
        ("spos-shufflenet-v2", {"chanels": [1.0] * 20}, "no key 'chanels' in an architecture; did you mean 'channels'?"),
        ("ofa-mobilenet-v3", {"resolutoin": 160}, "no key 'resolutoin' in an architecture; did you mean 'resolution'?"),
        ("attentive-nas", {"w": 1}, "no key 'w' in an architecture; allowed: resolution, width, depth"),
        ("nas-bench-201", {"resolution": 64}, "the architecture has resolution 64, this space 32"),
        ("mobilenet-v2", {3: 1}, "no key 3 in an architecture; allowed: "),
    ],
)  # fmt: skip
def test_keys_that_nothing_is_known_of(space: str, changes: dict[Any, Any], says: str) -> None:
    made = get_space(space)
    with pytest.raises(SpaceError) as caught:
        read_architecture(made, {**made.to_dict(made.smallest), **changes})
    assert says in str(caught.value)


GOOD = {"ks": [3] * 20, "e": [3] * 20, "d": [2] * 5}


@pytest.mark.parametrize(
    ("arch", "says"),
    [
        ({**GOOD, "d": [2] * 4}, "d has 5 entries, got 4"),
        ({**GOOD, "ks": [3] * 19}, "ks has as many entries for each of 5 stages, got 19"),
        ({**GOOD, "ks": [4] * 20}, r"stage1.block1.kernel_size = 4 is not in this space"),
        ({**GOOD, "ks": None}, "kernel_size = None is not in this space"),
        ({**GOOD, "wid": 1}, "wid is null"),
        ({**GOOD, "depth": [2] * 5}, "has 'd' and 'depth'; leave one of them out"),
        ({**GOOD, "r": [160, 192]}, "r has 1 entries, got 2"),
        ({**GOOD, "r": [160], "image_size": 192}, "they are one resolution"),
        ({"e": 3, "d": 2}, "lacks 'ks'"),
        ({**GOOD, "w": [0, 1]}, "no key 'w' in an architecture"),
        ({"first_conv": {}, "blocks": []}, "lacks 'final_expand_layer'"),
    ],
)  # fmt: skip
def test_dictionaries_that_are_none(arch: dict[str, Any], says: str) -> None:
    with pytest.raises(SpaceError) as caught:
        read_architecture(SPACE, arch)
    assert says in str(caught.value)


def test_networks_of_another_space() -> None:
    wide = get_space("ofa-mobilenet-v3", width_mult=1.2)
    config = network_config(wide, wide.smallest)
    with pytest.raises(SpaceError, match=r"the network has widths 24, 32, .*; this space at width_mult 1 has 16, 24"):
        read_architecture(SPACE, config)
    small = get_space("ofa-mobilenet-v3", stem_stride=1)
    with pytest.raises(SpaceError, match="the network has stem_stride 1, this space 2; give -o stem_stride"):
        read_architecture(SPACE, network_config(small, small.smallest))
    config = network_config(SPACE, SPACE.smallest)
    config["blocks"][1]["conv"]["use_se"] = True
    with pytest.raises(SpaceError, match="stage 1 has use_se True; in this space it is False"):
        read_architecture(SPACE, config)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.json", "{'a': __import__('os')}", "is not JSON"),
        ("a.json", '{"a": 1, "a": 2}', "key 'a' stands twice"),
        ("a.json", "{'a': {1, 2}}", "is not JSON"),
        ("a.yaml", "a: &b [*b]", "holds more than 200,000 values"),
        ("a.yaml", "a: 2001-01-01", "holds a date, which no architecture has"),
        ("a.yaml", "a: 0x" + "F" * 9000, "a whole number of more than 18 digits"),
        ("a.yaml", "- 1\n- 2", "holds a list"),
    ],
)
def test_files_that_hold_none(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_architectures(tmp_path / name)
    assert says in str(caught.value)
    assert name in str(caught.value)


def test_files_with_more_than_one(tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text(
        json.dumps({"seed": 0, "winners": [{"architecture": GOOD, "accuracy": 0.5}] * 2})
    )
    assert read_architectures(tmp_path / "found.json") == {"1": GOOD, "2": GOOD}
    (tmp_path / "one.json").write_text(json.dumps([{"net_config": GOOD, "latency_constrain": 600}]))
    assert read_architectures(tmp_path / "one.json") == {"": GOOD}


PIECES = [
    None, True, -1, 0, 7, 10**17, 1e999, "x", "", [], {}, [3], [[3]], {"a": 1}, [None] * 20, 2.5, "3", [1] * 300, {"name": "ZeroLayer"},
]  # fmt: skip


def damaged(content: Any, draw: random.Random) -> Any:
    """The content with one value, or key, replaced at random."""
    if isinstance(content, dict) and content and draw.random() < 0.85:
        key = draw.choice(list(content))
        match draw.randrange(8):
            case 0:
                return {k: v for k, v in content.items() if k != key}
            case 1:
                return {
                    **content,
                    draw.choice(["ks", "wid", "r", "blocks", "x", "resolution", "width_mult", ""]): draw.choice(PIECES),
                }
            case _:
                return {**content, key: damaged(content[key], draw)}
    if isinstance(content, list) and content and draw.random() < 0.85:
        at = draw.randrange(len(content))
        return [*content[:at], damaged(content[at], draw), *content[at + draw.choice([0, 1, 1, 1, 2]) :]]
    return draw.choice(PIECES)


KINDS = {
    "specification": ("ofa-mobilenet-v3", specification(SPACE, SPACE.centroid)),
    "network": ("ofa-mobilenet-v3", network_config(SPACE, SPACE.centroid)),
    "attentive": ("attentive-nas", yaml.safe_load(ATTENTIVE)),
    "own": ("ofa-mobilenet-v3", SPACE.to_dict(SPACE.largest)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_architectures(kind: str, tmp_path: Path) -> None:
    """An architecture of the space, or one line that says what is wrong: values and bytes replaced, in JSON, YAML and Python."""
    name, content = KINDS[kind]
    space = get_space(name)
    path = tmp_path / "arch"

    @settings(max_examples=500, deadline=None)
    @given(st.randoms(use_true_random=False))
    def check(draw: random.Random) -> None:
        changed = content
        for _ in range(draw.randrange(3)):
            changed = damaged(changed, draw)
        write, suffix = draw.choice([(json.dumps, ".json"), (json.dumps, ".yaml"), (repr, ".json"), (repr, ".txt")])
        data = bytearray(write(changed).encode())
        for _ in range(draw.choice([0, 0, 1, 3])):
            at = draw.randrange(len(data) + 1)
            data[at : at + draw.randrange(4)] = draw.choice(
                [b"", b"{", b"]", b"'", b"nan", b"\xff", b"\n", b"[" * 300, b"1_0", b"b''", b"2j"]
            )
        file = path.with_suffix(suffix)
        file.write_bytes(data)
        try:
            rows = [read_architecture(space, arch) for arch in read_architectures(file).values()]
        except SnugnetError as refused:
            lines = str(refused).splitlines()
        else:
            assert all((space.rows(row) == row).all() for row in rows)
            lines = ["read"]
        assert len(lines) == 1

    check()

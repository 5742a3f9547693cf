"""``snugnet space``: what can be chosen."""

from __future__ import annotations

from typing import Any

import pytest

from snugnet.spaces import get_space, list_spaces

SPACE = "ofa-mobilenet-v3"


def test_list(snugnet: Any) -> None:
    assert [each["name"] for each in snugnet("space", "list", "--json").json] == list_spaces()
    assert all(name in snugnet("space", "list").out for name in list_spaces())


@pytest.mark.parametrize("name", list_spaces())
def test_show_every_space(snugnet: Any, name: str) -> None:
    shown = snugnet("space", "show", name, "--json").json
    space = get_space(name)
    assert (shown["name"], shown["options"], shown["size"]) == (name, space.options, space.size)
    assert sum(kind["count"] for kind in shown["choices"]) == space.d
    for network, row in space.extremes().items():
        assert shown["networks"][network]["madds"] == space.blueprint(row).madds
        assert (space.from_dict(shown["networks"][network]["architecture"]) == row).all()
    assert f"{space.size:,}" in snugnet("space", "show", name).out


def test_size_and_extremes_of_the_published_space(snugnet: Any) -> None:
    shown = snugnet("space", "show", SPACE, "--json").json
    assert shown["size"] == 7371**5
    assert shown["size_scientific"] == "2.176e+19"
    assert shown["networks"]["smallest"]["madds"] == 121278672
    assert {key: shown["networks"]["largest"][key] for key in ("madds", "params")} == {
        "madds": 566170656,
        "params": 7664760,
    }
    text = snugnet("space", "show", SPACE).out
    for part in (
        "2.176e+19",
        "smallest",
        "centroid",
        "largest",
        "566,170,656",
        "kernel_size",
        "3 5 7",
        "[2, 2, 2, 1, 2]",
    ):
        assert part in text


def test_options_change_the_space(snugnet: Any) -> None:
    shown = snugnet("space", "show", SPACE, "-o", "width_mult=1.2", "-o", "depths=[1,2]", "--json").json
    assert shown["options"]["width_mult"] == 1.2
    assert shown["size"] == (9 + 81) ** 5


@pytest.mark.parametrize("network", ["smallest", "centroid", "largest"])
def test_blueprint(snugnet: Any, network: str) -> None:
    space = get_space(SPACE, resolution=32)
    blueprint = space.blueprint(space.extremes()[network])
    arguments = ["space", "show", SPACE, "-o", "resolution=32", "--blueprint", network]
    assert str(blueprint) in snugnet(*arguments).out
    shown = snugnet(*arguments, "--json").json["blueprint"]
    assert shown["network"] == network
    assert [block["name"] for block in shown["blocks"]] == [block.name for block in blueprint.blocks]


def test_wrong_input(snugnet: Any) -> None:
    assert (
        "unknown space 'ofa'; known: attentive-nas, darts, mobilenet-v2, nas-bench-201, ofa-mobilenet-v3"
        in snugnet("space", "show", "ofa").error
    )
    assert "unknown option 'x'" in snugnet("space", "show", SPACE, "-o", "x=1").error
    assert "key=value" in snugnet("space", "show", SPACE, "-o", "x").error
    assert "resolution is a whole number" in snugnet("space", "show", SPACE, "-o", "resolution=big", "--json").error


def test_devices_of_a_space_that_was_measured(snugnet: Any) -> None:
    shown = snugnet("space", "show", "nas-bench-201", "--json").json
    assert shown["devices"]["raspi4"] == ["latency_ms"]
    assert shown["devices"]["fpga"] == ["latency_ms", "energy_mj"]
    assert "pixel3" in snugnet("space", "show", "nas-bench-201").out
    assert "devices" not in snugnet("space", "show", SPACE, "--json").json

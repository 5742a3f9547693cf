"""The space of Single Path One-Shot: published counts, forms, options."""

from __future__ import annotations

import json
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_spaces import TINY_SPACES

from snugnet.costs import counted_table
from snugnet.errors import SpaceError
from snugnet.spaces import get_space
from snugnet.spaces.spos_shufflenet_v2 import SCALES
from snugnet.testing import check_space

NAME = "spos-shufflenet-v2"
SPACE = get_space(NAME)
PUBLISHED = [2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3]
COUNTS = [(PUBLISHED, 322_918_720, 3_558_464), ([0] * 20, 295_842_496, None), ([1] * 20, 313_654_976, None)]


@pytest.mark.parametrize(("blocks", "madds", "params"), COUNTS)
def test_published_counts(blocks: list[int], madds: int, params: int | None) -> None:
    blueprint = SPACE.blueprint(SPACE.from_dict({"resolution": 224, "blocks": blocks}))
    assert blueprint.madds == madds
    assert params in (None, blueprint.params)


def by_hand(blocks: list[int], scales: list[Fraction], classes: int, size: int) -> tuple[int, int]:
    """MAdds and params, written down from the paper without the package."""
    madds = params = 0

    def conv(before: int, after: int, kernel: int, groups: int, side: int) -> None:
        nonlocal madds, params
        weights = kernel * kernel * (before // groups) * after
        madds, params = madds + weights * side * side, params + weights + 2 * after

    side, channels, unit = size // 2, 16, 0
    conv(3, 16, 3, 1, side)
    for count, out in zip((4, 4, 8, 4), (64, 160, 320, 640), strict=True):
        for first in [True] + [False] * (count - 1):
            before = channels if first else out // 2
            small = side // 2 if first else side
            mid, kernel = int(Fraction(out, 2) * scales[unit]), (3, 5, 7, 3)[blocks[unit]]
            if blocks[unit] == 3:
                conv(before, before, 3, before, small)
                for a, b in ((before, mid), (mid, mid)):
                    conv(a, b, 1, 1, small)
                    conv(b, b, 3, b, small)
                conv(mid, out - before, 1, 1, small)
            else:
                conv(before, mid, 1, 1, side)
                conv(mid, mid, kernel, mid, small)
                conv(mid, out - before, 1, 1, small)
            if first:
                conv(before, before, kernel, before, small)
                conv(before, before, 1, 1, small)
            side, channels, unit = small, out, unit + 1
    conv(640, 1024, 1, 1, side)
    return madds + 1024 * classes, params + 1024 * classes


def test_counts_with_channels_are_those_written_down_by_hand() -> None:
    rows = SPACE.sample(60, np.random.default_rng(0))
    table = {count: counted_table(SPACE, count)(rows) for count in ("madds", "params")}
    for i, row in enumerate(rows):
        form = SPACE.to_dict(row)
        scales = [Fraction(round(10 * scale), 10) for scale in form["channels"]]
        expected = by_hand(form["blocks"], scales, 1000, 224)
        assert (table["madds"][i], table["params"][i]) == expected
        blueprint = SPACE.blueprint(row)
        assert (blueprint.madds, blueprint.params) == expected


def test_scales_are_exact() -> None:
    """In floats, 0.6 times a width may fall below the whole number that it is."""
    assert SCALES == (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)
    for scale in SCALES:
        blueprint = SPACE.blueprint(SPACE.from_dict({"blocks": [0] * 20, "channels": [scale] * 20}))
        mids = {b.name: b.layers[0].out_channels for b in blueprint.blocks if b.name.startswith("stage")}
        for name, width in (
            ("stage1.block2", 32),
            ("stage2.block1", 80),
            ("stage3.block8", 160),
            ("stage4.block4", 320),
        ):
            assert mids[name] == width * round(10 * scale) // 10
    odd = get_space(NAME, channels=[64, 160, 340, 640], channel_scales=[0.7])
    block = odd.blueprint(odd.smallest).blocks[9]
    assert block.layers[0].out_channels == 119
    assert int(0.7 * 170) == 118


def test_the_form_of_an_architecture() -> None:
    form = {"resolution": 224, "blocks": PUBLISHED, "channels": [0.6, 1.6] * 10}
    assert SPACE.to_dict(SPACE.from_dict(form)) == form
    without = SPACE.from_dict({"blocks": PUBLISHED})
    assert SPACE.to_dict(without) == {"resolution": 224, "blocks": PUBLISHED, "channels": [1.0] * 20}


def test_the_command_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from snugnet.cli.main import main

    path = tmp_path / "arch.json"
    path.write_text(json.dumps({"resolution": 224, "blocks": PUBLISHED}))
    with pytest.raises(SystemExit):
        main(["cost", NAME, "--arch", str(path), "--json"])
    counted = json.loads(capsys.readouterr().out)
    assert (counted["madds"], counted["params"]) == (322_918_720, 3_558_464)


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ({"blocks": [4, *[0] * 19]}, "stage1.block1.block = 4 is not in this space; allowed: [0, 1, 2, 3]"),
        ({"blocks": [True, *[0] * 19]}, "stage1.block1.block = True"),
        ({"blocks": [0] * 19}, "blocks has 20 entries, got 19"),
        ({"blocks": [0] * 20, "channels": [1.8, *[1.0] * 19]}, "stage1.block1.channels = 1.8 is not in this space"),
        ({"blocks": [0] * 20, "channels": [1.0]}, "channels has 20 entries"),
        ({"channels": [1.0] * 20}, "the architecture lacks 'blocks'"),
        ({"resolution": 160, "blocks": [0] * 20}, "resolution 160"),
        ({"depth": [1], "kernel_size": []}, "the architecture lacks 'blocks'"),
    ],
)
def test_another_architecture_is_refused(arch: dict[str, Any], words: str) -> None:
    with pytest.raises(SpaceError) as caught:
        SPACE.from_dict(arch)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channel_scales": [1.0, 0.6]}, "channel_scales"),
        ({"channel_scales": [0.25]}, "channel_scales"),
        ({"channel_scales": [0.1], "channels": [18, 20, 22, 24]}, "leaves none"),
        ({"block_choices": [0, 4]}, "block_choices"),
        ({"fixed_blocks": [0] * 19}, "fixed_blocks has 20 entries"),
        ({"fixed_blocks": [5] * 20}, "fixed_blocks holds 5"),
        ({"channels": [64, 64, 320, 640]}, "channels are even and rise"),
        ({"channels": [63, 160, 320, 640]}, "channels are even and rise"),
        ({"blocks": [4, 0, 8, 4]}, "blocks is a whole number"),
        ({"stage_strides": [2, 2, 2, 3]}, "strides are 1 or 2"),
        ({"width_mult": 2}, "unknown option 'width_mult'"),
    ],
)
def test_options_that_make_no_network_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        get_space(NAME, **options)


def test_what_is_searched_is_an_option() -> None:
    blocks = get_space(NAME, channel_scales=[1.0])
    assert blocks.size == 4**20
    channels = get_space(NAME, fixed_blocks=PUBLISHED)
    assert channels.size == 8**20
    assert SPACE.size == 32**20
    row = blocks.from_dict({"blocks": PUBLISHED})
    same = channels.from_dict({"blocks": PUBLISHED})
    assert blocks.blueprint(row) == channels.blueprint(same) == SPACE.blueprint(SPACE.from_dict({"blocks": PUBLISHED}))
    with pytest.raises(SpaceError, match="allowed: \\[2\\]"):
        channels.from_dict({"blocks": [0] * 20})
    few = get_space(NAME, block_choices=[0, 3], channel_scales=[0.6, 1.0])
    assert few.size == 4**20
    assert few.with_options(num_classes=10).options == few.options | {"num_classes": 10}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"channel_scales": (1.0,)},
        {"fixed_blocks": (0, 3, 1, 2, 3)},
        {"resolution": None, "resolutions": (7, 8)},
    ],
)
def test_the_laws_of_a_space(changes: dict[str, Any]) -> None:
    check_space(get_space(NAME, **{**TINY_SPACES[NAME], **changes}))


@pytest.mark.parametrize("count", ["madds", "params"])
def test_a_million_architectures_a_second(count: str) -> None:
    """On one quiet core it is about five million; here only that nothing is gone through one by one."""
    table, rows = counted_table(SPACE, count), SPACE.sample(200_000, np.random.default_rng(0))
    table(rows[:1000])
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        table(rows)
        seconds.append(time.perf_counter() - start)
    assert len(rows) / min(seconds) > 1e6

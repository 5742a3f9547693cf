"""Known numbers of the MobileNetV2 space, all to the unit."""

import json

import numpy as np
import pytest

from snugnet.costs import counted_table
from snugnet.errors import SpaceError
from snugnet.spaces import Blueprint, get_space
from snugnet.spaces.mbconv import mbconv

SPACE = get_space("mobilenet-v2")
SMALLEST = [["k3_e3", *["skip"] * (n - 1)] for n in (4, 4, 4, 4, 4, 1)]


def test_size_and_extremes():
    assert SPACE.size == 6**6 * 7**15
    assert SPACE.d == 6 * 2 + 15 * 3
    table = counted_table(SPACE, "madds")
    assert (table(SPACE.smallest)[0], table(SPACE.largest)[0]) == table.range
    assert SPACE.to_dict(SPACE.smallest)["blocks"] == SMALLEST
    assert SPACE.to_dict(SPACE.largest)["blocks"] == [["k7_e6"] * n for n in (4, 4, 4, 4, 4, 1)]


def test_mobilenet_v2_itself():
    """Made of the space's own blocks; its first widths and the depth of each stage are the published ones."""
    whole = SPACE.blueprint(SPACE.largest).blocks
    blocks, size = list(whole[:2]), 112
    widths = [16, *SPACE.STAGE_WIDTHS]
    for s, (depth, stride) in enumerate(zip((2, 3, 4, 3, 3, 1), (2, 2, 2, 1, 2, 1), strict=True)):
        for b in range(depth):
            blocks.append(
                mbconv(
                    f"stage{s + 1}.block{b + 1}", widths[s] if b == 0 else widths[s + 1], widths[s + 1], size,
                    kernel=3, expand=6, stride=stride if b == 0 else 1, activation="relu6", se=False,
                )
            )  # fmt: skip
            size = blocks[-1].layers[-1].out_resolution
    published = Blueprint((*blocks, whole[-1]), 3, 224)
    assert (published.madds, published.params) == (300_774_272, 3_504_872)
    inside = [["k3_e6"] * n + ["skip"] * (4 - n) for n in (2, 3, 4, 3, 3)] + [["k3_e6"]]
    row = SPACE.from_dict({"blocks": inside})
    assert SPACE.blueprint(row) == published
    assert counted_table(SPACE, "madds")(row)[0] == published.madds


def test_json_form_round_trip():
    for row in SPACE.sample(50, np.random.default_rng(0)):
        form = json.loads(json.dumps(SPACE.to_dict(row)))
        assert list(form) == ["width_mult", "resolution", "blocks"]
        assert (SPACE.from_dict(form)[0] == row).all()
        assert sum(operation != "skip" for stage in form["blocks"] for operation in stage) + 3 == len(
            SPACE.blueprint(row).blocks
        )


def test_any_block_but_a_first_can_be_skipped():
    arch = {"blocks": [["k3_e3", "skip", "k5_e6", "skip"], *SMALLEST[1:]]}
    names = [block.name for block in SPACE.blueprint(SPACE.from_dict(arch)).blocks]
    assert names[:4] == ["stem", "first", "stage1.block1", "stage1.block3"]
    with pytest.raises(SpaceError, match=r"stage2.block1 = 'skip'.*allowed: k3_e3, .*k7_e6$"):
        SPACE.from_dict({"blocks": [SMALLEST[0], ["skip"] * 4, *SMALLEST[2:]]})


def test_options():
    space = get_space(
        "mobilenet-v2", width_mult=0.5, resolutions=[24, 32], blocks=[2, 1, 1, 1, 3, 1], kernel_sizes=[3],
        expand_ratios=[1.5, 2], stem_stride=1, stage_strides=[1, 2, 1, 1, 2, 1], num_classes=7,
    )  # fmt: skip
    assert space.size == 2 * 2**6 * 3**3
    assert get_space("mobilenet-v2", **json.loads(json.dumps(space.options))).choices == space.choices
    rows = space.sample(60, np.random.default_rng(0))
    assert counted_table(space, "params")(rows).tolist() == [space.blueprint(row).params for row in rows]
    for row in rows:
        form = space.to_dict(row)
        assert form["resolution"] == space.blueprint(row).resolution
        assert (space.from_dict(form)[0] == row).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": [1, 2]}, "unknown option 'depths'.*blocks"),
        ({"blocks": [4, 4, 4]}, "blocks has 6 entries"),
        ({"blocks": [4, 4, 4, 4, 0, 1]}, "blocks are whole numbers"),
        ({"expand_ratios": [1, 3]}, "expand_ratios is a rising list"),
        ({"kernel_sizes": []}, "kernel_sizes is a rising list"),
        ({"resolution": "224"}, "resolution is a whole number"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(SpaceError, match=message):
        get_space("mobilenet-v2", **options)


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ({}, "lacks 'blocks'"),
        ({"blocks": SMALLEST[:5]}, "blocks has 6 entries"),
        ({"blocks": [["k3_e3"]] * 6}, "stage 1 has 4 entries"),
        ({"blocks": [["k3_e3", 3, "skip", "skip"], *SMALLEST[1:]]}, "stage1.block2 = 3 is not in this space"),
        ({"blocks": [["k3_e3", "k3_e4", "skip", "skip"], *SMALLEST[1:]]}, "allowed: k3_e3.*, skip"),
        ({"blocks": SMALLEST, "width_mult": 0.5}, "width_mult 0.5, this space 1.0"),
    ],
)
def test_bad_architectures(arch, message):
    with pytest.raises(SpaceError, match=message):
        SPACE.from_dict(arch)

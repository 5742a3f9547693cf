"""Known numbers of the AttentiveNAS space, all to the unit."""

import json

import numpy as np
import pytest

from snugnet.costs import counted_table
from snugnet.errors import SpaceError
from snugnet.spaces import get_space

SPACE = get_space("attentive-nas")
FIELDS = ["resolution", "width", "depth", "kernel_size", "expand_ratio"]
SMALLEST = {
    "resolution": 192,
    "width": [16, 16, 24, 32, 64, 112, 192, 216, 1792],
    "depth": [1, 3, 3, 3, 3, 3, 1],
    "kernel_size": [3] * 7,
    "expand_ratio": [1, 4, 4, 4, 4, 6, 6],
}
SMALL = {
    "resolutions": [24, 32],
    "num_classes": 5,
    "stem_stride": 1,
    "stage_strides": [1, 2, 1, 2, 1, 2, 1],
    "widths": [[4, 8], [4, 8], [8, 12], [12], [12, 16], [16, 24], [24], [24, 32], [48, 64]],
    "depths": [1, 2],
    "expand_ratios": [[1], *([[2, 3]] * 6)],
}


@pytest.fixture(scope="module")
def published(shared_folder):
    return json.loads((shared_folder / "data" / "attentive-nas" / "models.json").read_text())


def test_size_and_extremes():
    assert SPACE.size == 440_301_256_704
    madds = counted_table(SPACE, "madds")
    assert madds.range == (203_389_568, 1_939_335_808)
    assert (madds(SPACE.smallest)[0], madds(SPACE.largest)[0]) == madds.range
    assert SPACE.to_dict(SPACE.smallest) == SMALLEST


@pytest.mark.parametrize(
    ("name", "madds", "params"),
    [("a0", 203_389_568, 8_954_184), ("a2", 316_730_080, 11_149_824), ("a6", 709_007_232, 15_154_792)],
)
def test_published_networks(published, name, madds, params):
    model = published["models"][name]
    row = SPACE.from_dict(model)
    blueprint = SPACE.blueprint(row)
    assert blueprint.madds == counted_table(SPACE, "madds")(row)[0] == madds
    assert blueprint.params == counted_table(SPACE, "params")(row)[0] == params
    assert round(madds / 1e6) == model["published_mflops"]
    assert SPACE.to_dict(row) == {field: model[field] for field in FIELDS}
    options = [choice.options[i] for choice, i in zip(SPACE.choices, row[0], strict=True)]
    assert options == model["feature_vector"]  # columns are in the order of the published predictor's input


def test_the_published_space(published):
    """Every option, shortcut by shortcut and stage by stage."""
    space = published["search_space"]
    assert SPACE.options["resolutions"] == space["resolution"]
    for ours, theirs in (("widths", "width"), ("depths", "depth"), ("kernel_sizes", "kernel_size")):
        assert SPACE.options[ours] == space[theirs]
    assert SPACE.options["expand_ratios"] == space["expand_ratio"]
    assert SPACE.options["stage_strides"] == space["mb_stride"]
    assert [int(se) for se in SPACE.STAGE_SE] == space["mb_se"]
    blocks = {block.name: block for block in SPACE.blueprint(SPACE.largest).blocks}
    assert blocks["mb1.block1"].shortcut == ()
    assert [layer.op for layer in blocks["mb2.block1"].shortcut] == ["avg_pool", "conv"]
    assert [layer.op for layer in blocks["mb5.block1"].shortcut] == ["conv"]
    assert all(blocks[f"mb{s}.block2"].shortcut == () for s in range(1, 8))
    for block in blocks.values():
        convolutions = [layer for layer in block.shortcut or () if layer.op == "conv"]
        assert not any(layer.norm or layer.bias for layer in convolutions)
        assert all(layer.activation in ("none", "swish") for layer in block.layers)


def test_json_form_round_trip():
    for row in SPACE.sample(50, np.random.default_rng(0)):
        form = json.loads(json.dumps(SPACE.to_dict(row)))
        assert list(form) == FIELDS
        assert (SPACE.from_dict({**form, "published_top1": 77.3})[0] == row).all()


@pytest.mark.parametrize("resolution", [7, 15, 33, 64])
def test_sizes_fit_at_odd_resolutions(resolution):
    """The output of each block, and of its shortcut, is the input of the next."""
    space = get_space("attentive-nas", **{**SMALL, "resolutions": [resolution - 1, resolution], "in_channels": 1})
    for row in (*space.extremes().values(), *space.sample(20, np.random.default_rng(0))):
        channels, size = 1, space.resolution_of(np.ravel(row))
        blueprint = space.blueprint(row)
        assert (blueprint.in_channels, blueprint.resolution) == (channels, size)
        for block in blueprint.blocks:
            ends = []
            for layers in (block.layers, block.shortcut or ()):
                at = (channels, size)
                for layer in layers:
                    assert (layer.in_channels, layer.resolution) == at
                    at = (layer.out_channels, layer.resolution if layer.op == "se" else layer.out_resolution)
                ends.append(at)
            assert block.shortcut is None or ends[0] == ends[1]
            channels, size = ends[0]
        assert blueprint.num_classes == channels == 5


def test_options_of_a_small_space():
    space = get_space("attentive-nas", resolution=32, **SMALL)
    assert space.resolution == 32
    assert get_space("attentive-nas", **json.loads(json.dumps(space.options))).choices == space.choices
    table = counted_table(space, "madds")
    rows = space.sample(100, np.random.default_rng(0))
    assert table(rows).tolist() == [space.blueprint(row).madds for row in rows]
    fixed = get_space("attentive-nas", resolution=192)
    assert fixed.options["resolutions"] == [192]
    assert fixed.size * 4 == SPACE.size
    arch = {**SMALLEST, "resolution": 224}
    with pytest.raises(SpaceError, match=r"resolution = 224 is not in this space; allowed: \[192\]"):
        fixed.from_dict(arch)


def test_widths_that_become_equal_are_one_option():
    space = get_space("attentive-nas", width_mult=0.25)
    widths = [space.choices[space.column[f"{name}.width"]].options for name in ("stem", "mb5", "mb6", "head")]
    assert widths == [(8,), (32,), (48, 56), (448, 496)]
    assert space.size < SPACE.size
    assert len(space.to_dict(space.largest)["width"]) == 9
    half = get_space("attentive-nas", width_mult=0.5)
    assert half.choices[half.column["mb6.width"]].options == (96, 104, 112)
    assert counted_table(half, "madds").range[1] < counted_table(SPACE, "madds").range[1] / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 3}, "unknown option 'blocks'.*widths"),
        ({"resolution": 100, "resolutions": [90, 110]}, "largest of resolutions, 110"),
        ({"resolution": 0}, "resolutions is a rising list"),
        ({"widths": [[16]] * 8}, "widths has 9 entries"),
        ({"widths": [[16, 8]] + [[16]] * 8}, "widths is a rising list"),
        ({"widths": [16] * 9}, "widths is a list"),
        ({"depths": [[1, 2]] * 6}, "depths has 7 entries"),
        ({"depths": [0, 1]}, "depths is a rising list"),
        ({"depths": [[1], 2, [1], [1], [1], [1], [1]]}, "depths is a list"),
        ({"kernel_sizes": [2]}, "kernel_sizes is a rising list"),
        ({"expand_ratios": [1, 4]}, "1 is a stage's only option"),
        ({"expand_ratios": [0.5]}, "expand_ratios is a rising list"),
        ({"stage_strides": [2] * 6}, "stage_strides has 7 entries"),
        ({"width_mult": -1}, "width_mult"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(SpaceError, match=message):
        get_space("attentive-nas", **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 200}, r"resolution = 200 is not in this space; allowed: \[192, 224, 256, 288\]"),
        ({"width": [16] * 8}, "width has 9 entries"),
        ({"width": [16] * 9}, "mb2.width = 16"),
        ({"depth": [1, 3, 3, 3, 3, 3, 3]}, "mb7.depth = 3"),
        ({"kernel_size": [[3]] * 7}, "mb1.kernel_size"),
        ({"expand_ratio": 4}, "expand_ratio is a list"),
        ({"expand_ratio": [4] * 7}, r"mb1.expand_ratio = 4 is not in this space; allowed: \[1\]"),
    ],
)
def test_bad_architectures(change, message):
    with pytest.raises(SpaceError, match=message):
        SPACE.from_dict({**SMALLEST, **change})


@pytest.mark.parametrize("field", FIELDS)
def test_missing_field(field):
    with pytest.raises(SpaceError, match=f"lacks '{field}'; needed: resolution, width"):
        SPACE.from_dict({key: value for key, value in SMALLEST.items() if key != field})

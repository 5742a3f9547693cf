"""Known numbers of the OFA MobileNetV3 space, all to the unit."""

import csv
import gzip
import json

import numpy as np
import pytest

from snugnet.costs import counted_table
from snugnet.errors import SpaceError
from snugnet.spaces import get_space


def space_of(**options):
    return get_space("ofa-mobilenet-v3", **options)


def uniform(kernel, expand, depth):
    return {"kernel_size": [[kernel] * 4] * 5, "expand_ratio": [[expand] * 4] * 5, "depth": [depth] * 5}


@pytest.mark.parametrize(
    ("options", "arch", "madds", "params"),
    [
        ({}, uniform(3, 3, 2), 121_278_672, None),
        ({}, uniform(7, 6, 4), 566_170_656, 7_664_760),
        ({"resolution": 160}, uniform(5, 4, 3), 129_548_864, None),
        ({"width_mult": 1.2}, uniform(3, 3, 2), 193_078_200, None),
        ({"width_mult": 1.2}, uniform(7, 6, 4), 843_101_040, 10_701_632),
    ],
)
def test_known_counts(options, arch, madds, params):
    space = space_of(**options)
    row = space.from_dict(arch)
    blueprint = space.blueprint(row)
    assert blueprint.madds == counted_table(space, "madds")(row)[0] == madds
    assert params is None or blueprint.params == counted_table(space, "params")(row)[0] == params


def test_size():
    assert space_of().size == 7371**5
    assert space_of(depths=[1, 3], kernel_sizes=[3], expand_ratios=[2, 4]).size == (2 + 8) ** 5


def test_extremes():
    space = space_of()
    table = counted_table(space, "madds")
    costs = {name: table(row)[0] for name, row in space.extremes().items()}
    assert (costs["smallest"], costs["largest"]) == table.range
    assert space.to_dict(space.centroid)["depth"] == [3] * 5


def test_resolution_as_a_choice(published):
    """One space with an elastic resolution counts every published network as the space of its own resolution does."""
    for width_mult in (1.0, 1.2):
        networks = json.loads((published / "specialized_nets.json").read_text()).values()
        networks = [net for net in networks if net["width_mult"] == width_mult]
        space = space_of(width_mult=width_mult, resolutions=sorted({net["resolution"] for net in networks} | {256}))
        assert space.resolution == 256
        madds, params = counted_table(space, "madds"), counted_table(space, "params")
        for net in networks:
            row = space.from_dict(net)
            assert space.to_dict(row)["resolution"] == space.blueprint(row).resolution == net["resolution"]
            assert madds(row)[0] == net["macs"]
            assert params(row)[0] == net["params"]


def test_resolution_and_its_options_agree():
    with pytest.raises(SpaceError, match="largest of resolutions, 192"):
        space_of(resolution=224, resolutions=[160, 192])
    with pytest.raises(SpaceError, match="rising list"):
        space_of(resolutions=[192, 160])
    with pytest.raises(SpaceError, match="allowed"):
        space_of(resolutions=[160, 192]).from_dict(uniform(3, 3, 2))


def test_published_networks(published):
    networks = json.loads((published / "specialized_nets.json").read_text())
    assert len(networks) == 17
    for name, net in networks.items():
        space = space_of(width_mult=net["width_mult"], resolution=net["resolution"])
        row = space.from_dict(net)
        blueprint = space.blueprint(row)
        assert (blueprint.madds, blueprint.params) == (net["macs"], net["params"]), name
        assert counted_table(space, "madds")(row)[0] == net["macs"], name
        assert counted_table(space, "params")(row)[0] == net["params"], name
        again = space.to_dict(row)
        assert {key: net[key] for key in again} == again, name


def test_published_evaluations(published):
    """1,600 sub-networks of width 1.0 at 224 pixels."""
    with gzip.open(published / "imagenet_accuracy_w1.0.csv.gz", "rt") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 1600
    space = space_of()
    rows = []
    for line in table:
        kernels = [int(line[f"kernel_{i}"]) for i in range(20)]
        expands = [int(line[f"expand_{i}"]) for i in range(20)]
        depth = [int(line[f"depth_{i}"]) for i in range(5)]
        rows.append(space.from_dict({"depth": depth, "kernel_size": kernels, "expand_ratio": expands}))
    archs = np.concatenate(rows)
    assert counted_table(space, "madds")(archs).tolist() == [int(line["macs"]) for line in table]
    assert counted_table(space, "params")(archs).tolist() == [int(line["params"]) for line in table]


def test_json_form_round_trip():
    space = space_of(width_mult=1.2, resolution=171)
    for row in space.sample(50, np.random.default_rng(0)):
        form = json.loads(json.dumps(space.to_dict(row)))
        assert list(form) == ["width_mult", "resolution", "depth", "kernel_size", "expand_ratio"]
        assert [len(stage) for stage in form["kernel_size"]] == form["depth"]
        assert np.array_equal(space.from_dict(form)[0], row)


@pytest.mark.parametrize("resolution", [1, 7, 16, 33, 64, 127, 224])
@pytest.mark.parametrize(("stem", "stages"), [(2, [2, 2, 2, 1, 2]), (1, [1, 2, 2, 1, 1])])
def test_any_resolution_and_small_images(resolution, stem, stages):
    space = space_of(resolution=resolution, stem_stride=stem, stage_strides=stages, num_classes=3, in_channels=1)
    for row in (*space.extremes().values(), space.sample(1, np.random.default_rng(0))):
        blueprint = space.blueprint(row)
        channels, size = 1, resolution
        for layer in blueprint.layers():
            assert (layer.in_channels, layer.resolution) == (channels, size)
            channels, size = layer.out_channels, layer.out_resolution if layer.op != "se" else layer.resolution
        assert blueprint.num_classes == channels == 3


def test_with_options_and_json():
    space = space_of(width_mult=0.5)
    other = space.with_options(num_classes=7)
    assert other.options == {**space.options, "num_classes": 7}
    form = space.to_json()
    assert get_space(form["name"], **form["options"]).choices == space.choices
    row = space.largest
    assert space.blueprint(row).with_classes(7) == other.blueprint(row)
    assert json.loads(json.dumps(space.to_json())) == space.to_json()


def test_blueprint_prints():
    text = str(space_of().blueprint(space_of().largest))
    assert "stage5.block4 (+ input)" in text
    assert text.endswith("total 566,170,656 MAdds, 7,664,760 params")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 1.0}, "unknown option 'width'.*width_mult"),
        ({"width_mult": 0}, "width_mult"),
        ({"width_mult": "1"}, "width_mult"),
        ({"width_mult": True}, "width_mult"),
        ({"resolution": 0}, "resolution"),
        ({"resolution": 224.0}, "resolution"),
        ({"num_classes": -1}, "num_classes"),
        ({"in_channels": 0}, "in_channels"),
        ({"stem_stride": 3}, "strides are 1 or 2"),
        ({"stage_strides": [1, 2]}, "5 entries"),
        ({"stage_strides": 2}, "is a list"),
        ({"depths": []}, "depths"),
        ({"depths": [4, 2]}, "depths"),
        ({"kernel_sizes": [2, 4]}, "kernel_sizes"),
        ({"kernel_sizes": "35"}, "kernel_sizes"),
        ({"expand_ratios": [1, 2]}, "expand_ratios"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(SpaceError, match=message):
        space_of(**options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": None}, "depth"),
        ({"depth": [2, 2, 2, 2]}, "depth has 5 entries"),
        ({"depth": [2, 2, 2, 2, 5]}, r"stage5.depth = 5 is not in this space; allowed: \[2, 3, 4\]"),
        ({"depth": [2, 2, 2, 2, True]}, "stage5.depth"),
        ({"kernel_size": [[3]] * 5}, "kernel_size of stage 1 has 1 entries for a depth of 2"),
        ({"kernel_size": [[3, 4]] * 5}, "stage1.block2.kernel_size = 4"),
        ({"expand_ratio": [[3, 5]] * 5}, "stage1.block2.expand_ratio = 5"),
        ({"resolution": 160}, "resolution 160, this space 224"),
        ({"width_mult": 1.2}, "width_mult 1.2"),
    ],
)
def test_bad_architectures(change, message):
    arch = {**uniform(3, 3, 2), **change}
    with pytest.raises(SpaceError, match=message):
        space_of().from_dict(arch)


@pytest.mark.parametrize("key", ["depth", "kernel_size", "expand_ratio"])
def test_missing_field(key):
    arch = uniform(3, 3, 2)
    del arch[key]
    with pytest.raises(SpaceError, match=f"lacks '{key}'"):
        space_of().from_dict(arch)

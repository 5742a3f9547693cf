"""Latency tables: the published figure, sums over layers, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from snugnet.costs import block_table, counted_table, load_cost_table, load_ofa_latency, save_cost_table
from snugnet.errors import DataError, SpaceError
from snugnet.spaces import SearchSpace, get_space

RESOLUTIONS = [160, 176, 192, 208, 224]
ARCH = {
    "resolution": 192,
    "depth": [2, 2, 3, 4, 3],
    "kernel_size": [[5, 3], [5, 3], [7, 7, 3], [5, 5, 7, 3], [3, 3, 5]],
    "expand_ratio": [[3, 3], [4, 4], [6, 3, 4], [4, 4, 4, 3], [6, 6, 6]],
}


@pytest.fixture(scope="module")
def note10(shared_folder: Path) -> Path:
    return shared_folder / "data" / "ofa-mobilenet-v3" / "note10_latency.csv.gz"


def test_the_published_figure(note10: Path) -> None:
    space = get_space("ofa-mobilenet-v3", width_mult=1.2, resolutions=RESOLUTIONS)
    table = load_ofa_latency(note10, space)
    assert (table.name, table.unit) == ("latency_ms", "ms")
    assert table(space.from_dict(ARCH))[0] == pytest.approx(24.730167, abs=1e-6)
    fixed = get_space("ofa-mobilenet-v3", width_mult=1.2, resolution=192)
    assert load_ofa_latency(note10, fixed)(fixed.from_dict(ARCH))[0] == pytest.approx(24.730167, abs=1e-6)


def test_sums_of_rows_of_the_file(note10: Path) -> None:
    """Block by block as the keys are written down in once-for-all's own tables, at every resolution."""
    with gzip.open(note10, "rt") as file:
        cells = (line.split(",") for line in list(file)[1:])
        mean = {(int(resolution), layer): float(ms) for resolution, layer, ms, *_ in cells}
    space = get_space("ofa-mobilenet-v3", width_mult=1.2, resolutions=RESOLUTIONS)
    rows = space.sample(100, np.random.default_rng(0))
    stages = list(zip((32, 48, 96, 136, 192), (2, 2, 2, 1, 2), (0, 1, 0, 1, 1), (0, 0, 1, 1, 1), strict=True))
    for row, latency in zip(rows, load_ofa_latency(note10, space)(rows), strict=True):
        arch = space.to_dict(row)
        size, width = arch["resolution"] // 2, 24
        keys = [
            f"Conv-input:{2 * size}x{2 * size}x3-output:{size}x{size}x24",
            f"expanded_conv-input:{size}x{size}x24-output:{size}x{size}x24-expand:24-kernel:3-stride:1-idskip:1-se:0-hs:0",
        ]
        for s, (out, stride, se, hs) in enumerate(stages):
            for b in range(arch["depth"][s]):
                step = stride if b == 0 else 1
                after = (size + step - 1) // step
                keys.append(
                    f"expanded_conv-input:{size}x{size}x{width}-output:{after}x{after}x{out}-expand:"
                    f"{width * arch['expand_ratio'][s][b]}-kernel:{arch['kernel_size'][s][b]}-stride:{step}-idskip:"
                    f"{int(b > 0)}-se:{se}-hs:{hs}"
                )
                size, width = after, out
        keys += [
            f"Conv_1-input:{size}x{size}x192-output:{size}x{size}x1152",
            f"AvgPool2D-input:{size}x{size}x1152-output:1x1x1152",
            "Conv_2-input:1x1x1152-output:1x1x1536",
            "Logits-input:1x1x1536-output:1000",
        ]
        assert latency == pytest.approx(sum(mean[arch["resolution"], key] for key in keys), abs=1e-9)


def test_the_image_resolution_reaches_every_block() -> None:
    space = get_space("ofa-mobilenet-v3", width_mult=0.35, resolutions=[32, 48])
    table = block_table(space, "pixels", "pixels", lambda block, resolution: resolution)
    rows = space.sample(50, np.random.default_rng(1))
    blocks = np.array([len(space.blueprint(row).blocks) for row in rows])
    assert (table(rows) == blocks * np.array([32, 48])[rows[:, 0]]).all()


def test_a_counted_table_is_a_block_table_of_its_layers() -> None:
    space = get_space("attentive-nas", num_classes=10)
    table = block_table(space, "madds", "MAdds", lambda block, _: sum(l.madds for l in block.all_layers), 7)
    rows = space.sample(50, np.random.default_rng(1))
    assert (table(rows) == counted_table(space, "madds", 7)(rows)).all()
    assert (table(rows) == [space.blueprint(row).with_classes(7).madds for row in rows]).all()


def test_tables_of_other_spaces_are_refused(note10: Path) -> None:
    with pytest.raises(
        DataError, match=r"has no layer 'Conv-input:160x160x3-output:80x80x16' at resolution 160, which stem"
    ):
        load_ofa_latency(note10, get_space("ofa-mobilenet-v3", resolutions=RESOLUTIONS))
    with pytest.raises(DataError, match=r"at resolution 128, .* its resolutions: 160, 176, 192, 208, 224"):
        load_ofa_latency(note10, get_space("ofa-mobilenet-v3", width_mult=1.2, resolution=128))
    with pytest.raises(DataError, match="has no layer 'Logits-input:1x1x1536-output:10'"):
        load_ofa_latency(note10, get_space("ofa-mobilenet-v3", width_mult=1.2, resolution=224, num_classes=10))
    with pytest.raises(SpaceError, match="are of the space ofa-mobilenet-v3, got attentive-nas"):
        load_ofa_latency(note10, get_space("attentive-nas"))


def test_files_that_are_no_latency_table_are_refused(tmp_path: Path) -> None:
    space = get_space("ofa-mobilenet-v3", width_mult=1.2)
    path = tmp_path / "table.csv"
    with pytest.raises(DataError, match="cannot read the latency table"):
        load_ofa_latency(path, space)
    for text, words in (
        ("", "cannot read the latency table"),
        ("a,b\n1,2\n", "has no column 'resolution'"),
        ("resolution,layer,mean_ms\n224,Conv,nan\n", "row 1: mean_ms is a number of milliseconds, got None"),
        ("resolution,layer,mean_ms\n224,Conv,1\n224,Conv,2\n", "row 2: Conv at resolution 224 stands there twice"),
        (
            "resolution,layer,mean_ms\n224,Conv,1\n,Conv,2\n",
            "row 2: a layer's key at a resolution in pixels, got 'Conv' at None",
        ),
        ("resolution,layer,mean_ms\n224,3,1\n", "row 1: a layer's key at a resolution in pixels, got 3 at 224"),
        ("resolution,layer,mean_ms,mean_ms\n224,Conv,1,1\n", "has 2 columns 'mean_ms'"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=words):
            load_ofa_latency(path, space)


@pytest.mark.parametrize("name", ["madds", "activations"])
def test_a_table_in_a_file(tiny_space: SearchSpace, name: str, tmp_path: Path) -> None:
    table = counted_table(tiny_space, name)
    read = load_cost_table(save_cost_table(table, tmp_path / "t.npz"), tiny_space)
    assert (read.name, read.unit, read.range) == (table.name, table.unit, table.range)
    rows = tiny_space.sample(50, np.random.default_rng(0))
    np.testing.assert_array_equal(read(rows), table(rows))


def test_a_latency_table_of_once_for_all_by_its_suffix(note10: Path) -> None:
    space = get_space("ofa-mobilenet-v3", width_mult=1.2, resolution=192)
    assert load_cost_table(note10, space).range == load_ofa_latency(note10, space).range


def test_files_that_are_no_cost_table_of_the_space(tmp_path: Path) -> None:
    one, other = (get_space("mobilenet-v2", resolution=size) for size in (16, 32))
    path = save_cost_table(counted_table(one, "madds"), tmp_path / "t.npz")
    with pytest.raises(SpaceError, match=r"t\.npz is of another space \(not the same options\.resolution\)"):
        load_cost_table(path, other)
    with pytest.raises(DataError, match=r"cannot read the cost table .*none\.npz"):
        load_cost_table(tmp_path / "none.npz", one)
    whole = path.read_bytes()
    np.savez(tmp_path / "space.npz", space=np.array(json.dumps(one.to_json())))
    for content in (b"", b"name,ms", whole[:100], whole[:-30]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="is no cost table"):
            load_cost_table(path, one)
    with pytest.raises(SpaceError, match="lacks its array"):
        load_cost_table(tmp_path / "space.npz", one)

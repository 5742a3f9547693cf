"""Latency tables: the published figure, sums over layers, and what is refused."""

from __future__ import annotations

import gzip
import json
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snugnet.costs import block_table, counted_table, load_cost_table, load_ofa_latency, save_cost_table
from snugnet.costs.measured import _keys
from snugnet.errors import DataError, SnugnetError, SpaceError
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
    with pytest.raises(SpaceError, match="are of the space ofa-mobilenet-v3, got attentive-nas"):
        load_ofa_latency(note10, get_space("attentive-nas"))


def test_files_that_are_no_latency_table_are_refused(tmp_path: Path) -> None:
    space = get_space("ofa-mobilenet-v3", width_mult=1.2)
    path = tmp_path / "table.csv"
    with pytest.raises(DataError, match="cannot read the latency table"):
        load_ofa_latency(path, space)
    for text, words in (
        ("", "has no column 'resolution'"),
        ("a,b\n1,2\n", "has no column 'resolution'"),
        ("resolution,layer,mean_ms\n", "is empty"),
        (
            "resolution,layer,mean_ms\n224,Conv,nan\n",
            "line 2: the mean is a number of milliseconds, got 'nan' for Conv",
        ),
        ("resolution,layer,mean_ms\n224,A,1\n224,B,2\n224,Conv,fast\n", "line 4: .* got 'fast' for Conv"),
        ("resolution,layer,mean_ms\n224,A,1\n224,Conv,-2\n", "line 3: .* got '-2' for Conv"),
        ("resolution,layer,mean_ms\n224,A,1\n\n224,Conv\n", "line 4: 2 entries for 3 columns"),
        ("resolution,layer,mean_ms\n224,Conv,1\n224,Conv,2\n", "line 3: Conv at resolution 224 stands there twice"),
        (
            "resolution,layer,mean_ms\n224,Conv,1\n,Conv,2\n",
            "line 3: a layer's key at a resolution in pixels, got 'Conv' at ''",
        ),
        ("resolution,layer,mean_ms\n224,3,1\n", "line 2: a layer's key at a resolution in pixels, got '3' at '224'"),
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


def space_of_cases(**changes: object) -> SearchSpace:
    options = {"width_mult": 0.35, "resolution": 16, "stem_stride": 1, "stage_strides": [2, 2, 1, 1, 1], **changes}
    return get_space("ofa-mobilenet-v3", **options)


@pytest.mark.parametrize("form", ["yaml", "json", "folder", "mixed folder", "yaml.gz", "another name"])
def test_once_for_alls_files_as_published(cases: Path, tmp_path: Path, form: str) -> None:
    """The same numbers in CSV, and in a look-up table a resolution."""
    path = tmp_path / "tables"
    path.mkdir()
    yaml_text = (cases / "16_lookup_table.yaml").read_text()
    if form in ("yaml", "json"):
        path = cases / f"16_lookup_table.{form}"
    elif form == "folder":
        (path / "16_lookup_table.yml").write_text(yaml_text)
        (path / "notes.yaml").write_text("a: 1")
    elif form == "mixed folder":
        path = cases  # both files of the resolution agree
    elif form == "yaml.gz":
        path /= "16_lookup_table.yaml.gz"
        path.write_bytes(gzip.compress(yaml_text.encode("utf-8-sig")))
    else:  # the first convolution takes the image
        path /= "phone.yaml"
        path.write_text(yaml_text)
    space = space_of_cases()
    rows = space.sample(100, np.random.default_rng(0))
    expected = load_cost_table(cases / "latency-joint.csv", space)
    read = load_cost_table(path, space)
    assert (read.name, read.unit) == ("latency_ms", "ms")
    np.testing.assert_array_equal(read(rows), expected(rows))


def test_several_resolutions_in_a_folder(note10: Path, tmp_path: Path) -> None:
    with gzip.open(note10, "rt") as file:
        cells = [line.split(",") for line in list(file)[1:]]
    for resolution in RESOLUTIONS:
        layers = {
            layer: {"count": int(n), "mean": float(ms), "std": float(std)}
            for at, layer, ms, std, n in cells
            if int(at) == resolution
        }
        (tmp_path / f"{resolution}_lookup_table.json").write_text(json.dumps(layers, indent=2))
    space = get_space("ofa-mobilenet-v3", width_mult=1.2, resolutions=RESOLUTIONS)
    assert load_cost_table(tmp_path, space)(space.from_dict(ARCH))[0] == pytest.approx(24.730167, abs=1e-6)


def test_a_table_of_a_thousand_classes_for_a_familys_own(cases: Path) -> None:
    """A linear layer's cost goes with its outputs; what is assumed is said."""
    whole, few = space_of_cases(), space_of_cases(num_classes=10)
    rows = whole.sample(20, np.random.default_rng(0))
    with pytest.warns(UserWarning, match=r"measured with 1,000 classes; for 10 its classifier counts 10/1,000 of that"):
        table = load_cost_table(cases / "16_lookup_table.yaml", few)
    expected = load_cost_table(cases / "16_lookup_table.yaml", whole)(rows) - 0.05 + 0.05 * 10 / 1000
    np.testing.assert_allclose(table(rows), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("16_lookup_table.yaml", "Conv-a: {mean: 1}\nConv-b: {mean: fast}\n", "line 2: .* got 'fast' for Conv-b"),
        ("16_lookup_table.yaml", "L:1000: {mean: 1}\nL:100: {mean: fast}\n", "line 2: .* got 'fast' for L:100"),
        ("16_lookup_table.json", '{"L:1000": 1,\n"L:100":\n"x"}', "line 2: .* got 'x' for L:100"),
        ("phone.json", "{}", "is empty"),
        ("t.csv", "resolution;layer;mean_ms\n1;a;2", "has no column 'resolution'; .* this one begins with 'resolution;layer"),
        ("table.txt", "a", r"is no cost table \(it is no \.npz\)"),
        ("16_lookup_table.yaml", "Conv-a: {count: 1}\n", "line 1: Conv-a has no 'mean'"),
        ("16_lookup_table.yaml", "Conv-a: {mean: [1]}\n", "line 1: .* got \\[1\\] for Conv-a"),
        ("16_lookup_table.yaml", "Conv-a: {mean: true}\n", "line 1: .* got True for Conv-a"),
        ("16_lookup_table.yaml", "Conv-a: {mean: 1}\nConv-a: {mean: 1}\n", "is not YAML: key 'Conv-a' stands twice"),
        ("16_lookup_table.json", '{"a": 1, "a": 2}', "is not JSON: key 'a' stands twice"),
        ("16_lookup_table.json", "{", "is not JSON"),
        ("16_lookup_table.json", "[]", "is no latency table of once-for-all"),
        ("16_lookup_table.yaml", "1: {mean: 1}", "is no latency table of once-for-all"),
        ("16_lookup_table.yaml", "{}", "is empty"),
        ("phone.yaml", "a: {mean: 1}", "does not say its resolution"),
        ("32_lookup_table.yaml", "Conv-input:16x16x3-output:8x8x8: {mean: 1}", "named after resolution 32, .* 16 pixels"),
    ],
)  # fmt: skip
def test_look_up_tables_that_are_none(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=words):
        load_cost_table(tmp_path / name, space_of_cases())


def test_folders_that_hold_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no latency tables; they are named as 160_lookup_table\.yaml"):
        load_cost_table(tmp_path, space_of_cases())
    (tmp_path / "16_lookup_table.yaml").write_text("a: {mean: 1}")
    (tmp_path / "16_lookup_table.json").write_text('{"a": {"mean": 2}}')
    with pytest.raises(DataError, match="have other latencies at resolution 16; remove one"):
        load_cost_table(tmp_path, space_of_cases())


@pytest.mark.parametrize("name", ["t.csv", "16_lookup_table.yaml", "16_lookup_table.json", "t.csv.gz"])
def test_files_in_another_encoding_are_named(tmp_path: Path, name: str) -> None:
    content = "resolution,layer,mean_ms\n".encode("utf-16")
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(DataError, match=rf"{name} is not UTF-8 text \(byte 0 is 0xff\); save it as UTF-8"):
        load_cost_table(tmp_path / name, space_of_cases())


def mutated(data: bytes, draw: random.Random) -> bytes:
    """A few changes: bytes, pieces left out, doubled or moved, numbers and words that are none."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(changed) + 1)
        piece = bytes(changed[at : at + draw.randint(1, 40)])
        word = draw.choice(WORDS)
        match draw.randrange(5):
            case 0:
                changed[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                del changed[at : at + len(piece)]
            case 2:
                changed[at:at] = piece
            case 3:
                changed[at : at + draw.randrange(8)] = word
            case _:
                del changed[at:]
        if not changed:
            break
    return bytes(changed)


WORDS = [
    b"nan", b"-1", b"1e999", b"null", b"~", b"{", b"]", b"[" * 2000, b"'", b'"', b",", b":\n", b"\t", b"\0", b"\xff\xfe", b"true",
    b"\xef\xbb\xbf", b"2001-99-99", b"&a [*a]", b"!!python/object:os.system", b"<<: *a", b"? [a]\n", b"!!float x", b"0x1F", b"1_0",
    b"9" * 5000, b"=", b"!!timestamp 2001-99-99", b"!!int 1:", b"\r", b"---\n", b"!!binary x", b"<<: 1\n", b"{[a]: 1}",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "json", "yaml", "npz"])
def test_mutated_tables(kind: str, tmp_path: Path) -> None:
    """The right table, or one line that says what is wrong; nothing else, whatever is in the file."""
    space = space_of_cases(width_mult=0.1, depths=[1], kernel_sizes=[3], expand_ratios=[3])
    layers: dict[str, float] = {}
    block_table(space, "latency_ms", "ms", lambda block, size: sum(layers.setdefault(key, 1.0) for key in _keys(block)))
    texts = {
        "csv": "resolution,layer,mean_ms\n" + "".join(f"16,{key},{ms}\n" for key, ms in layers.items()),
        "json": json.dumps({key: {"count": 1, "mean": ms, "std": 0.1} for key, ms in layers.items()}, indent=1),
        "yaml": "".join(f"{key}:\n  count: 1\n  mean: {ms}\n" for key, ms in layers.items()),
    }
    path = tmp_path / {"csv": "t.csv", "npz": "t.npz"}.get(kind, f"16_lookup_table.{kind}")
    whole = save_cost_table(counted_table(space, "madds"), path).read_bytes() if kind == "npz" else texts[kind].encode()

    @settings(max_examples=500, deadline=None)
    @given(st.randoms(use_true_random=False))
    def check(draw: random.Random) -> None:
        path.write_bytes(mutated(whole, draw))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                table = load_cost_table(path, space)
            except SnugnetError as refused:
                lines = str(refused).splitlines()
            else:
                assert np.isfinite(table(space.smallest)).all()
                lines = ["read"]
        assert len(lines) == 1

    check()

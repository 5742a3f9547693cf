"""From measurements to a profile: what is exact, what is refused, and what a classifier costs that was not measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from measured import FACTORS, alone, rows_of, whole, write_rows

from snugnet.costs import Profile, decode
from snugnet.costs.units import block_name
from snugnet.errors import DataError, SpaceError
from snugnet.profiling.fitting import _covers, make_profile
from snugnet.profiling.measuring import needed_widths
from snugnet.profiling.readings import read_measured
from snugnet.spaces import SearchSpace, get_space

SPACE = get_space(
    "ofa-mobilenet-v3", width_mult=0.1, resolution=9, num_classes=40, stem_stride=1, stage_strides=(2, 1, 2, 1, 1)
)
WIDTHS = (3, 16, 32)


def profile(
    folder: Path, rows: dict[str, float], *, space: SearchSpace = SPACE, above: str = "", **options: bool
) -> Profile:
    table = read_measured(write_rows(folder / "measured.csv", rows, above=above), "ms")
    return make_profile(space, WIDTHS if space is SPACE else (), table, "pixel", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def rows() -> dict[str, float]:
    return rows_of(SPACE, WIDTHS)


def test_a_law_of_parts_and_overheads_is_found(tmp_path: Path, rows: dict[str, float]) -> None:
    made = profile(tmp_path, rows)
    assert made.factors == pytest.approx(FACTORS, rel=1e-4)
    assert made.accuracy is not None
    assert (made.accuracy.networks, made.accuracy.kendall_tau) == (24, 1)
    assert made.accuracy.mape < 1e-5
    unseen = SPACE.sample(200, np.random.default_rng(7))
    table = made.cost.table(SPACE)
    assert table.name == "latency_ms@pixel"
    np.testing.assert_allclose(table(unseen), [whole(SPACE, row) for row in unseen], rtol=1e-4)


def test_the_error_is_that_of_networks_left_out(tmp_path: Path, rows: dict[str, float]) -> None:
    noisy = dict(rows)
    rng = np.random.default_rng(0)
    names = [name for name in rows if name.startswith("network")]
    for name in names:
        noisy[name] = rows[name] * (1 + 0.05 * rng.standard_normal())
    made = profile(tmp_path, noisy)
    errors = []
    for name in names:
        some = {key: value for key, value in noisy.items() if key != name}
        row = np.array([[int(digit, 36) for digit in name.split("-")[1]]], dtype=np.int16)
        predicted = profile(tmp_path, some).cost.table(SPACE)(row)[0]
        errors.append(abs(predicted / noisy[name] - 1))
    assert made.accuracy is not None
    assert made.accuracy.mape == pytest.approx(np.mean(errors), rel=1e-3)


def test_sums_are_the_same_in_any_order_and_budgets_hold(tmp_path: Path, rows: dict[str, float]) -> None:
    table = profile(tmp_path, rows).cost.table(SPACE)
    assert all((values * 2**20 == np.round(values * 2**20)).all() for _, values in table.tables)
    low, high = table.range
    scores = np.random.default_rng(0).standard_normal((50, int(SPACE.offsets[-1])))
    limits = np.linspace(low, high, 50)[:, None]
    assert (table(decode([table], scores, limits)) <= limits[:, 0]).all()


def test_a_classifier_takes_what_the_next_wider_measured_one_does(tmp_path: Path, rows: dict[str, float]) -> None:
    made = profile(tmp_path, rows)
    head = SPACE.blueprint(SPACE.smallest)
    assert made.widths == (3, 16, 32, 40)
    for width, like in {2: 3, 3: 3, 4: 16, 16: 16, 17: 32, 33: 40, 40: 40}.items():
        expected = alone(head.with_classes(like).blocks[-1])
        assert made.features(head.with_classes(width).blocks[-1])["time"] == expected
    with pytest.raises(SpaceError, match="latency_ms@pixel was not measured for the block head"):
        made.features(head.with_classes(41).blocks[-1])
    table = made.cost.table(SPACE)
    assert made.cost.with_classes(table, 5).range == made.cost.table(SPACE, 5).range


def test_other_widths_that_were_measured_are_taken(tmp_path: Path, rows: dict[str, float]) -> None:
    head = SPACE.blueprint(SPACE.smallest).with_classes(7).blocks[-1]
    made = profile(tmp_path, {**rows, block_name(head, 1): 9.0})
    assert made.widths == (3, 7, 16, 32, 40)
    assert made.features(SPACE.blueprint(SPACE.smallest).with_classes(6).blocks[-1])["time"] == 9.0


def test_needed_widths() -> None:
    assert needed_widths({"a": "xyz", "b": "pq"}, 10) == (2, 3)
    assert needed_widths({"a": "xyz", "one": "x"}, 40) == (3, 16, 32)
    assert needed_widths({}, 16) == ()


@pytest.mark.parametrize("count", [0, 3])
def test_without_whole_networks_parts_stand_as_they_are(tmp_path: Path, count: int) -> None:
    made = profile(tmp_path, rows_of(SPACE, WIDTHS, networks=count))
    assert made.accuracy is None
    row = SPACE.largest
    parts = sum(alone(block) for block in SPACE.blueprint(row).blocks)
    assert made.cost.table(SPACE)(row)[0] == pytest.approx(parts, rel=1e-5)


def test_json_there_and_back(tmp_path: Path, rows: dict[str, float]) -> None:
    import json

    made = profile(tmp_path, rows, above="# machine: a phone\n")
    again = Profile.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made
    assert again.about == {"machine": "a phone"}


@pytest.mark.parametrize(
    ("above", "message"),
    [
        ("# batch: 8\n", "measured with batch 8; needed: 1"),
        ("# resolution: 224\n", "measured with resolution 224; needed: 9"),
        ("# version: 2\n", "of a bundle of version 2; needed: 1"),
        ("# space: darts\n", "measured with space darts; needed: ofa-mobilenet-v3"),
        ("# networks: 50\n", "has 24 whole networks, its bundle 50"),
    ],
)
def test_of_something_else(tmp_path: Path, rows: dict[str, float], above: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        profile(tmp_path, rows, above=above)


def test_rows_of_another_family(tmp_path: Path, rows: dict[str, float]) -> None:
    other = rows_of(SPACE.with_options(resolution=17))
    name = next(name for name in other if name.startswith("network"))
    with pytest.raises(DataError, match=f"line {len(rows) + 2}: {name} is no file of this family's bundle"):
        profile(tmp_path, {**rows, name: 1.0})


def test_missing_rows(tmp_path: Path, rows: dict[str, float]) -> None:
    head = block_name(SPACE.blueprint(SPACE.smallest).blocks[-1], 1)
    lacking = {name: value for name, value in rows.items() if name != head}
    with pytest.raises(DataError, match=rf"lacks 1 of \d+ blocks: {head}; --fill gives"):
        profile(tmp_path, lacking)
    with pytest.raises(DataError, match="none that was measured is at least as large"):  # no classifier is wider
        profile(tmp_path, lacking, fill=True)


def test_a_missing_block_is_filled_with_a_larger_one_and_never_with_less(
    tmp_path: Path, rows: dict[str, float]
) -> None:
    from snugnet.costs.units import distinct_blocks

    blocks = distinct_blocks(SPACE, WIDTHS, 1)
    kernel = {name: max(layer.kernel for layer in block.layers) for name, block in blocks.items()}
    by_size = {name: float(kernel[name] + blocks[name].layers[0].out_channels) for name in blocks}
    missing = next(name for name in blocks if kernel[name] == 5)
    given = {name: value for name, value in by_size.items() if name != missing}
    made = profile(tmp_path, given, fill=True)
    assert made.filled == (missing,)
    larger = [by_size[name] for name, block in blocks.items() if name != missing and _covers(block, blocks[missing])]
    assert made.values[missing] == min(larger) >= by_size[missing]


@pytest.mark.parametrize("value", ["-1", "0", "nan", "inf", "1e999", "", "fast", "1_000"])
def test_what_is_no_time(tmp_path: Path, rows: dict[str, float], value: str) -> None:
    name = next(iter(rows))
    table = write_rows(tmp_path / "measured.csv", {**rows, name: value})
    with pytest.raises(DataError, match=f"line 2: {name} has {value!r}; needed: a positive, finite number"):
        read_measured(table, "ms")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'file'"),
        ("file,mJ\nblock-1,2\n", "no column 'ms'; needed: file,ms; its columns: file,mJ"),
        ("file,ms,ms\nblock-1,2,3\n", "2 columns 'ms'"),
        ("file,ms\n", "has no rows"),
        ("file,ms\nblock-1\n", "line 2: 1 entries for 2 columns"),
        ("# a: b\n\nfile,ms\nblock-1,2\nx/block-1.onnx,3\n", r"line 5: block-1 stands there twice \(line 4 too\)"),
    ],
)
def test_what_is_no_table(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "measured.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_measured(path, "ms")


def test_a_table_of_every_space(tiny_space: SearchSpace, tmp_path: Path) -> None:
    made = profile(tmp_path, rows_of(tiny_space, networks=0), space=tiny_space)
    table = made.cost.table(tiny_space)
    rows = tiny_space.sample(10, np.random.default_rng(0))
    expected = [sum(made.cost.of_block(block, 0) for block in tiny_space.blueprint(row).blocks) for row in rows]
    np.testing.assert_allclose(table(rows), expected, rtol=1e-12)


def test_a_profile_is_of_one_precision(tmp_path: Path, rows: dict[str, float]) -> None:
    whole_names = {f"{name}-int8": value for name, value in rows.items()}
    table = read_measured(write_rows(tmp_path / "int8.csv", whole_names, above="# precision: int8\n"), "ms")
    made = make_profile(SPACE, WIDTHS, table, "pixel-int8", precision="int8")
    plain = profile(tmp_path, rows)
    assert (made.precision, plain.precision) == ("int8", "float32")
    assert made.values == plain.values
    assert made.factors == plain.factors
    assert Profile.from_json(made.to_json()) == made
    with pytest.raises(DataError, match="measured with precision int8; needed: float32"):
        make_profile(SPACE, WIDTHS, table, "pixel")
    other = read_measured(write_rows(tmp_path / "float.csv", rows), "ms")
    with pytest.raises(DataError, match=r"line 2: .* is no int8 file"):
        make_profile(SPACE, WIDTHS, other, "pixel", precision="int8")


def test_a_bundle_of_int8_files(tmp_path: Path) -> None:
    import onnx

    from snugnet.deploy import int8_facts
    from snugnet.profiling.writing import write_bundle

    space = get_space("mobilenet-v2", width_mult=0.1, resolution=8, num_classes=3, blocks=(1,) * 6)
    folder = write_bundle(space, (), tmp_path / "bundle", batch=2, networks=1, precision="int8", progress=False)
    files = sorted(folder.glob("*.onnx"))
    assert len(files) > 5
    for path in files:
        assert path.stem.endswith("-int8")
        facts = int8_facts(path.read_bytes())
        assert facts is not None
        assert facts.kept_float == ()
        assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2
    assert '"precision": "int8"' in (folder / "manifest.json").read_text()

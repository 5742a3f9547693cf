"""Tables of measured architectures."""

from __future__ import annotations

import csv
import gzip
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snugnet.costs import counted_table
from snugnet.errors import DataError
from snugnet.predictors import read_table, write_table
from snugnet.spaces import get_space, list_spaces

SPACE = get_space("ofa-mobilenet-v3")
DATA = Path(os.environ.get("SNUGNET_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"


def test_the_published_table() -> None:
    path = DATA / "ofa-mobilenet-v3" / "imagenet_accuracy_w1.0.csv.gz"
    if not path.is_file():
        pytest.skip(f"no published table at {path}; set SNUGNET_SHARED to the folder that holds data/")
    table = read_table(path, SPACE)
    assert table.rows.shape == (1600, SPACE.d)
    assert list(table.texts) == ["search", "step", "params", "macs", "imagenet_top1"]
    assert np.array_equal(table.values(["macs"])[:, 0], counted_table(SPACE, "madds")(table.rows))
    assert np.array_equal(table.values(["params"])[:, 0], counted_table(SPACE, "params")(table.rows))
    with pytest.raises(DataError, match="row 1: search is 'ga_acc', not a finite number"):
        table.values(["search"])


@pytest.mark.parametrize("name", list_spaces())
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_every_space_is_written_and_read(tmp_path: Path, name: str, suffix: str) -> None:
    space = get_space(name)
    rows = space.sample(30, np.random.default_rng(0))
    path = tmp_path / f"table{suffix}"
    write_table(path, space, rows, {"accuracy": list(np.arange(30.0)), "note": ["a,\nb"] * 30})
    table = read_table(path, space)
    assert np.array_equal(table.rows, rows)
    assert table.values(["accuracy"])[:, 0].tolist() == list(range(30))
    assert table.texts["note"] == ["a,\nb"] * 30


@pytest.mark.parametrize("name", list_spaces())
def test_a_column_for_each_choice(tmp_path: Path, name: str) -> None:
    space = get_space(name)
    rows = np.concatenate([*space.extremes().values(), space.sample(5, np.random.default_rng(0))])
    header = [choice.name for choice in space.choices]
    lines: list[list[object]] = [
        [c.options[i] if on else "" for c, i, on in zip(space.choices, row, active, strict=True)]
        for row, active in zip(rows, space.active(rows), strict=True)
    ]
    full = [[*line, 71.5] for line in lines]
    table = read_table(write(tmp_path / "a.csv", [[*header, "top1"], *full]), space)
    assert np.array_equal(table.rows, rows)
    assert list(table.texts) == ["top1"]
    last = header[-1]
    for entry, says in ((99, f"row 8: {re.escape(last)} = 99 is not in this space"), ("", f"row 8: .*lacks '{last}'")):
        path = write(
            tmp_path / "b.csv", [header, *lines[:7], [*lines[2][:-1], entry]]
        )  # all choices of the largest matter
        with pytest.raises(DataError, match=says):
            read_table(path, space)
    with pytest.raises(DataError, match=f"row 1: .*lacks '{header[0]}'"):
        read_table(write(tmp_path / "c.csv", [header[1:], *[line[1:] for line in lines]]), space)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20), st.integers(0, 2**32 - 1))
def test_numbers_survive(tmp_path_factory: pytest.TempPathFactory, values: list[float], seed: int) -> None:
    rows = SPACE.sample(len(values), np.random.default_rng(seed))
    path = tmp_path_factory.mktemp("table") / "table.csv"
    write_table(path, SPACE, rows, {"x": values})
    table = read_table(path, SPACE)
    assert np.array_equal(table.rows, rows)
    assert table.values(["x"])[:, 0].tolist() == values


def line(depth: int = 2, kernel: object = 3, expand: object = 3) -> list[object]:
    return [*[depth] * 5, *[kernel] * 20, *[expand] * 20, 71.5]


HEADER = [f"depth_{i}" for i in range(5)] + [f"{k}_{i}" for k in ("kernel", "expand") for i in range(20)] + ["top1"]


def write(path: Path, lines: list[list[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return path


def test_unused_slots_are_not_read_and_whole_numbers_may_be_floats(tmp_path: Path) -> None:
    full = line(kernel="7.0", expand="6.0")
    for s in range(5):
        for b in (2, 3):  # past the depth of 2
            full[5 + 4 * s + b] = ""
    rows = read_table(write(tmp_path / "a.csv", [HEADER, full]), SPACE).rows
    uniform = {"depth": [2] * 5, "kernel_size": [[7, 7]] * 5, "expand_ratio": [[6, 6]] * 5}
    assert np.array_equal(rows, SPACE.from_dict(uniform))


@pytest.mark.parametrize(
    ("header", "lines", "says"),
    [
        ([], [], "is empty"),
        (HEADER, [], "is empty"),
        (HEADER, [line(), line(kernel=4)], r"row 2: stage1\.block1\.kernel_size = 4 is not in this space"),
        (HEADER, [line(depth=5)], r"row 1: stage1\.depth = 5"),
        (HEADER, [line(expand="wide")], "row 1: .*'wide'"),
        (HEADER, [line()[:-1]], "row 1: 45 entries for 46 columns"),
        (["a", "b"], [[1, 2]], "has no architectures of ofa-mobilenet-v3; .* it has: a, b"),
        (["depth_0", "top1"], [[2, 1]], "row 1: the architecture lacks"),
        (["resolution", *HEADER], [[192, *line()]], "row 1: the architecture has resolution 192, this space 224"),
        (["stage1.depth", "resolution"], [[2, 192]], "row 1: the architecture has resolution 192, this space 224"),
        (["arch", "x"], [["{", 1]], "row 1: arch is not JSON"),
        (["arch", "x"], [["[1]", 1]], "row 1: arch is no JSON object"),
        (["arch", "x", "x"], [["{}", 1, 1]], "two columns 'x'"),
    ],
)
def test_wrong_tables(tmp_path: Path, header: list[object], lines: list[list[object]], says: str) -> None:
    path = write(tmp_path / "a.csv", [header, *lines] if header else [])
    with pytest.raises(DataError, match=says):
        read_table(path, SPACE)


@pytest.mark.parametrize("text", ["", "nan", "inf", "-inf", "1,5", "high", "1e999"])
def test_targets_are_finite_numbers(tmp_path: Path, text: str) -> None:
    table = read_table(write(tmp_path / "a.csv", [HEADER, line(), [*line()[:-1], text]]), SPACE)
    with pytest.raises(DataError, match=r"row 2: top1 is .*, not a finite number"):
        table.values(["top1"])
    with pytest.raises(DataError, match="no column 'accuracy' to predict; it has: top1"):
        table.values(["accuracy"])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*No such file"):
        read_table(tmp_path / "no.csv", SPACE)
    with pytest.raises(DataError, match=r"cannot read .*Is a directory"):
        read_table(tmp_path, SPACE)
    path = write(tmp_path / "a.csv", [HEADER, line()])
    (tmp_path / "plain.csv.gz").write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="cannot read"):
        read_table(tmp_path / "plain.csv.gz", SPACE)
    (tmp_path / "half.csv.gz").write_bytes(gzip.compress(path.read_bytes())[:-20])
    with pytest.raises(DataError, match="cannot read"):
        read_table(tmp_path / "half.csv.gz", SPACE)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"binary\.csv is not UTF-8 text \(byte 0 is 0xff\)"):
        read_table(tmp_path / "binary.csv", SPACE)


def test_results_of_dynas_t(tmp_path: Path) -> None:
    """Its CSV: a Python dictionary in the column Sub-network, then what was measured."""
    arch = {"wid": None, "ks": [3] * 20, "e": [4] * 20, "d": [2, 3, 4, 2, 3], "r": [224]}
    path = write(
        tmp_path / "dynas.csv",
        [["Sub-network", "Date", "MACs", "Top-1 Acc (%)"], [str(arch), "2023-02-17 21:08:49.689809", 246958392, 75.4]],
    )
    table = read_table(path, SPACE)
    assert SPACE.to_dict(table.rows[0])["depth"] == [2, 3, 4, 2, 3]
    assert table.values(["Top-1 Acc (%)"])[0, 0] == 75.4
    path = write(tmp_path / "dynas.csv", [["Sub-network"], [str({**arch, "w": [0, 1]})]])
    with pytest.raises(DataError, match="row 1: no key 'w' in an architecture"):
        read_table(path, SPACE)

"""``snugnet specialize --all``: a table of budgets in, a folder of networks and one table out."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from interrupted import interrupt

from snugnet.cli.common import LONGEST_LINE

TABLES = ["networks.csv", "networks.json", "networks.md", "networks.png"]
MIXED = 'group,madds,params,activations\nround,100k,,\nround,40%,,60%\n"9, 1,3",,90k,\n\ncurvy,,,\n'


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """Whatever the machine has: two networks are made at once."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.onnx")}


def budgets(text: str, folder: Path) -> Path:
    path = folder / "budgets.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_files_are_those_of_calls_one_by_one(snugnet: Any, family: Path, tmp_path: Path) -> None:
    done = snugnet("specialize", family, "--all", "--budgets", budgets(MIXED, tmp_path), "--out", "all", "--json").json
    asked = [
        ("--group", "round", "--madds", "100k"),
        ("--group", "round", "--madds", "40%", "--budget", "activations=60%"),
        ("--classes", "9,1,3", "--params", "90k"),
        ("--group", "curvy"),
    ]
    names = ["round-madds-100k", "round-madds-40pct-activations-60pct", "9-1-3-params-90k", "curvy"]
    assert [each["file"] for each in done["networks"]] == [f"{name}.onnx" for name in names]
    for arguments, each in zip(asked, done["networks"], strict=True):
        one = snugnet("specialize", family, *arguments, "--out", "one.onnx", "--json").json
        assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "all" / each["file"]).read_bytes()
        assert {key: each[key] for key in ("group", "classes", "budgets", "architecture")} == {
            key: one[key] for key in ("group", "classes", "budgets", "architecture")
        }
        assert one["costs"].items() <= each["costs"].items()
    assert all(set(each["costs"]) == {"madds", "params", "activations"} for each in done["networks"])


def test_the_best_of_several_too(snugnet: Any, family: Path, tmp_path: Path) -> None:
    path = budgets("group,madds\nround,100k\ncurvy,60%\n", tmp_path)
    done = snugnet("specialize", family, "--all", "--budgets", path, "--out", "all", "--best-of", "3", "--json").json
    snugnet("specialize", family, "--group", "curvy", "--madds", "60%", "--best-of", "3", "--out", "one.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "all" / done["networks"][1]["file"]).read_bytes()


def test_without_groups_every_line_is_for_each_superclass(snugnet: Any, family: Path, tmp_path: Path) -> None:
    path = budgets("\ufeff madds , params\r\n30%,\r\n,50%\r\n", tmp_path)  # as spreadsheets write it
    done = snugnet("specialize", family, "--all", "--budgets", path, "--out", "all")
    assert done.code == 0, done.err
    assert "wrote 6 networks" in done.err
    assert "round-madds-30pct.onnx" in done.out
    folder = tmp_path / "all"
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".onnx") == ["made.jsonl", *TABLES]
    rows = list(csv.DictReader((folder / "networks.csv").open()))
    document = json.loads((folder / "networks.json").read_text())["networks"]
    assert [row["group"] for row in rows] == [*["round", "straight", "curvy"] * 2]
    for row, each in zip(rows, document, strict=True):
        assert row["file"] == each["file"]
        assert int(row["bytes"]) == each["bytes"] == (folder / row["file"]).stat().st_size
        assert json.loads(row["architecture"]) == each["architecture"]
        assert (row["accuracy"], each["accuracy"]) == ("", None)
        for cost in ("madds", "params"):
            assert float(row[cost]) == each["costs"][cost]
            limit = row[f"{cost} budget"]
            assert (float(limit) if limit else None) == each["budgets"].get(cost)
            assert each["costs"][cost] <= each["budgets"].get(cost, float("inf"))
    assert (folder / "networks.md").read_text().count("\n| ") == 2 + len(rows)
    assert (folder / "networks.png").read_bytes().startswith(b"\x89PNG")


def test_a_network_that_several_lines_get_is_made_once(
    snugnet: Any, family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snugnet.family import Specialized

    built, build = [], Specialized._build
    monkeypatch.setattr(Specialized, "_build", lambda self: built.append(self.group) or build(self))
    path = budgets(
        'group,madds,activations\nround,0%,\nround,,100%\nround,100%,\nround,,\n"0,6,8,9",0.001%,\n', tmp_path
    )
    done = snugnet("specialize", family, "--all", "--budgets", path, "--out", "all", "--json").json
    shas = [each["sha256"] for each in done["networks"]]
    for arguments, each in zip((["--madds", "100%"], [], ["--budget", "activations=100%"]), (2, 3, 1), strict=True):
        snugnet("specialize", family, "--group", "round", *arguments, "--out", "one.onnx")
        assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "all" / done["networks"][each]["file"]).read_bytes()
    # this generator, which is not trained, knows one network; costs of other names, and the group as it was written, are in a file too
    assert (shas[0] == shas[2] == shas[3], len(set(shas)), len(built)) == (True, 3, 3 + 3)


def test_accuracy_is_that_of_evaluate(snugnet: Any, family: Path, tmp_path: Path) -> None:
    images = ("-d", "source=digits")
    path = budgets("madds\n100k\n", tmp_path)
    arguments = ("specialize", family, "--all", "--budgets", path, "--out", "all", "--json")
    first, done, again = (snugnet(*arguments, *more).json for more in ((), images, images))
    assert (first["taken"], done["taken"], again["taken"]) == (0, 0, 3)
    rows = snugnet("evaluate", family, "--budgets", "100k", "--json", *images).json["rows"]
    found = [(each["group"], each["architecture"], each["accuracy"]) for each in done["networks"]]
    assert found == [(row["group"], row["arch"], row["accuracy"]) for row in rows]
    assert "accuracy: on the test images" in (tmp_path / "all" / "networks.md").read_text()


def test_a_run_goes_on_with_what_is_whole_and_its_own(snugnet: Any, family: Path, tmp_path: Path) -> None:
    arguments = ("specialize", family, "--all", "--budgets", budgets(MIXED, tmp_path), "--out", "all", "--json")
    snugnet(*arguments)
    folder = tmp_path / "all"
    whole, before = files(folder), times(folder)
    assert snugnet(*arguments).json["taken"] == 4
    assert (files(folder), times(folder)) == (whole, before)
    for name in ("networks.csv", "round-madds-100k.onnx"):
        (folder / name).unlink()
    (folder / "9-1-3-params-90k.onnx").write_bytes(whole["curvy.onnx"])  # of another budget
    journal = (folder / "made.jsonl").read_bytes()
    (folder / "made.jsonl").write_bytes(journal[: journal.rindex(b'"sha256"')])  # killed while it was written
    (folder / ".curvy.onnx.0123.tmp").touch()
    assert snugnet(*arguments).json["taken"] == 1
    again = files(folder)
    assert {name for name in whole if name.endswith(".onnx") and times(folder)[name] == before[name]} == {
        "round-madds-40pct-activations-60pct.onnx"
    }
    assert again.keys() == whole.keys()
    assert {k: v for k, v in again.items() if k != "made.jsonl"} == {
        k: v for k, v in whole.items() if k != "made.jsonl"
    }
    budgets("group,madds\nround,100k\nround,50%\n", tmp_path)  # other lines
    assert snugnet(*arguments).json["taken"] == 1
    assert snugnet(*arguments, "--fresh").json["taken"] == 0


def test_files_of_another_family_are_not_taken(snugnet: Any, family: Path, tmp_path: Path) -> None:
    import torch

    from snugnet.family.disk import load_family

    arguments = ("--all", "--budgets", budgets("madds\n50%\n", tmp_path), "--out", "all")
    snugnet("specialize", family, *arguments)
    whole = files(tmp_path / "all")
    other = load_family(family)
    with torch.no_grad():
        next(other.supernet.parameters()).mul_(1.5)
    other.save(tmp_path / "other")
    error = snugnet("specialize", tmp_path / "other", *arguments).error
    assert "all holds files that were made with something else (weights); give another --out, or --fresh" in error
    assert "(images, best_of)" in snugnet("specialize", family, *arguments, "--best-of", "2").error
    assert files(tmp_path / "all") == whole
    (tmp_path / "all" / "made.jsonl").unlink()
    assert "round-madds-50pct.onnx but no made.jsonl" in snugnet("specialize", family, *arguments).error
    assert snugnet("specialize", tmp_path / "other", *arguments, "--fresh", "--json").json["taken"] == 0


def test_ctrl_c_and_on(snugnet: Any, family: Path, tmp_path: Path) -> None:
    lines = "".join(f"{i}%\n" for i in range(100))
    arguments = [
        "specialize",
        str(family),
        "--all",
        "--budgets",
        str(budgets(f"madds\n{lines}", tmp_path)),
        "--out",
        "all",
    ]
    interrupt(arguments, tmp_path, tmp_path / "all" / "curvy-madds-1pct.onnx")
    assert not list((tmp_path / "all").glob(".*"))  # neither a lock nor half a file
    assert not list((tmp_path / "all").glob("networks.*"))
    budgets("madds\n0%\n1%\n", tmp_path)
    assert snugnet(*arguments, "--json").json["taken"] >= 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty; its first line names the columns: group, and costs of tiny: madds, params"),
        ("\n\n", "is empty"),
        ("group,madds\n", "has no line of budgets"),
        ("group,watts\nround,1\n", "has a column watts; columns: group, and costs of tiny: madds, params, activations"),
        ("group;madds\nround;1\n", "has a column group;madds; columns: group"),
        ("group,madds,\nround,1,\n", "has a column \"\"; columns: group"),
        ("madds,madds\n1,1\n", "has two columns madds"),
        ("group,madds\nround,50%\nsquare,50%\n", "line 3 of budgets.csv: tiny has no group 'square'; groups: round"),
        ("group,madds\n\nround,50%\n\n\"0,12\",50%\n", "line 5 of budgets.csv: tiny has no class '12'"),
        ("group,madds\n\"0,,1\",50%\n", "line 2 of budgets.csv: names have commas between them"),
        ("group,madds\n,50%\n", "line 2 of budgets.csv: no group is given; groups: round"),
        ("madds\n50%\n4Q\n", "line 3 of budgets.csv: a budget is a positive number"),
        ("madds\n101%\n", "line 2 of budgets.csv: a share of the range"),
        ("madds\n50%\n10\n", "line 3 of budgets.csv: no network of tiny for round has madds <= 10; feasible: "),
        ("madds,params\n0%,90k\n50%,9\n", "line 3 of budgets.csv: no network of tiny for round has params <= 9; feasible: "),
        ("group,madds\nround,100k\ncurvy,100k\nround,\"100,000\"\n", "line 4 of budgets.csv asks for the same as line 2"),
        ("group,madds\nround,100k\n\"0,6,8,9\",100k\n", "line 3 of budgets.csv asks for the same as line 2"),
        ("group,madds\nround\n", "line 2 of budgets.csv: 1 cells for 2 columns"),
        ("group,madds\n0,1,100k\n", "3 cells for 2 columns; cells with a comma stand in double quotes"),
        ("group,madds\n\"round,100k\n", "line 2 of budgets.csv is no CSV"),
    ],
)  # fmt: skip
def test_wrong_tables_write_nothing(snugnet: Any, family: Path, tmp_path: Path, text: str, says: str) -> None:
    budgets(text, tmp_path)
    error = snugnet("specialize", family, "--all", "--budgets", "budgets.csv", "--out", "all", "--json").error
    assert says in error
    assert len(error) <= LONGEST_LINE
    assert list(files(tmp_path)) == ["budgets.csv"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--all"], "--all needs --budgets FILE.csv and --out DIR"),
        (["--all", "--budgets", "budgets.csv"], "--all needs --budgets FILE.csv and --out DIR"),
        (["--all", "--budgets", "budgets.csv", "--out", "a", "--madds", "1M"], "leave out --madds"),
        (["--all", "--budgets", "budgets.csv", "--out", "net.onnx"], "--out is a folder, got net.onnx"),
        (["--all", "--budgets", "budgets.csv", "--out", "budgets.csv"], "budgets.csv is a file, not a folder"),
        (["--all", "--budgets", "none.csv", "--out", "a"], "cannot read none.csv: No such file"),
        (["--all", "--budgets", ".", "--out", "a"], "cannot read .: Is a directory"),
        (["--all", "--budgets", "latin.csv", "--out", "a"], "latin.csv is not UTF-8 text (byte 0 is 0xe9)"),
        (["--all", "--budgets", "budgets.csv", "--out", "a", "-d", "seed=1"], "-d cannot change seed"),
        (["--all", "--budgets", "budgets.csv", "--out", "a", "-d", "source=./none"], "none"),
        (["--group", "round", "--budgets", "budgets.csv"], "--budgets goes with --all"),
        (["--group", "round", "--fresh"], "--fresh goes with --all"),
        (["--group", "round", "-d", "source=digits"], "--data goes with --all"),
    ],
)  # fmt: skip
def test_wrong_options_write_nothing(
    snugnet: Any, family: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    budgets("madds\n50%\n", tmp_path)
    (tmp_path / "latin.csv").write_bytes(b"\xe9\n")
    before = files(tmp_path)
    assert says in snugnet("specialize", family, *arguments).error
    assert files(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_no_permission(snugnet: Any, family: Path, tmp_path: Path) -> None:
    path = budgets("madds\n50%\n", tmp_path)
    (tmp_path / "closed").mkdir(mode=0o500)
    arguments = ("specialize", family, "--all", "--budgets", path, "--out")
    assert "no permission" in snugnet(*arguments, "closed/all").error
    path.chmod(0)
    assert "Permission denied" in snugnet(*arguments, "all").error


def test_names_that_files_cannot_tell_apart(family: Path) -> None:
    from snugnet.family import load_family
    from snugnet.family.specialising_all import AllScenarios

    loaded = load_family(family)
    loaded.groups = dict(zip(["A b", "a/b", "curvy"], loaded.groups.values(), strict=True))
    names = AllScenarios.read(loaded, [("A b", {}), ("a/b", {}), ("curvy", {"madds": 1e6})]).names
    assert (names[0], names[2]) == ("A-b.onnx", "curvy-madds-1000000.0.onnx")
    assert len({name.casefold() for name in names}) == 3


@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize("groups", [2, 40])
def test_a_figure_of_few_groups_or_many(groups: int, measured: bool) -> None:
    from snugnet.family.specialising_all import NetworkFile, NetworkFiles

    right = 0.5 if measured else None
    networks = (
        NetworkFile(i + 1, f"g{i % groups}", ("a", "b"), {}, {"madds": i}, right if i else None, "a.onnx", 9, "", {})
        for i in range(80)
    )
    made = NetworkFiles("tiny", "madds", 1, measured, tuple(networks), 0)
    assert made.figure().startswith(b"\x89PNG")
    assert made.markdown().count("g1 |") > 1

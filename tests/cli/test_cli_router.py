"""``snugnet router``: what is printed, what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

QUICK = ["--evaluations", "0", "--router-share", "0.5", "--madds", "60%"]


def test_a_route_is_reported_on_test_images_and_written(snugnet: Any, family: Path, tmp_path: Path) -> None:
    (tmp_path / "groups.json").write_text(json.dumps({"low": ["0", "1", "2"], "high": ["8", "9"]}))
    done = snugnet("router", family, *QUICK, "--groups", "groups.json", "--over", "max", "--report", "test", "--out", "route", "--json").json  # fmt: skip
    assert list(done["superclasses"]) == ["low", "high"]
    assert done["classes_left_out"] == ["3", "4", "5", "6", "7"]
    assert done["router"]["over"] == "max"
    assert done["router_share"] == 0.5
    assert {split: set(of["one_network"]) for split, of in done["measured"].items()} == {
        "validation": {"generator"},
        "test": {"generator"},
    }
    assert all(each["route_madds"] <= done["budgets"]["madds"] for each in done["superclasses"].values())
    index = json.loads((tmp_path / "route" / "router.json").read_text())
    assert index["measured"]["test"] == done["measured"]["test"]
    assert set(index["files"]) == {"router.onnx", "1-low.onnx", "2-high.onnx"}
    assert {path.suffix for path in (tmp_path / "route").iterdir()} == {".onnx", ".json", ".py"}
    shown = snugnet("router", family, *QUICK, "--groups", "round,curvy", "--out", "route")
    assert shown.code == 0, shown.err
    assert "one network, of the generator" in shown.out
    assert "images of classes that are left out are sent to a superclass all the same: 1, 4, 7" in shown.err
    assert "python route/run.py IMAGE" in shown.err
    assert set(json.loads((tmp_path / "route" / "router.json").read_text())["files"]) == {
        "router.onnx", "1-round.onnx", "2-curvy.onnx",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--madds", "10k"], "for the router, "),
        ([], "shares out a budget; give one"),
        (["--madds", "60%", "--groups", "round"], "at least two superclasses apart"),
        (["--madds", "60%", "--groups", "round,square"], "no group 'square'; groups: round"),
        (["--madds", "60%", "--groups", "overlap.json"], "class '1' is in superclasses 'a' and 'b'"),
        (["--madds", "60%", "--groups", "nowhere.json"], "nowhere.json"),
        (["--madds", "60%", "--over", "mean"], "the sum or max over its classes, got 'mean'"),
        (["--madds", "60%", "--router-share", "1.5"], "from 0 to 1, got 1.5"),
        (["--madds", "60%", "--report", "train"], "--report is validation or test, got 'train'"),
        (["--madds", "60%", "-d", "source=x"], "--data goes with --report test"),
        (["--madds", "60%", "--report", "test", "-d", "seed=1"], "-d cannot change seed"),
        (["--madds", "60%", "--out", "there"], "there holds notes.txt, which is not of a router"),
        (["--madds", "60%", "--out", "overlap.json"], "overlap.json is a file, not a folder"),
        (["--latency-ms", "3"], "no cost 'latency_ms'"),
    ],
)
def test_wrong_input_writes_nothing(
    snugnet: Any, family: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "overlap.json").write_text(json.dumps({"a": ["0", "1"], "b": ["1", "2"]}))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").touch()
    given = arguments if "--out" in arguments else [*arguments, "--out", "route"]
    assert says in snugnet("router", family, "--evaluations", "0", *given).error
    assert {path.name for path in tmp_path.rglob("*")} == {"overlap.json", "there", "notes.txt"}

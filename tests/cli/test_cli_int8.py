"""``--int8`` and ``--precision``: what is said, what is written, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from snugnet.deploy import int8_facts
from snugnet.family import load_family


def test_a_file_and_what_is_said_of_it(
    snugnet: Any, family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snugnet.deploy.int8.ENOUGH", 0.6)  # the logits of a network that has not learned are all alike
    told = snugnet("specialize", family, "--group", "round", "--int8", "--out", "a.onnx", "--json").json
    facts = int8_facts((tmp_path / "a.onnx").read_bytes())
    assert facts is not None
    said = told["int8"]
    assert said["on"] == "test images"
    assert (said["agreement"], said["kept_float"], said["ranges"]) == (
        facts.agreement,
        list(facts.kept_float),
        facts.ranges,
    )
    assert 0 <= said["accuracy"] <= 1
    assert said["images"] > 0
    assert said["bytes"] == (tmp_path / "a.onnx").stat().st_size < said["float_bytes"]
    assert said["milliseconds"] > 0 < said["float_milliseconds"]
    again = snugnet("export", family, "--group", "round", "--int8", "--out", "b.onnx")
    assert again.code == 0
    assert "computed in float: " in again.err
    assert ("slower than float here" in again.err) or ("ms (ONNX Runtime" in again.err)
    assert (tmp_path / "b.onnx").read_bytes() == (tmp_path / "a.onnx").read_bytes()


def test_evaluated_beside_float(snugnet: Any, family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snugnet.deploy.int8.ENOUGH", 0.6)
    chosen = ["evaluate", family, "--group", "round", "--group", "curvy", "--budgets", "1"]
    told = snugnet(*chosen, "--int8", "--json").json
    for row in told["rows"]:
        said = row["int8"]
        assert said["float_accuracy"] == pytest.approx(row["accuracy"])  # the same images of the same network
        assert said["images"] == row["images"]
        assert said["agreement"] >= 0.6
    assert told["mean"][0]["accuracy_int8"] == pytest.approx(sum(row["int8"]["accuracy"] for row in told["rows"]) / 2)
    plain = snugnet(*chosen, "--json").json
    assert [row["int8"] for row in plain["rows"]] == [None, None]
    assert "accuracy_int8" not in plain["mean"][0]


def test_other_precisions_and_versions(snugnet: Any, family: Path, tmp_path: Path) -> None:
    told = snugnet(
        "export", family, "--group", "round", "--precision", "float16", "--opset", "15", "--ir-version", "9", "--out", "a.onnx",
        "--json",
    ).json  # fmt: skip
    model = onnx.load(tmp_path / "a.onnx")
    assert (told["precision"], model.opset_import[0].version, model.ir_version) == ("float16", 15, 9)
    assert any(each.data_type == onnx.TensorProto.FLOAT16 for each in model.graph.initializer)
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["specialize", "--group", "round", "--int8"], "got no --out"),
        (["specialize", "--group", "round", "--int8", "--out", "a.pt2"], "got a.pt2"),
        (["specialize", "--group", "round", "-d", "seed=1", "--out", "a.onnx"], "--data goes with --all or --int8"),
        (["export", "--group", "round", "--precision", "int8", "--out", "a.pt2"], "--precision int8 is of .onnx files"),
        (
            ["export", "--group", "round", "--precision", "int4", "--out", "a.onnx"],
            "float32, float16, int8, got 'int4'",
        ),
        (["export", "--group", "round", "--int8", "--precision", "float16", "--out", "a.onnx"], "leave one out"),
        (["export", "--group", "round", "--ir-version", "3", "--out", "a.onnx"], "IR version 8 to"),
        (
            ["search", "--judge", "int4", "--evaluations", "1", "--method", "random"],
            "judged by float or int8, got 'int4'",
        ),
    ],
)
def test_what_is_refused(snugnet: Any, family: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    assert words in snugnet(arguments[0], family, *arguments[1:]).error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("images", "words"), [(3, "at least 16 calibration images, there are 3"), (None, "are of class 6")]
)
def test_calibration_images_that_do_not_do(
    snugnet: Any, family: Path, tmp_path: Path, images: int | None, words: str
) -> None:
    held = load_family(family)
    six = torch.full((40,), 6)
    held.calibration = (
        held.calibration.take(np.arange(images))
        if images
        else type(held.calibration)(held.calibration.images[:40], six)
    )
    held.save(tmp_path / "changed")
    assert words in snugnet("specialize", tmp_path / "changed", "--group", "round", "--int8", "--out", "a.onnx").error
    assert [path.name for path in tmp_path.iterdir()] == ["changed"]

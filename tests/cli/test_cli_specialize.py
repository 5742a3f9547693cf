"""``snugnet specialize``: a network as a file, or one line that says why not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROUND = ["0", "6", "8", "9"]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


@pytest.fixture
def limits(family: Path) -> tuple[float, float]:
    """Smallest and largest MAdds of a network for the group round."""
    from snugnet.family.disk import load_family

    return load_family(family).cost_range("madds", "round")


def test_group_and_budget(snugnet: Any, family: Path, limits: tuple[float, float]) -> None:
    middle = sum(limits) / 2
    done = snugnet("specialize", family, "--group", "round", "--madds", str(middle), "--json").json
    assert (done["family"], done["group"], done["classes"], done["file"]) == ("tiny", "round", ROUND, None)
    assert done["budgets"] == {"madds": middle}
    assert limits[0] <= done["costs"]["madds"] <= middle
    assert set(done["costs"]) == {"madds", "params"}
    assert len(done["architecture"]["depth"]) == 5


def test_costs_are_those_of_the_cost_command(snugnet: Any, family: Path, tmp_path: Path) -> None:
    done = snugnet("specialize", family, "--group", "round", "--madds", "100k", "--json").json
    (tmp_path / "arch.json").write_text(json.dumps(done["architecture"]))
    options = json.loads((family / "family.json").read_text())["space"]["options"]
    given = [f"{key}={json.dumps(value)}" for key, value in options.items() if key != "num_classes"]
    arguments = [part for text in given for part in ("-o", text)]
    counted = snugnet(
        "cost", "ofa-mobilenet-v3", "--arch", "arch.json", *arguments, "--num-classes", "4", "--json"
    ).json
    assert {name: counted[name] for name in ("madds", "params")} == done["costs"]


def test_budgets_of_any_cost_as_amounts_or_shares(snugnet: Any, family: Path) -> None:
    arguments = ("specialize", family, "--group", "round", "--json")
    assert (
        snugnet(*arguments, "--budget", "madds=100k", "--budget", "params=90k").json
        == {**snugnet(*arguments, "--madds", "100k", "--params", "90k").json, "ms": pytest.approx(0, abs=1e6)}
    )  # fmt: skip
    smallest, largest = (snugnet(*arguments, "--budget", f"madds={share}%").json for share in (0, 100))
    middle = snugnet(*arguments, "--madds", "50%").json["budgets"]["madds"]
    assert smallest["costs"]["madds"] == smallest["budgets"]["madds"]
    assert middle == pytest.approx((smallest["budgets"]["madds"] + largest["budgets"]["madds"]) / 2)


def test_memory_in_bytes(snugnet: Any, family: Path) -> None:
    from snugnet.family.disk import load_family

    low, high = load_family(family).cost_range("peak_memory", "round")
    limit = (low + high) / 2
    arguments = ("specialize", family, "--group", "round", "--madds", "90%", "--json")
    for text in (f"{limit}", f"{limit} B", f"{limit / 1000}k", f"{limit / 1024} KiB", f"{limit / 1000} kB"):
        done = snugnet(*arguments, "--peak-memory", text, "--weight-memory", "1MiB").json
        assert done["budgets"]["peak_memory"] == pytest.approx(limit)
        assert done["budgets"]["weight_memory"] == 2**20
        assert done["costs"]["peak_memory"] <= limit


def test_any_classes_in_the_order_given(snugnet: Any, family: Path) -> None:
    done = snugnet("specialize", family, "--classes", "9, 1,3", "--madds", "100k", "--params", "100k", "--json").json
    assert done["classes"] == ["9", "1", "3"]
    assert set(done["budgets"]) == {"madds", "params"}


def test_people_get_tables(snugnet: Any, family: Path) -> None:
    done = snugnet("specialize", family, "--group", "round", "--madds", "100k")
    assert done.code == 0
    for text in ("tiny: round", "0, 6, 8, 9", "100,000", "kernel_size"):
        assert text in done.out
    assert "--out net.onnx" in done.err


def test_without_a_budget_the_largest_network_is_allowed(
    snugnet: Any, family: Path, limits: tuple[float, float]
) -> None:
    done = snugnet("specialize", family, "--group", "round", "--json").json
    assert done["budgets"] == {}
    assert limits[0] <= done["costs"]["madds"] <= limits[1]


@pytest.mark.parametrize("name", ["net.onnx", "new/folder/net.onnx"])
def test_onnx_file(snugnet: Any, family: Path, tmp_path: Path, name: str) -> None:
    import onnxruntime

    done = snugnet(
        "specialize", family, "--group", "round", "--madds", "100k", "--best-of", "3", "--out", name, "--json"
    ).json
    assert done["file"] == name
    session = onnxruntime.InferenceSession(str(tmp_path / name), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: np.zeros((2, 3, 8, 8), dtype=np.float32)})
    assert logits.shape == (2, 4)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ROUND


@pytest.mark.slow
def test_torch_export_file(snugnet: Any, family: Path, tmp_path: Path) -> None:
    import torch

    done = snugnet("specialize", family, "--classes", "0,1", "--out", tmp_path / "net.pt2")
    assert done.code == 0
    assert "wrote" in done.err
    assert torch.export.load(tmp_path / "net.pt2").module()(torch.zeros(3, 3, 8, 8)).shape == (3, 2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--madds", "100k"], "neither is given"),
        (["--group", "round", "--classes", "0,1"], "both are given"),
        (["--group", "square"], "no group 'square'; groups: "),
        (["--classes", "0,12"], "no class '12' (did you mean 2?); classes: 0, 1"),
        (["--classes", "0,0"], "named twice"),
        (["--classes", "0"], "at least two classes"),
        (["--classes", "0,,1"], "names have commas between them"),
        (["--classes", ""], "names have commas between them"),
        (["--group", ""], "no group ''"),
        (["--group", "round", "--madds", "40Q"], "--madds: a budget is a positive number"),
        (["--group", "round", "--madds", "nan"], "--madds: a budget is a positive number"),
        (["--group", "round", "--madds", "-1"], "--madds: a budget is a positive number"),
        (["--group", "round", "--madds", "0"], "--madds: a budget is a positive number"),
        (["--group", "round", "--madds", ""], "--madds: a budget is a positive number"),
        (["--group", "round", "--madds", "10"], "feasible: "),
        (["--group", "round", "--madds", "1M", "--budget", "madds=2M"], "two budgets of madds"),
        (["--group", "round", "--budget", "madds=1Q"], "--budget: a budget is a positive number"),
        (["--group", "round", "--budget", "best_of=1"], "no cost 'best_of'; costs: madds, params"),
        (["--group", "round", "--budget", "seed=1"], "no cost 'seed'; costs: madds, params"),
        (["--group", "round", "--best-of", "10001"], "--best-of"),
        (["--group", "round", "--budget", "watts=1"], "no cost 'watts'; costs: madds, params"),
        (["--group", "round", "--madds", "101%"], "--madds: a share of the range of a cost is from 0% to 100%"),
        (["--group", "round", "--madds", "100k", "--params", "10"], "has params <= 10; feasible: "),
        (["--group", "round", "--latency-ms", "5"], "no cost 'latency_ms'; costs: madds, params"),
        (["--group", "round", "--energy-mj", "5"], "no cost 'energy_mj'; costs: madds, params"),
        (["--group", "round", "--out", "net.tflite"], "allowed: .onnx (ONNX), .pt2 (torch.export)"),
        (["--group", "round", "--out", "net"], "allowed: .onnx (ONNX), .pt2 (torch.export)"),
        (["--group", "round", "--out", "folder.onnx"], "is a folder"),
        (["--group", "round", "--out", "file.txt/net.onnx"], "file.txt is a file, not a folder"),
        (["--group", "round", "--madds", "10", "--out", "new/net.onnx"], "feasible: "),
    ],
)  # fmt: skip
def test_wrong_input_writes_nothing(
    snugnet: Any, family: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file.txt").touch()
    before = files(tmp_path)
    assert says in snugnet("specialize", family, *arguments, "--json").error
    assert files(tmp_path) == before


def test_families_that_are_none(snugnet: Any, family: Path, tmp_path: Path) -> None:
    wanted = ["--group", "round", "--madds", "100k"]
    assert "there is no folder" in snugnet("specialize", tmp_path / "nowhere", *wanted).error
    (tmp_path / "runs").mkdir()
    assert "there is no folder runs/digits" in snugnet("specialize", "runs/digits", *wanted).error
    assert "there is no folder digits" in snugnet("specialize", "digits", *wanted).error
    assert "has no family.json" in snugnet("specialize", tmp_path / "runs", *wanted).error
    broken = tmp_path / "broken"
    shutil.copytree(family, broken)
    with next(broken.glob("supernet-*.safetensors")).open("ab") as file:
        file.truncate(1000)
    assert "truncated" in snugnet("specialize", broken, *wanted).error
    (broken / "family.json").write_text("{")
    assert "damaged" in snugnet("specialize", broken, *wanted).error
    assert "there is no folder" in snugnet("specialize", broken / "family.json", *wanted).error


def test_a_name_on_the_hub_is_asked_for_there(snugnet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from snugnet.errors import FamilyError

    asked = []

    def refuse(name: str) -> None:
        asked.append(name)
        raise FamilyError("not there")

    monkeypatch.setattr("snugnet.family.disk.from_pretrained", refuse)
    assert "not there" in snugnet("specialize", "someone/digits", "--group", "round").error
    assert "there is no folder" in snugnet("specialize", "./someone/digits", "--group", "round").error
    assert asked == ["someone/digits"]

"""``snugnet retrain``, ``export`` and ``evaluate`` of one network: from a family to a file, or one line that says why not."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interrupted import interrupt

ROUND = ["0", "6", "8", "9"]
ROOT = Path(__file__).resolve().parents[2]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def network(family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of the tiny family, for two classes under a limit."""
    import snugnet

    folder = tmp_path_factory.mktemp("network") / "net"
    snugnet.retrain(family, group=["3", "1"], madds="100k", epochs=2, out=folder, progress=False)
    return folder


def test_group_and_budget(snugnet: Any, family: Path, tmp_path: Path) -> None:
    arguments = ["--group", "round", "--madds", "100k", "--budget", "params=50%", "--epochs", "2", "--out", "runs/net"]
    done = snugnet("retrain", family, *arguments, "retraining.inherited.learning_rate=0.02", "--json").json
    assert (done["folder"], done["group"], done["classes"]) == ("runs/net", "round", ROUND)
    assert done["costs"]["madds"] <= done["budgets"]["madds"] == 1e5
    assert done["costs"]["params"] <= done["budgets"]["params"]
    assert (done["start"], done["settings"]["epochs"], done["settings"]["learning_rate"]) == ("inherited", 2, 0.02)
    assert 0 <= done["validation"]["accuracy"] <= 1
    lines = [json.loads(line) for line in (tmp_path / "runs" / "net" / "log.jsonl").read_text().splitlines()]
    assert [line["accuracy"] for line in lines if line["phase"] == "validation"][-1] == done["validation"]["accuracy"]

    again = snugnet("retrain", family, *arguments, "retraining.inherited.learning_rate=0.02")
    assert again.code == 0
    assert "going on with the retraining in runs/net" in again.err
    assert "validation images" in again.err
    assert "0, 6, 8, 9" in again.out
    before = files(tmp_path / "runs")
    error = snugnet("retrain", family, *arguments).err.splitlines()[-1]
    assert error.startswith("error: runs/net/network.ckpt.safetensors was made by another retraining")
    assert "not the same settings.learning_rate); give another --out, or --fresh" in error
    assert files(tmp_path / "runs") == before
    fresh = snugnet("retrain", family, *arguments, "--from", "scratch", "--fresh", "--json").json
    assert (fresh["start"], fresh["validation"]["start"]) == ("scratch", None)


@pytest.mark.parametrize("form", ["bare", "specialize", "search", "limits"])
def test_an_architecture_from_a_file(snugnet: Any, family: Path, tmp_path: Path, form: str) -> None:
    found = snugnet("specialize", family, "--group", "round", "--madds", "100k", "--json").json
    content = {
        "bare": found["architecture"],
        "specialize": found,
        "search": {"winners": [{"architecture": found["architecture"], "accuracy": 0.5}]},
        "limits": {"limits": [{"architecture": found["architecture"], "accuracy": 0.5, "limit": 100_000}]},
    }[form]
    (tmp_path / "arch.json").write_text(json.dumps(content))
    done = snugnet("retrain", family, "--arch", "arch.json", "--epochs", "1", "--out", "net", "--json").json
    assert done["architecture"] == found["architecture"]
    assert done["classes"] == [str(i) for i in range(10)]
    some = snugnet("retrain", family, "--arch", "arch.json", "--classes", "4,2", "--epochs", "1", "--out", "two")
    assert some.code == 0
    assert "4, 2" in some.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give an architecture by --arch, or the classes by --group or --classes"),
        (["--group", "round", "--classes", "0,1"], "both are given"),
        (["--group", "square"], "no group 'square'; groups: "),
        (["--group", "round", "--madds", "10"], "has madds <= 10; feasible: "),
        (["--group", "round", "--madds", "40Q"], "--madds: a budget is"),
        (["--group", "round", "--budget", "joules=3"], "no cost 'joules'; costs: madds, params"),
        (["--group", "round", "--from", "teacher"], "'inherited', 'scratch'"),
        (["--group", "round", "--epochs", "0"], "retraining.inherited.epochs is 0.0: input should be greater than 0"),
        (["--group", "round", "--epochs", "many"], "'--epochs'"),
        (["--group", "round", "training.batch_size=4"], "cannot be changed for a network of tiny; allowed: seed, device"),
        (["--group", "round", "retraining.scratch.epoch=4"], "did you mean 'epochs'?"),
        (["--group", "round", "epochs"], "settings are key=value"),
        (["--group", "round", "data.test=0.5"], "data.test cannot be changed"),
        (["--arch", "nowhere.json"], "cannot read nowhere.json"),
        (["--arch", "other.json"], "other.json: this is no architecture of tiny's space ofa-mobilenet-v3: "),
        (["--arch", "front.json"], "holds 2 architectures; give a file with one"),
        (["--arch", "list.json"], "list.json holds a list; an architecture is a JSON object"),
        (["--arch", "other.json", "--madds", "1M"], "--arch gives the architecture: leave out budgets"),
        (["--group", "round", "--out", "list.json"], "list.json is a file, not a folder"),
    ],
)  # fmt: skip
def test_wrong_input_writes_nothing(
    snugnet: Any, family: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    from snugnet.spaces import get_space

    other = get_space("attentive-nas")
    (tmp_path / "other.json").write_text(json.dumps(other.to_dict(other.smallest)))
    (tmp_path / "front.json").write_text(json.dumps({"winners": [{}, {}]}))
    (tmp_path / "list.json").write_text("[1]")
    before = files(tmp_path)
    given = arguments if "--out" in arguments else [*arguments, "--out", "net"]
    assert says in snugnet("retrain", family, *given, "--json").error
    assert files(tmp_path) == before


def test_a_network_is_trained_as_it_is(snugnet: Any, network: Path) -> None:
    settings = ["augment.cutout=4", "retraining.scratch.drop_path=0.2", "retraining.scratch.clip=5"]
    done = snugnet("retrain", network, "--from", "scratch", "--epochs", "2", "--out", "anew", *settings, "--json").json
    assert (done["classes"], done["start"], done["validation"]["start"]) == (["3", "1"], "scratch", None)
    assert (done["settings"]["drop_path"], done["settings"]["clip"]) == (0.2, 5)
    again = snugnet("retrain", network, "--from", "scratch", "--epochs", "2", "--out", "anew", *settings)
    assert "going on with the retraining in anew" in again.err
    finer = snugnet("retrain", network, "--epochs", "1", "--out", "finer", "--json").json
    assert (finer["start"], finer["settings"]["distillation"]) == ("inherited", 0)
    assert finer["architecture"] == done["architecture"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--group", "round"], "tiny is one network; architectures, classes, budgets and --best-of choose a network of a family"),
        (["--classes", "1,3"], "tiny is one network"),
        (["--madds", "50%"], "tiny is one network"),
        (["--best-of", "3"], "tiny is one network"),
        (["--arch", "arch.json"], "tiny is one network"),
        (["retraining.inherited.distillation=1"], "without a teacher: retraining.inherited.distillation=0"),
        (["--from", "scratch", "retraining.scratch.auxiliary=0.4"], "no place for a second classifier is known in ofa-"),
    ],
)  # fmt: skip
def test_what_chooses_a_network_of_a_family_is_not_for_one(
    snugnet: Any, network: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "arch.json").write_text("{}")
    assert says in snugnet("retrain", network, *arguments, "--out", "net").error
    assert not (tmp_path / "net").exists()


def test_the_network_s_own_folder_is_not_written_into(snugnet: Any, network: Path) -> None:
    before = files(network)
    assert "is what would be retrained" in snugnet("retrain", network, "--fresh", "--out", network).error
    assert files(network) == before


def test_a_family_s_folder_is_not_written_into(snugnet: Any, family: Path) -> None:
    before = files(family)
    error = snugnet("retrain", family, "--group", "round", "--fresh", "--out", family).error
    assert "holds a family; give the network another folder" in error
    assert files(family) == before


def test_stopped_by_the_keyboard_it_goes_on(snugnet: Any, family: Path, tmp_path: Path) -> None:
    """Ctrl-C: one line, code 130, no network yet; the same command then ends with the network of an undisturbed run."""
    from snugnet.retraining import retrain

    command = ["retrain", str(family), "--group", "round", "--epochs", "60"]
    settings = ["retraining.inherited.checkpoint_seconds=0", "threads=1"]
    interrupt([*command, *settings, "--out", "net"], tmp_path, tmp_path / "net" / "network.ckpt.safetensors")
    assert not (tmp_path / "net" / "network.json").exists()
    assert "its training has not ended: run the same 'snugnet retrain' again" in snugnet("evaluate", "net").error
    retrain(family, group="round", epochs=60, overrides=settings, out=tmp_path / "net", progress=False)
    lines = [json.loads(line) for line in (tmp_path / "net" / "log.jsonl").read_text().splitlines()]
    epochs = [line["step"] for line in lines if line["phase"] == "validation"]
    assert epochs == list(range(1, len(epochs) + 1))  # one step an epoch; none is missing, none stands twice
    assert len(epochs) == 60


# -- export ------------------------------------------------------------------------------------------------------------


def test_a_network_is_exported_as_it_is(snugnet: Any, network: Path, tmp_path: Path) -> None:
    import onnx
    import onnxruntime
    import torch

    from snugnet.family import load_network

    done = snugnet("export", network, "--out", "deep/net.onnx", "--json").json
    assert (done["file"], done["classes"]) == ("deep/net.onnx", ["3", "1"])
    session = onnxruntime.InferenceSession(str(tmp_path / "deep" / "net.onnx"), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((5, 3, 8, 8)).astype(np.float32)
    (logits,) = session.run(None, {"image": x})
    loaded = load_network(network)
    np.testing.assert_allclose(logits, loaded.module(torch.from_numpy(x)).numpy(), atol=1e-4 * np.abs(logits).max())
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == ["3", "1"]
    assert json.loads(about["mean"]) == list(loaded.family.mean)
    snugnet("export", network, "--out", "new.onnx", "--opset", "21")
    assert onnx.load(tmp_path / "new.onnx").opset_import[0].version == 21
    done = snugnet("export", network, "--out", "net.pt2")
    assert "wrote net.pt2" in done.err
    module = torch.export.load(tmp_path / "net.pt2").module()
    torch.testing.assert_close(module(torch.from_numpy(x)), loaded.module(torch.from_numpy(x)))


def test_a_family_is_exported_as_specialize_does(snugnet: Any, family: Path, tmp_path: Path) -> None:
    given = ["--group", "round", "--madds", "100k"]
    exported = snugnet("export", family, *given, "--out", "one.onnx", "--json").json
    specialized = snugnet("specialize", family, *given, "--out", "two.onnx", "--json").json
    assert {k: v for k, v in specialized.items() if k not in ("file", "ms")} == {
        k: v for k, v in exported.items() if k not in ("file", "bytes", "precision")
    }
    assert exported["precision"] == "float32"
    assert exported["bytes"] == (tmp_path / "one.onnx").stat().st_size
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


@pytest.mark.parametrize(
    ("of_network", "arguments", "says"),
    [
        (True, ["--group", "round", "--out", "n.onnx"], "is one network; classes, budgets and --best-of choose"),
        (True, ["--madds", "1M", "--out", "n.onnx"], "is one network"),
        (True, ["--best-of", "2", "--out", "n.onnx"], "is one network"),
        (True, ["--out", "n.tflite"], "allowed: .onnx (ONNX), .pt2 (torch.export)"),
        (True, [], "Missing option '--out'"),
        (True, ["--out", "n.pt2", "--opset", "21"], "--opset 21 is of .onnx files, got n.pt2"),
        (True, ["--out", "n.onnx", "--opset", "22"], "opset 14 to 21, got 22"),
        (False, ["--out", "n.onnx"], "is a family; say which network by --group or --classes"),
        (False, ["--group", "round", "--madds", "10", "--out", "n.onnx"], "feasible: "),
    ],
)
def test_wrong_exports_write_nothing(
    snugnet: Any, network: Path, family: Path, tmp_path: Path, of_network: bool, arguments: list[str], says: str
) -> None:
    assert says in snugnet("export", network if of_network else family, *arguments).error
    assert not files(tmp_path)


def test_neither_a_family_nor_a_network(snugnet: Any, network: Path, tmp_path: Path) -> None:
    assert "there is no folder nowhere" in snugnet("export", "nowhere", "--out", "n.onnx").error
    assert "has no family.json" in snugnet("specialize", network, "--group", "round").error
    broken = tmp_path / "broken"
    shutil.copytree(network, broken)
    with next(broken.glob("weights-*.safetensors")).open("ab") as file:
        file.truncate(1000)
    assert "truncated" in snugnet("export", broken, "--out", "n.onnx").error
    assert "truncated" in snugnet("evaluate", broken).error


# -- evaluate ----------------------------------------------------------------------------------------------------------


def test_a_network_is_judged_on_test_images_of_its_classes(
    snugnet: Any, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from snugnet.data import load_data, normalise
    from snugnet.family import load_network
    from snugnet.recipe import parse_recipe

    done = snugnet("evaluate", network, "--out", "report", "--json").json
    (row,) = done["rows"]
    loaded = load_network(network)
    data = load_data(parse_recipe(loaded.provenance["recipe"]).data, progress=False)
    own = [i for i, label in enumerate(data.test.labels.tolist()) if data.classes[label] in ("3", "1")]
    x = normalise(data.test.images[own], loaded.family.mean, loaded.family.std)
    places = [("3", "1").index(data.classes[label]) for label in data.test.labels[own].tolist()]
    right = (loaded.module(x).argmax(1) == torch.tensor(places)).sum()
    assert row["images"] == len(own)
    assert row["accuracy"] == pytest.approx(float(right) / len(own))
    assert row["accuracy_all"] is None
    assert (row["group"], row["budget"], done["budget"]) == ("3,1", 1e5, "madds")
    assert row["costs"] == loaded.costs
    assert row["onnx_difference"] < 1e-3
    assert row["milliseconds"] > 0
    assert done["context"]["validation"] == loaded.provenance["validation"]
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        f"results.{kind}" for kind in ("json", "md", "png")
    ]
    monkeypatch.setattr("snugnet.deploy.int8.ENOUGH", 0.6)
    beside = snugnet("evaluate", network, "--int8", "--json").json["rows"][0][
        "int8"
    ]  # ranges of the recipe's training images
    assert (beside["float_accuracy"], beside["images"]) == (row["accuracy"], row["images"])
    people = snugnet("evaluate", network)
    assert "networks on test images" in people.out
    assert "nan" not in people.out


def test_a_network_of_all_classes_without_a_budget(snugnet: Any, family: Path, tmp_path: Path) -> None:
    found = snugnet("specialize", family, "--group", "round", "--json").json
    (tmp_path / "arch.json").write_text(json.dumps(found["architecture"]))
    snugnet("retrain", family, "--arch", "arch.json", "--epochs", "1", "--out", "net")
    done = snugnet("evaluate", "net", "--json").json
    (row,) = done["rows"]
    assert row["accuracy"] == row["accuracy_all"]
    assert (row["budget"], row["images"], done["mean"]) == (None, 60, [])
    assert "nan" not in snugnet("evaluate", "net").out


@pytest.mark.parametrize(
    "arguments", [["--group", "round"], ["--budgets", "4"], ["--cost", "params"], ["--best-of", "2"]]
)
def test_what_chooses_networks_of_a_family_is_refused(snugnet: Any, network: Path, arguments: list[str]) -> None:
    assert "is one network; --group, --budgets, --cost and --best-of" in snugnet("evaluate", network, *arguments).error


def test_images_of_a_network_that_lie_elsewhere(snugnet: Any, network: Path) -> None:
    assert "-d cannot change seed" in snugnet("evaluate", network, "-d", "seed=1").error
    assert "gone.parquet" in snugnet("evaluate", network, "-d", "source=gone.parquet").error
    changes = ["-d", "groups={a: ['0', '1'], b: ['2', '3']}", "-d", "ungrouped=drop"]
    assert "not the classes of tiny" in snugnet("evaluate", network, *changes).error
    assert math.isfinite(snugnet("evaluate", network, "-d", "test_rows=50", "--json").json["rows"][0]["accuracy"])

"""``snugnet evaluate``: a family on its test images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from snugnet.bundles import index_checksum
from snugnet.data.images import decode_images as decode


@pytest.fixture
def spoiled(family: Path, tmp_path: Path) -> Any:
    """A copy of the family whose index is changed."""

    def make(change: Any) -> Path:
        folder = tmp_path / "copy"
        shutil.copytree(family, folder, dirs_exist_ok=True)
        index = json.loads((family / "family.json").read_text())
        del index["sha256"]
        change(index)
        index["sha256"] = index_checksum(index)  # changed by hand, not by accident
        (folder / "family.json").write_text(json.dumps(index))
        return folder

    return make


@pytest.mark.parametrize("change", ["seed=1", "test=0.5", "test_split=train", "validation=0"])
def test_what_was_trained_on_cannot_become_a_test_image(snugnet: Any, family: Path, change: str) -> None:
    assert "-d cannot change" in snugnet("evaluate", family, "-d", change).error


def test_all_groups_and_a_number_of_budgets(snugnet: Any, family: Path) -> None:
    done = snugnet("evaluate", family, "--budgets", "2", "--json").json
    assert [row["group"] for row in done["rows"]] == [name for name in ("round", "straight", "curvy") for _ in range(2)]
    assert done["files"] == []
    for row in done["rows"]:
        assert row["costs"]["madds"] <= row["budget"]
        assert row["images"] > 0
        assert 0 <= row["accuracy"] <= 1
        assert row["onnx_difference"] < 1e-3
    assert done["context"]["recipe"]["name"] == "tiny"


def test_some_groups_and_given_budgets_with_a_report(snugnet: Any, family: Path, tmp_path: Path) -> None:
    arguments = ["--group", "curvy", "--group", "round", "--budgets", "90k,120k", "--best-of", "2", "--out", "report"]
    done = snugnet("evaluate", family, *arguments)
    assert done.code == 0, done.err
    assert "curvy" in done.out
    assert "straight" not in done.out
    results = json.loads((tmp_path / "report" / "results.json").read_text())
    assert [(row["group"], row["budget"]) for row in results["rows"]] == [
        (group, budget) for group in ("curvy", "round") for budget in (9e4, 1.2e5)
    ]
    assert (tmp_path / "report" / "results.png").read_bytes().startswith(b"\x89PNG")
    assert "| curvy |" in (tmp_path / "report" / "results.md").read_text()
    assert "report/results.md" in done.err


def test_budgets_of_another_cost_as_shares(snugnet: Any, family: Path) -> None:
    from snugnet.family.disk import load_family

    low, high = load_family(family).cost_range("params")
    done = snugnet(
        "evaluate", family, "--cost", "params", "--budgets", "10%,50%", "--group", "round", "--json"
    ).json  # fmt: skip
    assert done["budget"] == "params"
    assert [row["budget"] for row in done["rows"]] == pytest.approx([low + s * (high - low) for s in (0.1, 0.5)])
    assert all(row["costs"]["params"] <= row["budget"] for row in done["rows"])


def test_budgets_as_shares_of_the_range(snugnet: Any, family: Path) -> None:
    from snugnet.family import load_family

    low, high = load_family(family).cost_range("madds")
    done = snugnet("evaluate", family, "--group", "round", "--budgets", "25%,50%", "--json").json
    assert [row["budget"] for row in done["rows"]] == [low + (high - low) / 4, low + (high - low) / 2]


def test_only_test_images_are_decoded(snugnet: Any, family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from snugnet.data import dataset

    decoded = []
    monkeypatch.setattr(
        dataset, "decode_images", lambda *given, **options: decoded.append(len(given[1])) or decode(*given, **options)
    )
    done = snugnet("evaluate", family, "--budgets", "1", "--json").json
    assert decoded == [done["context"]["data"]["rows"]["test"]]


def test_images_that_lie_elsewhere_with_classes_in_another_order(snugnet: Any, family: Path, tmp_path: Path) -> None:
    """The digits as a folder: the same classes, and labels are matched by name."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    groups = {"round": "0689", "straight": "147", "curvy": "235"}
    for group, members in groups.items():
        for name in members:
            for split in ("train", "test"):
                place = tmp_path / "images" / split / group / name
                place.mkdir(parents=True)
                for row in (digits.target == int(name)).nonzero()[0][:4]:
                    Image.fromarray((digits.images[row] * 15.9).astype("uint8")).save(place / f"{row}.png")
    changes = ["-d", f"source={tmp_path / 'images'}", "-d", "groups=", "-d", "train_rows=", "-d", "test_rows="]
    done = snugnet("evaluate", family, *changes, "--budgets", "1", "--json").json
    assert {row["group"]: row["images"] for row in done["rows"]} == {
        g: 4 * len(members) for g, members in groups.items()
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--group", "square"], "no group 'square'; groups: "),
        (["--budgets", "0"], "at least one budget"),
        (["--budgets", "10,20"], "feasible: "),
        (["--budgets", "many"], "a budget is a positive number"),
        (["--budgets", "120%"], "from 0% to 100%"),
        (["--cost", "watts"], "no cost 'watts'; costs: madds, params"),
        (["--budgets", ""], "a budget is a positive number"),
        (["--budgets", "1M,,2M"], "a budget is a positive number"),
        (["--budgets", "10; 1,723,904"], "madds <= 10"),
        (["-d", "sauce=x"], "data: no key 'sauce'; did you mean 'source'?"),
        (["-d", "source"], "settings are key=value"),
        (["-d", "source=a", "-d", "source=b"], "-d gives source twice"),
        (["-d", "source="], "data: source is None"),
        (["-d", "resolution=16"], "takes images of 8 pixels, not 16"),
        (["-d", "source=nowhere.parquet"], "nowhere.parquet"),
        (["-d", "groups={a: ['0', '1'], b: ['2', '3']}", "-d", "ungrouped=drop"], "not the classes of tiny"),
        (["--out", "file.txt"], "file.txt is a file, not a folder"),
        (["--out", "file.txt/deep"], "file.txt is a file, not a folder"),
    ],
)  # fmt: skip
def test_wrong_input_writes_nothing(
    snugnet: Any, family: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "file.txt").touch()
    given = arguments if "--out" in arguments else [*arguments, "--out", "report"]
    assert says in snugnet("evaluate", family, *given).error
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_images_that_have_moved(snugnet: Any, spoiled: Any) -> None:
    family = spoiled(
        lambda index: index["provenance"]["recipe"]["data"].update(source="gone/images.parquet", groups="digits")
    )
    assert "say where with -d source=" in snugnet("evaluate", family).error


def test_a_family_that_does_not_say_what_it_was_trained_on(snugnet: Any, spoiled: Any) -> None:
    family = spoiled(lambda index: index.update(provenance={}))
    assert "data: needs the key 'source'" in snugnet("evaluate", family).error
    changes = ["-d", "source=digits", "-d", "resolution=8", "-d", "groups=digits", "-d", "test_rows=50"]
    assert len(snugnet("evaluate", family, *changes, "--budgets", "1", "--json").json["rows"]) == 3

"""``snugnet predictor``: a table in, a predictor out, and how good it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snugnet.costs import counted_table
from snugnet.predictors import write_table
from snugnet.spaces import get_space

SPACE = "ofa-mobilenet-v3"
OPTIONS = ["-o", "depths=[1,2]", "-o", "resolution=32"]


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path]:
    """Two tables of architectures with an accuracy that follows from their cost."""
    space = get_space(SPACE, depths=[1, 2], resolution=32)
    rows = space.sample(120, np.random.default_rng(0))
    cost = np.log(counted_table(space, "madds")(rows))
    columns = {"top1": 5 * cost - 10, "loss": -cost, "note": ["x"] * len(rows)}
    for name, part in (("train.csv", slice(80)), ("test.csv.gz", slice(80, None))):
        write_table(tmp_path / name, space, rows[part], {k: list(v[part]) for k, v in columns.items()})
    return tmp_path / "train.csv", tmp_path / "test.csv.gz"


@pytest.mark.parametrize("kind", ["best", "mlp", "forest"])
def test_fit_and_score(snugnet: Any, tables: tuple[Path, Path], kind: str) -> None:
    train, test = tables
    arguments = ("--target", "top1", "--out", "p", "--kind", kind, *OPTIONS)
    made = snugnet("predictor", "fit", SPACE, train, *arguments, "--seed", "3", "--json").json
    assert (made["kind"], made["targets"], made["n"], made["seed"]) == (kind, ["top1"], 80, 3)
    assert made["space"]["options"]["depths"] == [1, 2]
    scores = snugnet("predictor", "score", "p", test, "--json").json
    assert list(scores) == ["predictor", "kind", "n", "target", "kendall_tau", "spearman", "mae"]
    assert (scores["kind"], scores["n"], scores["target"]) == (kind, 40, "top1")
    assert scores["kendall_tau"] > {"best": 0.9, "mlp": 0.7, "forest": 0.35}[kind]


def test_people_get_a_table_and_best_is_the_default(snugnet: Any, tables: tuple[Path, Path]) -> None:
    train, test = tables
    done = snugnet("predictor", "fit", SPACE, train, "--target", "top1", "--out", "p", *OPTIONS)
    assert done.code == 0
    assert "best predictor of top1 from 80 architectures" in done.out
    done = snugnet("predictor", "score", "p", test)
    assert "Kendall tau" in done.out
    assert "best predictor on 40 architectures of test.csv.gz" in " ".join(done.out.split())


def test_several_targets(snugnet: Any, tables: tuple[Path, Path]) -> None:
    train, test = tables
    both = ("--target", "top1", "--target", "loss", "--out", "p")
    assert snugnet("predictor", "fit", SPACE, train, *both, *OPTIONS, "--json").json["targets"] == ["top1", "loss"]
    scores = snugnet("predictor", "score", "p", test, "--json").json
    assert list(scores["targets"]) == ["top1", "loss"]
    assert all(each["kendall_tau"] > 0.9 for each in scores["targets"].values())
    assert "leave out --target" in snugnet("predictor", "score", "p", test, "--target", "loss").error


def test_another_column_can_be_scored(snugnet: Any, tables: tuple[Path, Path]) -> None:
    train, test = tables
    snugnet("predictor", "fit", SPACE, train, "--target", "top1", "--out", "p", *OPTIONS)
    assert snugnet("predictor", "score", "p", test, "--target", "loss", "--json").json["kendall_tau"] < -0.9


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--target", "accuracy"], "no column 'accuracy' to predict; it has: top1, loss, note"),
        (["--target", "note"], "row 1: note is 'x', not a finite number"),
        (["--target", "top1", "--target", "top1"], "names a column twice"),
        (["--target", "top1", "--kind", "svm"], "svm"),
        (["--target", "top1", "--seed", "-1"], "seed"),
        (["--target", "top1", "-o", "depth=[1]"], "unknown option 'depth'"),
        ([], "--target"),
    ],
)
def test_wrong_arguments(snugnet: Any, tables: tuple[Path, Path], arguments: list[str], says: str) -> None:
    error = snugnet("predictor", "fit", SPACE, tables[0], "--out", "p", *OPTIONS, *arguments, "--json").error
    assert says in error
    assert not Path("p").exists()


def test_wrong_tables_and_folders(snugnet: Any, tables: tuple[Path, Path], tmp_path: Path) -> None:
    train, test = tables
    fit = ("--target", "top1", "--out", "p")
    # The table's architectures state their resolution, so it is seen to be of another space.
    assert "train.csv, row 1: the architecture has resolution 32, this space 224" in (
        snugnet("predictor", "fit", SPACE, train, *fit).error
    )
    assert "unknown space 'ofa'" in snugnet("predictor", "fit", "ofa", train, *fit).error
    assert "cannot read" in snugnet("predictor", "fit", SPACE, "no.csv", *fit).error
    assert "is a file, not a folder" in (
        snugnet("predictor", "fit", SPACE, train, "--target", "top1", "--out", train, *OPTIONS).error
    )
    few = tmp_path / "few.csv"
    few.write_text("".join(train.read_text().splitlines(keepends=True)[:11]))
    assert "10 measured architectures are too few" in snugnet("predictor", "fit", SPACE, few, *fit, *OPTIONS).error
    few.write_text("")
    assert "is empty" in snugnet("predictor", "fit", SPACE, few, *fit, *OPTIONS).error
    assert "there is no folder nowhere" in snugnet("predictor", "score", "nowhere", test).error
    assert "has no predictor.json" in snugnet("predictor", "score", tmp_path, test).error


def test_every_kind_can_be_named(snugnet: Any) -> None:
    from snugnet.predictors import list_predictors

    assert [each["name"] for each in snugnet("predictor", "list", "--json").json] == list_predictors()

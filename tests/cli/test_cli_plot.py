"""``snugnet plot``: pictures of a family, and bad input with one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def test_pictures_of_a_family(snugnet: Any, family: Path) -> None:
    files = [Path(file) for file in snugnet("plot", family, "--out", "plots", "--budgets", 2, "--json").json["files"]]
    assert len(files) == 3
    assert files[-1].name == "similarity.png"
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


@pytest.mark.parametrize(
    ("budgets", "words"),
    [
        ("0", "at least one budget"),
        ("9999", "feasible:"),
        ("10M,x", "a budget is"),
        ("", "a budget is a positive number"),
    ],
)
def test_wrong_budgets(snugnet: Any, family: Path, budgets: str, words: str) -> None:
    assert words in snugnet("plot", family, "--out", "plots", "--budgets", budgets).error
    assert not Path("plots").exists()


def test_a_study_has_its_own_budgets(snugnet: Any) -> None:
    Path("study.json").write_text("{}")
    assert "--budgets is for a family" in snugnet("plot", ".", "--out", "plots", "--budgets", "3").error
    assert "holds no study's results" in snugnet("plot", ".", "--out", "plots").error


def test_a_name_on_the_hub_needs_a_folder_for_the_files(snugnet: Any) -> None:
    assert "--out" in snugnet("plot", "user/name").error
    assert not Path("user").exists()


@pytest.mark.parametrize(("source", "words"), [("nowhere", "no folder nowhere"), (".", "no family.json")])
def test_what_is_no_family(snugnet: Any, source: str, words: str) -> None:
    assert words in snugnet("plot", source, "--out", "plots").error

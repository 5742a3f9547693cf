"""Several limits, one archive: every winner within its limit, nothing evaluated twice, and nothing lost when stopped."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snugnet.errors import BudgetError, SearchError
from snugnet.family import Family
from snugnet.family.limits import LimitsSearch, search_limits
from snugnet.family.search import FamilySearch
from snugnet.search.archive import Archive, Remembered, keys
from snugnet.search.method import make_method
from snugnet.spaces import Population

EVOLUTION = make_method("evolution", {"population": 6, "rounds": 3})


def counted(search: LimitsSearch, stop_after: int | None = None) -> list[bytes]:
    """Count what is scored, and stop after so many."""
    seen: list[bytes] = []
    remembered = search.searches[0].problem.score
    assert isinstance(remembered, Remembered)
    score = remembered.score

    def watched(rows: Population) -> np.ndarray:
        if stop_after is not None and len(seen) >= stop_after:
            raise KeyboardInterrupt
        seen.extend(keys(rows))
        return np.asarray(score(rows))

    remembered.score = watched
    return seen


@pytest.fixture
def limits(family: Family) -> tuple[float, ...]:
    low, high = family.cost_range("madds", "round")
    return tuple(float(round(low + share * (high - low))) for share in (0.25, 0.5, 0.75))


def test_winners_are_within_their_limits_and_the_best_of_all(family: Family, limits: tuple[float, ...]) -> None:
    search = LimitsSearch.make(family, "round", "madds", limits[::-1], params="100%")
    seen = counted(search)
    searched = search.run(EVOLUTION, progress=False)
    archive = searched.searches[0].result.archive
    assert sorted(seen) == sorted(keys(archive.rows))
    assert len(set(seen)) == len(seen)
    costs = family.table("madds", len(family.class_indices("round")))(archive.rows)
    assert searched.limits == limits
    accuracies = []
    for limit, each in zip(limits, searched.searches, strict=True):
        (winner,) = each.winners()
        accuracies.append(winner["accuracy"])
        assert winner["costs"]["madds"] <= limit
        assert winner["accuracy"] == archive.scores[costs <= limit].max()
        assert each.network().costs["madds"] == winner["costs"]["madds"]
    assert accuracies == sorted(accuracies)
    document = searched.to_json()
    assert document["evaluated"] == len(seen) > 6 * 3
    assert [each["limit"] for each in document["limits"]] == list(limits)
    assert list(document["budgets"]) == ["params"]
    lines = list(csv.DictReader(io.StringIO(searched.table())))
    assert [float(line["limit"]) for line in lines] == list(limits)
    assert [float(line["accuracy"]) for line in lines] == accuracies


def test_stopped_anywhere_it_ends_the_same(family: Family, limits: tuple[float, ...], tmp_path: Path) -> None:
    whole = search_limits(
        family, EVOLUTION, "madds", limits, group="round", folder=tmp_path / "whole", progress=False
    )  # fmt: skip
    seen: list[bytes] = []
    for _ in range(8):
        search = LimitsSearch.make(family, "round", "madds", limits)
        scored = counted(search, stop_after=9)
        try:
            searched = search.run(EVOLUTION, folder=tmp_path / "stopped", progress=False)
        except KeyboardInterrupt:
            continue
        finally:
            seen += scored
        break
    assert len(set(seen)) == len(seen) == len(whole.searches[0].result.archive)
    ours, theirs = ({**each.to_json(), "seconds": 0} for each in (searched, whole))
    assert ours == theirs
    for name in ("limits.csv", "evaluated.csv"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    again = LimitsSearch.make(family, "round", "madds", limits)
    assert not counted(again) or pytest.fail("scored again")
    assert {**again.run(EVOLUTION, folder=tmp_path / "whole", progress=False).to_json(), "seconds": 0} == theirs


def test_one_archive_takes_another() -> None:
    one, two = Archive(2), Archive(2)
    for archive, rows in ((one, [[0, 1], [1, 1]]), (two, [[1, 1], [2, 0], [0, 1]])):
        archive.evaluate(np.array(rows, dtype=np.int16), lambda r: r.sum(1).astype(float), chunk=2)
    one.take(two)
    assert one.rows.tolist() == [[0, 1], [1, 1], [2, 0]]
    assert one.scores.tolist() == [1, 2, 2]


@pytest.mark.parametrize(
    ("limits", "budgets", "words"),
    [
        (["40", "1G"], {}, "feasible"),
        (["1G", "1000M"], {}, "stands twice"),
        ([], {}, "no limit of madds is given"),
        (["1G"], {"madds": "2G"}, "madds has a budget and limits .*; leave one of them out"),
        (["1G"], {"watts": "2"}, "no cost 'watts'"),
    ],
)
def test_limits_that_make_no_search(family: Family, limits: list[str], budgets: dict[str, Any], words: str) -> None:
    with pytest.raises(BudgetError, match=words):
        LimitsSearch.make(family, "round", "madds", limits, **budgets)


def test_a_front_has_no_limits(family: Family) -> None:
    with pytest.raises(SearchError, match="front"):
        LimitsSearch.make(family, "round", "madds", ["1G"]).run(make_method("nsga2"))


def test_files_are_plain(family: Family, limits: tuple[float, ...], tmp_path: Path) -> None:
    search_limits(family, EVOLUTION, "madds", limits[:1], folder=tmp_path, progress=False)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"} <= {
        ".json", ".csv", ".npz"
    }  # fmt: skip
    assert json.loads((tmp_path / "search.json").read_text())["cost"] == "madds"


def test_results_of_other_searches_are_not_written_over(
    family: Family, limits: tuple[float, ...], tmp_path: Path
) -> None:
    def run(*several: float, **options: Any) -> None:
        LimitsSearch.make(family, "round", "madds", several).run(EVOLUTION, folder=tmp_path, progress=False, **options)

    single = FamilySearch.make(family, "round", madds=limits[0])
    run(*limits[:2])
    table = (tmp_path / "limits.csv").read_text()
    run(*limits)  # one more limit goes on
    assert (tmp_path / "limits.csv").read_text().startswith(table)
    with pytest.raises(SearchError, match=r"search\.json is of another search; give another --out, or --fresh"):
        run(*limits[:2])
    other = LimitsSearch.make(family, "round", "params", ["50%", "80%"])
    with pytest.raises(SearchError, match="another search"):
        other.run(EVOLUTION, folder=tmp_path, progress=False)
    with pytest.raises(SearchError, match="holds searches under several limits; give another --out"):
        single.run(EVOLUTION, folder=tmp_path, progress=False)
    run(*limits[:2], fresh=True)
    assert (tmp_path / "limits.csv").read_text() == table
    alone = tmp_path / "alone"
    single.run(EVOLUTION, folder=alone, progress=False)
    with pytest.raises(SearchError, match="another search"):
        other.run(EVOLUTION, folder=alone, progress=False)

"""The searches of a study are the registry's: with settings, on images or on the study's predictor, of an installed package too."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from outside import install

from snugnet.costs import COSTS
from snugnet.errors import ConfigError, SnugnetError
from snugnet.predictors import PREDICTORS
from snugnet.search.method import METHODS
from snugnet.study import Results, StudyConfig, load_study, run_study

OUTSIDE = """
from dataclasses import dataclass
from typing import ClassVar

from snugnet.costs import Cost
from snugnet.predictors import PREDICTORS
from snugnet.search.method import Method

layers = Cost("layers", "layers", "how many layers there are", lambda block, resolution: len(block.all_layers))


@dataclass(frozen=True)
class Dearest(Method):
    name: ClassVar[str] = "dearest"
    draws: int = 20
    kept: int = 2

    @property
    def rounds(self):
        return 1

    @property
    def evaluations(self):
        return self.kept

    def propose(self, now):
        rows = now.problem.sample(self.draws, now.rng)
        (costs,) = [table(rows) for name, table in now.problem.tables.items() if name in now.problem.limits]
        return now.fresh(rows[(-costs).argsort(kind="stable")], self.kept, set())


class Stump(PREDICTORS["forest"]):
    kind = "stump"

    @classmethod
    def fit(cls, space, rows, values, *, targets=("accuracy",), seed=0, progress=False, few=1):
        print("stump fitted with few =", few)
        return super().fit(space, rows, values, targets=targets, seed=seed)
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with a method, a predictor and a cost, as pip would leave it: one module and its entry points."""
    brings = {
        "snugnet.search_methods": {"dearest": "outside_study:Dearest"},
        "snugnet.predictors": {"stump": "outside_study:Stump"},
        "snugnet.costs": {"layers": "outside_study:layers"},
    }
    install(tmp_path, "outside-study", {"outside_study": OUTSIDE}, brings)
    monkeypatch.syspath_prepend(tmp_path)
    for registry in (METHODS, PREDICTORS, COSTS):
        monkeypatch.setattr(registry, "_own", dict(registry._own))
        monkeypatch.setattr(registry, "_brought", None)
    yield
    sys.modules.pop("outside_study", None)


def content(output: Path, *methods: dict[str, Any], **others: Any) -> dict[str, Any]:
    """A study of one supernet, two superclasses and two budgets, trained for a moment."""
    return {
        "name": "tiny",
        "output": str(output),
        "seeds": [0],
        "budgets": ["30%", "60%"],
        "report": "validation",
        "recipe": {
            "device": "cpu",
            "threads": 1,
            "data": {
                "source": "digits", "groups": {"low": list("01234"), "high": list("56789")}, "resolution": 8,
                "train_rows": 100,
            },
            "space": {
                "name": "ofa-mobilenet-v3", "width_mult": 0.1, "stem_stride": 1, "stage_strides": [2, 1, 1, 1, 1],
            },
            "training": {
                "batch_size": 50, "stages": [{"name": "all", "epochs": 1, "learning_rate": 0.05, "elastic": "all"}],
            },
            "generator": {"steps": 2, "pairs": 2, "images": 8, "budgets": 3},
            "evaluation": {"calibration_images": 64, "validation_images": 60},
        },
        "supernets": {"s": {}},
        "methods": [{"supernet": "s", **method} for method in methods],
        "tables": {"T": [method["name"] for method in methods]},
        "predictor": {"architectures": 25, "kind": "forest"},
        **others,
    }  # fmt: skip


def rows_of(results: Results, name: str) -> list[tuple[str, float, list[int]]]:
    (outcome,) = results.of(name)
    return [(row.group, row.budget, row.arch) for row in outcome.rows]


@pytest.mark.usefixtures("outside")
def test_an_installed_package_s_method_predictor_and_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = content(
        tmp_path / "out",
        {"name": "On images", "search": "dearest", "settings": {"draws": 30}},
        {"name": "Predicted", "search": "dearest", "score": "predictor"},
        {"name": "For all", "search": "dearest", "score": "predictor", "per_superclass": False},
        predictor={"architectures": 25, "kind": "stump", "settings": {"few": 7}},
    )
    study["recipe"]["generator"]["budget"] = "layers"
    (tmp_path / "study.yaml").write_text(json.dumps(study))
    results = run_study(load_study(tmp_path / "study.yaml"), progress=False)
    assert "few = 7" in capsys.readouterr().out
    assert results.cost == "layers"
    for outcome in results.outcomes:
        assert [row.group for row in outcome.rows] == ["low", "low", "high", "high"]
        for row in outcome.rows:
            assert 0.8 * row.budget < row.costs["layers"] <= row.budget
            blueprint = results.space(outcome.method).blueprint(np.array(row.arch))
            assert row.costs["layers"] == len(list(blueprint.layers()))
        assert bool(outcome.predictor) == (outcome.method != "On images")
    for_all = rows_of(results, "For all")
    assert [arch for _, _, arch in for_all[:2]] == [arch for _, _, arch in for_all[2:]]
    assert results.budgets[0] < results.budgets[1]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Results]:
    folder = tmp_path_factory.mktemp("searched")
    study = content(
        folder,
        {"name": "Random", "search": "random"},
        {"name": "Best of three", "search": "random", "settings": {"samples": 3}},
        {"name": "Generated", "search": "generator"},
        {"name": "Generated, best of three", "search": "generator", "settings": {"candidates": 3}},
        {"name": "Evolved", "search": "evolution", "settings": {"initial": 4, "mutated": 1, "crossed": 1, "generations": 2}},
        {"name": "Front", "search": "nsga2", "score": "predictor", "settings": {"rounds": 3, "population": 8}},
    )  # fmt: skip
    return folder, study, run_study(StudyConfig(**study), progress=False)


def test_every_registered_method_has_every_scenario(searched: tuple[Path, dict[str, Any], Results]) -> None:
    _, study, results = searched
    space = results.space("Random")
    low, high = COSTS["madds"].table(space, 10).range
    assert results.budgets == pytest.approx([0.7 * low + 0.3 * high, 0.4 * low + 0.6 * high])
    for method in study["methods"]:
        (outcome,) = results.of(method["name"])
        assert len(outcome.rows) == 4
        assert all(row.costs["madds"] <= row.budget for row in outcome.rows)


def test_the_best_of_one_is_not_scored(searched: tuple[Path, dict[str, Any], Results], monkeypatch: Any) -> None:
    folder, study, results = searched
    from snugnet.search.image_scorer import ImageScorer

    def refuse(*_: Any) -> None:
        raise AssertionError("an image was looked at")

    monkeypatch.setattr(ImageScorer, "accuracies", refuse)
    names = ("Random", "Generated")
    for path in (folder / "seed-0" / "searches").glob("*.json"):
        if path.stem in ("random", "generated"):
            path.unlink()
    few = {**study, "methods": [m for m in study["methods"] if m["name"] in names], "tables": {"T": list(names)}}
    again = run_study(StudyConfig(**few), progress=False)
    for name in names:
        assert rows_of(again, name) == rows_of(results, name)
    archs = [tuple(arch) for _, _, arch in rows_of(again, "Random")]
    assert len(set(archs)) == len(archs)


def test_a_search_on_images_goes_on_where_it_stopped(
    searched: tuple[Path, dict[str, Any], Results], tmp_path: Path, monkeypatch: Any
) -> None:
    """What was scored before the stop is not scored again, and no checkpoint is left at the end."""
    _, study, results = searched
    from snugnet.search.image_scorer import ImageScorer

    few = {**study, "output": str(tmp_path), "tables": {"T": ["Evolved"]}}
    few["methods"] = [m for m in study["methods"] if m["name"] == "Evolved"]
    scored: list[int] = []
    score = ImageScorer.accuracies

    def counted(self: ImageScorer, rows: Any) -> Any:
        if len(scored) == 5:
            scored.append(0)
            raise KeyboardInterrupt
        scored.append(len(rows))
        return score(self, rows)

    monkeypatch.setattr(ImageScorer, "accuracies", counted)
    with pytest.raises(KeyboardInterrupt):
        run_study(StudyConfig(**few), progress=False)
    again = run_study(StudyConfig(**few), progress=False)
    assert rows_of(again, "Evolved") == rows_of(results, "Evolved")
    assert sum(scored) == 4 * 8
    assert [path.name for path in (tmp_path / "seed-0" / "searches").iterdir()] == ["evolved.json"]


@pytest.mark.parametrize(
    ("method", "others", "says"),
    [
        ({"search": "genrator"}, {}, "method A: there is no method 'genrator'"),
        ({"search": "evolution", "settings": {"parent": 3}}, {}, "method A: evolution takes no parent"),
        ({"search": "evolution", "settings": {"parents": 0}}, {}, "parents is a whole number of at least 1"),
        ({"search": "evolution", "settings": {"preset": "best"}}, {}, "there is no preset 'best'"),
        ({"search": "random", "settings": {"at_least": 2}}, {}, "at_least is a share from 0 to 1"),
        ({"search": "predictor", "settings": {"top": 3}}, {}, "stand in the study's section predictor"),
        ({"search": "predictor"}, {"predictor": {"kind": "crystal"}}, "unknown kind of predictor 'crystal'"),
        ({"search": "predictor"}, {"predictor": {"kind": "mlp", "settings": {"step": 1}}}, "mlp takes no step; it takes"),
        ({"search": "predictor"}, {"predictor": {"preset": "best"}}, "there is no preset 'best'"),
        ({"search": "random", "score": "luck"}, {}, "'images' or 'predictor'"),
    ],
)  # fmt: skip
def test_wrong_searches_are_refused_before_anything_is_trained(
    tmp_path: Path, method: dict[str, Any], others: dict[str, Any], says: str
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps(content(tmp_path / "out", {"name": "A", **method}, **others)))
    with pytest.raises(ConfigError, match=says):
        load_study(path)
    if method.get("score") != "luck":  # from Python, what a section checks by itself is pydantic's error
        with pytest.raises(ValueError, match=says):
            run_study(StudyConfig(**json.loads(path.read_text())), progress=False)
    assert not (tmp_path / "out").exists()


def test_shares_are_of_one_range(tmp_path: Path) -> None:
    study = content(tmp_path / "out", {"name": "A", "search": "random"})
    study["supernets"] = {"s": {}, "wider": {"space.width_mult": 0.2}}
    with pytest.raises(
        ConfigError, match="s and wider have not the same range of madds; give the budgets as a list of amounts"
    ):
        run_study(StudyConfig(**study), progress=False)
    with pytest.raises(SnugnetError, match="a share of the range of a cost is from 0% to 100%, got '140%'"):
        run_study(StudyConfig(**{**study, "budgets": ["140%"]}), progress=False)

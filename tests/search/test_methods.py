"""Methods by name: their settings are plain data, and in the smallest of spaces they give what there is."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Self

import numpy as np
import pytest
from toys import conv, head

from snugnet.costs import counted_table
from snugnet.errors import SearchError, SnugnetError
from snugnet.search.driver import run_search
from snugnet.search.evolution import PRESETS, Evolution
from snugnet.search.method import METHODS, Proposals, RandomSearch, make_method
from snugnet.search.nsga2 import NSGA2
from snugnet.search.predictor_search import PredictorSearch
from snugnet.search.problem import Problem
from snugnet.spaces import Choice, Part, Population, SearchSpace


class Handful(SearchSpace):
    """Four architectures: one block or two, the first of two kernels."""

    name = "handful"

    @classmethod
    def create(cls, **options: Any) -> Self:
        choices = (
            Choice("depth", (1, 2), "depth", (1,)),
            Choice("k1", (1, 3), "kernel_size", (0,)),
        )
        parts = (
            Part("b1", (1,), lambda k: conv("b1", 4, k, 4)),
            Part("b2", (0,), lambda d: conv("b2", 4, 3, 4) if d > 1 else ()),
            Part("head", (), head),
        )
        return cls({}, choices, parts, 3, 4)


class FromSamples:
    """Proposes samples."""

    id = "samples"

    def __call__(self, problem: Problem, n: int, rng: np.random.Generator) -> Population:
        return problem.sample(n, rng)


def handful(**limits: float | str) -> Problem:
    space = Handful.create()
    tables = {name: counted_table(space, name) for name in ("params", "madds")}
    score = lambda rows: rows @ np.array([1.0, 2.0])  # noqa: E731
    return Problem(space, score, tables, limits, proposer=FromSamples())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", METHODS.names())
@pytest.mark.parametrize("share", [None, "60%"])
def test_a_space_of_a_handful_gives_what_it_has_and_says_so(name: str, share: str | None) -> None:
    case = handful(**({} if share is None else {"madds": share}))
    every = np.unique(case.space.sample(100, np.random.default_rng(0)), axis=0)
    assert len(every) == case.space.size == 4
    within = every[case.feasible(every)]
    result = run_search(case, make_method(name), progress=False)
    assert {tuple(row) for row in result.archive.rows} == {tuple(row) for row in within}
    assert result.score == case.score(within).max()
    words = "that is the whole space handful" if share is None else "no more new ones were found"
    assert result.shortfall.startswith(f"{len(within)} architectures were evaluated, of up to ")
    assert result.shortfall.endswith(words)


def test_a_search_that_evaluates_all_it_wanted_says_nothing() -> None:
    assert run_search(handful(), RandomSearch(4), progress=False).shortfall == ""


@pytest.mark.parametrize(
    ("name", "settings", "method"),
    [
        ("random", {}, RandomSearch(1000)),
        ("random", {"evaluations": 7}, RandomSearch(7)),
        ("random", {"samples": 7}, RandomSearch(7)),
        ("generator", {}, Proposals(100)),
        ("generator", {"evaluations": 7}, Proposals(7)),
        ("evolution", {}, PRESETS["spos"]),
        ("evolution", {"preset": "ofa"}, PRESETS["ofa"]),
        ("evolution", {"preset": "ofa", "generations": 5}, replace(PRESETS["ofa"], generations=5)),
        (
            "evolution",
            {"preset": "attentive-nas", "population": 64, "rounds": 5},
            Evolution(128, 32, 32, 4, 32, another=True),
        ),
        ("evolution", {"probability": 1}, Evolution(probability=1.0)),
        ("nsga2", {}, NSGA2(None, 50, 19)),
        ("nsga2", {"population": 6, "rounds": 3, "costs": ["params"]}, NSGA2(("params",), 6, 2)),
        ("predictor", {}, PredictorSearch(500, 20, "climb", "best")),
        ("predictor", {"evaluations": 260, "predictor": "mlp"}, PredictorSearch(250, 10, "climb", "mlp")),
        ("predictor", {"optimiser": "ascent", "predictor": "mlp"}, PredictorSearch(500, 20, "ascent", "mlp")),
    ],
)
def test_settings_by_name(name: str, settings: dict[str, Any], method: object) -> None:
    made = make_method(name, settings)
    assert made == method
    plain = json.loads(json.dumps(made.settings()))
    assert plain.pop("method") == name
    assert make_method(name, plain) == made  # what a checkpoint or a report holds makes the method again


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("luck", {}, "there is no method 'luck'; methods: evolution, generator, nsga2, predictor, random"),
        ("random", {"sample": 3}, "random takes no sample; it takes evaluations, samples"),
        (
            "evolution",
            {"evaluations": 3},
            "evolution takes no evaluations; it takes population, rounds, preset, initial",
        ),
        ("evolution", {"preset": "best"}, "there is no preset 'best' of evolution; presets: spos, attentive-nas, ofa"),
        ("random", {"samples": "many"}, "random: samples is 'many': input should be a valid integer"),
        ("random", {"samples": True}, "random: samples is True; true is a yes or no"),
        ("random", {"samples": 0}, "random: samples is a whole number of at least 1, got 0"),
        ("random", {"evaluations": 0}, "evaluations is a whole number of at least 1, got 0"),
        ("random", {"evaluations": "3"}, "evaluations is a whole number of at least 1, got '3'"),
        ("evolution", {"probability": float("nan")}, "evolution: probability is nan"),
        ("nsga2", {"costs": "madds"}, "nsga2: costs is 'madds'"),
        ("nsga2", {"costs": []}, "nsga2: costs is empty"),
        ("predictor", {"optimiser": "luck"}, "there is no optimiser 'luck'; known: ascent, climb, evolution"),
        ("predictor", {"predictor": "luck"}, "there is no kind of predictor 'luck'"),
        ("predictor", {"evaluations": 9}, "evaluations is at least 21"),
        ("random", {"samples": 3, "evaluations": 4}, "random: samples follows from evaluations; leave one out"),
        ("nsga2", {"rounds": 3, "generations": 7}, "nsga2: generations follows from rounds; leave one out"),
    ],
)
def test_settings_that_are_none(name: str, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(SnugnetError) as caught:
        make_method(name, settings)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (PredictorSearch(samples=5), "best is fitted on 20 samples at least, got 5"),
        (PredictorSearch(optimiser="ascent"), "ascent needs gradients, and best has none"),
        (NSGA2(("watts",)), "no cost 'watts'; costs: params, madds"),
    ],
)
def test_a_method_that_does_not_fit_the_problem_is_refused_before_any_work(method: Any, says: str) -> None:
    asked: list[int] = []
    case = replace(handful(), score=lambda rows: asked.append(len(rows)) or np.zeros(len(rows)))  # type: ignore[func-returns-value]
    with pytest.raises(SearchError, match=says):
        run_search(case, method, progress=False)
    assert not asked


def test_without_a_proposer_nothing_is_proposed() -> None:
    with pytest.raises(SearchError, match="nothing proposes architectures"):
        run_search(replace(handful(), proposer=None), Proposals(), progress=False)


def test_nsga2_minimises_what_is_limited_or_the_first_cost() -> None:
    assert NSGA2().on(handful()).costs == ("params",)
    assert NSGA2().on(handful(madds="60%")).costs == ("madds",)
    assert NSGA2(("madds", "params")).on(handful()).costs == ("madds", "params")
    with pytest.raises(SearchError, match="no cost to minimise"):
        NSGA2().on(replace(handful(), tables={}))


def test_limits_may_be_shares_of_the_range() -> None:
    low, high = handful().tables["madds"].range
    assert handful(madds="25%").limits["madds"] == pytest.approx(low + 0.25 * (high - low))

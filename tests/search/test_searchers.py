"""Laws of every search method, and brute force where a space can be enumerated."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.svm import SVR
from toys import ALL, SPACES, random_table

from snugnet.errors import BusyError, PredictorError, SearchError
from snugnet.predictors import PREDICTORS, Predictor
from snugnet.search.archive import Archive, keys
from snugnet.search.driver import CHECKPOINT, run_search
from snugnet.search.evolution import PRESETS, Evolution
from snugnet.search.method import Method, Proposals, RandomSearch, Round
from snugnet.search.nsga2 import NSGA2, objectives, pareto_front
from snugnet.search.predictor_search import PredictorSearch
from snugnet.search.problem import Problem
from snugnet.search.result import SearchResult
from snugnet.spaces import Population, SearchSpace


def problem(space: SearchSpace, seed: int = 0, shares: tuple[float, ...] = (0.6, 0.8), wave: bool = True) -> Problem:
    """Random costs and a random score of groups of choices (in waves, which no linear model fits); feasible limits."""
    rng = np.random.default_rng(seed)
    names = ("a", "b")[: len(shares)]
    tables = {name: random_table(space, rng, whole=True, name=name) for name in ("a", "b")}
    score = random_table(space, rng, whole=False)
    some = ALL[space.name][rng.integers(len(ALL[space.name]))][None]
    limits = {}
    for name, share in zip(names, shares, strict=True):
        low, high = tables[name].range
        limits[name] = max(low + share * (high - low), float(tables[name](some)[0]))
    return Problem(space, (lambda rows: np.sin(score(rows) / 20)) if wave else score, tables, limits)


def within(case: Problem) -> Population:
    """Every architecture that meets all limits."""
    rows = ALL[case.space.name]
    return rows[case.feasible(rows)]


class SVRPredictor(Predictor):
    """Quick, and fitted to as few as two architectures."""

    kind = "svr"
    minimum_rows = 2

    @classmethod
    def fit(cls, space: SearchSpace, rows: Population, values: Any, **settings: Any) -> SVRPredictor:
        made = cls(space)
        made.model = SVR().fit(space.one_hot(rows), values)
        return made

    def outputs(self, rows: Population) -> np.ndarray:
        return self.model.predict(self.space.one_hot(rows))[:, None]

    def arrays(self) -> dict[str, np.ndarray]:
        return {}

    @classmethod
    def restore(cls, space: SearchSpace, targets: Sequence[str], arrays: Mapping[str, np.ndarray]) -> SVRPredictor:
        raise PredictorError("svr: it is for these tests and not kept on disk")


@pytest.fixture(autouse=True)
def svr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PREDICTORS._own, "svr", SVRPredictor)


@dataclass(frozen=True)
class Source:
    """Proposes what a function gives."""

    function: Callable[[int, np.random.Generator], Population]
    id: str = "source"

    def __call__(self, problem: Problem, n: int, rng: np.random.Generator) -> Population:
        return self.function(n, rng)


with pytest.MonkeyPatch.context() as patch:
    patch.setitem(PREDICTORS._own, "svr", SVRPredictor)
    METHODS: dict[str, Method] = {
        "random": RandomSearch(40),
        "evolution": Evolution(initial=10, mutated=6, crossed=6, generations=5, parents=4),
        "nsga2": NSGA2(("a", "b"), population=12, generations=4),
        "predictor": PredictorSearch(predictor="svr", samples=30, top=5),
        "predictor-evolution": PredictorSearch(predictor="forest", samples=30, top=5, optimiser="evolution"),
    }
spaces = pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def search(case: Problem, method: Method, **options: object) -> SearchResult:
    return run_search(case, method, progress=False, **options)  # type: ignore[arg-type]


@spaces
@methods
@settings(max_examples=5)
@given(seed=st.integers(0, 2**16))
def test_all_that_is_evaluated_is_canonical_within_limits_and_evaluated_once(
    space: SearchSpace, method: Method, seed: int
) -> None:
    case = problem(space, seed)
    asked: list[bytes] = []

    def score(rows: Population) -> np.ndarray:
        asked.extend(keys(rows))
        return case.score(rows)

    result = search(replace(case, score=score), method, seed=seed)
    rows = result.archive.rows
    assert len(asked) == len(set(asked)) == len(rows) <= method.evaluations
    assert (space.canonical(rows) == rows).all()
    assert case.feasible(rows).all()
    assert np.array_equal(result.archive.scores, case.score(rows))
    assert result.score == result.archive.scores.max()


@methods
def test_given_architectures_come_first_and_beside_the_methods_own(tmp_path: Path, method: Method) -> None:
    case = problem(SPACES[0])
    every = ALL[case.space.name]
    given = within(case)[[5, 2, 5]]
    begun = replace(case, start=np.concatenate([every[~case.feasible(every)][:1], given]))
    calls: list[int] = []

    def killed(rows: Population) -> np.ndarray:
        calls.append(len(rows))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return case.score(rows)

    whole = search(begun, method, seed=3, chunk=5)
    assert np.array_equal(whole.archive.rows[:2], given[:2])
    assert case.feasible(whole.archive.rows).all()
    assert len(whole.archive) <= whole.wanted == method.evaluations + 2
    with pytest.raises(KeyboardInterrupt):
        search(replace(begun, score=killed), method, seed=3, chunk=5, folder=tmp_path)
    resumed = search(begun, method, seed=3, chunk=5, folder=tmp_path)
    assert resumed.archive.values.tobytes() == whole.archive.values.tobytes()
    with pytest.raises(SearchError, match="not the same start"):
        search(case, method, seed=3, chunk=5, folder=tmp_path)


@methods
@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_killed_search_goes_on_as_if_it_had_not_been(tmp_path: Path, method: Method, stop: int) -> None:
    case = problem(SPACES[0])
    before: list[int] = []

    def killed(rows: Population) -> np.ndarray:
        if len(before) == stop:
            raise KeyboardInterrupt
        before.append(len(rows))
        return case.score(rows)

    whole = search(case, method, seed=3, chunk=5)
    with pytest.raises(KeyboardInterrupt):
        search(replace(case, score=killed), method, seed=3, chunk=5, folder=tmp_path, checkpoint_seconds=0)
    scored = 0

    def counted(rows: Population) -> np.ndarray:
        nonlocal scored
        scored += len(rows)
        return case.score(rows)

    resumed = search(replace(case, score=counted), method, seed=3, chunk=5, folder=tmp_path)
    assert np.array_equal(resumed.archive.rows, whole.archive.rows)
    assert resumed.archive.values.tobytes() == whole.archive.values.tobytes()
    assert np.array_equal(resumed.survivors, whole.survivors)
    assert scored == len(whole.archive) - sum(before)  # nothing that was scored is lost
    search(replace(case, score=killed), method, seed=3, chunk=5, folder=tmp_path)  # nothing is left to score


def test_a_checkpoint_of_another_search_is_refused(tmp_path: Path) -> None:
    case, method = problem(SPACES[0]), RandomSearch(8)
    search(case, method, folder=tmp_path, scorer="one")
    others = {
        "seed": lambda: search(case, method, folder=tmp_path, scorer="one", seed=1),
        "scorer": lambda: search(case, method, folder=tmp_path, scorer="two"),
        "settings": lambda: search(case, RandomSearch(9), folder=tmp_path, scorer="one"),
        "budgets": lambda: search(replace(case, limits={}), method, folder=tmp_path, scorer="one"),
        "space": lambda: search(problem(SPACES[1]), method, folder=tmp_path, scorer="one"),
    }
    for word, other in others.items():
        with pytest.raises(SearchError, match=f"another search.*{word}"):
            other()
    assert len(search(case, method, folder=tmp_path, seed=1, fresh=True).archive) == 8
    (tmp_path / CHECKPOINT).write_bytes(b"PK damaged")
    with pytest.raises(SearchError, match="no checkpoint that can be read"):
        search(case, method, folder=tmp_path)


def test_another_search_in_the_same_folder_is_refused_while_one_is_at_work(tmp_path: Path) -> None:
    """And what a killed one left of a checkpoint is removed."""
    case, refused = problem(SPACES[0]), []
    (tmp_path / f".{CHECKPOINT}.0123.tmp").write_bytes(b"half")

    def score(rows: Population) -> NDArray[np.float64]:
        with ThreadPoolExecutor(1) as pool, pytest.raises(BusyError, match="in use by") as caught:
            pool.submit(search, case, RandomSearch(8), folder=tmp_path).result()
        refused.append(caught.value)
        return case.score(rows)

    search(replace(case, score=score), RandomSearch(8), folder=tmp_path)
    assert refused
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


@pytest.mark.parametrize(
    "damage",
    [
        {"rows": lambda rows: rows[:, :2]},
        {"rows": lambda rows: rows + 99},
        {"rows": lambda rows: rows.astype(float)},
        {"rows": lambda rows: np.repeat(rows[:1], len(rows), axis=0)},
        {"values": lambda values: values[:3]},
        {"values": lambda values: values * np.nan},
        {"survivors": lambda survivors: survivors + 999},
        {"survivors": lambda survivors: survivors + 0.5},
        {"state": lambda state: np.array("[]")},
        {"state": lambda state: np.array(json.dumps({**json.loads(str(state)), "of": 3}))},
        {"state": lambda state: np.array(json.dumps({**json.loads(str(state)), "done": -1}))},
        {"state": lambda state: np.array(json.dumps({**json.loads(str(state)), "done": 99}))},
        {"state": lambda state: np.array(json.dumps({**json.loads(str(state)), "entered": 99}))},
    ],
    ids=lambda damage: next(iter(damage)),
)
def test_a_checkpoint_whose_arrays_do_not_fit_is_refused(tmp_path: Path, damage: dict[str, Any]) -> None:
    case, method = problem(SPACES[0]), METHODS["evolution"]
    search(case, method, folder=tmp_path)
    with np.load(tmp_path / CHECKPOINT) as file:
        content = dict(file)
    np.savez(tmp_path / CHECKPOINT, **{**content, **{name: change(content[name]) for name, change in damage.items()}})
    with pytest.raises(SearchError, match=r"no checkpoint that can be read.*--fresh"):
        search(case, method, folder=tmp_path)


@methods
def test_an_interrupt_saves_what_was_scored(tmp_path: Path, method: Method) -> None:
    case, before = problem(SPACES[0]), [0]

    def interrupted(rows: Population) -> np.ndarray:
        if before[0] >= 5:
            raise KeyboardInterrupt
        before[0] += len(rows)
        return case.score(rows)

    with pytest.raises(KeyboardInterrupt):  # long before the next checkpoint was due
        search(replace(case, score=interrupted), method, chunk=5, folder=tmp_path, checkpoint_seconds=1000)
    with np.load(tmp_path / CHECKPOINT) as file:
        assert len(file["rows"]) == before[0]
    resumed, whole = search(case, method, chunk=5, folder=tmp_path), search(case, method, chunk=5)
    assert np.array_equal(resumed.archive.rows, whole.archive.rows)
    assert np.array_equal(resumed.survivors, whole.survivors)


@pytest.mark.parametrize("replayed", [0, 1])
def test_a_second_interrupt_loses_no_score(tmp_path: Path, replayed: int) -> None:
    case, asked = problem(SPACES[0]), list[bytes]()
    rows = np.unique(within(case), axis=0)[:20]

    def stopped(least: int) -> Callable[[Population], np.ndarray]:
        def score(chunk: Population) -> np.ndarray:
            if len(asked) >= least:
                raise KeyboardInterrupt
            asked.extend(keys(chunk))
            return case.score(chunk)

        return score

    def interrupted(n: int, rng: np.random.Generator) -> Population:
        raise KeyboardInterrupt

    def run(least: int, source: Callable[..., Population] = lambda n, rng: rows) -> SearchResult:
        return search(
            replace(case, score=stopped(least), proposer=Source(source)), Proposals(20), chunk=5, folder=tmp_path
        )

    with pytest.raises(KeyboardInterrupt):
        run(10)
    with pytest.raises(KeyboardInterrupt):  # before any of what was scored is entered again, or after all of it
        run(10, *([] if replayed else [interrupted]))
    result = run(100)
    assert len(asked) == len(set(asked)) == len(result.archive) == 20
    whole = search(replace(case, proposer=Source(lambda n, rng: rows)), Proposals(20), chunk=5)
    assert result.archive.values.tobytes() == whole.archive.values.tobytes()


@pytest.mark.parametrize(
    "method", [m for name, m in METHODS.items() if name.startswith("predictor")], ids=lambda m: m.optimiser
)
def test_a_problem_without_costs(method: PredictorSearch) -> None:
    case = Problem(SPACES[0], problem(SPACES[0]).score, {})
    assert len(search(case, method).archive) == method.evaluations
    scores = np.random.default_rng(0).random((3, int(case.space.offsets[-1])))
    assert np.array_equal(case.decode(scores), problem(SPACES[0], shares=()).decode(scores))


@spaces
@pytest.mark.parametrize("seed", range(4))
def test_evolution_finds_the_best_of_a_small_space(space: SearchSpace, seed: int) -> None:
    case = problem(space, seed)
    best = case.score(within(case)).max()
    assert search(case, Evolution(generations=40), seed=seed).score == best


@pytest.mark.parametrize("seed", range(3))
def test_the_front_is_the_brute_force_front(seed: int) -> None:
    case = problem(SPACES[0], seed, shares=(0.7,))
    every = Archive(case.space.d)
    every.evaluate(within(case), case.score, chunk=1000)
    values = objectives(case, every, ("a",))
    dominated = ((values[None] <= values[:, None]).all(2) & (values[None] < values[:, None]).any(2)).any(1)
    result = search(case, NSGA2(("a",), population=40, generations=40), seed=seed)
    front = objectives(case, result.archive, ("a",))[pareto_front(result, ("a",))]
    assert {tuple(point) for point in front} == {tuple(point) for point in values[~dominated]}
    assert (np.diff(front[:, 1]) > 0).all()


def test_a_front_needs_two_points() -> None:
    case = problem(SPACES[0])
    alone = replace(case, limits={"a": case.tables["a"].range[0]})
    result = search(alone, NSGA2(("a",), population=4, generations=2))
    with pytest.raises(SearchError, match="has 1 point"):
        pareto_front(result, ("a",))


@spaces
@methods
def test_where_next_to_nothing_fits_every_method_ends(space: SearchSpace, method: Method) -> None:
    case = problem(space)
    alone = replace(case, limits={name: table.range[0] for name, table in list(case.tables.items())[:1]})
    fits = within(alone)
    result = search(alone, method)  # a predictor is not fitted on so few
    assert len(result.archive) == len(fits)
    both = Problem(space, case.score, case.tables, {n: float(t(fits[:1])[0]) for n, t in case.tables.items()})
    assert both.feasible(both.sample(20, np.random.default_rng(0))).all()


@pytest.mark.parametrize("samples", range(2, 9))
def test_a_predictor_search_of_few_samples(samples: int) -> None:
    result = search(problem(SPACES[0]), PredictorSearch(predictor="svr", samples=samples, top=2))
    assert len(result.archive) == samples + 2


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)], ids=["in order", "reversed"])
def test_the_worst_survivor_is_no_parent(order: slice, monkeypatch: pytest.MonkeyPatch) -> None:
    """However pymoo orders those that survive."""
    case, method = problem(SPACES[0]), NSGA2(("a",), population=12)
    archive = Archive(case.space.d)
    rows = within(case)
    rows = rows[np.argsort(case.score(rows) * 1000 - case.tables["a"](rows))][::5][:12]
    dearest = rows[np.argmax(case.tables["a"](rows))]
    archive.evaluate(rows, lambda rows: np.where((rows == dearest).all(1), -10.0, case.score(rows)), chunk=100)
    parents: list[Population] = []
    ranked = NSGA2._ranked

    def crossover(space: SearchSpace, mothers: Population, fathers: Population, rng: np.random.Generator) -> Population:
        parents.extend([mothers, fathers])
        return mothers

    monkeypatch.setattr(SearchSpace, "crossover", crossover)
    monkeypatch.setattr(NSGA2, "_ranked", lambda method, now, pool: ranked(method, now, pool)[order])
    none = np.zeros((0, case.space.d), dtype=np.int16)
    method.propose(Round(case, archive, np.arange(12), 1, np.random.default_rng(0), lambda: none))
    assert not (np.concatenate(parents) == dearest).all(1).any()
    assert len(np.unique(np.concatenate(parents), axis=0)) > 5


def test_what_was_scored_is_kept_when_the_score_fails(tmp_path: Path) -> None:
    case = problem(SPACES[0])
    calls: list[int] = []

    def score(rows: Population) -> np.ndarray:
        calls.append(len(rows))
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return case.score(rows)

    with pytest.raises(RuntimeError):
        search(replace(case, score=score), RandomSearch(40), folder=tmp_path, chunk=10)
    calls.clear()
    calls.extend([0] * 3)
    again = search(replace(case, score=score), RandomSearch(40), folder=tmp_path, chunk=10)
    assert sum(calls[3:]) == len(again.archive) - 20
    assert len(again.archive) > 30


def test_proposals_are_evaluated_once_and_the_best_is_kept() -> None:
    case = problem(SPACES[0])
    rows = within(case)[:7]
    case = replace(case, proposer=Source(lambda n, rng: rows[rng.integers(len(rows), size=n)]))
    result = search(case, Proposals(20))
    assert len(result.archive) <= 7
    assert result.score == result.archive.scores.max()


def test_the_papers_settings() -> None:
    assert {name: preset.evaluations for name, preset in PRESETS.items()} == {
        "spos": 1000, "attentive-nas": 5632, "ofa": 50_100,
    }  # fmt: skip
    assert {name: preset.rounds for name, preset in PRESETS.items()} == {"spos": 20, "attentive-nas": 21, "ofa": 501}
    assert all(preset.resized(rounds=preset.rounds) == preset for preset in PRESETS.values())
    small = PRESETS["attentive-nas"].resized(population=64, rounds=5)
    assert (small.initial, small.mutated, small.crossed, small.parents, small.rounds) == (128, 32, 32, 32, 5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomSearch(0),
        lambda: Evolution(parents=0),
        lambda: Evolution(mutated=0, crossed=0),
        lambda: Evolution(probability=0),
        lambda: NSGA2(()),
        lambda: NSGA2(("a",), population=1),
        lambda: PredictorSearch(samples=1),
        lambda: PredictorSearch(optimiser="luck"),
        lambda: PredictorSearch(predictor="luck"),
    ],
)
def test_settings_that_make_no_sense(make: Callable[[], Method]) -> None:
    with pytest.raises(SearchError):
        make()


def test_scores_that_are_no_scores() -> None:
    case = problem(SPACES[0])
    with pytest.raises(SearchError, match="not finite"):
        search(replace(case, score=lambda rows: np.full(len(rows), np.nan)), RandomSearch(3))
    with pytest.raises(SearchError, match="shape"):
        search(replace(case, score=lambda rows: np.zeros((len(rows), 3))), RandomSearch(3))
    with pytest.raises(SearchError, match="no cost 'c'"):
        search(case, NSGA2(("c",)))


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
@pytest.mark.parametrize("shares", [(0.7,), (1.3,), (0.7, 0.8)], ids=["one", "nothing binds", "two"])
def test_random_samples_near_the_budget(space: SearchSpace, shares: tuple[float, ...]) -> None:
    """All that cost so much of the first budget, and meet the others; a budget beyond the dearest counts as that."""
    case = problem(space, shares=shares)
    rows, table = within(case), case.tables["a"]
    least = 0.6 * min(case.limits["a"], table.range[1])
    found = run_search(case, RandomSearch(20_000, at_least=0.6), progress=False).archive
    assert set(keys(found.rows)) == set(keys(rows[table(rows) >= least]))
    with pytest.raises(SearchError, match="a share of a budget, and there is none"):
        run_search(replace(case, limits={}), RandomSearch(5, at_least=0.6), progress=False)

"""The laws of a search method."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snugnet.search.driver import run_search
from snugnet.search.method import Method
from snugnet.search.problem import Problem
from snugnet.search.result import SearchResult
from snugnet.spaces import Population, get_space
from snugnet.testing.contract import ContractError, holds, works
from snugnet.testing.problems import Samples, small_problem


def check_method(method: Method | type[Method], problem: Problem | None = None, *, seed: int = 0) -> None:
    """Run a method as every command, recipe and study runs it: to its end, stopped and gone on with, in a space that is too small.

    Args:
        method: with settings that make it short, or its class, if it can be made without settings.
        problem: that it is tried on; a cheap one without it.
        seed: of its draws.

    Raises:
        ContractError: the first law that is broken, and what was found.
    """
    what = f"search method {getattr(method, 'name', method)!r}"
    if isinstance(method, type):
        with works(what, "every setting has a default, so that the method can be asked for by its name"):
            method = method()
    _check_settings(method, what)
    problem = problem or small_problem(seed=seed)
    whole = _run(method, problem, what, seed)
    _check_result(method, problem, whole, what)
    again = _run(method, problem, what, seed)
    same = np.array_equal(whole.archive.rows, again.archive.rows)
    holds(same, what, "what it evaluates is a function of its settings and the seed (draw from Round.rng alone)")
    _check_resuming(method, problem, whole, what, seed)
    tiny = get_space(
        "mobilenet-v2",
        width_mult=0.25,
        resolution=16,
        blocks=[1, 1, 1, 1, 1, 1],
        kernel_sizes=[3],
        expand_ratios=[3, 6],
    )
    few = Problem(tiny, lambda rows: rows.sum(1).astype(float), dict(small_problem(tiny).tables), proposer=Samples())
    result = _run(method, few, f"{what} in a space of {tiny.size} architectures", seed)
    holds(len(result.archive) <= tiny.size, what, "gives what there is where a space is small")


def _check_settings(method: Method, what: str) -> None:
    kind = type(method)
    frozen = getattr(getattr(kind, "__dataclass_params__", None), "frozen", False)
    holds(frozen, what, "is a frozen dataclass: its fields are its settings (--set key=value)")
    holds(isinstance(kind.name, str) and kind.name, what, "name is text", repr(getattr(kind, "name", None)))
    with works(what, "settings are plain JSON, which a checkpoint keeps"):
        settings = json.loads(json.dumps(method.settings()))
    fields = {field.name for field in dataclasses.fields(kind) if field.init}
    holds(fields <= settings.keys(), what, "settings() has every field", sorted(fields - settings.keys()))
    with works(what, "can be made again from its own settings"):
        kind(**{name: getattr(method, name) for name in fields})
    for key in ("rounds", "evaluations"):
        value = getattr(method, key)
        holds(isinstance(value, int) and value >= 1, what, f"{key} is a whole number of at least 1", repr(value))


def _run(method: Method, problem: Problem, what: str, seed: int, **options: Any) -> SearchResult:
    with works(what, "runs to its end"):
        return run_search(problem, method, seed=seed, progress=False, **options)


def _check_result(method: Method, problem: Problem, result: SearchResult, what: str) -> None:
    rows, space = result.archive.rows, problem.space
    limit = method.on(problem).evaluations
    holds(len(rows) <= limit, what, f"evaluates at most {limit} architectures, as it says", len(rows))
    holds(np.array_equal(space.rows(rows), rows), what, "proposes canonical rows (space.rows gives them)")
    holds(
        problem.feasible(rows).all(),
        what,
        "proposes rows within all limits (Round.samples and Round.children give such)",
    )
    places = method.on(problem).winners(result)
    holds(len(places) >= 1 and places.max() < len(rows), what, "winners are places in the archive", places)
    if not method.gives_front:
        best = result.archive.scores.max()
        holds(result.archive.scores[places[0]] == best, what, "the winner is the best that was evaluated")


def _check_resuming(method: Method, problem: Problem, whole: SearchResult, what: str, seed: int) -> None:
    """Stop it at several places; each time it goes on to the very same end, and scores nothing twice."""
    for stop in sorted({1, len(whole.archive) // 2, len(whole.archive) - 1} - {0}):
        with tempfile.TemporaryDirectory() as folder:
            scored: list[bytes] = []
            stopped = _counting(problem, scored, stop)
            try:
                run_search(stopped, method, seed=seed, progress=False, folder=Path(folder), chunk=1)
            except _Stop:
                pass
            except Exception as error:
                raise ContractError(
                    f"{what}: can be stopped while it runs; found: {type(error).__name__}: {error}"
                ) from error
            gone_on = _counting(problem, scored, None)
            result = _run(
                method, gone_on, f"{what}, stopped after {stop} architectures", seed, folder=Path(folder), chunk=1
            )
        same = np.array_equal(result.archive.rows, whole.archive.rows)
        holds(same, what, f"stopped after {stop} architectures and gone on with, it ends as if it had not been")
        holds(len(set(scored)) == len(scored), what, "no architecture is scored twice, also where it was stopped")


class _Stop(BaseException):
    """The end of a search from outside."""


def _counting(problem: Problem, scored: list[bytes], most: int | None) -> Problem:
    """The same problem; what is scored is written down, and after so many rows the search is stopped."""

    def score(rows: Population) -> NDArray[np.floating]:
        for row in rows:
            if most is not None and len(scored) >= most:
                raise _Stop
            scored.append(row.tobytes())
        return problem.score(rows)

    return dataclasses.replace(problem, score=score)

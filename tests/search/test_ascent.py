"""The ascent finds what brute force finds, and stays within limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import ALL, SPACES, random_table

from snugnet.costs import counted_table
from snugnet.predictors import MLPPredictor
from snugnet.search.optimisers.ascent import Ascent
from snugnet.search.problem import Problem
from snugnet.spaces import SearchSpace, get_space


def random_predictor(space: SearchSpace, seed: int) -> MLPPredictor:
    """An MLP with random weights: as rugged as a predictor can be."""
    torch.manual_seed(seed)
    return MLPPredictor(
        space,
        torch.nn.Sequential(
            torch.nn.Linear(int(space.offsets[-1]), 16), torch.nn.ReLU(), torch.nn.Linear(16, 16), torch.nn.ReLU(),
            torch.nn.Linear(16, 1),
        ),
    )  # fmt: skip


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shares", [(), (0.4,), (0.5, 0.6)])
def test_finds_the_best_of_a_small_space(space: SearchSpace, seed: int, shares: tuple[float, ...]) -> None:
    rng = np.random.default_rng(seed)
    tables = {name: random_table(space, rng, whole=False, name=name) for name in "ab"[: len(shares)]}
    limits = {n: float(np.quantile(tables[n](ALL[space.name]), share)) for n, share in zip("ab", shares, strict=False)}
    predictor = random_predictor(space, seed)
    case = Problem(space, predictor.predict, tables, limits, gradients=predictor.gradients)
    rows, scores = Ascent().maximise(case, seed=seed)
    assert case.feasible(rows).all()
    assert (space.canonical(rows) == rows).all()
    assert len(np.unique(rows, axis=0)) == len(rows)
    assert (np.diff(scores) <= 0).all()
    assert np.allclose(scores, predictor.predict(rows), atol=1e-5)
    every = ALL[space.name][case.feasible(ALL[space.name])]
    assert scores[0] == pytest.approx(predictor.predict(every).max(), abs=1e-5)


def test_gradients_are_those_of_the_module() -> None:
    space = get_space("ofa-mobilenet-v3")
    predictor = random_predictor(space, 0)
    rows = space.sample(20, np.random.default_rng(0))
    code = torch.from_numpy(space.one_hot(rows)).requires_grad_()
    predictor.module(code)[:, 0].sum().backward()
    assert code.grad is not None
    assert np.allclose(predictor.gradients(rows), code.grad.numpy(), atol=1e-6)


def test_one_seed_one_result() -> None:
    space = get_space("ofa-mobilenet-v3")
    predictor, table = random_predictor(space, 1), counted_table(space, "madds")
    case = Problem(space, predictor.predict, {"madds": table}, {"madds": 250e6}, gradients=predictor.gradients)
    first, second = (Ascent(starts=8, rounds=2).maximise(case, seed=3)[0] for _ in range(2))
    assert np.array_equal(first, second)
    assert (table(first) <= 250e6).all()


def test_patience_stops_only_what_found_nothing_better() -> None:
    space = get_space("ofa-mobilenet-v3")
    predictor, table = random_predictor(space, 2), counted_table(space, "madds")
    low, high = table.range
    case = Problem(
        space, predictor.predict, {"madds": table}, {"madds": low + 0.4 * (high - low)}, gradients=predictor.gradients
    )
    whole, scores = Ascent(starts=8, rounds=30).maximise(case, seed=5)
    short, short_scores = Ascent(starts=8, rounds=30, patience=2).maximise(case, seed=5)
    assert len(short) < len(whole)
    assert scores[0] >= short_scores[0]
    one, one_scores = Ascent(starts=8, rounds=2).maximise(case, seed=5)
    assert len(one) <= len(short)  # two rounds are run in any case
    assert short_scores[0] >= one_scores[0]

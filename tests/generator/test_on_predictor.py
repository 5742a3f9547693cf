"""The generator on a predictor: codes of gates, fronts, and architectures within budgets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_ascent import random_predictor
from toys import SPACES

from snugnet.costs import counted_table
from snugnet.errors import BudgetError
from snugnet.generator.model import ArchitectureGenerator
from snugnet.generator.on_predictor import (
    Front,
    generate,
    relaxed_code,
    search_front,
    train_by_gates,
    train_on_front,
)
from snugnet.spaces import SearchSpace, get_space, list_spaces

EVERY = [*SPACES, *(get_space(name) for name in list_spaces())]
SMALL = get_space("ofa-mobilenet-v3", width_mult=0.35, resolutions=[32, 48], depths=[1, 2], expand_ratios=[3, 4])


@pytest.mark.parametrize("space", EVERY, ids=lambda space: space.name)
def test_hard_gates_give_the_one_hot_code(space: SearchSpace) -> None:
    rows = (np.random.default_rng(0).random((50, space.d)) * space.num_options).astype(np.int16)  # not canonical
    gates = [torch.eye(int(k))[torch.from_numpy(rows[:, i]).long()] for i, k in enumerate(space.num_options)]
    assert np.array_equal(relaxed_code(gates, space).numpy(), space.one_hot(space.canonical(rows)))


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_soft_gates_give_the_expected_code(space: SearchSpace) -> None:
    """The mean code of architectures drawn choice by choice."""
    generator = torch.Generator().manual_seed(0)
    soft = [torch.rand(1, int(k), generator=generator).softmax(1) for k in space.num_options]
    n = 200_000
    draws = torch.stack([torch.multinomial(p[0], n, replacement=True, generator=generator) for p in soft], 1)
    mean = space.one_hot(space.canonical(draws.numpy().astype(np.int16))).mean(0)
    assert np.abs(relaxed_code(soft, space)[0].numpy() - mean).max() < 5e-3


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30), st.integers(0, 9))
def test_a_front_holds_the_best_within_every_budget(points: list[tuple[int, int]], budget: int) -> None:
    costs, scores = np.array(points, dtype=float).T
    rows = np.arange(len(points), dtype=np.int16)[:, None]
    front = Front.of(rows, costs, scores)
    assert (np.diff(front.costs) > 0).all()
    assert (np.diff(front.scores) > 0).all()
    assert (costs[front.rows[:, 0]] == front.costs).all()
    if (costs <= budget).any():
        place = front.best([budget])[0]
        assert front.costs[place] <= budget
        assert front.scores[place] == scores[costs <= budget].max()
    else:
        assert front.best([budget])[0] == 0


def test_a_generator_learns_the_front_and_meets_budgets() -> None:
    table, predictor = counted_table(SMALL, "madds"), random_predictor(SMALL, 0)
    low, high = table.range
    front = search_front(predictor, table, low, high, searches=6, progress=False)
    generator = ArchitectureGenerator(SMALL, 1, low, high, budgets=8, encoding="multi-path")
    budgets = np.linspace(1.02 * low, high, 5).tolist()

    def gap() -> float:
        rows = generate(generator, predictor, table, budgets)
        assert (table(rows) <= budgets).all()
        return float((front.scores[front.best(budgets)] - predictor.predict(rows)).mean())

    before = gap()
    loss = train_on_front(generator, front, steps=150, progress=False)
    assert loss < 0.35
    assert gap() < before / 4
    with pytest.raises(BudgetError):
        generate(generator, predictor, table, [low / 2])


@pytest.mark.parametrize("encoding", ["single-path", "multi-path"])
def test_gradients_reach_the_generator_through_gates(encoding: str) -> None:
    table, predictor = counted_table(SMALL, "madds"), random_predictor(SMALL, 1)
    generator = ArchitectureGenerator(SMALL, 1, *table.range, encoding=encoding)  # type: ignore[arg-type]
    first = train_by_gates(generator, predictor, table, steps=1, pairs=64, progress=False)
    last = train_by_gates(generator, predictor, table, steps=80, pairs=64, progress=False)
    assert last < first
    assert all(parameter.grad is not None for parameter in generator.parameters())

"""Policies draw what is elastic, uniformly, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from snugnet.costs import counted_table
from snugnet.errors import ConfigError
from snugnet.recipe import StageConfig
from snugnet.spaces import get_space
from snugnet.training.policies import Attentive, CostWindows, Sandwich, Uniform, UniformCost, make_policy

SPACE = get_space("ofa-mobilenet-v3", width_mult=0.1, resolution=16)
KINDS = ["depth", "expand_ratio", "kernel_size"]


def test_nothing_elastic_is_the_largest() -> None:
    drawn = Uniform(SPACE, {}, subnets=3).draw(np.random.default_rng(0))
    assert (drawn == SPACE.largest).all()
    assert drawn.shape == (3, SPACE.d)


@given(st.dictionaries(st.sampled_from(KINDS), st.integers(1, 9)), st.integers(1, 5), st.integers(0, 99))
def test_only_elastic_options_are_drawn(elastic: dict[str, int], subnets: int, seed: int) -> None:
    drawn = Uniform(SPACE, elastic, subnets).draw(np.random.default_rng(seed))
    assert drawn.shape == (subnets, SPACE.d)
    assert np.array_equal(drawn, SPACE.rows(drawn))  # valid and canonical
    active = SPACE.active(drawn)
    for c, choice in enumerate(SPACE.choices):
        least = max(0, len(choice.options) - elastic.get(choice.kind, 1))
        assert (drawn[active[:, c], c] >= least).all()


@pytest.mark.parametrize("count", [2, 3])
def test_elastic_options_are_drawn_uniformly(count: int) -> None:
    drawn = Uniform(SPACE, dict.fromkeys(KINDS, count), 6000).draw(np.random.default_rng(1))
    active = SPACE.active(drawn)
    pvalues = []
    for c in range(SPACE.d):
        counts = np.bincount(drawn[active[:, c], c], minlength=3)
        assert (counts[: 3 - count] == 0).all()
        pvalues.append(chisquare(counts[3 - count :]).pvalue)
    assert min(pvalues) > 1e-5  # 45 tests
    together = np.bincount(drawn[:, 1] * 3 + drawn[:, 2], minlength=9)  # two choices, drawn independently
    assert chisquare(together[together > 0]).pvalue > 1e-4
    assert (together > 0).sum() == count**2


def test_the_generator_decides() -> None:
    policy = Uniform(SPACE, dict.fromkeys(KINDS, 3), 4)
    first, second = (policy.draw(np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, policy.draw(np.random.default_rng(6)))


class _AlmostOne:
    """A generator at the very end of its range."""

    def random(self, shape: Any) -> np.ndarray:
        return np.full(shape, np.nextafter(1.0, 0.0))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_rounding_never_leaves_the_options(count: int) -> None:
    """In float64, 1 + 2 * 0.99... is 3."""
    drawn = Uniform(SPACE, dict.fromkeys(KINDS, count)).draw(_AlmostOne())  # type: ignore[arg-type]
    assert np.array_equal(drawn, SPACE.largest)


def test_what_is_not_allowed() -> None:
    with pytest.raises(ConfigError, match=r"'width' is no kind of choice .* kinds: depth, expand_ratio, kernel_size"):
        Uniform(SPACE, {"width": 2})
    for count in (0, -1):
        with pytest.raises(ConfigError, match="at least 1 option"):
            Uniform(SPACE, {"depth": count})
    with pytest.raises(ConfigError, match="subnets is at least 1"):
        Uniform(SPACE, {}, subnets=0)


TABLE = counted_table(SPACE, "madds")


def worth(rows: np.ndarray) -> np.ndarray:
    """An estimate that architectures of one cost differ in."""
    return SPACE.one_hot(rows) @ np.random.default_rng(3).normal(size=int(SPACE.offsets[-1]))


def stage(**settings: Any) -> StageConfig:
    return StageConfig(name="all", epochs=1, learning_rate=0.1, elastic="all", **settings)


def test_all_is_every_option() -> None:
    everything = dict.fromkeys(KINDS, 3)
    drawn = [Uniform(SPACE, elastic, 4).draw(np.random.default_rng(5)) for elastic in ("all", everything)]
    assert np.array_equal(*drawn)


def test_costs_are_drawn_uniformly() -> None:
    windows = CostWindows.make(TABLE, 8, even=True)
    drawn = UniformCost(windows, 4000).draw(np.random.default_rng(0))
    assert np.array_equal(drawn, SPACE.rows(drawn))
    counts = np.histogram(TABLE(drawn), np.linspace(*TABLE.range, 9))[0]
    assert chisquare(counts).pvalue > 1e-4


def test_costs_are_drawn_as_often_as_uniform_architectures_have_them() -> None:
    windows = CostWindows.make(TABLE, 12, even=False)
    policy = Attentive(windows, 3000, 2)
    drawn = policy.choose(policy.draw(np.random.default_rng(0)), worth)
    edges = np.linspace(*TABLE.range, 13)
    natural = np.histogram(TABLE(SPACE.sample(200_000, np.random.default_rng(1))), edges)[0] / 200_000
    counts = np.histogram(TABLE(drawn), edges)[0]
    common = natural > 0.005
    assert chisquare(counts[common], natural[common] / natural[common].sum() * counts[common].sum()).pvalue > 1e-4


@pytest.mark.parametrize("best", [True, False])
@given(seed=st.integers(0, 1000), k=st.integers(2, 6))
def test_the_best_or_worst_candidate_of_a_cost_is_kept(best: bool, seed: int, k: int) -> None:
    windows = CostWindows.make(TABLE, 16, even=False)
    asked: list[np.ndarray] = []

    def estimate(rows: np.ndarray) -> np.ndarray:
        asked.append(rows)
        return worth(rows)

    policy = Attentive(windows, 2, k, best)
    kept = policy.choose(policy.draw(np.random.default_rng(seed)), estimate)
    (candidates,) = asked
    assert candidates.shape == (2 * k, SPACE.d)
    for row, own in zip(kept, candidates.reshape(2, k, -1), strict=True):
        costs = TABLE(own)
        assert np.ptp(costs) <= np.ptp(TABLE.range) / 16  # all of one window
        scores = worth(own)
        assert np.array_equal(row, own[scores.argmax() if best else scores.argmin()])


def test_sandwich() -> None:
    policy = make_policy(stage(sandwich=True, subnets=2), TABLE)
    drawn = policy.choose(policy.draw(np.random.default_rng(0)), worth)
    assert drawn.shape == (4, SPACE.d)
    assert np.array_equal(drawn[:1], SPACE.largest)
    assert np.array_equal(drawn[-1:], SPACE.smallest)
    shrunk = StageConfig(name="depth", epochs=1, learning_rate=0.1, elastic={"depth": 2}, sandwich=True)
    policy = make_policy(shrunk, TABLE)
    smallest = policy.choose(policy.draw(np.random.default_rng(0)), worth)[-1:]
    assert SPACE.to_dict(smallest)["depth"] == [3] * 5  # the smallest that is in use, not the smallest of all
    assert SPACE.to_dict(smallest)["kernel_size"] == [[7] * 3] * 5


def test_the_policies_of_a_recipe() -> None:
    assert isinstance(make_policy(stage(), TABLE), Uniform)
    assert isinstance(make_policy(stage(sampling="cost"), TABLE), UniformCost)
    up, down = (make_policy(stage(sampling=name, candidates=5), TABLE) for name in ("best-up", "worst-up"))
    assert isinstance(up, Attentive)
    assert isinstance(down, Attentive)
    assert (up.best, down.best, up.candidates) == (True, False, 5)
    both = make_policy(stage(sampling="best-up", sandwich=True), TABLE)
    assert isinstance(both, Sandwich)
    assert isinstance(both.between, Attentive)


def test_windows_without_an_architecture_are_left_out() -> None:
    space = get_space(
        "ofa-mobilenet-v3", width_mult=0.1, resolution=8, depths=[1], kernel_sizes=[3], expand_ratios=[2, 3]
    )
    table = counted_table(space, "madds")
    windows = CostWindows.make(table, 64, even=True)
    assert 1 < len(windows.samplers) < 64
    drawn = windows.sample(200, 1, np.random.default_rng(0))
    assert set(map(bytes, drawn)) <= set(map(bytes, space.sample(5000, np.random.default_rng(1))))

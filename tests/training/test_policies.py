"""Policies draw what is elastic, uniformly, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from snugnet.errors import ConfigError
from snugnet.spaces import get_space
from snugnet.training.policies import Uniform

SPACE = get_space("ofa-mobilenet-v3", width_mult=0.1, resolution=16)
KINDS = ["depth", "expand_ratio", "kernel_size"]


def test_nothing_elastic_is_the_largest() -> None:
    drawn = Uniform(SPACE, {}, subnets=3).sample(0, np.random.default_rng(0))
    assert (drawn == SPACE.largest).all()
    assert drawn.shape == (3, SPACE.d)


@given(st.dictionaries(st.sampled_from(KINDS), st.integers(1, 9)), st.integers(1, 5), st.integers(0, 99))
def test_only_elastic_options_are_drawn(elastic: dict[str, int], subnets: int, seed: int) -> None:
    drawn = Uniform(SPACE, elastic, subnets).sample(0, np.random.default_rng(seed))
    assert drawn.shape == (subnets, SPACE.d)
    assert np.array_equal(drawn, SPACE.rows(drawn))  # valid and canonical
    active = SPACE.active(drawn)
    for c, choice in enumerate(SPACE.choices):
        least = max(0, len(choice.options) - elastic.get(choice.kind, 1))
        assert (drawn[active[:, c], c] >= least).all()


@pytest.mark.parametrize("count", [2, 3])
def test_elastic_options_are_drawn_uniformly(count: int) -> None:
    drawn = Uniform(SPACE, dict.fromkeys(KINDS, count), 6000).sample(0, np.random.default_rng(1))
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
    first, second = (policy.sample(0, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, policy.sample(0, np.random.default_rng(6)))


class _AlmostOne:
    """A generator at the very end of its range."""

    def random(self, shape: Any) -> np.ndarray:
        return np.full(shape, np.nextafter(1.0, 0.0))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_rounding_never_leaves_the_options(count: int) -> None:
    """In float64, 1 + 2 * 0.99... is 3."""
    drawn = Uniform(SPACE, dict.fromkeys(KINDS, count)).sample(0, _AlmostOne())  # type: ignore[arg-type]
    assert np.array_equal(drawn, SPACE.largest)


def test_what_is_not_allowed() -> None:
    with pytest.raises(ConfigError, match=r"'width' is no kind of choice .* kinds: depth, expand_ratio, kernel_size"):
        Uniform(SPACE, {"width": 2})
    for count in (0, -1):
        with pytest.raises(ConfigError, match="at least 1 option"):
            Uniform(SPACE, {"depth": count})
    with pytest.raises(ConfigError, match="subnets is at least 1"):
        Uniform(SPACE, {}, subnets=0)

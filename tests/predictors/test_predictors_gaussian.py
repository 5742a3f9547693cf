"""The parts of the Gaussian process."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snugnet.predictors.likelihood import Kernel, unwarp, warp
from snugnet.predictors.predictor import levels
from snugnet.predictors.thermometer import Thermometer
from snugnet.spaces import get_space, list_spaces


@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=30),
    st.floats(-0.19, 0.19),
)
def test_the_warp_keeps_order_and_has_an_inverse(values: list[float], bend: float) -> None:
    column, bends = np.array(values)[:, None], np.array([bend])
    warped = warp(column, bends)
    assert np.allclose(unwarp(warped, bends), column, atol=1e-6)
    order = np.argsort(column[:, 0], kind="stable")
    assert (np.diff(warped[order, 0]) >= 0).all()
    if abs(bend) < 1e-6:
        assert np.allclose(warped, column, atol=1e-4)


@pytest.mark.parametrize("name", list_spaces())
def test_equal_codes_are_equal_networks(name: str) -> None:
    space = get_space(name)
    steps = Thermometer(space)
    rows = np.unique(space.sample(500, np.random.default_rng(0)), axis=0)
    code = steps(levels(space, rows))
    assert code.shape == (len(rows), len(steps.choice)) == (len(rows), len(steps.group))
    assert len(np.unique(code, axis=0)) == len(rows)
    assert set(np.unique(code)) <= {0.0, 1.0}


def test_neighbouring_options_are_near_each_other() -> None:
    space = get_space("ofa-mobilenet-v3")
    column = space.column["stage1.block1.kernel_size"]
    rows = np.repeat(space.smallest, 3, axis=0)
    rows[:, column] = range(3)
    code = Thermometer(space)(levels(space, rows))
    assert np.abs(code[0] - code[1]).sum() == np.abs(code[1] - code[2]).sum() == 1
    assert np.abs(code[0] - code[2]).sum() == 2


def test_the_kernel_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    scale, slope = rng.random(4), rng.random(4)
    a, b = rng.random((3, 4)), rng.random((2, 4))
    kernel = Kernel(scale, slope, 1.7, 0.1, np.zeros(1))
    expected = [
        [1.7 * np.exp(-(((x - y) * scale) ** 2).sum() / 2) + ((x * slope) * (y * slope)).sum() for y in b] for x in a
    ]
    assert np.allclose(kernel(a, b), expected)
    assert np.linalg.eigvalsh(kernel(a, a)).min() > -1e-12

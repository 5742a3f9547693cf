"""Costs of every registered space, small enough here that all its architectures can be listed."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import chisquare

from snugnet.costs import counted_table, decode, make_sampler, sample
from snugnet.spaces import get_space, list_spaces

FEW = {
    "attentive-nas": {
        "resolutions": [16, 24],
        "widths": [[8], [8, 16], [16], [16], [16, 24], [24, 32], [32], [40], [64]],
        "depths": [[1, 2], [1], [1], [1], [1, 2, 3], [1], [1]],
        "kernel_sizes": [[3], [3], [3], [3], [3, 5], [3], [3]],
        "expand_ratios": [[1], [3], [3], [3], [3, 4], [3], [3]],
    },
    "darts": {"resolutions": [16, 24], "channels": 4, "cells": 4, "nodes": 2, "operations": ["skip_connect", "dil_conv_5x5"]},
    "mobilenet-v2": {"width_mult": 0.25, "resolutions": [16, 24], "blocks": [2, 1, 1, 1, 2, 1], "kernel_sizes": [3],
                     "expand_ratios": [3, 6]},
    "nas-bench-201": {"resolution": 16, "channels": 4, "cells": 1},
    "ofa-mobilenet-v3": {"width_mult": 0.25, "resolutions": [16, 24], "depths": [1, 2], "kernel_sizes": [3],
                         "expand_ratios": [3]},
    "resnet-mixed-precision": {"widths": [8, 8, 16, 16], "resolutions": [16, 24], "bits": [[1, 2], [4, 4]], "channels": [1.0]},
    "spos-shufflenet-v2": {"resolutions": [16, 24], "blocks": [1, 1, 1, 2], "channels": [20, 24, 32, 40],
                           "block_choices": [0, 3], "channel_scales": [0.6, 1.0]},
}  # fmt: skip


@pytest.fixture(scope="module", params=list_spaces())
def space(request):
    return get_space(request.param, num_classes=10, **FEW[request.param])


@pytest.fixture(scope="module")
def every(space):
    """All canonical architectures."""
    rows = np.unique(space.rows(list(product(*map(range, space.num_options.tolist())))), axis=0)
    assert len(rows) == space.size
    return rows


@pytest.mark.parametrize("count", ["madds", "params", "activations"])
def test_counts_are_the_blueprints(space, every, count):
    rows = every[:: max(1, len(every) // 100)]
    table = counted_table(space, count)
    expected = [sum(getattr(layer, count) for layer in space.blueprint(row).layers()) for row in rows]
    assert table(rows).tolist() == expected
    costs = table(every)
    assert table.range == (costs.min(), costs.max())
    hot = [np.eye(n)[rows[:, c]] for c, n in enumerate(space.num_options)]
    assert table.expectation(hot).tolist() == expected


def test_bounds_of_what_is_half_chosen(space, every):
    table = counted_table(space, "madds")
    rng = np.random.default_rng(0)
    partial = np.where(rng.random((20, space.d)) < 0.5, space.sample(20, rng), np.int16(-1))
    low, high = table.bounds(partial)
    costs, matters = table(every), space.active(every)
    for row, least, most in zip(partial, low, high, strict=True):
        fits = ((row == -1) | (every == row) | ~matters).all(axis=1)
        assert (costs[fits].min(), costs[fits].max()) == (least, most)


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.3), (0.4, 0.6)])
@pytest.mark.parametrize("over", ["choices", "architectures"])
def test_samples_are_uniform(space, every, low, high, over):
    table = counted_table(space, "madds")
    costs = table(every)
    least, most = np.quantile(costs, [low, high])
    inside = every[(costs >= least) & (costs <= most)]
    ways = space.ways(inside) if over == "choices" else np.ones(len(inside))
    n = int(30 * ways.sum() / ways.min())
    rows, counts = np.unique(
        sample(table, n, np.random.default_rng(1), most, least, over=over), axis=0, return_counts=True
    )
    assert np.array_equal(rows, inside)
    assert chisquare(counts, ways * (n / ways.sum())).pvalue > 1e-4


def test_decoding_under_two_budgets(space, every):
    tables = [counted_table(space, "madds"), counted_table(space, "params")]
    rng = np.random.default_rng(2)
    scores = rng.gumbel(size=(40, space.offsets[-1]))
    costs = np.stack([table(every) for table in tables], axis=1)
    budgets = costs[rng.integers(len(every), size=40)] * 1.01
    rows = decode(tables, scores, budgets)
    reached = np.stack([table(rows) for table in tables], axis=1)
    assert (reached <= budgets).all()
    sums = space.one_hot(every) @ scores.T
    for i, row in enumerate(rows):
        got = sums[(every == row).all(axis=1), i][0]
        assert got <= sums[(costs <= budgets[i]).all(axis=1), i].max() + 1e-9
        nearly = (costs <= budgets[i] - 0.02 * (budgets[i] - costs.min(axis=0))).all(axis=1)
        assert not nearly.any() or got >= sums[nearly, i].max() - 1e-9


def test_a_window_of_25_mflops():
    """AttentiveNAS (section 4) tries 50,878 times a network, or 12 with its proposal; here a draw is nearly always used."""
    space = get_space("attentive-nas")
    table = counted_table(space, "madds")
    for low in (203e6, 400e6, 1200e6, 1900e6):
        costs = table(sample(table, 2000, np.random.default_rng(0), low + 25e6, low))
        assert ((costs >= low) & (costs <= low + 25e6)).all()
        assert make_sampler(table, low + 25e6, low).tries < 1.05


def test_neighbouring_parts_that_share_choices_are_gone_through_in_order():
    plan = counted_table(get_space("attentive-nas"), "madds").automaton()
    assert sum(len(step.rows) for step in plan.steps) < 2000
    assert max(step.targets for step in plan.steps) == 72

"""What is promised of costs, held against every architecture of a space that is small enough to be listed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from snugnet.costs import CostTable, counted_table, decode, sample
from snugnet.costs.exact.count import Over
from snugnet.extras import needs
from snugnet.spaces import Population, SearchSpace
from snugnet.testing.contract import holds

BRUTE_FORCE = 20_000  # combinations of options that are gone through one by one
COUNTS = ("madds", "params")
DRAWS = 30  # for each architecture, at the least
MOST_DRAWS = 2_000_000
SCENARIOS = 24
NEARLY = 0.02  # of what a budget leaves: so far below it a decode is the best there is
CHANCE = 1e-4  # a uniform draw fails so often


def every_architecture(space: SearchSpace) -> Population | None:
    """All canonical rows, (size, d); None where there are too many combinations to go through."""
    if math.prod(space.num_options.tolist()) > BRUTE_FORCE:
        return None
    every = np.indices(space.num_options.tolist()).reshape(space.d, -1).T.astype(np.int16)
    return np.unique(space.canonical(every), axis=0)


def check_exactness(space: SearchSpace, seed: int = 0) -> None:
    """Ranges, draws under a budget and decodes against brute force; nothing where the space is too large for that.

    Raises:
        ContractError: the first law that is broken.
    """
    every = every_architecture(space)
    if every is None:
        return
    holds(
        len(every) == space.size, space.name, f"size is the number of canonical rows, {len(every):,}", f"{space.size:,}"
    )
    tables = [counted_table(space, name) for name in COUNTS]
    costs = np.stack([table(every) for table in tables], 1)
    for name, table, own in zip(COUNTS, tables, costs.T, strict=True):
        ends = (own.min(), own.max())
        holds(table.range == ends, space.name, f"the range of {name} is that of all architectures, {ends}", table.range)
    rng = np.random.default_rng(seed)
    _check_draws(space, tables[0], every, costs[:, 0], rng)
    _check_decodes(space, tables, every, costs, rng)


def _check_draws(
    space: SearchSpace, table: CostTable, every: Population, costs: NDArray[np.float64], rng: np.random.Generator
) -> None:
    needs("scipy")
    from scipy.stats import chisquare

    least, most = np.quantile(costs, [0.2, 0.7])
    inside = every[(costs >= least) & (costs <= most)]
    each: dict[Over, NDArray[np.float64]] = {"architectures": np.ones(len(inside)), "choices": space.ways(inside)}
    for over, ways in each.items():
        n = math.ceil(DRAWS * ways.sum() / ways.min())
        if n > MOST_DRAWS:  # some architectures are too rare to be met
            continue
        rows, counts = np.unique(sample(table, n, rng, most, least, over=over), axis=0, return_counts=True)
        holds(np.array_equal(rows, inside), space.name, "draws in a window are all the architectures there are in it")
        expected = ways * (n / ways.sum())
        holds(
            len(inside) < 2 or chisquare(counts, expected).pvalue > CHANCE,
            space.name,
            f"draws in a window are uniform over its {over}",
            f"{(counts / expected).min():.2f} to {(counts / expected).max():.2f} of what was expected",
        )


def _check_decodes(
    space: SearchSpace, tables: list[CostTable], every: Population, costs: NDArray[np.float64], rng: np.random.Generator
) -> None:
    """Under two budgets at once."""
    scores = rng.gumbel(size=(SCENARIOS, int(space.offsets[-1])))
    budgets = costs[rng.integers(len(every), size=SCENARIOS)]
    rows = decode(tables, scores, budgets)
    reached = np.stack([table(rows) for table in tables], 1)
    holds((reached <= budgets).all(), space.name, "a decode is never above a budget")
    sums, found = space.one_hot(every) @ scores.T, (space.one_hot(rows) * scores).sum(1)
    for i, got in enumerate(found):
        nearly = (costs <= budgets[i] - NEARLY * (budgets[i] - costs.min(0))).all(1)
        best = sums[nearly, i].max() if nearly.any() else -np.inf
        holds(
            got >= best - 1e-6,
            space.name,
            f"a decode scores at least {best:.6f}, as the best of all rows does",
            f"{got:.6f}",
        )

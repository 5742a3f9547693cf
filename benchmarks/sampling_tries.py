"""Draws that it takes to get one architecture of a given cost: naive, AttentiveNAS's factorised proposal, and ours.

    python benchmarks/sampling_tries.py

A budget is a window of 25 MFLOPs, as in AttentiveNAS (Wang et al., CVPR 2021, section 4.2). *Naive* draws every choice
uniformly until the cost falls into the window. *Factorised* draws every choice on its own in proportion to how often its
options occur among the architectures of a pool of uniform draws whose cost rounds to that budget,
prod_i #(tau, alpha_i = v) / #(tau), with the same rejection. *Ours* is :func:`snugnet.costs.make_sampler`: exact
counts of architectures by cost.

Tries of naive draws are 1 / P(window), and P is measured on as many draws as it takes; where none of them hits, the number of
draws is a lower bound. Means over budgets are of two kinds: over budgets drawn as the pool's costs are (the distribution that
training draws from), and over the windows of the whole range, each alike (a "randomly drawn FLOPs constraint"). The second
of naive is dominated by the rarest windows, so it depends on which windows count; the paper's 50,878 and 12 do not say.

What is drawn is checked too: on a space small enough to be listed, every architecture of a window is equally frequent with
ours (chi-square); on attentive-nas, the choices' marginals are those of naive draws that fell into the window.
Writes docs/results/benchmark-sampling-tries.json and .png.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chisquare

from snugnet.costs import CostTable, counted_table, make_sampler
from snugnet.errors import BudgetError
from snugnet.pipeline import machine
from snugnet.spaces import Population, SearchSpace, get_space

OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "benchmark-sampling-tries"
STEP = 25e6
SEED = 0
Pool = dict[int, Population]
"""Uniform draws by the window that their cost falls into."""


def draw_pool(space: SearchSpace, table: CostTable, n: int, rng: np.random.Generator) -> tuple[Pool, dict[int, int]]:
    """Some draws of each window, at most 20,000, and how many of ``n`` uniform draws fell into each."""
    kept: dict[int, list[Population]] = {}
    counts: dict[int, int] = {}
    for start in range(0, n, 500_000):
        rows = space.sample(min(500_000, n - start), rng)
        windows = np.rint(table(rows) / STEP).astype(int)
        for window in np.unique(windows):
            own = rows[windows == window]
            counts[window] = counts.get(window, 0) + len(own)
            room = 20_000 - sum(map(len, kept.setdefault(window, [])))
            kept[window].append(own[:room])
    return {window: np.concatenate(parts) for window, parts in kept.items()}, counts


def bounds(window: int) -> tuple[float, float]:
    """Smallest and greatest whole cost that rounds to the window."""
    return (window - 0.5) * STEP, (window + 0.5) * STEP - 1


class Factorised:
    """AttentiveNAS's proposal for one budget: each choice on its own, as its options occur in the pool."""

    def __init__(self, space: SearchSpace, members: Population) -> None:
        self.space = space
        self.marginals = [
            np.bincount(members[:, i], minlength=int(k)) / len(members) for i, k in enumerate(space.num_options)
        ]

    def draw(self, n: int, rng: np.random.Generator) -> Population:
        """Rows (n, d) in canonical form; nothing is rejected yet."""
        columns = [rng.choice(len(p), size=n, p=p) for p in self.marginals]
        return self.space.canonical(np.stack(columns, axis=1).astype(np.int16))


def tries_of_windows(
    space: SearchSpace, table: CostTable, pool_size: int, samples: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Tries a sample by all three ways, for every window of the space's range."""
    pool, counts = draw_pool(space, table, pool_size, rng)
    low, high = (round(value / STEP) for value in table.range)
    result = []
    for window in range(low, high + 1):
        least, most = bounds(window)
        try:
            start = time.perf_counter()
            sampler = make_sampler(table, min(most, table.range[1]), least)
            built = time.perf_counter() - start
        except BudgetError:
            continue  # no architecture has such a cost
        start = time.perf_counter()
        rows = sampler.sample(samples, rng)
        seconds = time.perf_counter() - start
        assert ((table(rows) >= least) & (table(rows) <= most)).all()
        row: dict[str, Any] = {
            "mflops": window * STEP / 1e6,
            "ours": sampler.tries,
            "ours_build_ms": 1e3 * built,
            "ours_us_per_sample": 1e6 * seconds / samples,
            "naive": pool_size / counts[window] if window in counts else None,
            "pool": counts.get(window, 0),
            "factorised": None,
        }
        if window in pool:
            costs = table(Factorised(space, pool[window]).draw(100_000, rng))
            hits = int(((costs >= least) & (costs <= most)).sum())
            row["factorised"] = 100_000 / hits if hits else None
        result.append(row)
    return result


def means(rows: Sequence[dict[str, Any]], pool_size: int) -> dict[str, Any]:
    """Mean tries, over budgets as the pool draws them and over windows alike."""
    seen = [row for row in rows if row["pool"]]
    weights = np.array([row["pool"] for row in seen]) / sum(row["pool"] for row in seen)
    result: dict[str, Any] = {}
    for name in ("naive", "factorised", "ours"):
        tries = np.array([row[name] if row[name] is not None else np.nan for row in seen])
        result[name] = {
            "budgets drawn from the pool": float(np.nansum(weights * tries)),
            "windows alike, those that the pool hit": float(np.nanmean(tries)),
        }
    result["windows"] = {"all": len(rows), "that the pool hit": len(seen), "pool": pool_size}
    unseen = [row["ours"] for row in rows if not row["pool"]]
    result["ours"]["windows that no naive draw hit"] = float(np.mean(unseen)) if unseen else None
    naive = [row["naive"] or pool_size for row in rows]
    result["naive"]["all windows alike, at least"] = float(np.mean(naive))
    return result


def all_rows(space: SearchSpace) -> Population:
    """Every architecture of a small space."""
    every = np.array(list(itertools.product(*map(range, space.num_options))), dtype=np.int16)
    return np.unique(space.canonical(every), axis=0)


def uniformity(rng: np.random.Generator, each: int = 50) -> dict[str, Any]:
    """Chi-square of our draws against equal frequency, in windows of a space that can be listed."""
    space = get_space(
        "attentive-nas",
        resolutions=[192, 224],
        widths=[[16], [16], [24, 32], [32], [64, 72], [112, 120], [192], [216], [1792]],
        depths=[[1], [3, 4], [3], [3, 4, 5], [3], [3], [1]],
        kernel_sizes=[[3], [3, 5], [3], [3], [3, 5], [3], [3]],
        expand_ratios=[[1], [4, 5], [4], [4], [4, 5, 6], [6], [6]],
    )
    table = counted_table(space, "madds")
    every = all_rows(space)
    costs = table(every)
    result: dict[str, Any] = {"architectures": len(every), "windows": []}
    for low, high in zip(*(np.quantile(costs, q) for q in ([0.05, 0.4, 0.8], [0.15, 0.5, 0.95])), strict=True):
        inside = every[(costs >= low) & (costs <= high)]
        rows = make_sampler(table, high, low).sample(each * len(inside), rng)
        found, frequency = np.unique(rows, axis=0, return_counts=True)
        same = len(found) == len(inside) and (found == inside).all()
        result["windows"].append(
            {
                "architectures": len(inside),
                "samples": len(rows),
                "all_found_and_no_other": bool(same),
                "chi_square": float(chisquare(frequency).statistic),
                "p": float(chisquare(frequency).pvalue),
            }
        )
    return result


def agreement(
    space: SearchSpace, table: CostTable, window: int, n: int, rng: np.random.Generator
) -> dict[str, float | int]:
    """How far marginals of ours and of the factorised draws are from those of naive draws inside a window.

    Attentive-nas has no choice that hangs on another, so its uniform draws of choices are uniform over architectures, and all
    that fall into the window are what ours must be distributed as.
    """
    least, most = bounds(window)
    naive: list[Population] = []
    while sum(map(len, naive)) < n:
        rows = space.sample(500_000, rng)
        costs = table(rows)
        naive.append(rows[(costs >= least) & (costs <= most)])
    reference = np.concatenate(naive)[:n]
    ours = make_sampler(table, most, least).sample(n, rng)
    proposals = Factorised(space, reference).draw(40 * n, rng)
    costs = table(proposals)
    factorised = proposals[(costs >= least) & (costs <= most)][:n]

    def worst(rows: Population) -> tuple[float, float]:
        """Greatest difference of a frequency, and in standard errors of the difference."""
        a, b = (_frequencies(space, each) for each in (rows, reference))
        error = np.sqrt(a * (1 - a) / len(rows) + b * (1 - b) / len(reference)) + 1e-12
        return float(np.abs(a - b).max()), float((np.abs(a - b) / error).max())

    pairs = _pair_frequencies(space, ours) - _pair_frequencies(space, reference)
    pairs_factorised = _pair_frequencies(space, factorised) - _pair_frequencies(space, reference)
    return {
        "mflops": window * STEP / 1e6,
        "samples": n,
        "options": int(space.offsets[-1]),
        "ours_greatest_difference": worst(ours)[0],
        "ours_in_standard_errors": worst(ours)[1],
        "factorised_samples": len(factorised),
        "factorised_greatest_difference": worst(factorised)[0],
        "factorised_in_standard_errors": worst(factorised)[1],
        "ours_greatest_difference_of_pairs": float(np.abs(pairs).max()),
        "factorised_greatest_difference_of_pairs": float(np.abs(pairs_factorised).max()),
    }


def _frequencies(space: SearchSpace, rows: Population) -> NDArray[np.float64]:
    return space.one_hot(rows).mean(0, dtype=np.float64)


def _pair_frequencies(space: SearchSpace, rows: Population) -> NDArray[np.float64]:
    """How often two options occur together, (sum of options, sum of options)."""
    code = space.one_hot(rows)
    return (code.T @ code / len(rows)).astype(np.float64)


def plot(report: dict[str, Any], path: Path) -> None:
    """Tries over budgets, a panel a space."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(report["spaces"]), figsize=(5 * len(report["spaces"]), 3.4), squeeze=False)
    for axis, (name, result) in zip(axes[0], report["spaces"].items(), strict=True):
        x = [row["mflops"] for row in result["windows"]]
        for label, marker in (("naive", "."), ("factorised", "x"), ("ours", "+")):
            axis.plot(x, [row[label] or np.nan for row in result["windows"]], marker, label=label)
        axis.set(title=name, xlabel="budget, M multiply-adds (window of 25 M)", ylabel="draws a sample", yscale="log")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Measure, print, write."""
    rng = np.random.default_rng(SEED)
    pool_size = int(sys.argv[1]) if len(sys.argv) > 1 else 4_000_000
    report: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]), "seed": SEED, "machine": machine(), "window_mflops": STEP / 1e6,
        "spaces": {},
    }  # fmt: skip
    for name in ("attentive-nas", "ofa-mobilenet-v3"):
        space = get_space(name)
        table = counted_table(space, "madds")
        rows = tries_of_windows(space, table, pool_size, 20_000, rng)
        report["spaces"][name] = {"mean_tries": means(rows, pool_size), "windows": rows}
    report["uniform_on_a_small_space"] = uniformity(rng)
    space = get_space("attentive-nas")
    table = counted_table(space, "madds")
    report["marginals_on_attentive_nas"] = [agreement(space, table, w, 20_000, rng) for w in (20, 32, 44)]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    plot(report, OUT.with_suffix(".png"))
    for name, result in report["spaces"].items():
        print(name, json.dumps(result["mean_tries"], indent=1))
    print(
        json.dumps(report["uniform_on_a_small_space"], indent=1),
        json.dumps(report["marginals_on_attentive_nas"], indent=1),
    )


if __name__ == "__main__":
    main()

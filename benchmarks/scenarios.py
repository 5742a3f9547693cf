"""Very many scenarios at once: memory and time of `specialize_many`.

    python benchmarks/scenarios.py [scenarios] [class lists]

A family of 100 superclasses on the width-1.0 OFA space that nobody trained: what its generator says is arbitrary (and made to
differ more from one superclass and budget to the next than that of a fresh one), but as long to work out as any. Three cases:
50 scenarios, the median of some calls; class lists that all differ, none of which the family has seen; a million scenarios of
the superclasses, with a budget of MAdds or of parameters each, or both. Memory is what the process holds at most, above what it
held before the scenarios were made. Every network is checked against its budgets. Writes
docs/results/benchmark-scenarios.json.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snugnet.costs import counted_table
from snugnet.data import ImageSet
from snugnet.family import Family, Scenario, Specialized
from snugnet.generator.model import ArchitectureGenerator
from snugnet.pipeline import machine
from snugnet.spaces import get_space
from snugnet.supernets import Supernet

OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "benchmark-scenarios.json"
SEED, REPEATS = 0, 20
SUPERCLASSES, FEW, MANY, LISTS = 100, 50, 1_000_000, 10_000
_MB = 2**20


def make_family(superclasses: int = SUPERCLASSES, **options: Any) -> Family:
    """An untrained family whose superclasses have 5 to 15 classes."""
    sizes = [5 + i % 11 for i in range(superclasses)]
    names = iter(f"class {i}" for i in range(sum(sizes)))
    groups = {f"superclass {i}": tuple(next(names) for _ in range(size)) for i, size in enumerate(sizes)}
    space = get_space("ofa-mobilenet-v3", **{"num_classes": sum(sizes), **options})
    tables = {name: counted_table(space, name) for name in ("madds", "params")}
    generator = ArchitectureGenerator(space, superclasses, *tables["madds"].range, seed=SEED)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(3)
    none = ImageSet(torch.zeros(0, 3, space.resolution, space.resolution, dtype=torch.uint8), torch.zeros(0).long())
    return Family(
        name="untrained", supernet=Supernet(space).eval(), generator=generator.eval(), budget_name="madds",
        classes=tuple(name for own in groups.values() for name in own), groups=groups, mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25), tables=tables, calibration=none, validation=none,
    )  # fmt: skip


def random_scenarios(family: Family, n: int, rng: np.random.Generator) -> list[Scenario]:
    """Superclasses in turn, each with a budget of MAdds, of parameters, or of both, anywhere in the superclass's range."""
    names = list(family.groups)
    ranges = {g: {cost: family.cost_range(cost, g) for cost in ("madds", "params")} for g in names}
    kinds = (("madds",), ("params",), ("madds", "params"))
    scenarios: list[Scenario] = []
    for i, (place, other) in enumerate(zip(rng.random(n).tolist(), rng.random(n).tolist(), strict=True)):
        group = names[i % len(names)]
        budgets: dict[str, float | str] = {}
        for cost, share in zip(kinds[i // len(names) % 3], (place, other), strict=False):
            low, high = ranges[group][cost]
            # both at once: away from the corner where no network is cheap in the one and small in the other
            budgets[cost] = low + (high - low) * (share if i // len(names) % 3 < 2 else 0.3 + 0.7 * share)
        scenarios.append((group, budgets))
    return scenarios


def random_lists(family: Family, n: int, rng: np.random.Generator) -> list[Scenario]:
    """Different lists of 2 to 20 classes, each with a budget of MAdds."""
    found: dict[tuple[str, ...], None] = {}
    while len(found) < n:
        found[tuple(rng.choice(family.classes, rng.integers(2, 21), replace=False).tolist())] = None
    low, high = family.cost_range("madds")
    return [
        (own, {"madds": low + (high - low) * share}) for own, share in zip(found, rng.random(n).tolist(), strict=True)
    ]


def check(networks: Sequence[Specialized], scenarios: Sequence[Scenario]) -> None:
    """Stop where a network is above a budget, or not where its scenario was."""
    for network, (group, budgets) in zip(networks, scenarios, strict=True):
        name = group if isinstance(group, str) else ",".join(group)
        if network.group != name or any(network.costs[cost] > limit for cost, limit in network.budgets.items()):
            raise SystemExit(f"{name} under {budgets} got {network.costs}")


def resident() -> float:
    """MB that the process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / _MB


def measured(family: Family, scenarios: Sequence[Scenario]) -> tuple[float, Sequence[Specialized]]:
    """Seconds of one call, and what it gave."""
    start = time.perf_counter()
    networks = family.specialize_many(scenarios)
    return time.perf_counter() - start, networks


def measure(family: Family, few: int, lists: int, many: int) -> dict[str, Any]:
    """All three cases, the one that needs the most memory last."""
    rng = np.random.default_rng(SEED)
    short = random_scenarios(family, few, rng)
    measured(family, short)
    seconds = [measured(family, short)[0] for _ in range(REPEATS)]
    result: dict[str, Any] = {f"{few} scenarios": {"milliseconds": 1e3 * statistics.median(seconds)}}

    different = random_lists(family, lists, rng)
    taken, networks = measured(family, different)
    check(networks, different)
    result[f"{lists} different class lists"] = {"seconds": taken}

    before = resident()
    scenarios = random_scenarios(family, many, rng)
    made = resident()
    taken, networks = measured(family, scenarios)
    # the kernel's record of the most lags a little behind what it says is held now
    peak = max(made, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
    check(networks, scenarios)
    result[f"{many} scenarios"] = {
        "seconds": taken,
        "per_second": many / taken,
        "scenarios_mb": made - before,
        "peak_mb": peak - before,
    }
    return result


def main(many: str = str(MANY), lists: str = str(LISTS)) -> None:
    """Measure, print, write."""
    result = {
        "command": " ".join(["python benchmarks/scenarios.py", *sys.argv[1:]]),
        "seed": SEED,
        "superclasses": SUPERCLASSES,
        **measure(make_family(), FEW, int(lists), int(many)),
        "machine": machine(),
    }
    text = json.dumps(result, indent=1)
    print(text)
    OUT.write_text(text + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Peak memory as a budget of a family: never above, alone and beside others, for groups of any width."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from snugnet.costs import COSTS, parse_budget
from snugnet.data import GroupedImages
from snugnet.errors import BudgetError
from snugnet.family import Family
from snugnet.family.report import evaluate, spread_budgets
from snugnet.family.search import FamilySearch, GeneratorProposer, search_family


def test_never_above_a_limit_and_a_budget(family: Family) -> None:
    rng = np.random.default_rng(0)
    scenarios = []
    for i in range(60):
        group = list(family.groups)[i % 3] if i % 2 else list(family.classes)[: 2 + i % 7]
        budgets = {}
        for cost in ("peak_memory", "madds", "weight_memory")[: 1 + i % 3]:
            low, high = family.cost_range(cost, group)
            budgets[cost] = low + rng.uniform(0.5, 1.1) * (high - low)
        scenarios.append((group, budgets))
    networks = family.specialize_many(scenarios)
    for net, (group, budgets) in zip(networks, scenarios, strict=True):
        for cost, budget in budgets.items():
            assert net.costs[cost] == COSTS[cost].of(net.blueprint) <= budget
        alone = family.specialize(group, **budgets)
        assert (alone.row == net.row).all()


def test_units(family: Family) -> None:
    low, high = family.cost_range("peak_memory", "round")
    assert low < high
    assert family.specialize("round", peak_memory=low).costs["peak_memory"] == low
    net = family.specialize("round", peak_memory=f"{high / 1024 + 1:.3f}Ki")
    assert net.budgets["peak_memory"] == pytest.approx(high + 1024, abs=1)
    with pytest.raises(BudgetError, match=r"no network of tiny for round has peak_memory <= .*; feasible: "):
        family.specialize("round", peak_memory=low - 1)
    assert parse_budget("256Ki") == 2**18
    assert parse_budget("256k") == 256_000


def test_a_search_keeps_the_limit(family: Family) -> None:
    for method in ("random", "evolution", "generator"):
        low, high = family.cost_range("peak_memory", "round")
        budgets = {"peak_memory": (low + high) / 2, "madds": "70%"}
        settings = {
            "random": {"samples": 3},
            "evolution": {"population": 4, "generations": 2},
            "generator": {"candidates": 3},
        }
        found = search_family(family, method, group="round", budgets=budgets, progress=False, **settings[method])
        problem = found.search.problem
        assert (problem.tables["peak_memory"](found.result.archive.rows) <= budgets["peak_memory"]).all()
        assert problem.feasible(found.result.archive.rows).all()
        assert found.network().costs["peak_memory"] == COSTS["peak_memory"].of(found.network().blueprint)


def test_the_generator_proposes_within_it_for_all_groups(family: Family) -> None:
    low, high = family.cost_range("peak_memory", "round")
    problem = FamilySearch.make(family, None, peak_memory=(low + high) / 2).problem
    rows = GeneratorProposer(family, None)(problem, 20, np.random.default_rng(0))
    assert problem.feasible(rows).all()


def test_it_is_evaluated(family: Family, digits: GroupedImages, tmp_path: Path) -> None:
    limits = spread_budgets(family, 2, "peak_memory")
    report = evaluate(family, digits.test, limits, cost="peak_memory", progress=False)
    content = report.to_json()
    assert "peak_memory" in str(content)
    report.save(tmp_path)

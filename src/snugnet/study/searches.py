"""The searches of a study: a registered method for every superclass and budget, run by the search room's driver."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snugnet import pipeline
from snugnet.costs import exact_amount
from snugnet.errors import BudgetError
from snugnet.family import Family, Specialized
from snugnet.family.report import check_groups, spread_budgets
from snugnet.family.search import CHUNK, FamilySearch
from snugnet.fingerprint import digest
from snugnet.generator.model import ArchitectureGenerator
from snugnet.search.driver import run_search
from snugnet.search.method import Method
from snugnet.search.problem import Problem, Score
from snugnet.spaces import Population
from snugnet.study.config import Entry
from snugnet.study.predictor import FittedPredictor
from snugnet.study.supernet import TrainedSupernet
from snugnet.training.loop import RunLog

Found = dict[str, Any]
"""What a search has found, as plain JSON: ``seconds``, ``rows`` without their accuracies, and what the ``predictor`` is worth."""
Scenario = tuple[str, float]
"""A superclass and a budget."""
Searched = tuple[str | None, float]
"""A superclass, or None for all of them at once, and a budget."""


def search(trained: TrainedSupernet, entry: Entry, predictor: FittedPredictor | None, folder: Path) -> Found:
    """The networks of all scenarios, superclass by superclass.

    Args:
        trained: the supernet that is searched.
        entry: how.
        predictor: of accuracies, where the entry asks one.
        folder: for the checkpoints of searches on images.
    """
    family, preparation = trained.family(), 0.0
    if entry.search == "generator":
        generator, preparation = train_generator(trained, entry)
        family = trained.family(generator)
    elif predictor is not None:
        preparation = predictor.seconds
    started = time.perf_counter()
    networks = _networks(trained, entry, family, predictor, folder)
    seconds = {**trained.seconds, "preparation": preparation, "search": time.perf_counter() - started}
    rows = [
        {"group": each.group, "budget": budget, "costs": each.costs, "arch": each.row.tolist()}
        for each in networks
        for budget in each.budgets.values()
    ]
    return {"seconds": seconds, "rows": rows, "predictor": {} if predictor is None else predictor.held_out}


def train_generator(trained: TrainedSupernet, entry: Entry) -> tuple[ArchitectureGenerator, float]:
    """The generator that an entry asks for, and the seconds of its training; entries of the same settings share one."""
    job = trained.job
    section = job.config.recipe_of(job.name, job.seed, entry).generator
    recipe = trained.recipe.model_copy(update={"generator": section})
    name = f"generator-{digest(section.model_dump(mode='json', exclude_defaults=True))[:8]}"
    with RunLog(job.own / name) as log:
        return pipeline.train_generator(recipe, job.data, trained.supernet, job.fabric, log, progress=job.progress)


def scenarios(family: Family, budgets: Any) -> list[Scenario]:
    """Every superclass under every budget.

    Raises:
        BudgetError: no network of a superclass is within a budget.
    """
    limits, groups, cost = spread_budgets(family, budgets), check_groups(family), family.budget_name
    for limit in limits:
        for group in groups:
            low, high = family.cost_range(cost, group)
            if limit < low:
                raise BudgetError(
                    f"no network for {group} has {cost} <= {exact_amount(limit, math.floor)}; feasible: "
                    f"{exact_amount(low, math.ceil)} to {exact_amount(high, math.floor)}"
                )
    return [(group, limit) for group in groups for limit in limits]


def _networks(
    trained: TrainedSupernet, entry: Entry, family: Family, predictor: FittedPredictor | None, folder: Path
) -> list[Specialized]:
    """The network of each scenario: one search for each, or for each budget where all superclasses share an architecture."""
    asked, cost = scenarios(family, trained.job.config.budgets), family.budget_name
    searched = list(dict.fromkeys((group if entry.per_superclass else None, limit) for group, limit in asked))
    method, seed = trained.job.config.method_of(entry), trained.job.seed
    if method.evaluations == 1:
        rows = _generated(family, searched) if entry.search == "generator" else _drawn(family, searched, method, seed)
    elif predictor is not None:
        at_least = trained.job.config.predictor.at_least if entry.search == "predictor" else 0.0
        problems = (
            _problem(family, group, limit, _score(family, group, predictor), at_least) for group, limit in searched
        )
        rows = [run_search(problem, method, seed=seed, progress=False).row for problem in problems]
    else:
        rows = []
        for place, (group, limit) in enumerate(searched):
            problem = FamilySearch.make(family, group, **{cost: limit}).problem
            rows.append(run_search(problem, method, seed=seed, folder=folder / str(place), chunk=CHUNK).row)
    found = dict(zip(searched, rows, strict=True))
    return [
        family.network(group, found[group if entry.per_superclass else None, limit], {cost: limit})
        for group, limit in asked
    ]


def _generated(family: Family, searched: Sequence[Searched]) -> list[NDArray[np.int16]]:
    """The generator's own architectures: one forward pass and one exact decode for all of them."""
    widest = max(check_groups(family), key=lambda group: len(family.groups[group]))  # what fits it fits all
    networks = family.specialize_many([(group or widest, {family.budget_name: limit}) for group, limit in searched])
    return [network.row for network in networks]


def _drawn(family: Family, searched: Sequence[Searched], method: Method, seed: int) -> list[NDArray[np.int16]]:
    """What a method that evaluates one architecture proposes: the best of one, so nothing is scored.

    Each search draws on its own. Searches that compare begin alike instead: superclasses then differ by what they want.
    """
    rows = []
    for place, (group, limit) in enumerate(searched):
        problem = _problem(family, group, limit, lambda rows: np.zeros(len(rows)))
        own = int(np.random.SeedSequence((seed, place)).generate_state(1)[0])
        rows.append(run_search(problem, method, seed=own, progress=False).row)
    return rows


def _problem(family: Family, group: str | None, limit: float, score: Score, at_least: float = 0.0) -> Problem:
    """Networks for a superclass, or for any of them: costs are of the widest head then, the least one of the budget too."""
    cost, names = family.budget_name, check_groups(family) if group is None else [group]
    table = family.table(cost, max(len(family.groups[name]) for name in names))
    return Problem(family.space, score, {cost: table}, {cost: limit}, at_least=at_least)


def _score(family: Family, group: str | None, predictor: FittedPredictor) -> Score:
    """The predicted accuracy of a superclass, or the mean over all of them."""
    names = check_groups(family)

    def score(rows: Population) -> NDArray[np.float64]:
        values = predictor.predict(rows)
        return values.mean(1) if group is None else values[:, names.index(group)]

    return score

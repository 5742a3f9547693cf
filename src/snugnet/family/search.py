"""Searching a family: the architectures that do best on its validation images, by any method, under any budgets."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from snugnet.errors import BudgetError, SearchError
from snugnet.family.record import Family, Group, Specialized
from snugnet.files import json_text, plain_number, write_atomically
from snugnet.predictors import MINIMUM_ROWS, list_predictors
from snugnet.search.driver import SearchResult, run_search
from snugnet.search.evolution import PRESETS
from snugnet.search.image_scorer import ImageScorer
from snugnet.search.method import Method, Proposals, RandomSearch
from snugnet.search.nsga2 import NSGA2, pareto_front
from snugnet.search.predictor_search import PredictorSearch, fitted
from snugnet.search.problem import Problem
from snugnet.spaces import Population
from snugnet.training.memory import keep_freed_memory

METHODS = ("random", "evolution", "nsga2", "predictor", "generator")
EVALUATED = "evaluated.csv"
CHUNK = 8
"""Candidates between two moments at which a checkpoint may be written."""


@dataclass(frozen=True)
class FamilySearch:
    """A search over a family's architectures, before it is run.

    Attributes:
        family: whose architectures are judged.
        group: a superclass or classes; None for one search for all superclasses, each with its own head.
        problem: costs and limits are of the network that is handed out, its head cut to the group's classes (without a
            group: to those of the largest superclass).
    """

    family: Family
    group: Group | None
    problem: Problem

    @classmethod
    def make(cls, family: Family, group: Group | None = None, **budgets: float | str) -> FamilySearch:
        """Check everything before any work.

        Args:
            family: on the device where candidates are to be run.
            group: the name of a superclass, or a list of class names; without it accuracy is the mean over superclasses.
            **budgets: by cost; several hold at once.

        Raises:
            FamilyError: the group or a class is unknown.
            BudgetError: a cost is unknown, or no network is within all budgets.
            SearchError: there are no validation images to judge on.
        """
        wanted: list[Group] = [group] if group is not None else [n for n, own in family.groups.items() if len(own) > 1]
        if not wanted:
            raise SearchError(f"{family.name} has no superclass of two classes or more; give classes to search for")
        indices = [family.class_indices(each) for each in wanted]
        unknown = [name for name in budgets if name not in family.tables]
        if unknown:
            raise BudgetError(f"{family.name} has no cost {unknown[0]!r}; costs: {', '.join(family.tables)}")
        classes = max(map(len, indices))
        tables = {name: family.table(name, classes) for name in family.tables}
        scorer = ImageScorer(
            family.supernet.eval(), family.calibration_batches, family.validation, indices, family.mean, family.std
        )
        keep_freed_memory()
        columns = tuple(each if isinstance(each, str) else ",".join(each) for each in wanted)
        return cls(family, group, Problem(family.space, scorer, tables, budgets, columns))  # type: ignore[arg-type]

    def method(
        self,
        name: str,
        *,
        preset: str | None = None,
        evaluations: int | None = None,
        population: int | None = None,
        rounds: int | None = None,
        predictor: str | None = None,
    ) -> Method:
        """A method by its name.

        Args:
            name: one of :data:`METHODS`.
            preset: of the evolution; one of :data:`snugnet.search.evolution.PRESETS`, spos by default.
            evaluations: architectures to evaluate: of random, generator and predictor.
            population: of a round: of evolution and nsga2.
            rounds: of evolution and nsga2, the first one included.
            predictor: kind of predictor: mlp, forest, or best (the default).

        Raises:
            SearchError: there is no such method, preset or predictor, or a setting is not one of the method's.
        """
        counts = {"evaluations": evaluations, "population": population, "rounds": rounds}
        given = {**counts, "preset": preset, "predictor": predictor}
        taken = {
            "evolution": ("population", "rounds", "preset"),
            "nsga2": ("population", "rounds"),
            "predictor": ("evaluations", "predictor"),
        }.get(name, ("evaluations",))
        foreign = [key for key, value in given.items() if value is not None and key not in taken]
        if name not in METHODS:
            raise SearchError(f"there is no method {name!r}; methods: {', '.join(METHODS)}")
        if foreign:
            raise SearchError(f"{name} takes no {foreign[0]}; it takes {', '.join(taken)}")
        for key, value in counts.items():
            if value is not None and value < 1:
                raise SearchError(f"{key} is a whole number of at least 1, got {value}")
        match name:
            case "random":
                return RandomSearch(evaluations or 1000)
            case "generator":
                return Proposals(evaluations or 100, self.generated, self._generator_id())
            case "predictor":
                total = evaluations or 520
                top = max(1, total // 26)
                kind = predictor or "best"
                if kind not in list_predictors():
                    raise SearchError(f"there is no predictor {kind!r}; predictors: {', '.join(list_predictors())}")
                if total - top < MINIMUM_ROWS:
                    raise SearchError(
                        f"predictor: evaluations is at least {MINIMUM_ROWS + 1} ({MINIMUM_ROWS} to fit on, one to check), "
                        f"got {total}"
                    )
                return PredictorSearch(fitted(kind), total - top, top, predictor=kind)
            case "nsga2":
                costs = tuple(self.problem.limits) or (self.family.budget_name,)
                return NSGA2(costs, population or 50, (rounds or 20) - 1)
        preset = preset or "spos"
        if preset not in PRESETS:
            raise SearchError(f"there is no preset {preset!r}; presets: {', '.join(PRESETS)}")
        return PRESETS[preset].resized(population, rounds)

    def generated(self, n: int, rng: np.random.Generator) -> Population:
        """Architectures that the family's generator proposes under the limits: its mode, and samples; (n, d)."""
        group: Group = list(self.family.classes) if self.group is None else self.group
        classes = len(self.family.class_indices(group))
        limits = {}
        for name, limit in self.problem.limits.items():  # of a network with a narrower head than this group's
            # by the least that the wider head costs: that of the smallest network
            wider = self.family.table(name, classes)(self.family.space.smallest)
            limits[name] = limit + float(wider[0] - self.problem.tables[name](self.family.space.smallest)[0])
        networks = self.family.specialize_many([(group, limits)] * n, noise=True, seed=int(rng.integers(2**31)))
        return np.stack([network.row for network in networks])

    def run(
        self,
        method: Method,
        *,
        seed: int = 0,
        folder: Path | None = None,
        progress: bool = True,
        fresh: bool = False,
        on_start: Callable[[], None] = lambda: None,
    ) -> Searched:
        """Run the search, or go on with it where the folder holds its checkpoint.

        Args:
            method: see :meth:`method`.
            seed: of every draw.
            folder: for the checkpoint, ``search.json`` and ``evaluated.csv``.
            progress: whether to show a bar.
            fresh: begin anew, whatever the folder holds.
            on_start: called once all is checked, before any work.

        Raises:
            SearchError: the folder belongs to another search, or the front of NSGA-II has fewer than two points.
        """
        result = run_search(
            self.problem, method, seed=seed, folder=folder, scorer=self._scorer_id(), chunk=CHUNK, progress=progress,
            fresh=fresh, on_start=on_start,
        )  # fmt: skip
        searched = Searched(self, method, seed, result, np.array([result.best]))
        if folder is not None:  # also where there turns out to be no front
            write_atomically(folder / EVALUATED, searched.table().encode())
        if isinstance(method, NSGA2):
            searched = replace(searched, places=pareto_front(result, method.costs))
        if folder is not None:
            searched.save(folder)
        return searched

    def _scorer_id(self) -> str:
        """Hash of what accuracies depend on: weights, images, groups."""
        sets = (self.family.calibration, self.family.validation)
        tensors = [*self.family.supernet.state_dict().values(), *(t for s in sets for t in (s.images, s.labels))]
        return _digest([self.problem.columns, self.family.name], tensors)

    def _generator_id(self) -> str:
        """Hash of what :meth:`generated` depends on, beside the limits and the scorer: the generator, and its budget."""
        generator = self.family.generator
        return _digest([self.family.budget_name, generator.options], generator.state_dict().values())


@dataclass(frozen=True)
class Searched:
    """A search that has ended.

    Attributes:
        search: what was searched.
        method: how.
        seed: of it.
        result: all that was evaluated.
        places: of the winners in the archive: one, or the front of NSGA-II.
    """

    search: FamilySearch
    method: Method
    seed: int
    result: SearchResult
    places: NDArray[np.intp]

    @property
    def rows(self) -> Population:
        """The winners, (n, d)."""
        return self.result.archive.rows[self.places]

    def winners(self) -> list[dict[str, Any]]:
        """Architecture, costs and validation accuracies of each, as JSON."""
        problem, archive = self.search.problem, self.result.archive
        costs = problem.costs(self.rows)
        return [
            {
                "architecture": problem.space.to_dict(archive.rows[place]),
                "costs": {name: plain_number(values[i]) for name, values in costs.items()},
                "accuracy": float(archive.scores[place]),
                "groups": dict(zip(problem.columns, archive.values[place, 1:].tolist(), strict=True)),
            }
            for i, place in enumerate(self.places)
        ]

    def network(self, winner: int = 0) -> Specialized:
        """A winner as a network with the group's classes, ready to be exported.

        Raises:
            SearchError: the search was for all superclasses at once, so there is no one head.
        """
        search = self.search
        if search.group is None:
            raise SearchError("a search for all superclasses has no single network; search for one group to export it")
        group = search.group if isinstance(search.group, str) else ",".join(search.group)
        indices = search.family.class_indices(search.group)
        costs = self.winners()[winner]["costs"]
        return Specialized(search.family, group, indices, self.rows[winner], costs, dict(search.problem.limits))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        group = self.search.group
        return {
            "family": self.search.family.name,
            "group": group if group is None or isinstance(group, str) else list(group),
            "budgets": {name: plain_number(limit) for name, limit in self.search.problem.limits.items()},
            "settings": self.method.settings(),
            "seed": self.seed,
            "evaluated": len(self.result.archive),
            "seconds": round(self.result.seconds, 3),
            "winners": self.winners(),
        }

    def table(self) -> str:
        """All that was evaluated, as CSV: ``arch`` (compact JSON), the costs, ``accuracy``, and a column a superclass."""
        problem, archive = self.search.problem, self.result.archive
        costs = problem.costs(archive.rows)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["arch", *costs, "accuracy", *problem.columns])
        for i, row in enumerate(archive.rows):
            arch = json.dumps(problem.space.to_dict(row), separators=(",", ":"))
            writer.writerow(
                [arch, *(plain_number(values[i]) for values in costs.values()), *archive.values[i].tolist()]
            )
        return text.getvalue()

    def save(self, folder: Path) -> list[Path]:
        """Write ``search.json`` and ``evaluated.csv``; returns their paths."""
        paths = [folder / "search.json", folder / EVALUATED]
        write_atomically(paths[0], json_text(self.to_json()).encode())
        write_atomically(paths[1], self.table().encode())
        return paths


def search_family(
    family: Family,
    method: str | Method = "evolution",
    *,
    group: Group | None = None,
    budgets: Mapping[str, float | str] | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
    **settings: Any,
) -> Searched:
    """Search a family for the architectures that do best on its validation images.

    Args:
        family: on the device where candidates are to be run.
        method: one of :data:`METHODS`, with its settings (see :meth:`FamilySearch.method`); or a method itself.
        group: the name of a superclass, or a list of class names; without it one search for all superclasses.
        budgets: by cost, of the network that is handed out; several hold at once.
        seed: of every draw.
        folder: for checkpoint and results; the same search in the same folder goes on.
        progress: whether to show a bar.
        **settings: of the method.
    """
    search = FamilySearch.make(family, group, **(budgets or {}))
    chosen = search.method(method, **settings) if isinstance(method, str) else method
    return search.run(chosen, seed=seed, folder=None if folder is None else Path(folder), progress=progress)


def _digest(content: Any, tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(content).encode())
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]

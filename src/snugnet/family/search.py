"""Searching a family: the architectures that do best on its validation images, by any method, under any budgets."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snugnet.cluster import Cluster
from snugnet.costs import MaximumTable, exact_amount
from snugnet.errors import BudgetError, ConfigError, SearchError, SpaceError
from snugnet.family.int8 import JUDGES, Int8Scorer
from snugnet.family.networks import Specialized
from snugnet.family.record import Group
from snugnet.family.specialising import SpecialisingFamily
from snugnet.files import json_text, locked, plain_number, write_atomically
from snugnet.fingerprint import Fingerprint, digest, fingerprint
from snugnet.search.driver import run_search
from snugnet.search.image_scorer import ImageScorer
from snugnet.search.method import Method, make_method
from snugnet.search.problem import Problem
from snugnet.search.result import SearchResult
from snugnet.spaces import Population, read_architecture
from snugnet.texts import joined
from snugnet.training.memory import keep_freed_memory

EVALUATED = "evaluated.csv"
RESULT = "search.json"
LIMITS = "limits.csv"
"""Where searches under several limits have their winners."""
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
        chunk: candidates between two moments at which a checkpoint may be written.
        judge: one of :data:`snugnet.family.int8.JUDGES`: what a candidate's accuracy is of.
    """

    family: SpecialisingFamily
    group: Group | None
    problem: Problem
    chunk: int = CHUNK
    judge: str = "float"

    @classmethod
    def make(
        cls, family: SpecialisingFamily, group: Group | None = None, judge: str = "float", /, **budgets: float | str
    ) -> FamilySearch:
        """Check everything before any work.

        Args:
            family: on the device where candidates are to be run.
            group: the name of a superclass, or a list of class names; without it accuracy is the mean over superclasses.
            judge: ``float``, or ``int8``: candidates are judged by the int8 file that would be handed out.
            **budgets: by cost; several hold at once.

        Raises:
            ConfigError: there is no such judge.
            DataError: there are too few images for int8, or they are of one class.
            FamilyError: the group or a class is unknown.
            BudgetError: a cost is unknown, or no network is within all budgets.
            SearchError: there are no validation images to judge on.
        """
        wanted: list[Group] = [group] if group is not None else [n for n, own in family.groups.items() if len(own) > 1]
        if not wanted:
            raise SearchError(f"{family.name} has no superclass of two classes or more; give classes to search for")
        indices = [family.class_indices(each) for each in wanted]
        budgets = family.named(budgets)
        classes = max(map(len, indices))
        names = dict.fromkeys((family.budget_name, *family.tables, *budgets))  # the generator's own first
        tables = {name: family.table(name, classes) for name in names}
        if judge not in JUDGES:
            raise ConfigError(f"candidates are judged by {' or '.join(JUDGES)}, got {judge!r}")
        about = (
            family.supernet.eval(), family.calibration_batches, family.validation, indices, family.mean, family.std
        )  # fmt: skip
        scorer = Int8Scorer(*about, stored=family.calibration) if judge == "int8" else ImageScorer(*about)
        keep_freed_memory()
        columns = tuple(each if isinstance(each, str) else joined(each) for each in wanted)
        proposer = GeneratorProposer(family, group)
        return cls(family, group, Problem(family.space, scorer, tables, budgets, columns, proposer), judge=judge)  # type: ignore[arg-type]

    def starting_from(self, architectures: Mapping[str, Mapping[str, Any]]) -> FamilySearch:
        """The same search, whose first round also evaluates the given architectures.

        Args:
            architectures: by name, as :func:`snugnet.spaces.read_architectures` gives them.

        Raises:
            SearchError: one is none of the family's space.
            BudgetError: one is not within the limits.
        """
        rows = read_start(self.problem, architectures)
        fits = self.problem.feasible(rows)
        for i in np.flatnonzero(~fits):
            raise _beyond(self.problem, list(architectures)[i], rows[i : i + 1])
        return replace(self, problem=replace(self.problem, start=rows))

    def on(self, cluster: Cluster) -> FamilySearch:
        """The same search, whose candidates are judged on a cluster; accuracies are those of one thread each."""
        cuda = self.family.device.type == "cuda"
        score = cluster.spread(self.problem.score, cuda=cuda)
        chunk = -(-cluster.workers(cuda=cuda) // CHUNK) * CHUNK  # work for every worker
        return replace(self, problem=replace(self.problem, score=score), chunk=chunk)

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
            method: see :func:`snugnet.search.method.make_method`.
            seed: of every draw.
            folder: for the checkpoint, ``search.json`` and ``evaluated.csv``.
            progress: whether to show a bar.
            fresh: begin anew, whatever the folder holds.
            on_start: called once all is checked, before any work.

        Raises:
            BusyError: another process searches in this folder.
            SearchError: the method does not fit the problem, the folder belongs to another search, or a front has fewer than
                two points.
        """
        method = method.on(self.problem)
        with nullcontext() if folder is None else locked(folder):
            if folder is not None and not fresh and (folder / LIMITS).exists():
                raise SearchError(
                    f"{folder} holds searches under several limits; give another --out, or --fresh to write over them"
                )
            result = run_search(
                self.problem, method, seed=seed, folder=folder, scorer=self._scored_with(), chunk=self.chunk, progress=progress,
                fresh=fresh, on_start=on_start,
            )  # fmt: skip
            searched = Searched(self, method, seed, result, np.array([result.best]))
            if folder is not None:  # also where there turns out to be no front
                write_atomically(folder / EVALUATED, searched.table().encode())
            searched = replace(searched, places=method.winners(result))
            if folder is not None:
                searched.save(folder)
        return searched

    def _scored_with(self) -> Fingerprint:
        """What accuracies depend on."""
        family = self.family
        images = [each for part in (family.calibration, family.validation) for each in (part.images, part.labels)]
        return fingerprint(
            family=family.name,
            weights=digest(*family.supernet.state_dict().values()),
            images=digest(*images),
            device=family.device.type,
            **({} if self.judge == "float" else {"judge": self.judge}),
        )


def read_start(problem: Problem, architectures: Mapping[str, Mapping[str, Any]]) -> Population:
    """Rows, (n, d), of architectures that were read from a file.

    Raises:
        SearchError: one is none of the space.
    """
    rows = []
    for name, arch in architectures.items():
        try:
            rows.append(read_architecture(problem.space, arch))
        except SpaceError as error:
            raise SearchError(f"start{f', {name}' if name else ''}: {error}") from error
    return np.concatenate(rows)


def _beyond(problem: Problem, name: str, row: Population) -> BudgetError:
    """That an architecture costs more than a limit."""
    cost, limit = next(each for each in problem.limits.items() if problem.tables[each[0]](row)[0] > each[1])
    has = exact_amount(float(problem.tables[cost](row)[0]), math.ceil)
    return BudgetError(
        f"start{f', {name}' if name else ''}: the architecture has {cost} {has}, and the limit is {exact_amount(limit, math.floor)}; "
        "leave it out, or raise the limit"
    )


@dataclass(frozen=True)
class GeneratorProposer:
    """What a family's architecture generator proposes: its mode, and samples.

    Attributes:
        family: whose generator it is.
        group: that is searched for; None for all superclasses.
    """

    family: SpecialisingFamily
    group: Group | None

    @cached_property
    def id(self) -> str:
        """Hash of what the proposals depend on, beside limits and weights: the generator, and its budget."""
        generator = self.family.generator
        return digest(self.family.budget_name, generator.options, *generator.state_dict().values())

    def __call__(self, problem: Problem, n: int, rng: np.random.Generator) -> Population:
        family, smallest = self.family, self.family.space.smallest
        group: Group = list(family.classes) if self.group is None else self.group
        classes = len(family.class_indices(group))
        limits = {}
        for name, limit in problem.limits.items():  # of a network with a narrower head than this group's
            # by the least that the wider head costs: that of the smallest network; of a maximum, by nothing
            wider, own = family.table(name, classes), problem.tables[name]
            more = 0.0 if isinstance(own, MaximumTable) else float(wider(smallest)[0] - own(smallest)[0])
            limits[name] = limit + more
        networks = family.specialize_many([(group, limits)] * n, noise=True, seed=int(rng.integers(2**31)))
        return np.stack([network.row for network in networks])


@dataclass(frozen=True)
class Searched:
    """A search that has ended.

    Attributes:
        search: what was searched.
        method: how.
        seed: of it.
        result: all that was evaluated.
        places: of the winners in the archive: one, or a front.
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
        group = search.group if isinstance(search.group, str) else joined(search.group)
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
            "judge": self.search.judge,
            "evaluated": len(self.result.archive),
            "shortfall": self.result.shortfall or None,
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
        paths = [folder / RESULT, folder / EVALUATED]
        write_atomically(paths[0], json_text(self.to_json()).encode())
        write_atomically(paths[1], self.table().encode())
        return paths


def search_family(
    family: SpecialisingFamily,
    method: str | Method = "evolution",
    *,
    group: Group | None = None,
    budgets: Mapping[str, float | str] | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
    start: Mapping[str, Mapping[str, Any]] | None = None,
    cluster: Cluster | None = None,
    judge: str = "float",
    **settings: Any,
) -> Searched:
    """Search a family for the architectures that do best on its validation images.

    Args:
        family: on the device where candidates are to be run.
        method: the name of one of :data:`snugnet.search.method.METHODS`, with its settings; or a method itself.
        group: the name of a superclass, or a list of class names; without it one search for all superclasses.
        budgets: by cost, of the network that is handed out; several hold at once.
        seed: of every draw.
        folder: for checkpoint and results; the same search in the same folder goes on.
        progress: whether to show a bar.
        start: architectures by name, within the budgets, that the first round evaluates as well.
        cluster: that candidates are judged on, as :func:`snugnet.cluster.joined` gives it; without it this machine does it.
        judge: ``float`` or ``int8``: what a candidate's accuracy is of.
        **settings: of the method that is named; see :func:`snugnet.search.method.make_method`.

    Examples:
        >>> import snugnet
        >>> family = snugnet.load("runs/digits")
        >>> found = search_family(family, "random", samples=4, group="round", budgets={"madds": "40%"}, progress=False)
        >>> found.network().classes
        ('0', '6', '8', '9')
    """
    chosen = make_method(method, settings) if isinstance(method, str) else method
    search = FamilySearch.make(family, group, judge, **(budgets or {}))
    if start:
        search = search.starting_from(start)
    if cluster is not None:
        search = search.on(cluster)
    return search.run(chosen, seed=seed, folder=None if folder is None else Path(folder), progress=progress)

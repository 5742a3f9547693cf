"""Searching a family under several limits on one cost, from one archive of evaluations."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from snugnet.cluster import Cluster
from snugnet.costs import resolve_budget
from snugnet.errors import BudgetError, SearchError
from snugnet.family.record import Group
from snugnet.family.search import EVALUATED, LIMITS, RESULT, FamilySearch, Searched
from snugnet.family.specialising import SpecialisingFamily
from snugnet.files import json_text, locked, plain_number, write_atomically
from snugnet.search.archive import Archive, Remembered
from snugnet.search.method import Method


@dataclass(frozen=True)
class LimitsSearch:
    """Searches under rising limits on one cost, before they are run; all other budgets hold in each.

    Attributes:
        cost: that the limits are of.
        searches: one a limit; what one of them has evaluated none evaluates again.
    """

    cost: str
    searches: tuple[FamilySearch, ...]

    @classmethod
    def make(
        cls,
        family: SpecialisingFamily,
        group: Group | None,
        cost: str,
        limits: Sequence[float | str],
        judge: str = "float",
        /,
        **budgets: float | str,
    ) -> LimitsSearch:
        """Check everything before any work.

        Args:
            family: on the device where candidates are to be run.
            group: as in :meth:`FamilySearch.make`.
            cost: that the limits are of.
            limits: at least one; they are gone through from the lowest on.
            judge: as in :meth:`FamilySearch.make`.
            **budgets: by other costs.

        Raises:
            FamilyError: the group or a class is unknown.
            BudgetError: a cost is unknown, a limit stands twice, or no network is within a limit and all budgets.
            SearchError: there are no validation images to judge on.
        """
        cost = family.cost_name(cost)
        budgets = family.named(budgets)
        if not limits or cost in budgets:
            raise BudgetError(
                f"{cost} has a budget and limits ({', '.join(map(str, limits))}); leave one of them out"
                if limits
                else f"no limit of {cost} is given"
            )
        first = FamilySearch.make(family, group, judge, **{cost: limits[0], **budgets})
        problem = replace(first.problem, score=Remembered(first.problem.score))
        amounts = sorted(resolve_budget(limit, problem.tables[cost].range) for limit in limits)
        if len(set(amounts)) < len(amounts):
            raise BudgetError(f"a limit of {cost} stands twice: {', '.join(map(str, limits))}")
        problems = [replace(problem, limits={**problem.limits, cost: amount}) for amount in amounts]
        return cls(cost, tuple(replace(first, problem=each) for each in problems))

    def starting_from(self, architectures: Mapping[str, Mapping[str, Any]]) -> LimitsSearch:
        """The same searches; the first round of each also evaluates those of the given architectures that are within its limit.

        Args:
            architectures: by name, as :func:`snugnet.spaces.read_architectures` gives them.

        Raises:
            SearchError: one is none of the family's space.
            BudgetError: one is not within the highest limit.
        """
        highest = self.searches[-1].starting_from(architectures)
        rows = highest.problem.start
        return replace(
            self, searches=tuple(replace(each, problem=replace(each.problem, start=rows)) for each in self.searches)
        )

    def on(self, cluster: Cluster) -> LimitsSearch:
        """The same searches, whose candidates are judged on a cluster."""
        first = self.searches[0]
        remembered = first.problem.score
        assert isinstance(remembered, Remembered)
        spread = replace(first, problem=replace(first.problem, score=remembered.score)).on(cluster)
        score = Remembered(spread.problem.score)
        return replace(
            self,
            searches=tuple(
                replace(each, problem=replace(each.problem, score=score), chunk=spread.chunk) for each in self.searches
            ),
        )

    def run(
        self,
        method: Method,
        *,
        seed: int = 0,
        folder: Path | None = None,
        progress: bool = True,
        fresh: bool = False,
        on_start: Callable[[], None] = lambda: None,
    ) -> LimitsSearched:
        """Run the searches, or go on with them where the folder holds their checkpoints.

        Args:
            method: of each search.
            seed: of every draw.
            folder: for ``search.json``, ``limits.csv``, ``evaluated.csv``, and a folder a limit with its search.
            progress: whether to show bars.
            fresh: begin anew, whatever the folder holds.
            on_start: called once all is checked, before any work.

        Raises:
            BusyError: another process searches in this folder.
            SearchError: the method gives a front or does not fit, or the folder belongs to another search.
        """
        if method.gives_front:
            raise SearchError(f"{method.name} gives a front over the cost by itself; for limits take another method")
        remembered = self.searches[0].problem.score
        assert isinstance(remembered, Remembered)
        done: list[Searched] = []
        with nullcontext() if folder is None else locked(folder):
            if folder is not None and not fresh:
                self._check(folder)
            for search in self.searches:
                own = None if folder is None else self._folder(folder, search)
                before = on_start if not done else lambda: None
                searched = search.run(method, seed=seed, folder=own, progress=progress, fresh=fresh, on_start=before)
                done.append(searched)
                remembered.recall(searched.result.archive)  # of a search that was at its end already
            result = LimitsSearched.of(self.cost, done)
            if folder is not None:
                result.save(folder)
        return result

    def _folder(self, folder: Path, search: FamilySearch) -> Path:
        return folder / f"{self.cost}-{search.problem.limits[self.cost]:.12g}"

    def _check(self, folder: Path) -> None:
        """Refuse a folder with the results of other searches; more limits of the same one may be added.

        Raises:
            SearchError: it holds them.
        """
        path = folder / RESULT
        if not path.exists():
            return
        limits = {search.problem.limits[self.cost] for search in self.searches}
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            same = (held["family"], held["cost"]) == (self.searches[0].family.name, self.cost)
            same = same and {each["limit"] for each in held["limits"]} <= limits
        except (OSError, ValueError, KeyError, TypeError):  # of one search, or not ours
            same = False
        if not same:
            raise SearchError(f"{path} is of another search; give another --out, or --fresh to write over it")


@dataclass(frozen=True)
class LimitsSearched:
    """Searches under rising limits that have ended.

    Attributes:
        cost: that the limits are of.
        searches: one a limit, each over all that was evaluated in any: its winner is the best of these within its limits.
    """

    cost: str
    searches: tuple[Searched, ...]

    @classmethod
    def of(cls, cost: str, ended: Sequence[Searched]) -> LimitsSearched:
        """Put the archives of several searches together."""
        whole = Archive(ended[0].search.problem.space.d, ended[0].result.archive.width)
        for each in ended:
            whole.take(each.result.archive)
        searches = []
        for each in ended:
            fits = np.flatnonzero(each.search.problem.feasible(whole.rows))
            best = fits[whole.scores[fits].argmax()]
            searches.append(replace(each, result=replace(each.result, archive=whole), places=np.array([best])))
        return cls(cost, tuple(searches))

    @property
    def limits(self) -> tuple[float, ...]:
        """Rising, in the cost's unit."""
        return tuple(each.search.problem.limits[self.cost] for each in self.searches)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: what all searches share, and each limit with its winner."""
        first = self.searches[0].to_json()
        others = {name: value for name, value in first["budgets"].items() if name != self.cost}
        limits = [
            {"limit": plain_number(limit), **winner}
            for limit, each in zip(self.limits, self.searches, strict=True)
            for winner in each.winners()
        ]
        shared = {key: first[key] for key in ("family", "group", "settings", "seed", "evaluated")}
        seconds = round(sum(each.result.seconds for each in self.searches), 3)
        return {**shared, "seconds": seconds, "budgets": others, "cost": self.cost, "limits": limits}

    def table(self) -> str:
        """The winners, as CSV: ``limit``, ``arch`` (compact JSON), the costs, ``accuracy``, and a column a superclass."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        winners = self.to_json()["limits"]
        writer.writerow(["limit", "arch", *winners[0]["costs"], "accuracy", *winners[0]["groups"]])
        for each in winners:
            arch = json.dumps(each["architecture"], separators=(",", ":"))
            writer.writerow(
                [each["limit"], arch, *each["costs"].values(), each["accuracy"], *each["groups"].values()]
            )  # fmt: skip
        return text.getvalue()

    def save(self, folder: Path) -> list[Path]:
        """Write ``search.json``, ``limits.csv`` and ``evaluated.csv``; returns their paths."""
        contents = {RESULT: json_text(self.to_json()), LIMITS: self.table(), EVALUATED: self.searches[0].table()}
        for name, text in contents.items():
            write_atomically(folder / name, text.encode())
        return [folder / name for name in contents]


def search_limits(
    family: SpecialisingFamily,
    method: Method,
    cost: str,
    limits: Sequence[float | str],
    *,
    group: Group | None = None,
    budgets: Mapping[str, float | str] | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
) -> LimitsSearched:
    """Search a family under each of several limits on one cost; what one search has evaluated none evaluates again.

    Args:
        family: on the device where candidates are to be run.
        method: of each search; see :func:`snugnet.search.method.make_method`.
        cost: that the limits are of.
        limits: upper budgets, such as ``("250M", "300M")``.
        group: the name of a superclass, or a list of class names; without it one search for all superclasses.
        budgets: by other costs; they hold in every search.
        seed: of every draw.
        folder: for checkpoints and results; the same searches in the same folder go on.
        progress: whether to show bars.
    """
    search = LimitsSearch.make(family, group, cost, limits, **(budgets or {}))
    return search.run(method, seed=seed, folder=None if folder is None else Path(folder), progress=progress)

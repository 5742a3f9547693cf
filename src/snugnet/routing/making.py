"""A route under a budget: the router is searched for, the rest of the budget is the specialised networks'.

Only validation images choose: between routers, between ways to tell a superclass, and between ways to share the budget out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snugnet.data import ImageSet
from snugnet.errors import BudgetError, ConfigError, FamilyError
from snugnet.family.networks import Specialized
from snugnet.family.search import CHUNK, FamilySearch
from snugnet.family.specialising import SpecialisingFamily
from snugnet.routing.budgets import RouteBudgets
from snugnet.routing.route import Judged, Route, Router
from snugnet.routing.scorer import OVERS, RouterScorer
from snugnet.search.archive import Archive, Remembered
from snugnet.search.driver import run_search
from snugnet.search.evolution import Evolution
from snugnet.search.problem import Problem
from snugnet.spaces.blueprint import Over
from snugnet.texts import listed, one_form, shown
from snugnet.training.calibration import accuracy
from snugnet.training.memory import keep_freed_memory

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of what a budget leaves above the smallest route, the router's: those that are tried where none is asked for."""
EVALUATIONS = 120
"""Routers that are judged in all, beside the generator's own, and as many networks for all classes."""
_POPULATION = 16


@dataclass(frozen=True)
class Tried:
    """A way to share the budget out.

    Attributes:
        share: the router's, of what the budget leaves above the smallest route.
        route: the best router within it, and the networks behind it.
        validation: how good that is.
        generator_router: share of validation images whose superclass the generator's architecture for all classes tells, which costs no search.
    """

    share: float
    route: Route
    validation: Judged
    generator_router: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "router_share": self.share,
            "over": self.route.router.over,
            "router_madds": self.route.madds_of_router,
            **asdict(self.validation),
            "generator_router": self.generator_router,
        }


@dataclass(frozen=True)
class Made:
    """A route, and what one network for all classes does under the same budget.

    Attributes:
        best: of :attr:`tried`.
        tried: the ways to share the budget out.
        limits: of the whole route, by cost.
        evaluated: routers that were judged.
        one_network: for all classes under the same limits: ``generator`` (its own architecture) and, where routers were searched for,
            ``search`` (the best of a search with as many evaluations).
        seed: of every draw.
        seconds: that it took.
    """

    best: Tried
    tried: tuple[Tried, ...]
    limits: dict[str, float]
    evaluated: int
    one_network: dict[str, Specialized]
    seed: int
    seconds: float

    @property
    def route(self) -> Route:
        """The one that was chosen."""
        return self.best.route

    def measured(self, images: ImageSet) -> dict[str, Any]:
        """The route and one network for all classes on some images, as plain JSON.

        Args:
            images: labels in the order of the family's classes.
        """
        family = self.route.family
        beside = {}
        for name, network in self.one_network.items():
            batches = family.batches(images, network.class_indices, network.blueprint.resolution)
            madds = family.table("madds", len(network.class_indices))(network.row[None])[0]
            beside[name] = {"top1": accuracy(network.module, batches), "madds": float(madds)}
        return {"route": asdict(self.route.judge(images)), "one_network": beside}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, without what was measured on other images than those of validation."""
        family = self.route.family
        left_out = [name for name in family.classes if name not in self.route.router.classes]
        return {
            "family": family.name,
            "budgets": self.limits,
            "router_share": self.best.share,
            "seed": self.seed,
            "evaluated": self.evaluated,
            "seconds": round(self.seconds, 3),
            **self.route.to_json(),
            "classes_left_out": left_out,
            "one_network": {
                name: {"costs": network.costs, "architecture": network.arch}
                for name, network in self.one_network.items()
            },
            "tried": [each.to_json() for each in self.tried],
        }


def make_route(
    family: SpecialisingFamily,
    groups: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    *,
    over: Over | None = None,
    share: float | None = None,
    evaluations: int = EVALUATIONS,
    seed: int = 0,
    progress: bool = True,
    **budgets: float | str,
) -> Made:
    """The route over superclasses within budgets that tells most validation images right, end to end.

    Args:
        family: on the device where candidates are to be run.
        groups: some of the family's superclasses, or others: superclass -> classes. All of the family's without it. Images of other classes
            are none that the route knows.
        over: how a superclass's logit is made of those of its classes; what does better on validation images without it.
        share: of what the budgets leave above the smallest route, the router's; the best of :data:`SHARES` without it.
        evaluations: routers that are judged in all, beside the generator's architecture for all classes, which is a candidate at each share;
            where there are fewer than shares, it is the router, and nothing is searched for.
        seed: of every draw.
        progress: whether to show bars.
        **budgets: of the whole route, by cost: of a cost along it (``madds``, ``latency_ms``) what the router and one network take, of the
            files (``params``) what all take, of a maximum (``peak_memory``) what each takes.

    Raises:
        ConfigError: an argument is none of what is allowed, or two superclasses share a class.
        FamilyError: a superclass or class is unknown.
        BudgetError: see :meth:`RouteBudgets.read`; or no networks are within several budgets together.
        SearchError: a superclass has no validation images.
    """
    started = time.monotonic()
    found = read_groups(family, groups)
    if over is not None and over not in OVERS:
        raise ConfigError(f"a superclass's logit is the {' or '.join(OVERS)} over its classes, got {over!r}")
    if share is not None and not 0 <= share <= 1:
        raise ConfigError(f"the router's share of what the budget leaves is from 0 to 1, got {share!r}")
    limits = RouteBudgets.read(family, found, budgets)
    making = _Making(family, found, limits, (over,) if over else OVERS, seed, progress)
    shares = SHARES if share is None else (share,)
    tried = making.tried(shares, evaluations)
    best = max(tried, key=lambda each: (each.validation.top1, -each.validation.madds))
    return Made(
        best=best,
        tried=tuple(tried),
        limits=limits.limits,
        evaluated=len(making.archive),
        one_network=making.one_network(len(making.archive) if evaluations else 0),
        seed=seed,
        seconds=time.monotonic() - started,
    )


def read_groups(
    family: SpecialisingFamily, groups: Sequence[str] | Mapping[str, Sequence[str]] | None
) -> dict[str, tuple[str, ...]]:
    """The superclasses that a router tells apart, with their classes as the family writes them.

    Raises:
        ConfigError: there are fewer than two, one is named twice or has no class, or two share a class.
        FamilyError: one is unknown.
    """
    if groups is None or isinstance(groups, Mapping):
        given = [(one_form(name), list(classes)) for name, classes in (groups or family.groups).items()]
    else:
        for name in groups:
            if one_form(name) not in family.groups:
                raise FamilyError(f"{family.name} has no group {shown(name)}; groups: {listed(family.groups)}")
        given = [(one_form(name), list(family.groups[one_form(name)])) for name in groups]
    named: dict[str, tuple[str, ...]] = {}
    home: dict[str, str] = {}
    for name, classes in given:
        if not name or not classes:
            what = (
                f"superclass {shown(name)} has no class; add one" if name else "a superclass has no name; give it one"
            )
            raise ConfigError(f"{what}, or leave it out")
        if name in named:
            raise ConfigError(f"superclass {shown(name)} is named twice; name it once")
        named[name] = tuple(each if each in family.classes else one_form(each) for each in classes)
        for each in named[name]:
            if home.get(each) == name:
                raise ConfigError(f"class {shown(each)} is named twice in superclass {shown(name)}; name it once")
            if each in home:
                raise ConfigError(
                    f"class {shown(each)} is in superclasses {shown(home[each])} and {shown(name)}; a router's superclasses share no class"
                )
            home[each] = name
    if len(named) < 2:
        raise ConfigError(f"a router tells at least two superclasses apart, got {listed(named) or 'none'}")
    family.class_indices(list(chain.from_iterable(named.values())))  # refuses what is no class
    return named


@dataclass
class _Making:
    """What all ways to share a budget out have in common; routers are judged once."""

    family: SpecialisingFamily
    groups: dict[str, tuple[str, ...]]
    budgets: RouteBudgets
    overs: Sequence[Over]
    seed: int
    progress: bool

    def __post_init__(self) -> None:
        family = self.family
        self.classes = list(chain.from_iterable(self.groups.values()))
        indices = [[family.classes.index(name) for name in classes] for classes in self.groups.values()]
        self.score = Remembered(
            RouterScorer(
                family.supernet.eval(), family.calibration_batches, family.validation, indices, family.mean, family.std,
                overs=self.overs,
            )
        )  # fmt: skip
        self.archive = Archive(family.space.d, 1 + len(self.overs))
        keep_freed_memory()

    def tried(self, shares: Sequence[float], evaluations: int) -> list[Tried]:
        """Every way to share the budgets out that they allow together.

        Raises:
            BudgetError: they allow none.
        """
        problems, own, refused = {}, {}, None
        for share in sorted(shares):
            try:
                problems[share] = self._problem(share)
            except BudgetError as error:
                refused = error
                continue
            own[share] = problems[share].first()
            self._search(problems[share], evaluations // len(shares), self.seed + len(problems) - 1)
        found = []
        for share, problem in problems.items():
            try:
                found.append(self._tried(share, problem, own[share]))
            except BudgetError as error:  # what is left is too little of several costs together
                refused = error
        if not found:
            assert refused is not None
            raise refused
        return found

    def _problem(self, share: float) -> Problem:
        limits, family = self.budgets.of_router(share), self.family
        start = family.specialize_many([(self.classes, limits)])[0].row[None]
        tables = {name: family.table(name, len(self.classes)) for name in limits}
        return Problem(family.space, self.score, tables, limits, tuple(self.overs), start=start)

    def _search(self, problem: Problem, evaluations: int, seed: int) -> None:
        """Judge the generator's architecture, and search from there; another seed finds others under limits that hardly bind."""
        if evaluations < 1:
            self.archive.evaluate(problem.first(), self.score, chunk=1)
            return
        result = run_search(problem, evolution(evaluations), seed=seed, progress=self.progress, chunk=CHUNK)
        self.archive.take(result.archive)

    def _tried(self, share: float, problem: Problem, own: NDArray[np.int16]) -> Tried:
        fits = np.flatnonzero(problem.feasible(self.archive.rows))
        place = fits[self.archive.scores[fits].argmax()]
        row, values = self.archive.rows[place], self.archive.values[place, 1:]
        network = self.family.network(self.classes, row, problem.limits)
        router = Router.of(network, self.groups, self.overs[int(values.argmax())])
        several = [(name, list(classes)) for name, classes in self.groups.items() if len(classes) > 1]
        costs = {name: float(table(row[None])[0]) for name, table in problem.tables.items()}
        left = self.budgets.of_groups(costs)
        made = self.family.specialize_many([(own, limit) for (_, own), limit in zip(several, left, strict=False)])
        networks = {name: replace(each, group=name) for (name, _), each in zip(several, made, strict=True)}
        route = Route(router, networks)
        return Tried(share, route, route.judge(self.family.validation), float(self.score(own)[0, 0]))

    def one_network(self, evaluations: int) -> dict[str, Specialized]:
        """For all classes within the same limits: the generator's, and the best of a search with as many evaluations."""
        limits = self.budgets.limits
        found = {"generator": self.family.best((self.classes, limits), 1)}
        if evaluations > 0:
            search = FamilySearch.make(self.family, self.classes, **limits)
            search = replace(search, problem=replace(search.problem, start=found["generator"].row[None]))
            searched = search.run(evolution(evaluations), seed=self.seed, progress=self.progress)
            found["search"] = searched.network()
        return found


def evolution(evaluations: int) -> Evolution:
    """Rounds of at most so many evaluations in all."""
    population = max(1, min(_POPULATION, evaluations // 3))
    return Evolution().resized(population=population, rounds=max(1, evaluations // population))

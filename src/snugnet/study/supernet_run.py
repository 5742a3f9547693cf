"""One supernet of a study under one seed: trained, searched in several ways, its networks judged; each result is kept."""

from __future__ import annotations

import hashlib
import io
import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray

from snugnet import pipeline
from snugnet.costs import CostTable, exact_amount, sample
from snugnet.data import GroupedImages, ImageSet
from snugnet.errors import BudgetError
from snugnet.family import Family, Specialized
from snugnet.family.report import check_groups, spread_budgets
from snugnet.files import json_text, write_atomically
from snugnet.predictors import fit_predictor
from snugnet.progress import progress_bar
from snugnet.recipe import Recipe
from snugnet.search.driver import run_search
from snugnet.search.evolution import PRESETS
from snugnet.search.image_scorer import ImageScorer
from snugnet.search.problem import Problem
from snugnet.spaces import Population
from snugnet.study.config import Method, StudyConfig, slug
from snugnet.study.images import StudyImages
from snugnet.study.results import Outcome, Row
from snugnet.supernets import Supernet
from snugnet.training.calibration import accuracy
from snugnet.training.loop import RunLog
from snugnet.training.policies import CostWindows
from snugnet.training.supernet import SHAPING, made_with

SAVE_SECONDS = 30.0
RANDOM_SHARE = 0.95
"""Random architectures cost at least so much of their budget, so that they are compared at equal cost."""


@dataclass
class SupernetRun:
    """One supernet under one seed, and everything that is searched on it.

    Attributes:
        config: the study.
        name: of the supernet.
        seed: of the run.
        images: already loaded.
        fabric: device and precision.
        folder: of the seed; the supernet has its own below.
        progress: whether to show bars.
    """

    config: StudyConfig
    name: str
    seed: int
    images: StudyImages
    fabric: Fabric
    folder: Path
    progress: bool
    seconds: dict[str, float] = field(default_factory=dict)
    _accuracies: dict[tuple[str, tuple[int, ...]], float] = field(default_factory=dict)

    # -- the supernet --------------------------------------------------------------------------------------------------

    @cached_property
    def own(self) -> Path:
        """The supernet's folder."""
        return self.folder / self.name

    @cached_property
    def whole(self) -> Recipe:
        """The recipe with all its stages."""
        return self.config.recipe_of(self.name, self.seed)

    @cached_property
    def data(self) -> GroupedImages:
        """The supernet's images, with the half of the validation split that is searched on."""
        return self.images.of(self.whole)

    @cached_property
    def judged_on(self) -> ImageSet:
        """The images that accuracies are reported of."""
        judged = self.data.test if self.config.report == "test" else self.images.judge(self.whole)
        return judged.to(self.fabric.device)

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe that is run: where others share the first stage, it starts from that one's checkpoint."""
        alone = teacher_of(self.whole)
        if alone is None:
            return self.whole
        path = self._teacher(alone) / "supernet.ckpt.safetensors"
        return _with_training(self.whole, stages=self.whole.training.stages[1:], start=str(path))

    def _teacher(self, alone: Recipe) -> Path:
        """Train the largest network alone, once for all supernets that begin so; returns its folder."""
        folder = self.folder / teacher_folder(alone)
        done = _json(folder / "done.json")
        if "seconds" not in done:
            with RunLog(folder) as log:
                _, seconds = pipeline.train_supernet(alone, self.data, self.fabric, log, progress=self.progress)
            done = {"seconds": seconds}
            write_atomically(folder / "done.json", json_text(done).encode())
        self.seconds["teacher"] = done["seconds"]
        return folder

    @cached_property
    def supernet(self) -> Supernet:
        """Trained, on the device."""
        with RunLog(self.own) as log:
            supernet, seconds = pipeline.train_supernet(
                self.recipe, self.data, self.fabric, log, progress=self.progress
            )
        self.seconds["supernet"] = seconds
        return supernet.eval()

    def family(self, method: Method | None = None) -> Family:
        """The supernet with a generator trained as the method says; with a fresh one where there is no method."""
        if method is None:
            made = pipeline.make_generator(self.recipe, self.supernet.space, self.data)
        else:
            section = self.config.recipe_of(self.name, self.seed, method).generator
            recipe = self.recipe.model_copy(update={"generator": section})
            digest = _digest(section.model_dump(mode="json", exclude_defaults=True))
            with RunLog(self.own / f"generator-{digest[:8]}") as log:
                made, self.seconds["generator"] = pipeline.train_generator(
                    recipe, self.data, self.supernet, self.fabric, log, progress=self.progress
                )
        return pipeline.make_family(self.recipe, self.data, self.supernet, made, {}).to(self.fabric.device)

    def outcomes(self) -> list[Outcome]:
        """What every method gives on this supernet."""
        return [self.outcome(method) for method in self.config.methods if method.supernet == self.name]

    # -- one method ----------------------------------------------------------------------------------------------------

    def outcome(self, method: Method) -> Outcome:
        """Run a method, or read what it gave before: the search once, the accuracies once for each split."""
        made_with = self._made_with(method)
        paths = [self.folder / kind / f"{slug(method.name)}.json" for kind in ("searches", self.config.report)]
        found = _kept(paths[0], made_with)
        if found is None:
            networks, seconds = self._search(method)
            held_out = self._held_out() if method.search == "predictor" else {}
            content = [
                {"group": n.group, "budget": _only(n.budgets), "costs": n.costs, "arch": n.row.tolist()}
                for n in networks
            ]
            found = {"seconds": seconds, "rows": content, "predictor": held_out}
            _keep(paths[0], made_with, found)
        of_these = _digest([made_with, found["rows"]])
        accuracies = _kept(paths[1], of_these)
        if accuracies is None:
            accuracies = self._measure(method, found["rows"])
            _keep(paths[1], of_these, accuracies)
        rows = [Row.from_json({"accuracy": a, **row}) for a, row in zip(accuracies, found["rows"], strict=True)]
        return Outcome(method.name, self.seed, found["seconds"], rows, found["predictor"])

    def _made_with(self, method: Method) -> str:
        of_study = self.config.model_dump(mode="json", include={"budgets"})
        if method.search == "predictor":
            of_study |= self.config.model_dump(mode="json", include={"predictor"})
        recipe = self.whole.model_dump(
            mode="json", exclude_defaults=True, exclude={"name", "output", "device", "threads"}
        )
        own = method.model_dump(mode="json", exclude={"supernet"})
        return _digest([of_study, recipe, own, made_with(self.whole, self.data)])

    def _search(self, method: Method) -> tuple[list[Specialized], dict[str, float]]:
        """The networks of all scenarios, superclass by superclass, and what they took."""
        search: Callable[[Method, Family], list[Specialized]]
        preparation = 0.0
        if method.search == "generator":
            family = self.family(method)
            preparation = self.seconds.pop("generator")
            search = self._generate
        else:
            family = self.family()
            search = self._draw
            if method.search == "predictor":
                predict, preparation = self._predictor(family)
                search = lambda method, family: self._evolve(method, family, predict)  # noqa: E731
        started = time.perf_counter()
        networks = search(method, family)
        spent = {**self.seconds, "preparation": preparation, "search": time.perf_counter() - started}
        return networks, spent

    def _scenarios(self, family: Family) -> list[tuple[str, float]]:
        budgets = spread_budgets(family, self.config.budgets)
        groups = check_groups(family)
        for budget in budgets:
            for group in groups:
                low, high = family.cost_range(family.budget_name, group)
                if budget < low:
                    raise BudgetError(
                        f"no network for {group} has {family.budget_name} <= {exact_amount(budget, math.floor)}; feasible: "
                        f"{exact_amount(low, math.ceil)} to {exact_amount(high, math.floor)}"
                    )
        return [(group, budget) for group in groups for budget in budgets]

    def _generate(self, method: Method, family: Family) -> list[Specialized]:
        """One forward pass and one exact decode for all scenarios."""
        scenarios = self._scenarios(family)
        if method.per_superclass:
            return family.specialize_many([(group, {family.budget_name: budget}) for group, budget in scenarios])
        widest = max(check_groups(family), key=lambda group: len(family.groups[group]))  # what fits it fits all
        budgets = list(dict.fromkeys(budget for _, budget in scenarios))
        shared = family.specialize_many([(widest, {family.budget_name: budget}) for budget in budgets])
        rows = {budget: network.row for budget, network in zip(budgets, shared, strict=True)}
        return [family.network(group, rows[budget], {family.budget_name: budget}) for group, budget in scenarios]

    def _draw(self, method: Method, family: Family) -> list[Specialized]:
        """A random architecture of nearly the budget's cost for each scenario."""
        rng = np.random.default_rng((self.seed, 1))

        def draw(table: CostTable, limit: float) -> NDArray[np.int16]:
            return sample(table, 1, rng, budget=limit, at_least=RANDOM_SHARE * limit)[0]

        return self._each(
            method,
            family,
            lambda table, limit, group: draw(table, min(limit, table.range[1])),
        )

    def _evolve(
        self, method: Method, family: Family, predict: Callable[[Population], NDArray[np.float64]]
    ) -> list[Specialized]:
        """An evolutionary search on the predictor for each scenario, or for each budget."""
        space, names, config = family.space, check_groups(family), self.config.predictor
        evolution = PRESETS[config.preset]
        if config.generations is not None:
            evolution = replace(evolution, generations=config.generations)

        def best(table: CostTable, limit: float, group: str | None) -> NDArray[np.int16]:
            def score(rows: Population) -> NDArray[np.float64]:
                values = predict(rows)
                return values.mean(1) if group is None else values[:, names.index(group)]

            problem = Problem(space, score, {table.name: table}, {table.name: limit})
            return run_search(problem, evolution, seed=self.seed, progress=False).row

        return self._each(method, family, best)

    def _each(
        self, method: Method, family: Family, find: Callable[[CostTable, float, str | None], NDArray[np.int16]]
    ) -> list[Specialized]:
        """What ``find`` gives for each scenario; once a budget where all superclasses share an architecture."""
        name = family.budget_name
        shared: dict[float, NDArray[np.int16]] = {}
        networks = []
        for group, budget in self._scenarios(family):
            if method.per_superclass:
                row = find(family.table(name, len(family.groups[group])), budget, group)
            else:
                if budget not in shared:
                    widest = max(len(classes) for classes in family.groups.values())
                    shared[budget] = find(family.table(name, widest), budget, None)
                row = shared[budget]
            networks.append(family.network(group, row, {name: budget}))
        return networks

    # -- OFA's pipeline ------------------------------------------------------------------------------------------------

    def _predictor(self, family: Family) -> tuple[Callable[[Population], NDArray[np.float64]], float]:
        """A predictor of every superclass's accuracy, and the seconds of evaluating and fitting."""
        rows, accuracies, seconds = self._evaluated(family)
        started = time.perf_counter()
        predict = self._fit(rows, accuracies)
        return predict, seconds + time.perf_counter() - started

    def _fit(self, rows: Population, accuracies: NDArray[np.float64]) -> Callable[[Population], NDArray[np.float64]]:
        kind, targets = (
            self.config.predictor.kind,
            tuple(name for name, own in self.data.groups.items() if len(own) > 1),
        )
        # not predict, which leaves the axis of the superclasses out where there is one
        return fit_predictor(kind, self.supernet.space, rows, accuracies, targets=targets, seed=self.seed).outputs

    def _held_out(self) -> dict[str, list[float]]:
        """What a predictor fitted on four fifths of the evaluated architectures says about the last fifth."""
        rows, accuracies, _ = self._evaluated(self.family())
        split = len(rows) * 4 // 5
        predicted = self._fit(rows[:split], accuracies[:split])(rows[split:])
        return {"predicted": predicted.mean(1).tolist(), "measured": accuracies[split:].mean(1).tolist()}

    def _evaluated(self, family: Family) -> tuple[Population, NDArray[np.float64], float]:
        """Architectures uniform over the cost, and their accuracy on each superclass's validation images."""
        wanted = self.config.predictor.architectures
        path = self.own / "evaluated.npz"
        windows = CostWindows.make(family.tables[family.budget_name], 64, even=True)
        rows = windows.sample(wanted, 1, np.random.default_rng((self.seed, 2)))
        groups = [family.class_indices(group) for group in check_groups(family)]
        images = self.recipe.evaluation.model_dump(include={"calibration_images", "validation_images"})
        key = np.array(_digest([made_with(self.recipe, self.data), images]))
        done = np.zeros((0, len(groups)))
        seconds = 0.0
        with suppress(OSError, ValueError, KeyError, BadZipFile), np.load(path, allow_pickle=False) as stored:
            if np.array_equal(stored["rows"], rows) and stored["made_with"] == key:
                done, seconds = stored["accuracies"], float(stored["seconds"])
        scorer = ImageScorer(
            family.supernet.eval(), family.calibration_batches, family.validation, groups, family.mean, family.std
        )
        with progress_bar("evaluate architectures", wanted, done=len(done), shown=self.progress) as advance:
            before, saved = time.monotonic() - seconds, time.monotonic()
            for i in range(len(done), wanted):
                done = np.concatenate([done, scorer.accuracies(rows[i : i + 1])])
                advance()
                if i + 1 == wanted or time.monotonic() - saved > SAVE_SECONDS:
                    seconds, saved = time.monotonic() - before, time.monotonic()
                    buffer = io.BytesIO()
                    np.savez(buffer, rows=rows, accuracies=done, seconds=seconds, made_with=key)
                    write_atomically(path, buffer.getvalue())
        return rows, done, seconds

    # -- accuracy ------------------------------------------------------------------------------------------------------

    def _measure(self, method: Method, rows: list[dict[str, Any]]) -> list[float]:
        """Accuracy of each network on its superclass's images of the split that is reported."""
        family, accuracies = self.family(), []
        with progress_bar(f"{method.name}: {self.config.report} accuracy", len(rows), shown=self.progress) as advance:
            for row in rows:
                key = (row["group"], tuple(row["arch"]))
                if key not in self._accuracies:
                    network = family.network(row["group"], np.array(row["arch"], dtype=np.int16))
                    batches = family.batches(self.judged_on, network.class_indices, network.blueprint.resolution)
                    self._accuracies[key] = accuracy(network.module, batches)
                accuracies.append(self._accuracies[key])
                advance()
        return accuracies


def _json(path: Path) -> dict[str, Any]:
    """The mapping that a file holds; an empty one where there is no such file, or what it holds is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _kept(path: Path, made_with: str) -> Any:
    """What :func:`_keep` wrote, if it was made with the same."""
    stored = _json(path)
    return stored.get("result") if stored.get("made_with") == made_with else None


def _keep(path: Path, made_with: str, result: Any) -> None:
    write_atomically(path, json_text({"made_with": made_with, "result": result}).encode())


def _only(budgets: dict[str, float]) -> float:
    (budget,) = budgets.values()
    return budget


def teacher_of(recipe: Recipe) -> Recipe | None:
    """The first stage alone, where it trains the largest network and others follow: what supernets of a seed may share."""
    stages = recipe.training.stages
    if not stages[0].largest_only or len(stages) == 1:
        return None
    return _with_training(
        recipe,
        stages=stages[:1],
        superclass_dropout=0.0,
        distillation=0.0,
        dropout=0.0,
        drop_connect=0.0,
        predictor=None,
    )


def teacher_folder(alone: Recipe) -> str:
    """The name of the folder that a shared first stage is kept in; others have others."""
    return f"teacher-{_digest(alone.model_dump(mode='json', exclude_defaults=True, include=set(SHAPING)))[:8]}"


def _with_training(recipe: Recipe, **changes: Any) -> Recipe:
    training = recipe.training
    return recipe.model_copy(update={"training": type(training)(**{**dict(training), **changes})})


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

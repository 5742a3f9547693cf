"""From images and limits to a network of cells: a differentiable search, the cells derived from it, and the network on disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from snugnet.bundles import FAMILY, NETWORK
from snugnet.costs import COSTS, CostTable, counted_table, resolve_budget
from snugnet.costs.hardware import disconnected, measured_cost
from snugnet.data import AugmentConfig, load_split, mean_std
from snugnet.differentiable.config import CellRecipe, CellSearchConfig
from snugnet.differentiable.lookup import LookupGraph, bounds_to_try
from snugnet.differentiable.relaxed import Limit, RelaxedCells, check_limits, derive
from snugnet.differentiable.search import CHECKPOINT, CellSearch, Found, SearchImages
from snugnet.errors import ConfigError
from snugnet.family import Origin, StoredNetwork
from snugnet.family.disk import TRAINING
from snugnet.files import json_text, locked, write_atomically
from snugnet.fingerprint import Fingerprint, describe_differences, fingerprint
from snugnet.nn.network import build
from snugnet.pipeline import machine
from snugnet.plots import architecture_figure
from snugnet.spaces import Population, get_space
from snugnet.spaces.cells import CellSpace
from snugnet.training.device import make_fabric, resolve_device
from snugnet.training.loop import RunLog

REPORT = "search.json"


@dataclass(frozen=True)
class CellSearchResult:
    """What a search has found.

    Attributes:
        network: static, within the limits, its weights fresh; saved in the search's folder.
        limits: that it keeps.
        bounds: that the search was given.
        graphs: look-up graphs by the name of their cost.
        found: of the search itself.
        unlimited: costs of the network that would have been derived without limits.
    """

    network: StoredNetwork
    limits: tuple[Limit, ...]
    bounds: tuple[float, ...]
    graphs: dict[str, LookupGraph]
    found: Found
    unlimited: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "architecture": self.network.arch,
            "costs": self.network.costs,
            "limits": [
                {
                    "cost": limit.table.name,
                    "unit": limit.table.unit,
                    "at_least" if limit.at_least else "at_most": limit.amount,
                    "bound": bound,
                    "without_limits": self.unlimited[limit.table.name],
                }
                for limit, bound in zip(self.limits, self.bounds, strict=True)
            ],
            "lookup": {name: graph.to_json() for name, graph in self.graphs.items()},
            "seconds": round(self.found.seconds, 1),
            "ended": self.found.ended,
            "history": list(self.found.history),
            "provenance": self.network.provenance,
        }


def search_cells(
    recipe: CellRecipe, *, out: str | Path, fresh: bool = False, progress: bool = True
) -> CellSearchResult:
    """Search the cells of a network, or go on with a search that was stopped.

    Args:
        recipe: images, space, limits, search.
        out: folder for the network, ``search.json``, pictures, checkpoints and log.
        fresh: throw away what the folder holds of an earlier search.
        progress: whether to show progress bars.

    Returns:
        What was found, saved in the folder. No test image was looked at.

    Raises:
        SnugnetError: something cannot be done; the message says why and what to do.
    """
    folder = check_output(Path(out), fresh)
    search = Search.of(recipe, progress=progress)
    with locked(folder):
        if fresh:
            for path in (CHECKPOINT, "log.jsonl", NETWORK.index, REPORT):
                (folder / path).unlink(missing_ok=True)
            for path in ("tensorboard", "lookup"):
                shutil.rmtree(folder / path, ignore_errors=True)
        return search.run(folder)


def check_output(folder: Path, fresh: bool = False) -> Path:
    """The folder, if a search may write there.

    Raises:
        ConfigError: it is a file, a family's, or that of a network that no search has put there.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file, not a folder")
    if any((folder / name).exists() for name in (FAMILY.index, TRAINING)):
        raise ConfigError(f"{folder} holds a family; give the search another folder")
    if not fresh and (folder / NETWORK.index).exists() and not (folder / CHECKPOINT).exists():
        raise ConfigError(f"{folder} holds a network already; give another --out, or --fresh to throw that away")
    return folder


def cell_space(name: str, **options: Any) -> CellSpace:
    """A space of cells by name.

    Raises:
        SpaceError: there is no such space or option.
        ConfigError: it is a space of another kind.
    """
    space = get_space(name, **options)
    if not isinstance(space, CellSpace):
        raise ConfigError(f"{name} is no space of cells; a differentiable search has darts or nas-bench-201")
    return space


def find_limits(space: CellSpace, most: Mapping[str, Any], least: Mapping[str, Any]) -> tuple[Limit, ...]:
    """Limits of a space's costs.

    Args:
        space: of the network that is searched for.
        most: what costs may be at most, by name: a counted cost, or a measured one with its device behind it
            (``latency_ms@raspi4``); an amount, or a share of the cost's range (``40%``).
        least: what they have to be at least.

    Raises:
        BudgetError: an amount is none, or no network is within it.
        SpaceError: there is no such cost or device, or nothing was measured in this space.
    """
    limits = []
    for amounts, at_least in ((most, False), (least, True)):
        for name, amount in amounts.items():
            cost, at, device = name.partition("@")
            if at:
                measured = measured_cost(space, cost, device)
                table, never = measured.table, measured.unmeasured
            elif cost not in COSTS and cost in ("latency_ms", "energy_mj"):
                raise ConfigError(
                    f"{cost} is measured on a device: give one, as --device or in the name ({cost}@raspi4)"
                )
            else:
                table, never = counted_table(space, cost), None
            limits.append(Limit(table, resolve_budget(amount, table.range), at_least, never))
    check_limits(limits)
    derive(space, RelaxedCells(space).scores(), limits, exclusions(space))  # refuses limits that leave nothing together
    return tuple(limits)


def exclusions(space: CellSpace) -> tuple[CostTable, ...]:
    """Tables that are 0 for networks that look at their images; nothing where all do."""
    return (disconnected(space),) if space.name == "nas-bench-201" else ()


@dataclass(frozen=True)
class Search:
    """A recipe with all that it names."""

    recipe: CellRecipe
    config: CellSearchConfig
    target: CellSpace
    space: CellSpace
    classes: tuple[str, ...]
    images: SearchImages
    limits: tuple[Limit, ...]
    device: torch.device
    progress: bool

    @classmethod
    def of(cls, recipe: CellRecipe, *, progress: bool) -> Search:
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        device = make_fabric(recipe).device
        config = recipe.search.resolved()
        name, options = recipe.space.name, {**recipe.space.options, "resolution": recipe.data.resolution}
        find_limits(cell_space(name, **options), recipe.limits, recipe.at_least)  # before images are read
        images, classes = load_split(recipe.data, "train", progress=progress)
        target = cell_space(name, **options, num_classes=len(classes))
        space = target.with_options(**config.space)
        if space.choices != target.choices:
            raise ConfigError("search.space changes what can be chosen; it gives other numbers of cells and channels")
        mean, std = mean_std(images.images)
        halves = SearchImages.of(images, config.architecture_share, mean, std, recipe.seed)
        limits = find_limits(target, recipe.limits, recipe.at_least)
        return cls(recipe, config, target, space, classes, halves, limits, device, progress)

    @property
    def _augment(self) -> AugmentConfig:
        return self.config.augment or self.recipe.augment

    def run(self, folder: Path) -> CellSearchResult:
        """Graphs, search, derived network; all that is written into the folder."""
        graphs, bounds = self._look_up(folder)
        with RunLog(folder) as log:
            search = self.search(folder, log, self.limits, bounds, self.config)
            found = search.run()
            scores = search.perturbation_scores() if self.config.selection == "perturbation" else found.scores
        never = exclusions(self.target)
        row = derive(self.target, scores, self.limits, never)
        free = derive(self.target, scores, never=never)
        network = self.network(row, found)
        unlimited = {limit.table.name: float(limit.table(free)[0]) for limit in self.limits}
        result = CellSearchResult(network, self.limits, bounds, graphs, found, unlimited)
        network.save(folder)
        pictures = {"cells.png": architecture_figure(self.target, {self.recipe.name: row}, self.recipe.name)}
        for name, graph in graphs.items():
            pictures[f"lookup-{name}.png"] = graph.figure(self.limits, f"{self.recipe.name}: look-up graph")
        for file, picture in pictures.items():
            write_atomically(folder / file, picture)
        write_atomically(folder / REPORT, json_text(result.to_json()).encode())
        return result

    def search(
        self, folder: Path, log: RunLog, limits: Sequence[Limit], bounds: Sequence[float], config: CellSearchConfig
    ) -> CellSearch:
        """One search with these bounds."""
        return CellSearch(
            config,
            self.space,
            self.target,
            limits,
            bounds,
            self.images,
            self._augment,
            self.recipe.seed,
            self.device,
            folder,
            self._made_with(config, limits, bounds),
            log,
            self.progress,
            exclusions(self.target),
        )

    def _made_with(self, config: CellSearchConfig, limits: Sequence[Limit], bounds: Sequence[float]) -> Fingerprint:
        """All that shapes a search."""
        device, precision = resolve_device(self.recipe)
        left_out = {"augment", "checkpoint_seconds", "log_every", "lookup", "selection", "perturbation_batches"}
        return fingerprint(
            search=config.model_dump(mode="json", exclude=left_out),
            limits=[[limit.table.name, limit.amount, limit.at_least] for limit in limits],
            bounds=list(bounds),
            seed=self.recipe.seed,
            augment=self._augment.model_dump(mode="json"),
            device=device,
            precision=precision,
            space=self.space.to_json(),
            target=self.target.to_json(),
            images=self.images.digest(),
        )

    # -- the look-up graphs --------------------------------------------------------------------------------------------

    def _look_up(self, folder: Path) -> tuple[dict[str, LookupGraph], tuple[float, ...]]:
        """The graph of every cost that has a limit, and what the search is given for each limit."""
        graphs: dict[str, LookupGraph] = {}
        points = self.config.lookup.points
        for limit in self.limits if points else ():
            if limit.table.name not in graphs:
                graphs[limit.table.name] = self._graph(folder / "lookup", limit)
        bounds = [graphs[each.table.name].bound(each) if points else each.amount for each in self.limits]
        return graphs, tuple(bounds)

    def _graph(self, folder: Path, limit: Limit) -> LookupGraph:
        """Read the graph where it lies, or make it: a search for each point, some at once."""
        lookup, cost = self.config.lookup, limit.table.name
        start = RelaxedCells(self.space, edge_weights=bool(self.config.edge_weights), seed=self.recipe.seed)
        bounds = bounds_to_try(start, limit, lookup.points)
        config = self.point_config()
        made_with = self._made_with(config, (), bounds)
        path = folder / f"{cost}.json"
        if path.is_file():
            content = json.loads(path.read_text())
            if not describe_differences(content.get("made_with"), made_with):
                return LookupGraph.from_json(content["graph"])
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [
            (self.recipe.model_dump(mode="json"), cost, b, str(folder / f"{cost}-{i}")) for i, b in enumerate(bounds)
        ]
        workers = min(lookup.workers or (os.cpu_count() or 1 if self.device.type == "cpu" else 1), len(jobs))
        graph = LookupGraph(cost, bounds, tuple(_in_processes(_point, jobs, workers)))
        write_atomically(path, json_text({"made_with": made_with, "graph": graph.to_json()}).encode())
        for _, _, _, each in jobs:
            shutil.rmtree(each, ignore_errors=True)
        return graph

    def point_config(self) -> CellSearchConfig:
        """Of a search for one point of a graph: shorter."""
        epochs = max(1, round(self.config.lookup.epochs * self.config.epochs))
        warmup = min(self.config.warmup_epochs, epochs - 1)
        return self.config.model_copy(update={"epochs": epochs, "warmup_epochs": warmup})

    # -- the network ---------------------------------------------------------------------------------------------------

    def network(self, row: Population, found: Found) -> StoredNetwork:
        """The static network of a row, (1, d), with fresh weights; its counted costs are those of its own layers."""
        blueprint = self.target.blueprint(row)
        costs: dict[str, Any] = {"madds": blueprint.madds, "params": blueprint.params}
        for limit in self.limits:
            cost = float(limit.table(row)[0])
            assert costs.get(limit.table.name, cost) == cost, "a table and the network disagree"
            assert limit.sign * (cost - limit.amount) <= 0, "the decode broke a limit"
            costs[limit.table.name] = cost
        network = build(blueprint, seed=self.recipe.seed)
        recipe = self.recipe.model_dump(mode="json", exclude={"search", "limits", "at_least"})
        return StoredNetwork(
            family=Origin(self.recipe.name, self.target, self.classes, self.images.mean, self.images.std),
            group=",".join(self.classes),
            class_indices=tuple(range(len(self.classes))),
            row=row[0],
            costs=costs,
            budgets={limit.table.name: limit.amount for limit in self.limits if not limit.at_least},
            weights=dict(network.state_dict()),
            provenance={
                "recipe": recipe,
                "start": "untrained",
                "search": self.config.model_dump(mode="json"),
                "validation": {"start": None, "accuracy": None},
                "seconds": round(found.seconds, 1),
                "machine": machine(),
            },
        )


def _point(recipe: dict[str, Any], cost: str, bound: float, folder: str) -> float:
    """What the network costs that is derived, without limits, from a search that was given a bound."""
    search = Search.of(CellRecipe.model_validate({**recipe, "limits": {}, "at_least": {}}), progress=False)
    (limit,) = find_limits(search.target, {cost: "100%"}, {})
    with RunLog(Path(folder)) as log:
        found = search.search(Path(folder), log, [limit], [bound], search.point_config()).run()
    return float(limit.table(derive(search.target, found.scores, never=exclusions(search.target)))[0])


def _in_processes(job: Callable[..., float], arguments: Sequence[tuple[Any, ...]], workers: int) -> list[float]:
    """The results of some jobs, in order; several at once have a thread each."""
    if workers == 1:
        return [job(*each) for each in arguments]
    with ProcessPoolExecutor(workers, get_context("spawn"), _one_thread) as pool:
        return list(pool.map(job, *zip(*arguments, strict=True)))


def _one_thread() -> None:
    torch.set_num_threads(1)

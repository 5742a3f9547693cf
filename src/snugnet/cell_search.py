"""From images and limits to a network of cells: a differentiable search, the cells derived from it, and the network on disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from snugnet.bundles import NETWORK
from snugnet.costs import COSTS, CostTable, resolve_budget
from snugnet.costs.hardware import DEVICES, UNITS, costs_of, disconnected, measured_cost
from snugnet.data import AugmentConfig, ImageSet, load_split, mean_std
from snugnet.differentiable.config import CellRecipe, CellSearchConfig
from snugnet.differentiable.lookup import LookupGraph, bounds_to_try
from snugnet.differentiable.relaxed import Limit, RelaxedCells, check_limits, derive, operations_of_first_cell
from snugnet.differentiable.search import CHECKPOINT, SKIP, CellSearch, Found, SearchImages, check_made_with
from snugnet.errors import BudgetError, ConfigError, SearchError
from snugnet.family import Origin, StoredNetwork
from snugnet.files import json_text, locked, write_atomically
from snugnet.fingerprint import Fingerprint, differences, fingerprint
from snugnet.nn.network import build
from snugnet.pipeline import machine
from snugnet.plots import architecture_figure
from snugnet.retraining import check_output
from snugnet.spaces import Population, get_space
from snugnet.spaces.cells import CellSpace
from snugnet.supernets.mixed import MixedNetwork
from snugnet.texts import joined
from snugnet.training.checkpoint import load_checkpoint
from snugnet.training.device import make_fabric, resolve_device
from snugnet.training.loop import RunLog
from snugnet.training.threads import begin_worker

if TYPE_CHECKING:
    from lightning_fabric import Fabric

REPORT = "search.json"
CELLS = "cells.png"


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
    folder = check_output(Path(out), fresh, CHECKPOINT)
    search = Search.of(recipe, progress=progress)
    with locked(folder):
        if fresh:
            pictures = (path.name for path in folder.glob("lookup-*.png"))
            for path in (CHECKPOINT, "log.jsonl", NETWORK.index, REPORT, CELLS, *pictures):
                (folder / path).unlink(missing_ok=True)
            for path in ("tensorboard", "lookup"):
                shutil.rmtree(folder / path, ignore_errors=True)
        return search.run(folder)


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


def check_names(recipe: CellRecipe) -> None:
    """Refuse limits of what there is not, before images are read; what is known of classes comes with the images.

    Raises:
        BudgetError: an amount is none.
        ConfigError: a measured cost has no device.
        SpaceError: there is no such cost or device.
    """
    for name, amount in (*recipe.limits.items(), *recipe.at_least.items()):
        try:
            resolve_budget(amount, (0.0, 1.0))
        except BudgetError as error:
            raise BudgetError(f"{name}: {error}") from error
        cost, at, device = name.partition("@")
        if at:
            costs_of(device)
        elif name in UNITS and name not in recipe.costs:
            raise ConfigError(
                f"{name} is measured on a device; say on which, as {name}@raspi4 or by --device; devices: {', '.join(DEVICES)}"
            )
        elif name not in recipe.costs:
            _ = COSTS[cost]


def find_limits(space: CellSpace, recipe: CellRecipe) -> tuple[Limit, ...]:
    """The limits that a recipe gives.

    Args:
        space: of the network that is searched for.
        recipe: its limits are of counted costs, of measured ones with their device behind them (``latency_ms@raspi4``), or of
            those in ``costs``; an amount, or a share of the cost's range (``40%``).

    Raises:
        BudgetError: an amount is none.
        SpaceError: there is no such cost or device, or nothing was measured in this space.
    """
    limits = []
    for amounts, at_least in ((recipe.limits, False), (recipe.at_least, True)):
        for name, amount in amounts.items():
            cost, at, device = name.partition("@")
            if at:
                measured = measured_cost(space, cost, device)
                table, never = measured.table, measured.unmeasured
            else:
                table, never = recipe.cost_table(space, name), None
            limits.append(Limit(table, resolve_budget(amount, table.range), at_least, never))
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
    fabric: Fabric
    progress: bool

    @classmethod
    def of(
        cls, recipe: CellRecipe, *, progress: bool, loaded: tuple[SearchImages, tuple[str, ...]] | None = None
    ) -> Search:
        """Of a recipe; its images and classes are read unless they are given."""
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        fabric = make_fabric(recipe)
        config = recipe.search.resolved()
        name, options = recipe.space.name, {**recipe.space.options, "resolution": recipe.data.resolution}
        cell_space(name, **options)
        check_names(recipe)  # before images are read
        images, classes = loaded or _read_images(recipe, config, progress)
        target = cell_space(name, **options, num_classes=len(classes))
        space = target.with_options(**config.space)
        if space.choices != target.choices:
            raise ConfigError("search.space changes what can be chosen; it gives other numbers of cells and channels")
        MixedNetwork(space, **config.network)  # refuses what does not divide its channels
        limits = find_limits(target, recipe)
        check_limits(target, (*limits, *_most_skips(target, config)), exclusions(target))
        return cls(recipe, config, target, space, classes, images, limits, fabric, progress)

    @property
    def _augment(self) -> AugmentConfig:
        return self.config.augment or self.recipe.augment

    def run(self, folder: Path) -> CellSearchResult:
        """Graphs, search, derived network; all that is written into the folder."""
        self._check_checkpoint(folder / CHECKPOINT)
        graphs, bounds = self._look_up(folder)
        with RunLog(folder) as log:
            search = self.search(folder, log, self.limits, bounds, self.config)
            found = search.run()
            scores = search.perturbation_scores() if self.config.selection == "perturbation" else found.scores
        never = exclusions(self.target)
        limits = (*self.limits, *_most_skips(self.target, self.config))
        row = derive(self.target, scores, limits, never)
        free = derive(self.target, scores, never=never)
        network = self.network(row, found)
        unlimited = {limit.table.name: float(limit.table(free)[0]) for limit in self.limits}
        result = CellSearchResult(network, self.limits, bounds, graphs, found, unlimited)
        network.save(folder)
        pictures = {CELLS: architecture_figure(self.target, {self.recipe.name: row}, self.recipe.name)}
        for name, graph in graphs.items():
            pictures[f"lookup-{name}.png"] = graph.figure(self.limits, f"{self.recipe.name}: look-up graph")
        for file, picture in pictures.items():
            write_atomically(folder / file, picture)
        write_atomically(folder / REPORT, json_text(result.to_json()).encode())
        return result

    def _check_checkpoint(self, path: Path) -> None:
        """Refuse a folder in which another search has begun before hours go into a graph for this one.

        The bounds are left out: they come from the graph.
        """
        if path.exists():
            state, own = load_checkpoint(path)[1], self._made_with(self.config, self.limits, ())
            made = state.get("made_with")
            check_made_with(path, {"made_with": {**made, "bounds": []} if isinstance(made, dict) else made}, own)

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
            self.fabric,
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
        if not self.config.lookup.points:
            return {}, tuple(limit.amount for limit in self.limits)
        graphs = {_of(limit): self._graph(folder / "lookup", limit) for limit in self.limits}
        return graphs, tuple(graphs[_of(limit)].bound(limit) for limit in self.limits)

    def _graph(self, folder: Path, limit: Limit) -> LookupGraph:
        """Read the graph where it lies, or make it: a search for each point, some at once."""
        lookup, name = self.config.lookup, limit.table.name
        start = RelaxedCells(self.space, edge_weights=bool(self.config.edge_weights), seed=self.recipe.seed)
        bounds = bounds_to_try(start, limit, lookup.points, self.config.cost_temperature)
        made_with = self._made_with(self.point_config(), (), bounds)
        path = folder / f"{_of(limit)}.json"
        if path.is_file() and (known := _read_graph(path, made_with)):
            return known
        folder.mkdir(parents=True, exist_ok=True)
        alone = (
            {"limits": {}, "at_least": {name: "0%"}} if limit.at_least else {"limits": {name: "100%"}, "at_least": {}}
        )
        workers = min(lookup.workers or (os.cpu_count() or 1 if self.fabric.device.type == "cpu" else 1), len(bounds))
        threads = {"threads": None} if workers > 1 else {}  # a worker has its share
        recipe = {**self.recipe.model_dump(mode="json"), **alone, **threads}
        loaded = (_arrays(self.images), self.classes)
        jobs = [(recipe, loaded, each, str(folder / f"{path.stem}-{i}")) for i, each in enumerate(bounds)]
        derived = _in_processes(_point, jobs, workers)
        graph = LookupGraph(name, bounds, tuple(derived), limit.at_least)
        write_atomically(path, json_text({"made_with": made_with, "graph": graph.to_json()}).encode())
        for *_, each in jobs:
            shutil.rmtree(each, ignore_errors=True)
        return graph

    def point_config(self) -> CellSearchConfig:
        """Of a search for one point of a graph: shorter."""
        share = self.config.lookup.epochs
        epochs = max(1, round(share * self.config.epochs))
        warmup = min(round(share * self.config.warmup_epochs), epochs - 1)
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
            costs.setdefault(limit.table.name, cost)
        network = build(blueprint, seed=self.recipe.seed)
        recipe = self.recipe.model_dump(mode="json", exclude={"search", "limits", "at_least"})
        return StoredNetwork(
            family=Origin(self.recipe.name, self.target, self.classes, self.images.mean, self.images.std),
            group=joined(self.classes),
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


def _most_skips(space: CellSpace, config: CellSearchConfig) -> tuple[Limit, ...]:
    """The limit on skip connections of the found network, where there is one."""
    return () if config.max_skips is None else (Limit(operations_of_first_cell(space, SKIP), config.max_skips),)


def _of(limit: Limit) -> str:
    """What the graph of a limit is called."""
    return f"{limit.table.name}{'-at-least' if limit.at_least else ''}"


def _read_graph(path: Path, made_with: Fingerprint) -> LookupGraph | None:
    """The graph in a file; None where it was made by other searches.

    Raises:
        ConfigError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text())
        return None if differences(content["made_with"], made_with) else LookupGraph.from_json(content["graph"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged ({error!r}); delete it, or --fresh to throw all away") from error


def _read_images(recipe: CellRecipe, config: CellSearchConfig, progress: bool) -> tuple[SearchImages, tuple[str, ...]]:
    """Training images in two parts, and the names of their classes."""
    images, classes = load_split(recipe.data, "train", progress=progress)
    mean, std = mean_std(images)
    return SearchImages.of(images, config.architecture_share, mean, std, recipe.seed), tuple(classes)


def _arrays(images: SearchImages) -> tuple[Any, ...]:
    """Images for another process: tensors would go there through shared memory, of which containers have little."""
    parts = (images.weights, images.architecture)
    return *((each.pixels(slice(None)).numpy(), each.labels.numpy()) for each in parts), images.mean, images.std


def _point(recipe: dict[str, Any], loaded: tuple[tuple[Any, ...], tuple[str, ...]], bound: float, folder: str) -> float:
    """What the network costs that is derived, without limits, from a search that was given a bound on the recipe's only cost."""
    (*parts, mean, std), classes = loaded
    weights, architecture = (ImageSet(*map(torch.from_numpy, each)) for each in parts)
    images = SearchImages(weights, architecture, mean, std)
    search = Search.of(CellRecipe.model_validate(recipe), progress=False, loaded=(images, classes))
    with RunLog(Path(folder)) as log:
        found = search.search(Path(folder), log, search.limits, [bound], search.point_config()).run()
    return float(search.limits[0].table(derive(search.target, found.scores, never=exclusions(search.target)))[0])


def _in_processes(job: Callable[..., float], arguments: Sequence[tuple[Any, ...]], workers: int) -> list[float]:
    """The results of some jobs, in order; several at once share torch's threads.

    Raises:
        SearchError: a process was killed.
    """
    if workers == 1:
        return [job(*each) for each in arguments]
    threads = max(1, torch.get_num_threads() // workers)
    with ProcessPoolExecutor(workers, get_context("spawn"), begin_worker, (threads,)) as pool:
        try:
            return list(pool.map(job, *zip(*arguments, strict=True)))
        except BrokenProcessPool as error:
            raise SearchError(
                "a search for the look-up graph was killed, maybe for want of memory; run the same again with fewer of "
                "search.lookup.workers, and it goes on"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise

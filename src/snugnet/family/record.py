"""The trained product: one directory from which any (group, budget) gets its network at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from snugnet.costs import COSTS, CostTable, decode, exact_amount, parse_budget
from snugnet.data import ImageSet, normalise
from snugnet.errors import BudgetError, FamilyError
from snugnet.files import plain_number
from snugnet.generator.model import ArchitectureGenerator, regrets
from snugnet.nn.network import Network, resized, with_layout
from snugnet.spaces import Blueprint, Population, SearchSpace
from snugnet.supernets import Supernet
from snugnet.training.calibration import accuracy, calibrate

CALIBRATION_BATCH = 64
CELLS = 512
"""Of the decode's grid: half of its default, which is twice as fast and changes no accuracy that we could measure."""
CONDITIONS = 65
"""Budgets at which the generator's most probable architectures are looked up, for each group once."""

Group = str | Sequence[str]
"""The name of a superclass, or any list of class names."""
Scenario = tuple[Group, Mapping[str, float | str]]
"""A group, and a budget for each cost that is bounded."""


@dataclass(eq=False)
class Specialized:
    """One network of a family: an architecture for a group of classes, built when it is first used.

    Attributes:
        family: where it comes from.
        group: as it was asked for.
        class_indices: of its classes in the family, in output order.
        row: the architecture, (d,).
        costs: of this very network, head included, by name.
        budgets: what was asked for, by cost.
    """

    family: Family
    group: str
    class_indices: tuple[int, ...]
    row: NDArray[np.int16]
    costs: dict[str, float]
    budgets: dict[str, float]

    @property
    def arch(self) -> dict[str, Any]:
        """The architecture in the space's JSON form."""
        return self.family.space.to_dict(self.row)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in output order."""
        return tuple(self.family.classes[i] for i in self.class_indices)

    @property
    def blueprint(self) -> Blueprint:
        """The layers."""
        return self.family.space.blueprint(self.row).with_classes(len(self.class_indices))

    @cached_property
    def module(self) -> Network:
        """The network in eval mode, its batch norm calibrated: normalised images (n, 3, h, w) to logits (n, classes)."""
        return self.family.build(self.row, self.class_indices)

    def metadata(self) -> dict[str, Any]:
        """What an exported file says about itself."""
        return {
            "family": self.family.name,
            "group": self.group,
            "classes": list(self.classes),
            "mean": list(self.family.mean),
            "std": list(self.family.std),
            "input": "RGB of the centre square, 0 to 1, minus mean, divided by std; batch x 3 x height x width",
            "resolution": self.blueprint.resolution,
            "space": self.family.space.to_json(),
            "architecture": self.arch,
            "costs": self.costs,
        }

    def export(self, path: str | Path) -> Path:
        """Write the network as ``.onnx`` or ``.pt2``; see :func:`snugnet.deploy.export`."""
        from snugnet.deploy import export

        return export(self.module, path, self.metadata())


@dataclass(eq=False)
class Family:
    """A trained supernet, its architecture generator, and all that is needed to hand out networks.

    Attributes:
        name: of the family.
        supernet: in eval mode.
        generator: from (group, budget) to scores of every choice.
        budget_name: the cost that the generator was trained on.
        classes: class names, in the order of the supernet's logits.
        groups: superclass -> class names.
        mean, std: of the images, 0 to 1, a channel each.
        tables: cost tables by name, for networks with all classes.
        calibration: training images, for recalibrating batch norm.
        validation: validation images, for choosing between architectures.
        provenance: how it came to be: recipe, versions, times, data report.
    """

    name: str
    supernet: Supernet
    generator: ArchitectureGenerator
    budget_name: str
    classes: tuple[str, ...]
    groups: dict[str, tuple[str, ...]]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    tables: dict[str, CostTable]
    calibration: ImageSet
    validation: ImageSet
    provenance: dict[str, Any] = field(default_factory=dict)
    _modes: dict[bytes, Population] = field(default_factory=dict, repr=False)
    _headed: dict[tuple[str, int], CostTable] = field(default_factory=dict, repr=False)

    @property
    def space(self) -> SearchSpace:
        """The search space."""
        return self.supernet.space

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.supernet.parameters()).device

    def to(self, device: str | torch.device) -> Family:
        """Move weights and images; returns the family."""
        self.supernet.to(device)
        self.generator.to(device)
        self.calibration = self.calibration.to(device)
        self.validation = self.validation.to(device)
        return self

    # -- groups and budgets --------------------------------------------------------------------------------------------

    def class_indices(self, group: Group) -> tuple[int, ...]:
        """Indices of a group's classes, in output order.

        Raises:
            FamilyError: the group or a class is unknown, named twice, or fewer than two classes are left.
        """
        if isinstance(group, str):
            if group not in self.groups:
                raise FamilyError(
                    f"{self.name} has no group {group!r}; groups: {', '.join(self.groups)} (or give a list of classes)"
                )
            names: Sequence[str] = self.groups[group]
        elif isinstance(group, (list, tuple)) and all(isinstance(name, str) for name in group):
            names = group
        else:
            raise FamilyError(f"a group is the name of a superclass or a list of class names, got {group!r}")
        unknown = [name for name in names if name not in self._class_index]
        if unknown:
            raise FamilyError(f"{self.name} has no class {unknown[0]!r}; classes: {', '.join(self.classes)}")
        if len(set(names)) != len(names):
            raise FamilyError(f"a class is named twice: {', '.join(names)}")
        if len(names) < 2:
            raise FamilyError(f"a network tells at least two classes apart, got {', '.join(names) or 'none'}")
        return tuple(self._class_index[name] for name in names)

    @cached_property
    def _class_index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.classes)}

    @cached_property
    def _memberships(self) -> NDArray[np.float32]:
        """One-hot superclass of each class: (classes, groups)."""
        table = np.zeros((len(self.classes), len(self.groups)), dtype=np.float32)
        for g, names in enumerate(self.groups.values()):
            table[[self._class_index[name] for name in names], g] = 1
        return table

    def table(self, cost: str, classes: int) -> CostTable:
        """A cost of networks for so many classes; :attr:`tables` are of networks for all of them.

        Raises:
            BudgetError: there is no such cost.
        """
        whole, fewer = self._table(cost), len(self.classes) - classes
        if not fewer or cost not in COSTS:
            return whole
        if (cost, classes) not in self._headed:
            columns, values = self._cost_of_a_class[cost]
            parts: list[tuple[Sequence[int], ArrayLike]] = [
                *whole.tables,
                ((), whole.constant),
                (columns, -fewer * values),
            ]
            self._headed[cost, classes] = CostTable(self.space, whole.name, whole.unit, parts)
        return self._headed[cost, classes]

    @cached_property
    def _cost_of_a_class(self) -> dict[str, tuple[tuple[int, ...], NDArray[np.float64]]]:
        """What one class more adds to each counted cost: a table over the choices that decide how wide the classifier is."""
        i, columns = len(self.space.parts) - 1, self.space.parts[-1].choices
        tables = {name: np.zeros(self.space.num_options[list(columns)]) for name in self.tables if name in COSTS}
        for indices in np.ndindex(*(len(self.space.choices[c].options) for c in columns)):
            head = Blueprint(self.space.part_blocks(i, indices), self.space.in_channels, self.space.resolution)
            one, two = (head.with_classes(k) for k in (1, 2))
            for name, values in tables.items():
                values[indices] = COSTS[name].of(two) - COSTS[name].of(one)
        return {
            name: ((), values.max()) if values.min() == values.max() else (columns, values)
            for name, values in tables.items()
        }

    def cost_range(self, cost: str, group: Group | None = None) -> tuple[float, float]:
        """Smallest and largest cost of a network for a group (for all classes without one).

        Raises:
            BudgetError: there is no such cost.
        """
        return self.table(cost, len(self.classes if group is None else self.class_indices(group))).range

    def _table(self, cost: str) -> CostTable:
        if cost not in self.tables:
            raise BudgetError(f"{self.name} has no cost {cost!r}; costs: {', '.join(self.tables)}")
        return self.tables[cost]

    # -- specialising --------------------------------------------------------------------------------------------------

    def specialize(self, group: Group, *, best_of: int = 1, seed: int = 0, **budgets: float | str) -> Specialized:
        """The network for a group of classes under budgets.

        Args:
            group: the name of a superclass, or any list of class names.
            best_of: so many architectures are tried on validation images and the best is kept (the paper's choice,
                section 3.2; without it the generator's own is taken).
            seed: of the draw of those architectures.
            **budgets: by cost, such as ``madds="40M"`` or ``params=2e5``; without any, the largest network is allowed.

        Returns:
            A network whose costs are at most the budgets, never above.

        Raises:
            FamilyError: the group is unknown.
            BudgetError: a cost is unknown, or no network is within the budget.
        """
        return self.best((group, budgets), best_of, seed=seed)

    def network(self, group: Group, row: NDArray[np.int16], budgets: Mapping[str, float] | None = None) -> Specialized:
        """The network of an architecture that was found elsewhere.

        Args:
            group: the name of a superclass, or any list of class names.
            row: the architecture, shape (d,).
            budgets: under which it was found.

        Raises:
            FamilyError: the group is unknown.
            SpaceError: the row is no architecture of the family's space.
        """
        rows = self.space.rows(row)
        scenario = (group, dict(budgets or {}))
        return self._specialized([scenario], [self.class_indices(group)], [scenario[1]], rows)[0]

    def best(self, scenario: Scenario, best_of: int, *, seed: int = 0) -> Specialized:
        """The best on validation images of ``best_of`` draws for one scenario; see :meth:`specialize`."""
        if isinstance(best_of, bool) or not isinstance(best_of, int) or best_of < 1:
            raise BudgetError(f"best_of is a whole number of at least 1, got {best_of!r}")
        if best_of == 1:
            return self.specialize_many([scenario])[0]
        candidates = self.specialize_many([scenario] * best_of, noise=True, seed=seed)
        if not len(self.validation.of_classes(candidates[0].class_indices)):
            raise FamilyError(f"{self.name} holds no validation images of {candidates[0].group}; leave out best_of")
        unique = {candidate.row.tobytes(): candidate for candidate in candidates}
        return max(unique.values(), key=lambda candidate: self.validation_accuracy(candidate))

    def specialize_many(
        self, scenarios: Sequence[Scenario], *, noise: bool = False, seed: int = 0
    ) -> list[Specialized]:
        """Networks for many scenarios: one forward pass of the generator, then one exact decode.

        Args:
            scenarios: (group, budgets) each.
            noise: add Gumbel noise to the scores of all but the first, so that they are samples of the generator's
                distribution instead of its mode.
            seed: of the noise.

        Returns:
            One network a scenario, in order; each is built when its ``module`` is first used.
        """
        if not scenarios:
            return []
        indices, budgets = self._read(scenarios)
        mixtures = {each: self._memberships[list(each)].mean(0) for each in set(indices)}
        weights = np.stack([mixtures[each] for each in indices])
        names = sorted({name for each in budgets for name in each} | {self.budget_name})
        limits = np.array([[each.get(name, np.inf) for name in names] for each in budgets])
        batches = self._batches_of_heads(indices, names)
        for batch in batches:
            limits[batch.members] += batch.savings
            self._check_feasible(scenarios, batch, limits)
        asked = np.empty(len(scenarios))
        for batch in batches:
            for own in {indices[i] for i in batch.members}:
                where = [i for i in batch.members if indices[i] == own]
                asked[where] = self._conditions(mixtures[own], batch.tables, limits[where])
        scores = self._scores(weights, asked)
        if noise:
            scores[1:] += np.random.default_rng(seed).gumbel(size=scores[1:].shape).astype(np.float32)
        scores = regrets(scores, self.space)
        rows = np.zeros((len(scenarios), self.space.d), dtype=np.int16)
        for batch in batches:
            rows[batch.members] = decode(batch.tables, scores[batch.members], limits[batch.members], cells=CELLS)
        return self._specialized(scenarios, indices, budgets, rows)

    def _scores(self, weights: NDArray[np.float32], asked: NDArray[np.float64]) -> NDArray[np.float32]:
        """The generator's log-probabilities, (n, sum of options), for mixtures of groups and budgets."""
        device = self.device
        scores = self.generator.scores(
            torch.from_numpy(weights).to(device), torch.from_numpy(asked).to(device, torch.float32)
        )
        return scores.cpu().numpy()

    def _conditions(
        self, mixture: NDArray[np.float32], tables: list[CostTable], limits: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The budget to ask the generator for, so that what it holds most probable just no longer fits the limits.

        The decode then trims that network down to the limits. Asking for the budget itself can leave a third of it unused,
        because the most probable architecture is often cheaper than the average one; and it says nothing about budgets of
        another cost.

        Args:
            mixture: weight of each group, (groups,).
            tables: of the costs that are limited.
            limits: (n, costs).

        Returns:
            Budgets of the cost that the generator was trained on, (n,).
        """
        grid = np.linspace(self.generator.low, self.generator.high, CONDITIONS)
        key = mixture.tobytes()
        if key not in self._modes:
            scores = regrets(self._scores(np.repeat(mixture[None], CONDITIONS, 0), grid), self.space)
            table = self.tables[self.budget_name]
            self._modes[key] = decode([table], scores, np.full(CONDITIONS, np.inf))
        costs = np.stack([table(self._modes[key]) for table in tables], 1)
        outgrown = np.any(costs[None] >= limits[:, None], axis=2)  # (n, grid)
        first = np.where(np.any(outgrown, axis=1), np.argmax(outgrown, axis=1), CONDITIONS - 1)
        return grid[first]

    def _read(self, scenarios: Sequence[Scenario]) -> tuple[list[tuple[int, ...]], list[dict[str, float]]]:
        known: dict[Any, tuple[int, ...]] = {}
        indices, budgets = [], []
        for scenario in scenarios:
            if len(scenario) != 2 or not isinstance(scenario[1], Mapping):
                raise FamilyError(f"a scenario is (group, {{cost: budget}}), got {scenario!r}")
            group, asked = scenario
            key = (
                group
                if isinstance(group, str)
                else tuple(map(str, group))
                if isinstance(group, (list, tuple))
                else None
            )
            if key is None or key not in known:
                known[key] = self.class_indices(group)
            indices.append(known[key])
            for name in asked:
                self._table(name)
            budgets.append({name: parse_budget(value) for name, value in asked.items()})
        return indices, budgets

    def _check_feasible(self, scenarios: Sequence[Scenario], batch: _Heads, limits: NDArray[np.float64]) -> None:
        for i, table in enumerate(batch.tables):
            low, high = table.range
            short = np.flatnonzero(limits[batch.members, i] < low)
            if len(short):
                first, saving = batch.members[short[0]], batch.savings[short[0], i]
                raise BudgetError(
                    f"no network of {self.name} for {_text(scenarios[first][0])} has {table.name} <= "
                    f"{exact_amount(limits[first, i] - saving, math.floor)}; feasible: "
                    f"{exact_amount(low - saving, math.ceil)} to {exact_amount(high - saving, math.floor)}"
                )

    def _specialized(
        self,
        scenarios: Sequence[Scenario],
        indices: list[tuple[int, ...]],
        budgets: list[dict[str, float]],
        rows: Population,
    ) -> list[Specialized]:
        names = list(self.tables)
        costs = np.empty((len(rows), len(names)))
        for batch in self._batches_of_heads(indices, names):
            costs[batch.members] = np.stack([table(rows[batch.members]) for table in batch.tables], 1) - batch.savings
        return [
            Specialized(self, _text(group), own, row, dict(zip(names, map(plain_number, cost), strict=True)), limits)
            for (group, _), own, row, cost, limits in zip(
                scenarios, indices, rows, costs.tolist(), budgets, strict=True
            )
        ]

    def _batches_of_heads(self, indices: list[tuple[int, ...]], names: list[str]) -> list[_Heads]:
        """Scenarios that the same tables serve: all of them where a class costs the same in every architecture (then the
        tables of all classes do, and limits are raised by what the cut heads save), otherwise those of as many classes."""
        counts = np.array([len(each) for each in indices])
        if any(columns for columns, _ in self._cost_of_a_class.values()):
            members = [np.flatnonzero(counts == k) for k in np.unique(counts)]
            return [
                _Heads(own, [self.table(name, int(counts[own[0]])) for name in names], np.zeros((len(own), len(names))))
                for own in members
            ]
        each = [float(self._cost_of_a_class[name][1]) if name in COSTS else 0.0 for name in names]
        savings = (len(self.classes) - counts)[:, None] * np.array(each)
        return [_Heads(np.arange(len(counts)), [self.tables[name] for name in names], savings)]

    # -- building ------------------------------------------------------------------------------------------------------

    def build(self, row: NDArray[np.int16], class_indices: Sequence[int] | None = None) -> Network:
        """Extract a sub-network, with the head cut to the classes, and recalibrate its batch norm."""
        network = self.supernet.eval().extract(row, class_indices)
        with_layout(network, torch.channels_last)
        resolution = network.blueprint.resolution
        calibrate(network, (resized(images, resolution) for images in self.calibration_batches()))
        return network.requires_grad_(False)

    def calibration_batches(self) -> Iterable[Tensor]:
        """Images of all classes, as in training: statistics of the group's images alone measurably cost accuracy."""
        for start in range(0, len(self.calibration), CALIBRATION_BATCH):
            batch = self.calibration.images[start : start + CALIBRATION_BATCH]
            if len(batch) == CALIBRATION_BATCH or start == 0:
                yield normalise(batch, self.mean, self.std, channels_last=True)

    def batches(
        self, images: ImageSet, class_indices: Sequence[int], resolution: int, size: int = 256
    ) -> Iterable[tuple[Tensor, Tensor]]:
        """The images of these classes in order, normalised, at a resolution; labels are indices into ``class_indices``."""
        own = images.of_classes(class_indices)
        position = torch.full((len(self.classes),), -1, dtype=torch.long, device=own.labels.device)
        position[torch.as_tensor(class_indices, device=position.device)] = torch.arange(
            len(class_indices), device=position.device
        )
        for start in range(0, len(own), size):
            part = slice(start, start + size)
            x = normalise(own.images[part], self.mean, self.std, channels_last=True)
            yield resized(x, resolution), position[own.labels[part]]

    def validation_accuracy(self, network: Specialized) -> float:
        """Accuracy of one network on its group's validation images."""
        return accuracy(
            network.module, self.batches(self.validation, network.class_indices, network.blueprint.resolution)
        )

    # -- on disk -------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write the family as a directory; see :mod:`snugnet.family.disk`."""
        from snugnet.family.disk import save_family

        return save_family(self, Path(folder))

    def push_to_hub(self, repo_id: str, *, private: bool = True, token: str | None = None) -> str:
        """Upload the family to the Hugging Face hub; returns the address of the commit."""
        from snugnet.family.disk import push_family

        return push_family(self, repo_id, private=private, token=token)


@dataclass(frozen=True)
class _Heads:
    """Scenarios that are decoded together: their positions, the tables, and by how much their limits are raised."""

    members: NDArray[np.intp]
    tables: list[CostTable]
    savings: NDArray[np.float64]


def _text(group: Group) -> str:
    return group if isinstance(group, str) else ",".join(group)

"""The trained product: one directory from which any (group, budget) gets its network at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snugnet.costs import COUNT_UNITS, CostTable, decode, parse_budget
from snugnet.data import ImageSet, normalise
from snugnet.errors import BudgetError, FamilyError
from snugnet.nn.network import Network, with_layout
from snugnet.search.generator import ArchitectureGenerator
from snugnet.spaces import Blueprint, Population, SearchSpace
from snugnet.supernets import Supernet
from snugnet.training.calibration import accuracy, calibrate

CALIBRATION_BATCH = 64

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
            "input": "RGB, 0 to 1, minus mean, divided by std; batch x 3 x height x width",
            "resolution": self.family.space.resolution,
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
        else:
            names = list(group)
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

    def head_saving(self, cost: str, classes: int) -> float:
        """How much less of a counted cost the classifier has with so many classes instead of all."""
        return (len(self.classes) - classes) * self._cost_of_a_class.get(cost, 0.0)

    @cached_property
    def _cost_of_a_class(self) -> dict[str, float]:
        """What one class more adds to each counted cost; the classifier is linear in the number of classes."""
        smallest = self.space.blueprint(self.space.smallest)
        one, two = (smallest.with_classes(k).blocks[-1].layers[-1] for k in (1, 2))
        return {name: float(getattr(two, name) - getattr(one, name)) for name in COUNT_UNITS if hasattr(one, name)}

    def cost_range(self, cost: str, group: Group | None = None) -> tuple[float, float]:
        """Smallest and largest cost of a network for a group (for all classes without one).

        Raises:
            BudgetError: there is no such cost.
        """
        saving = 0.0 if group is None else self.head_saving(cost, len(self.class_indices(group)))
        low, high = self._table(cost).bounds()
        return float(np.min(low)) - saving, float(np.max(high)) - saving

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

    def best(self, scenario: Scenario, best_of: int, *, seed: int = 0) -> Specialized:
        """The best on validation images of ``best_of`` draws for one scenario; see :meth:`specialize`."""
        if isinstance(best_of, bool) or not isinstance(best_of, int) or best_of < 1:
            raise BudgetError(f"best_of is a whole number of at least 1, got {best_of!r}")
        if best_of == 1:
            return self.specialize_many([scenario])[0]
        candidates = self.specialize_many([scenario] * best_of, noise=True, seed=seed)
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
        savings = self._savings(indices, names)  # tables are of networks with all classes
        limits = np.array([[each.get(name, np.inf) for name in names] for each in budgets]) + savings
        self._check_feasible(scenarios, names, limits, savings)
        asked = np.minimum(limits[:, names.index(self.budget_name)], self.generator.high)
        scores = self.generator.scores(
            torch.from_numpy(weights).to(self.device), torch.from_numpy(asked).float().to(self.device)
        )
        table = scores.cpu().numpy()
        if noise:
            draws = np.random.default_rng(seed).gumbel(size=table.shape).astype(np.float32)
            draws[0] = 0
            table = table + draws
        rows = decode([self.tables[name] for name in names], table, limits)
        return self._specialized(scenarios, indices, budgets, rows)

    def _read(self, scenarios: Sequence[Scenario]) -> tuple[list[tuple[int, ...]], list[dict[str, float]]]:
        known: dict[Any, tuple[int, ...]] = {}
        indices, budgets = [], []
        for group, asked in scenarios:
            key = group if isinstance(group, str) else tuple(group)
            if key not in known:
                known[key] = self.class_indices(group)
            indices.append(known[key])
            for name in asked:
                self._table(name)
            budgets.append({name: parse_budget(value) for name, value in asked.items()})
        return indices, budgets

    def _check_feasible(
        self,
        scenarios: Sequence[Scenario],
        names: list[str],
        limits: NDArray[np.float64],
        savings: NDArray[np.float64],
    ) -> None:
        for i, name in enumerate(names):
            low, high = self.cost_range(name)
            short = np.flatnonzero(limits[:, i] < low)
            if len(short):
                saving = savings[short[0], i]
                group, _ = scenarios[short[0]]
                raise BudgetError(
                    f"no network of {self.name} for {_text(group)} has {name} <= {limits[short[0], i] - saving:,.0f}; "
                    f"feasible: {low - saving:,.0f} to {high - saving:,.0f}"
                )

    def _specialized(
        self,
        scenarios: Sequence[Scenario],
        indices: list[tuple[int, ...]],
        budgets: list[dict[str, float]],
        rows: Population,
    ) -> list[Specialized]:
        names = list(self.tables)
        costs = np.stack([self.tables[name](rows) for name in names], 1) - self._savings(indices, names)
        return [
            Specialized(self, _text(group), own, row, dict(zip(names, map(_number, cost), strict=True)), limits)
            for (group, _), own, row, cost, limits in zip(
                scenarios, indices, rows, costs.tolist(), budgets, strict=True
            )
        ]

    def _savings(self, indices: list[tuple[int, ...]], names: list[str]) -> NDArray[np.float64]:
        """What the cut heads of scenarios save of each cost: (scenarios, costs)."""
        fewer = np.array([len(self.classes) - len(each) for each in indices], dtype=np.float64)
        return fewer[:, None] * [self._cost_of_a_class.get(name, 0.0) for name in names]

    # -- building ------------------------------------------------------------------------------------------------------

    def build(self, row: NDArray[np.int16], class_indices: Sequence[int] | None = None) -> Network:
        """Extract a sub-network, with the head cut to the classes, and recalibrate its batch norm."""
        network = self.supernet.eval().extract(row, class_indices)
        with_layout(network, torch.channels_last)
        calibrate(network, self._calibration_batches())
        return network.requires_grad_(False)

    def _calibration_batches(self) -> Iterable[Tensor]:
        """Images of all classes, as in training: statistics of the group's images alone measurably cost accuracy."""
        for start in range(0, len(self.calibration), CALIBRATION_BATCH):
            batch = self.calibration.images[start : start + CALIBRATION_BATCH]
            if len(batch) == CALIBRATION_BATCH or start == 0:
                yield normalise(batch, self.mean, self.std, channels_last=True)

    def batches(
        self, images: ImageSet, class_indices: Sequence[int], size: int = 256
    ) -> Iterable[tuple[Tensor, Tensor]]:
        """The images of these classes in order, normalised, with labels as indices into ``class_indices``."""
        own = images.of_classes(class_indices)
        position = torch.full((len(self.classes),), -1, dtype=torch.long, device=own.labels.device)
        position[torch.as_tensor(class_indices, device=position.device)] = torch.arange(
            len(class_indices), device=position.device
        )
        for start in range(0, len(own), size):
            part = slice(start, start + size)
            yield normalise(own.images[part], self.mean, self.std, channels_last=True), position[own.labels[part]]

    def validation_accuracy(self, network: Specialized) -> float:
        """Accuracy of one network on its group's validation images."""
        return accuracy(network.module, self.batches(self.validation, network.class_indices))

    # -- on disk -------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write the family as a directory; see :mod:`snugnet.family_io`."""
        from snugnet.family_io import save_family

        return save_family(self, Path(folder))

    def push_to_hub(self, repo_id: str, *, private: bool = True, token: str | None = None) -> str:
        """Upload the family to the Hugging Face hub; returns the address of the commit."""
        from snugnet.family_io import push_family

        return push_family(self, repo_id, private=private, token=token)


def _text(group: Group) -> str:
    return group if isinstance(group, str) else ",".join(group)


def _number(value: float) -> float:
    return int(value) if float(value).is_integer() else float(value)

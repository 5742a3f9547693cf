"""What a family is: the trained parts, its groups and costs, and how one of its networks is built."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snugnet.costs import (
    COSTS,
    PROFILED,
    Cost,
    CostTable,
    MaximumCost,
    MaximumTable,
    MeasuredCost,
    Profile,
    measured_cost,
)
from snugnet.costs.hardware import devices_of
from snugnet.data import ImageSet, normalise
from snugnet.errors import BudgetError, FamilyError, SpaceError
from snugnet.generator.model import ArchitectureGenerator
from snugnet.nn.network import Network, resized, with_layout
from snugnet.spaces import SearchSpace
from snugnet.supernets import Supernet
from snugnet.texts import listed, one_form, quoted, shown
from snugnet.training.calibration import calibrate, network_batches

CALIBRATION_BATCH = 64
T = TypeVar("T")

Group = str | Sequence[str]
"""The name of a superclass, or any list of class names."""


@dataclass(eq=False)
class FamilyRecord:
    """A trained supernet, its architecture generator, and all that is needed to hand out networks.

    Attributes:
        name: of the family.
        supernet: in eval mode.
        generator: from (group, budget) to scores of every choice.
        budget_name: the cost that the generator was trained on.
        classes: class names, in the order of the supernet's logits.
        groups: superclass -> class names.
        mean, std: of the images, 0 to 1, a channel each.
        tables: cost tables by name, for networks with all classes. Costs of :data:`snugnet.costs.COSTS` need not stand here to be
            budgets; measured ones do.
        profiles: what was measured of its blocks, by the name of the cost; the tables of these follow from them.
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
    profiles: dict[str, Profile] = field(default_factory=dict)
    _counted: dict[str, CostTable | MaximumTable] = field(default_factory=dict, repr=False)
    _narrower: dict[tuple[CostTable | MaximumTable, int], CostTable | MaximumTable] = field(
        default_factory=dict, repr=False
    )

    @property
    def space(self) -> SearchSpace:
        """The search space."""
        return self.supernet.space

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.supernet.parameters()).device

    # -- groups --------------------------------------------------------------------------------------------------------

    def class_indices(self, group: Group) -> tuple[int, ...]:
        """Indices of a group's classes, in output order.

        Raises:
            FamilyError: the group or a class is unknown, named twice, or fewer than two classes are left.
        """
        if isinstance(group, str):
            found = next((name for name in (group, one_form(group)) if name in self.groups), None)
            if found is None:
                raise FamilyError(
                    f"{self.name} has no group {shown(group)}; groups: {listed(self.groups)} (or give a list of classes)"
                )
            names: Sequence[str] = self.groups[found]
        elif isinstance(group, (list, tuple)) and all(isinstance(name, str) for name in group):
            names = [name if name in self._class_index else one_form(name) for name in group]
        else:
            raise FamilyError(f"a group is the name of a superclass or a list of class names, got {shown(group)}")
        unknown = [name for name in names if name not in self._class_index]
        if unknown:
            raise FamilyError(
                f"{self.name} has no class {shown(unknown[0])}{self._meant(unknown[0])}; classes: {listed(self.classes)}"
            )
        if len(set(names)) != len(names):
            raise FamilyError(f"a class is named twice: {listed(names)}")
        if len(names) < 2:
            raise FamilyError(f"a network tells at least two classes apart, got {listed(names) or 'none'}")
        return tuple(self._class_index[name] for name in names)

    def _meant(self, name: str) -> str:
        """A class with a comma in it of which ``name`` is a part, or one that is written nearly so, as a question."""
        part = name.strip().casefold()
        of = [known for known in self.classes if part in (each.strip().casefold() for each in known.split(","))]
        if of:
            return f" (did you mean {quoted(of[0])}, in double quotes for its comma?)"
        close = difflib.get_close_matches(name, self.classes, 1)
        return f" (did you mean {quoted(close[0])}?)" if close else ""

    @cached_property
    def _class_index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.classes)}

    @cached_property
    def memberships(self) -> NDArray[np.float32]:
        """One-hot superclass of each class: (classes, groups)."""
        table = np.zeros((len(self.classes), len(self.groups)), dtype=np.float32)
        for g, names in enumerate(self.groups.values()):
            table[[self._class_index[name] for name in names], g] = 1
        return table

    # -- costs ---------------------------------------------------------------------------------------------------------

    def table(self, cost: str, classes: int) -> CostTable | MaximumTable:
        """A cost of networks for so many classes; :attr:`tables` are of networks for all of them.

        Of a cost that was measured elsewhere, and came as a table, it is not known what a narrower classifier saves: it stands as it is.

        Raises:
            BudgetError: there is no such cost.
        """
        cost = self.cost_name(cost)
        whole = self.tables.get(cost) or self._counted.get(cost)
        if whole is None:
            made = self._published[cost].table if cost in self._published else COSTS[cost].table(self.space)
            whole = self._counted[cost] = made
        known: Cost | MaximumCost | None = None
        if cost in self.profiles:
            known = self.profiles[cost].cost
        elif cost in COSTS:
            known = COSTS[cost]
        if classes == len(self.classes) or known is None:
            return whole
        if (whole, classes) not in self._narrower:
            self._narrower[whole, classes] = known.with_classes(whole, classes)  # type: ignore[arg-type]  # its own
        return self._narrower[whole, classes]

    def cost_name(self, cost: str) -> str:
        """The whole name of a cost: ``latency_ms`` is ``latency_ms@pixel`` where that is the only device it was measured on.

        Raises:
            BudgetError: there is no such cost or device, or several devices have it.
        """
        if cost in self.tables or cost in COSTS or cost in self._published:
            return cost
        kind, _, device = cost.partition("@")
        measured = dict.fromkeys((*self.tables, *self._published))
        devices = [name.partition("@")[2] for name in measured if name.startswith(f"{kind}@")]
        if not devices:
            hint = "; 'snugnet profile' measures it" if kind in PROFILED.values() else ""
            raise BudgetError(f"{self.name} has no cost {cost!r}; costs: {', '.join(self.costs)}{hint}")
        if device or len(devices) > 1:
            wrong = f"was not measured on {device!r}" if device else "was measured on several devices"
            raise BudgetError(
                f"{self.name}: {kind} {wrong}; its devices: {', '.join(devices)}, such as {kind}@{devices[0]}"
            )
        return f"{kind}@{devices[0]}"

    def named(self, budgets: Mapping[str, T]) -> dict[str, T]:
        """Budgets by the whole names of their costs.

        Raises:
            BudgetError: a cost is unknown, or two are of one.
        """
        found: dict[str, T] = {}
        for given, value in budgets.items():
            name = self.cost_name(given)
            if name in found:
                raise BudgetError(f"two budgets of {name} are given, {found[name]} and {value}; leave one out")
            found[name] = value
        return found

    def add_measured(self, measured: Profile | CostTable) -> None:
        """Make a measured cost one that networks can be bounded by; one of the same name is replaced.

        Args:
            measured: a profile, or the table of networks with all classes.

        Raises:
            SpaceError: it is of another space.
        """
        self.tables[measured.name] = measured.cost.table(self.space) if isinstance(measured, Profile) else measured
        self.profiles.pop(measured.name, None)
        if isinstance(measured, Profile):
            self.profiles[measured.name] = measured

    @property
    def costs(self) -> list[str]:
        """Names of all costs that can be a budget: the family's own, then the others that are known."""
        return list(dict.fromkeys((*self.tables, *self._published, *COSTS.names())))

    @cached_property
    def _published(self) -> dict[str, MeasuredCost]:
        """What others measured of the very networks of the space, and the package has (:mod:`snugnet.costs.hardware`)."""
        try:
            every = [
                measured_cost(self.space, c, device) for device, own in devices_of(self.space).items() for c in own
            ]
        except SpaceError:  # of other widths, classes or sizes
            return {}
        return {each.name: each for each in every}

    def cost_range(self, cost: str, group: Group | None = None) -> tuple[float, float]:
        """Smallest and largest cost of a network for a group (for all classes without one).

        Raises:
            BudgetError: there is no such cost.
        """
        return self.table(cost, len(self.classes if group is None else self.class_indices(group))).range

    # -- networks and images -------------------------------------------------------------------------------------------

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
            batch = self.calibration.pixels(slice(start, start + CALIBRATION_BATCH))
            if len(batch) == CALIBRATION_BATCH or start == 0:
                yield normalise(batch, self.mean, self.std, channels_last=True)

    def batches(
        self, images: ImageSet, class_indices: Sequence[int], resolution: int, size: int = 256
    ) -> Iterable[tuple[Tensor, Tensor]]:
        """The images of these classes in order, normalised, at a resolution; labels are indices into ``class_indices``."""
        return network_batches(images.among(class_indices), self.mean, self.std, resolution, size)

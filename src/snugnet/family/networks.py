"""What a family hands out: one network, or very many of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from snugnet.family.record import FamilyRecord
from snugnet.files import plain_number
from snugnet.nn.network import Network
from snugnet.spaces import Blueprint, Population


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

    family: FamilyRecord
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
            "image_resolution": self.family.space.resolution,
            "resolution": self.blueprint.resolution,
            "space": self.family.space.to_json(),
            "architecture": self.arch,
            "costs": self.costs,
        }

    def export(self, path: str | Path) -> Path:
        """Write the network as ``.onnx`` or ``.pt2``; see :func:`snugnet.deploy.export`."""
        from snugnet.deploy import export

        return export(self.module, path, self.metadata())


@dataclass(frozen=True, eq=False)
class Networks(Sequence[Specialized]):
    """Networks in the order of their scenarios, kept as arrays: a million of them take some 200 MB.

    Each access makes a :class:`Specialized` of its own, so keep the one whose ``module`` you have used.

    Attributes:
        family: where they come from.
        groups: the different groups, as they were asked for, and the indices of their classes.
        group: position of each network's group in these, (n,).
        rows: architectures, (n, d).
        costs: by name, (n,) each; of the networks, heads included.
        budgets: by cost, (n,) each; infinite where none was asked for.
    """

    family: FamilyRecord
    groups: Sequence[tuple[str, tuple[int, ...]]]
    group: NDArray[np.intp]
    rows: Population
    costs: dict[str, NDArray[np.float64]]
    budgets: dict[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Specialized: ...

    @overload
    def __getitem__(self, index: slice) -> Networks: ...

    def __getitem__(self, index: int | slice) -> Specialized | Networks:
        if isinstance(index, slice):
            costs, budgets = ({k: v[index] for k, v in each.items()} for each in (self.costs, self.budgets))
            return Networks(self.family, self.groups, self.group[index], self.rows[index], costs, budgets)
        name, indices = self.groups[self.group[index]]
        asked = {key: float(values[index]) for key, values in self.budgets.items() if values[index] < np.inf}
        costs_of = {key: plain_number(float(values[index])) for key, values in self.costs.items()}
        return Specialized(self.family, name, indices, self.rows[index], costs_of, asked)

    def __iter__(self) -> Iterator[Specialized]:
        return (self[i] for i in range(len(self)))

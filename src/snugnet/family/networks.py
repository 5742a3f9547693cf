"""One network with its classes; what a family hands out: one of them, or very many."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from snugnet.data import ImageSet
from snugnet.family.int8 import Pictures, int8_images
from snugnet.family.record import FamilyRecord
from snugnet.files import plain_number
from snugnet.nn.network import Network
from snugnet.spaces import Blueprint, Population, SearchSpace


@dataclass(frozen=True, eq=False)
class Origin:
    """What a network on disk still knows of the family that it comes from.

    Attributes:
        name: of the family.
        space: of the family, with all its classes.
        classes: of the family.
        mean, std: of its images, 0 to 1, a channel each.
    """

    name: str
    space: SearchSpace
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(eq=False)
class Classifier(ABC):
    """One network with its classes: specialised from a family, or kept on disk by itself.

    Attributes:
        family: where it comes from.
        group: as it was asked for.
        class_indices: of its classes in the family, in output order.
        row: the architecture, (d,).
        costs: of this very network, head included, by name.
        budgets: what was asked for, by cost.
    """

    family: FamilyRecord | Origin
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
        """The network in eval mode: normalised images (n, 3, h, w) to logits (n, classes)."""
        return self._build()

    @abstractmethod
    def _build(self) -> Network:
        """The module; asked for once."""

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

    def export(self, path: str | Path, *, images: ImageSet | None = None, **options: Any) -> Path:
        """Write the network as ``.onnx`` or ``.pt2``; see :func:`snugnet.deploy.export`.

        Args:
            path: of the file.
            images: of int8: what ranges are measured on, labels in the order of the family's classes. A family has its own.
            **options: of :class:`snugnet.deploy.FileOptions`: precision, opset, ir_version.

        Raises:
            ConfigError: an option is not known, or not of the format.
            DataError: there are too few images for int8, or they are of one class.
            NetworkError: a network on disk is to be int8, and no images are given.
            ExportError: the file does not agree with the network.

        Examples:
            >>> import snugnet
            >>> net = snugnet.load("runs/digits").specialize("round", madds="40%")
            >>> print(net.export("round.onnx"))
            round.onnx
        """
        from snugnet.deploy import FileOptions, export

        chosen = FileOptions(**options)
        given = self.int8_images(images) if chosen.precision == "int8" else None
        return export(self.module, path, self.metadata(), chosen, given)

    def pictures(self, images: ImageSet) -> Pictures:
        """Images of the network's classes as it takes them; labels are places among its outputs.

        Args:
            images: labels in the order of the family's classes.
        """
        return self._pictures(images.among(self.class_indices))

    def _pictures(self, images: ImageSet) -> Pictures:
        return Pictures(images, self.family.mean, self.family.std, self.blueprint.resolution)

    def int8_images(self, images: ImageSet | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """For the ranges of an int8 file, and to compare it with the float one on; see :func:`snugnet.family.int8.int8_images`.

        Args:
            images: as for :meth:`export`.
        """
        ranges, compared = self._stored_images() if images is None else (images, images)
        return int8_images(self._pictures(ranges), self.pictures(compared))

    @abstractmethod
    def _stored_images(self) -> tuple[ImageSet, ImageSet]:
        """Images that come with the network: for ranges, and to compare on."""


@dataclass(eq=False)
class Specialized(Classifier):
    """One network of a family, with the supernet's weights and its batch norm calibrated; built when it is first used."""

    family: FamilyRecord

    def _build(self) -> Network:
        return self.family.build(self.row, self.class_indices)

    def _stored_images(self) -> tuple[ImageSet, ImageSet]:
        return self.family.calibration, self.family.calibration.joined(self.family.validation)


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

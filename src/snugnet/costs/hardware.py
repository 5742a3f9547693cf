"""Costs of the cells of nas-bench-201 as measured on devices: HW-NAS-Bench (Li et al., ICLR 2021, arXiv 2103.10584).

All cells were measured as whole networks, so the cost is a look-up: one table over all six edges. Its expectation under independent
draws is exact and differentiable, and needs no predictor. Isomorphic cells were measured each on its own and can differ many times
over (docs/hardware.md), so nothing is shared between them. The values ship with the package (``devices/README.md``: source, licence).
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from snugnet.costs.exact.automaton import all_rows
from snugnet.costs.table import CostTable
from snugnet.errors import SpaceError
from snugnet.extras import needs
from snugnet.spaces import SearchSpace
from snugnet.spaces.nas_bench_201 import EDGES, OPERATIONS, NASBench201

DEVICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "edgegpu": ("latency_ms", "energy_mj"),
        "raspi4": ("latency_ms",),
        "edgetpu": ("latency_ms",),
        "pixel3": ("latency_ms",),
        "eyeriss": ("latency_ms", "energy_mj"),
        "fpga": ("latency_ms", "energy_mj"),
    }
)
"""Costs by device: an NVIDIA Jetson TX2, a Raspberry Pi 4, Google's Edge TPU, a Pixel 3; Eyeriss and an FPGA. Energy of ``fpga`` is 7 W times
its latency."""
DATASETS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "cifar10": {"resolution": 32, "num_classes": 10},
        "cifar100": {"resolution": 32, "num_classes": 100},
        "imagenet16-120": {"resolution": 16, "num_classes": 120},
    }
)
"""Options of the space of the networks that were measured."""
UNITS = MappingProxyType({"latency_ms": "ms", "energy_mj": "mJ"})
MILLIONTHS = 1_000_000
"""The published values have six decimals; as whole numbers they are kept without a rounding."""

_FIXED = {"in_channels": 3, "channels": 16, "cells": 5}


@dataclass(frozen=True)
class Fit:
    """How far the additive table is from the measured values.

    Attributes:
        rows: cells that it was fitted to and is compared on: those that were measured and have a path from input to output.
        rmse: root of the mean squared error, in the cost's unit.
        mean_relative_error: mean of ``|fit - measured| / measured``.
        within_5_percent, within_10_percent: share of the rows with a relative error of at most that.
        r2: share of the variance that is explained.
        kendall_tau: tau-b of the fit, rounded to the six decimals of the values, and the values.
        spearman: rank correlation of the same.
    """

    rows: int
    rmse: float
    mean_relative_error: float
    within_5_percent: float
    within_10_percent: float
    r2: float
    kendall_tau: float
    spearman: float


@dataclass(frozen=True, eq=False)
class MeasuredCost:
    """One cost on one device, for networks of one data set.

    Attributes:
        space: whose cells they are.
        name: such as ``"latency_ms@raspi4"``.
        unit: ``"ms"`` or ``"mJ"``.
        device: one of :data:`DEVICES`.
        dataset: one of :data:`DATASETS`.
        values: shape ``(15625,)``, NaN where nothing was measured. The place of a cell is its row read as a number in base 5, the
            first edge the most significant digit: the order of ``np.ndindex(5, 5, 5, 5, 5, 5)``.
    """

    space: SearchSpace
    name: str
    unit: str
    device: str
    dataset: str
    values: NDArray[np.float64]

    @property
    def missing(self) -> int:
        """Number of cells without a measurement."""
        return int(np.isnan(self.values).sum())

    @property
    def note(self) -> str:
        """What is missing, in words; empty where nothing is."""
        if not self.missing:
            return ""
        return (
            f"{self.name}: {self.missing:,} of {len(self.values):,} cells have no measurement; their entries in the table are the "
            f"additive fit's, and a budget of 0 on unmeasured@{self.device} leaves them out"
        )

    def of(self, archs: ArrayLike) -> NDArray[np.float64]:
        """Measured values of architectures of shape ``(n, 6)``: shape ``(n,)``, NaN where nothing was measured.

        Raises:
            SpaceError: they are no architectures of the space.
        """
        return self.values[numbers_of(self.space, archs)]

    @cached_property
    def table(self) -> CostTable:
        """The look-up as a cost like any other: one table over all six choices.

        Where nothing was measured it has the additive fit's value, cut off at the least and the greatest measured one so that its
        range is theirs; a budget of 0 on :attr:`unmeasured` leaves those cells out.
        """
        likely = np.clip(self.additive(_rows(self.space)), np.nanmin(self.values), np.nanmax(self.values))
        values = np.where(np.isnan(self.values), likely, self.values)
        return _over_cells(self.space, self.name, self.unit, values)

    @cached_property
    def unmeasured(self) -> CostTable | None:
        """``unmeasured@DEVICE``: 1 for cells without a measurement, else 0; ``None`` where all were measured."""
        if not self.missing:
            return None
        return _over_cells(self.space, f"unmeasured@{self.device}", "cells", np.isnan(self.values))

    @cached_property
    def additive(self) -> CostTable:
        """The sum over edges that is nearest in least squares: a constant, and for each edge what an operation costs above ``none``.

        Fitted to the cells that were measured and have a path: those without one cost next to nothing on some devices, and would
        spoil the fit for the rest.
        """
        code = self.space.one_hot(_rows(self.space)).astype(np.float64).reshape(-1, len(EDGES), len(OPERATIONS))
        design = np.concatenate([np.ones((len(code), 1)), code[:, :, 1:].reshape(len(code), -1)], axis=1)
        weights = np.linalg.lstsq(design[self._fitted], self.values[self._fitted], rcond=None)[0]
        above = np.pad(weights[1:].reshape(len(EDGES), -1), ((0, 0), (1, 0)))
        return CostTable(
            self.space, self.name, self.unit, [((), weights[0]), *(((c,), each) for c, each in enumerate(above))]
        )

    @cached_property
    def fit(self) -> Fit:
        """How far :attr:`additive` is off."""
        needs("scipy")
        from scipy.stats import kendalltau, spearmanr

        measured = self.values[self._fitted]
        fitted = self.additive(_rows(self.space)[self._fitted])
        relative = np.abs(fitted - measured) / measured
        # Cells of equal cost are equal in a sum of six floats but for its last bits, and have to stay equal in rank.
        ranked = np.round(fitted, 6)
        return Fit(
            rows=len(measured),
            rmse=float(np.sqrt(((fitted - measured) ** 2).mean())),
            mean_relative_error=float(relative.mean()),
            within_5_percent=float((relative <= 0.05).mean()),
            within_10_percent=float((relative <= 0.1).mean()),
            r2=float(1 - ((fitted - measured) ** 2).sum() / ((measured - measured.mean()) ** 2).sum()),
            kendall_tau=float(kendalltau(ranked, measured)[0]),
            spearman=float(spearmanr(ranked, measured)[0]),
        )

    @cached_property
    def _fitted(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.values) & _connected()


def measured_cost(space: SearchSpace, cost: str, device: str, dataset: str | None = None) -> MeasuredCost:
    """A cost of all cells of nas-bench-201 on one device.

    Args:
        space: nas-bench-201 as it was measured: 3 input channels, 16 channels, 5 cells a stage, at one resolution.
        cost: one of ``DEVICES[device]``.
        device: one of :data:`DEVICES`.
        dataset: one of :data:`DATASETS`; without it, the one of the space's resolution and number of classes. With it the number
            of classes may be another.

    Raises:
        SpaceError: there is no such device, cost or data set, or the space is not the one that was measured.
    """
    if cost not in (known := costs_of(device)):
        raise SpaceError(f"{device} has no {cost!r}; measured: {', '.join(known)}")
    dataset = _dataset_of(space, dataset)
    return MeasuredCost(space, f"{cost}@{device}", UNITS[cost], device, dataset, _column(dataset, cost, device))


def costs_of(device: str) -> tuple[str, ...]:
    """What was measured on a device.

    Raises:
        SpaceError: there is no such device.
    """
    if device not in DEVICES:
        raise SpaceError(f"unknown device {device!r}; known: {', '.join(DEVICES)}")
    return DEVICES[device]


def devices_of(space: SearchSpace) -> Mapping[str, tuple[str, ...]]:
    """Devices on which networks of a space were measured, and what was; none for spaces other than nas-bench-201."""
    return DEVICES if space.name == NASBench201.name else {}


def disconnected(space: SearchSpace) -> CostTable:
    """``disconnected``: 1 for the 341 cells without a path from input to output, which see no image, else 0.

    Leave them out before any quantile or limit: on some devices they are by far the fastest.

    Raises:
        SpaceError: another space than nas-bench-201.
    """
    _check_name(space)
    columns = range(space.d - len(EDGES), space.d)
    return CostTable(space, "disconnected", "cells", [(columns, _cube(~_connected()))])


def numbers_of(space: SearchSpace, archs: ArrayLike) -> NDArray[np.int64]:
    """The place of each cell in :attr:`MeasuredCost.values`: shape ``(n,)``."""
    return space.rows(archs).astype(np.int64) @ len(OPERATIONS) ** np.arange(len(EDGES))[::-1]


def _rows(space: SearchSpace) -> NDArray[np.int16]:
    """All cells in the order of the values: shape ``(15625, 6)``."""
    return all_rows(space, tuple(range(len(EDGES))))


@cache
def _connected() -> NDArray[np.bool_]:
    """Whether a path leads from input to output, in the order of the values: shape ``(15625,)``."""
    reached = np.zeros((len(OPERATIONS) ** len(EDGES), 4), dtype=bool)
    reached[:, 0] = True
    for (a, b), operation in zip(EDGES, _rows(NASBench201.create()).T, strict=True):
        reached[:, b] |= reached[:, a] & (operation != OPERATIONS.index("none"))
    return reached[:, -1]


def _cube(values: NDArray[np.generic]) -> NDArray[np.generic]:
    return values.reshape((len(OPERATIONS),) * len(EDGES))


def _over_cells(space: SearchSpace, name: str, unit: str, values: NDArray[np.generic]) -> CostTable:
    return CostTable(space, name, unit, [(range(len(EDGES)), _cube(values))])


@cache
def _column(dataset: str, cost: str, device: str) -> NDArray[np.float64]:
    file = resources.files("snugnet.costs") / "devices" / f"{NASBench201.name}.npz"
    with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
        whole = arrays[f"{dataset}.{cost}@{device}"]
    values = np.where(whole < 0, np.nan, whole / MILLIONTHS)
    values.setflags(write=False)
    return values


def _check_name(space: SearchSpace) -> None:
    if space.name != NASBench201.name:
        raise SpaceError(f"hardware costs were measured of the cells of {NASBench201.name}, got {space.name}")


def _dataset_of(space: SearchSpace, dataset: str | None) -> str:
    """The data set whose networks are those of a space, but for the number of classes where it is named.

    Raises:
        SpaceError: none is.
    """
    _check_name(space)
    if dataset is not None and dataset not in DATASETS:
        raise SpaceError(f"unknown data set {dataset!r}; measured: {', '.join(DATASETS)}")
    sizes = {dataset: DATASETS[dataset]} if dataset else DATASETS
    free = {"num_classes"} if dataset else set()
    differ = []
    for name, size in sizes.items():
        measured = {**_FIXED, **size}
        given = {key: value for key, value in space.options.items() if key not in free and value != measured.get(key)}
        if not given:
            return name
        differ.append(given)
    other = min(differ, key=len)
    known = "; ".join(f"{name}: {_said(size)}" for name, size in sizes.items())
    hint = "; for other classes name the data set" if "num_classes" in other else ""
    raise SpaceError(f"got {_said(other)}; networks were measured with {_said(_FIXED)} ({known}){hint}")


def _said(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in options.items())

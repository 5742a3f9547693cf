"""Profiles: what the blocks of a space take on one device, as a cost like any other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from snugnet.bundles import FAMILY
from snugnet.costs.cost import Cost
from snugnet.costs.units import block_name, is_silent
from snugnet.errors import ConfigError, SpaceError
from snugnet.spaces import Block, Blueprint

PROFILED = {"ms": "latency_ms", "mJ": "energy_mj"}
"""Costs that a device can be measured for, by their unit."""
_FRACTION = 2.0**20
"""Entries of tables are whole numbers of this fraction of a unit (about a nanosecond), so that a sum is the same in any order."""


@dataclass(frozen=True)
class Accuracy:
    """How far sums of a profile are off, on whole networks that were left out when they were fitted.

    Attributes:
        networks: how many were measured; each is predicted by a fit to all others.
        mape: mean of ``|sum - measured| / measured``.
        kendall_tau: tau-b of sums and measured values.
        parts: what the plain sum of the blocks is of the whole, at the mean: 1.1 where it is too much by a tenth.
    """

    networks: int
    mape: float
    kendall_tau: float
    parts: float


@dataclass(frozen=True)
class Profile:
    """What was measured of a space on one device.

    A block's entry is ``time * value + block + inputs * megabytes of its input``: the factors are fitted to whole networks, in
    which a block runs without an overhead of its own, and is handed its input in the layout that it computes in.

    Attributes:
        device: its name, such as ``"pixel"``.
        unit: of the values: one of :data:`PROFILED`.
        batch: images at once, in every measurement.
        values: of each block alone, by the names that :func:`snugnet.costs.units.block_name` gives them.
        widths: of the classifiers that were measured, rising.
        factors: of the entries, by name (:meth:`features`).
        accuracy: on whole networks; ``None`` where none were measured.
        filled: blocks that were not measured themselves; each has the value of a larger one.
        about: machine, runtime, threads, date: what the measurement says of itself.
        precision: of the files that were measured, ``"float32"`` or ``"int8"``.
    """

    device: str
    unit: str
    batch: int
    values: Mapping[str, float]
    widths: tuple[int, ...]
    factors: Mapping[str, float]
    accuracy: Accuracy | None = None
    filled: tuple[str, ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)
    precision: str = "float32"

    @property
    def name(self) -> str:
        """Of the cost, such as ``"latency_ms@pixel"``."""
        return f"{PROFILED[self.unit]}@{self.device}"

    @cached_property
    def cost(self) -> Cost:
        """The cost, of which tables are made for any number of classes."""
        quantity = self.name.partition("_")[0]
        return Cost(
            self.name,
            self.unit,
            f"measured {quantity} of {self.batch} image(s) on {self.device}, {self.precision}",
            self._entry,
        )

    def _entry(self, block: Block, resolution: int) -> float:
        if is_silent(block):
            return 0.0
        value = sum(self.factors[name] * each for name, each in self.features(block).items())
        return round(max(value, 0.0) * _FRACTION) / _FRACTION

    def features(self, block: Block) -> dict[str, float]:
        """What a block's entry in a table is a sum of: its own value, that it is there, and the megabytes of its input in float32.

        Of families that were measured before inputs were looked at: megabytes of weights.

        A classifier of a width that was not measured is taken for the next wider one: times are a staircase, and between two steps
        nothing is known.

        Raises:
            SpaceError: it was not measured.
        """
        for each in (block, *self._wider(block)):
            value = self.values.get(block_name(each, self.batch))
            if value is not None:
                inputs = 4e-6 * self.batch * each.in_channels * each.layers[0].resolution ** 2
                weights = 1e-6 * sum(layer.weight_bytes for layer in each.all_layers)
                known = {"time": value, "block": 1.0, "inputs": inputs, "weights": weights}
                return {name: known[name] for name in self.factors}
        raise SpaceError(
            f"{self.name} was not measured for the block {block.name} ({', '.join(map(str, block.layers))})"
        )

    def _wider(self, block: Block) -> Iterator[Block]:
        """The same block with wider classifiers that were measured, if it has one."""
        if block.layers[-1].op == "linear":
            whole = Blueprint((block,), block.in_channels, block.layers[0].resolution)
            yield from (whole.with_classes(width).blocks[-1] for width in self.widths if width > whole.num_classes)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The profile that :meth:`to_json` took apart."""
        accuracy = content["accuracy"] and Accuracy(**content["accuracy"])
        lists = {key: tuple(content[key]) for key in ("widths", "filled")}
        return cls(**{**content, **lists, "accuracy": accuracy})


def profile_of(folder: Path, name: str) -> Profile | None:
    """A profile that a family on disk holds; ``None`` where the folder is no family's.

    Args:
        folder: of the family.
        name: of the cost, such as ``"latency_ms@pixel"``.

    Raises:
        FamilyError: the family is damaged.
        ConfigError: it has no such profile.
    """
    if not (folder / FAMILY.index).is_file():
        return None
    profiles = {each.name: each for each in map(Profile.from_json, FAMILY.read_index(folder).get("profiles", ()))}
    if name not in profiles:
        known = ", ".join(profiles) or "nothing; run 'snugnet profile' on it"
        raise ConfigError(f"{folder} was not measured for {name}; measured: {known}")
    return profiles[name]

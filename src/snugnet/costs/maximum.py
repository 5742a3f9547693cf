"""MaximumTable: a cost that is the largest of small tables, and limits on it as what is allowed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from snugnet.costs.exact.allowed import Allowed, automaton_of
from snugnet.costs.exact.automaton import Scope, all_rows
from snugnet.costs.exact.terms import Table, close
from snugnet.costs.ranged import check_budget, described_range
from snugnet.costs.table import CostTable, nothing
from snugnet.errors import SpaceError
from snugnet.spaces import Population, SearchSpace

_LIMITS_KEPT = 64


@dataclass(frozen=True, init=False, repr=False, eq=False)
class MaximumTable:
    """``cost(arch) = max_t table_t[arch[choices_t]]``.

    A limit on a maximum forbids options and combinations of them, and nothing else: it is an :class:`Allowed`, and so exact wherever
    that is, beside any budgets on sums.

    Attributes:
        space: whose architectures have this cost.
        name: of the cost, such as ``"peak_memory"``.
        unit: of the numbers, such as ``"B"``.
        tables: as those of a :class:`snugnet.costs.CostTable`.
    """

    space: SearchSpace
    name: str
    unit: str
    tables: tuple[Table, ...]

    def __init__(
        self, space: SearchSpace, name: str, unit: str, tables: Iterable[tuple[Sequence[int], ArrayLike]]
    ) -> None:
        """Check the tables, and take together those over the same choices.

        Args:
            space: the space.
            name: of the cost.
            unit: of the values.
            tables: pairs of columns and values, at least one; an entry for a choice that does not matter is never read: the entry for
                its option 0 stands in.

        Raises:
            SpaceError: there is no table, a column does not exist or is named twice, or values have the wrong shape or are not finite.
        """
        merged: dict[Scope, NDArray[np.float64]] = {}
        for columns, values in tables:
            scope, closed = close(space, name, tuple(int(c) for c in columns), np.asarray(values, dtype=np.float64))
            merged[scope] = np.maximum(merged[scope], closed) if scope in merged else closed
        if not merged:
            raise SpaceError(f"{name} is the largest entry of its tables, and it has none")
        self.__dict__.update(space=space, name=name, unit=unit, tables=tuple(merged.items()))

    def __repr__(self) -> str:
        return f"MaximumTable({self.space.name}, {self.name}, {self.describe_range()})"

    def __call__(self, archs: Population) -> NDArray[np.float64]:
        """Costs of a population: rows, shape ``(n, d)``, that need not be canonical; shape ``(n,)``."""
        if archs.ndim != 2 or archs.shape[1] != self.space.d:
            raise SpaceError(f"architectures of {self.space.name} have shape (n, {self.space.d}), got {archs.shape}")
        largest = np.full(len(archs), -np.inf)
        for scope, values in self.tables:
            np.maximum(largest, values[tuple(archs[:, c] for c in scope)], out=largest)
        return largest

    def same_as(self, other: MaximumTable) -> bool:
        """Whether another table says the same, entry by entry."""
        mine, others = dict(self.tables), dict(other.tables)
        return mine.keys() == others.keys() and all(np.array_equal(mine[scope], others[scope]) for scope in mine)

    @cached_property
    def range(self) -> tuple[float, float]:
        """Cost of the cheapest and of the dearest architecture."""
        return self._ends(None)

    def bounds(self, *, allowed: Allowed | None = None) -> tuple[float, float]:
        """:attr:`range`, or that of what is allowed.

        Raises:
            BudgetError: nothing is allowed.
        """
        return self.range if allowed is None else self._ends(allowed)

    def _ends(self, allowed: Allowed | None) -> tuple[float, float]:
        automaton = automaton_of(self.space, frozenset(scope for scope, _ in self.tables if scope), allowed)
        held = [np.full(len(step.rows), -np.inf) for step in automaton.steps]
        floor = -np.inf
        for scope, values in self.tables:
            if not scope:
                floor = float(values)
                continue
            t = automaton.holds(scope)
            np.maximum(held[t], values[tuple(automaton.steps[t].rows[:, c] for c in scope)], out=held[t])
        least = np.full(1, floor)
        for step, own in zip(automaton.steps, held, strict=True):  # the least of the largest: a path of least width
            least = np.minimum.reduceat(np.maximum(least[step.source], own), step.starts)
        return float(least[0]), max([floor, *(float(own.max()) for own in held)])

    def at_most(self, limit: float) -> Allowed | None:
        """The architectures within a limit; ``None`` where these are all. The same for limits between which no cost lies."""
        level = int(np.searchsorted(self.values, limit, side="right"))
        return None if level == len(self.values) else _at_most(self, level)

    @cached_property
    def nothing(self) -> CostTable:
        """A sum of 0 for every architecture, beside which a limit on this cost can stand alone."""
        return nothing(self.space)

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """Every entry that an architecture may have, rising."""
        entries = []
        for scope, values in self.tables:
            rows = all_rows(self.space, scope)
            canonical = (rows == self.space.canonical(rows)).all(axis=1)
            entries.append(values.ravel()[canonical])
        return np.unique(np.concatenate(entries))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Plain arrays that tell this table from all others."""
        return {
            "name": np.array(self.name),
            "unit": np.array(self.unit),
            "ranks": np.array([len(scope) for scope, _ in self.tables], dtype=np.int64),
            "choices": np.array([c for scope, _ in self.tables for c in scope], dtype=np.int64),
            "values": np.concatenate([values.ravel() for _, values in self.tables]),
        }

    def describe_range(self, allowed: Allowed | None = None) -> str:
        """The range for people, as :meth:`snugnet.costs.CostTable.describe_range` has it."""
        return described_range(self, allowed)

    def check_budget(self, budget: float, where: str = "", allowed: Allowed | None = None) -> None:
        """Refuse a budget that no architecture meets; see :meth:`snugnet.costs.CostTable.check_budget`.

        Raises:
            BudgetError: with the feasible range.
        """
        check_budget(self, budget, where, allowed)


@lru_cache(maxsize=_LIMITS_KEPT)
def _at_most(table: MaximumTable, level: int) -> Allowed:
    limit = table.values[level - 1] if level else -math.inf
    return Allowed.at_most(table.space, table.tables, limit, table.name)


def within(limits: Iterable[tuple[MaximumTable, float]], allowed: Allowed | None = None) -> Allowed | None:
    """The architectures within limits on maxima, among those that are allowed; ``None`` where these are all."""
    given = [each for table, limit in limits if (each := table.at_most(limit)) is not None]
    return _together(tuple(given) if allowed is None else (allowed, *given))


@lru_cache(maxsize=_LIMITS_KEPT)
def _together(given: tuple[Allowed, ...]) -> Allowed | None:
    if not given:
        return None
    first, *others = given
    for other in others:
        first = first & other
    return first

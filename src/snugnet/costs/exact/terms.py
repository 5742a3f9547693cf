"""Small tables over choices: a sum of them on populations, in expectation, and on an automaton."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from snugnet.costs.exact.automaton import Automaton, Scope, all_rows, closure
from snugnet.costs.exact.excess import Excess
from snugnet.errors import SpaceError
from snugnet.spaces import Population, SearchSpace

_ROWS_AT_ONCE = 1024  # rows at a time: stays in cache, and below the size from which BLAS starts threads
_FUSED = 4096  # entries: tables are added up beforehand while the sum is no larger
_EXCESSES_KEPT = 256  # pairs of terms and automaton

Table = tuple[Scope, NDArray[np.float64]]
"""Columns, rising, with all their ancestors; and values, whose shape is the choices' numbers of options."""


@dataclass(frozen=True, eq=False)
class Terms:
    """``sum_t table_t[arch[choices_t]]``; tables of one space that differ by a constant share one such sum.

    Attributes:
        space: whose architectures it is of.
        tables: at most one a scope, none of them over no choice; their values cannot be written to.
    """

    space: SearchSpace
    tables: tuple[Table, ...]

    @classmethod
    def of(
        cls, space: SearchSpace, name: str, tables: Iterable[tuple[Sequence[int], ArrayLike]]
    ) -> tuple[Terms, float]:
        """The terms, and what is constant.

        Raises:
            SpaceError: a column does not exist or is named twice, or values have the wrong shape or are not finite.
        """
        merged: dict[Scope, NDArray[np.float64]] = {}
        for columns, values in tables:
            scope, closed = close(space, name, tuple(int(c) for c in columns), np.asarray(values, dtype=np.float64))
            merged[scope] = merged[scope] + closed if scope in merged else closed
        constant = float(merged.pop((), np.float64(0)))
        for values in merged.values():
            values.setflags(write=False)
        return cls(space, tuple(merged.items())), constant

    @cached_property
    def scopes(self) -> frozenset[Scope]:
        """The sets of choices that tables are over."""
        return frozenset(scope for scope, _ in self.tables)

    @cached_property
    def whole(self) -> bool:
        """Whether all values are whole numbers: their sums are exact."""
        return all(bool((values == np.rint(values)).all()) for _, values in self.tables)

    def sums(self, archs: Population, constant: float) -> NDArray[np.float64]:
        """The sum and a constant, for rows of shape ``(n, d)`` that need not be canonical: shape ``(n,)``."""
        strides, bases, flat = self._gather
        sums = np.full(len(archs), constant)
        for start in range(0, len(archs), _ROWS_AT_ONCE):
            index = strides @ archs[start : start + _ROWS_AT_ONCE].T.astype(np.float32)
            index += bases
            # Added up row by row: the order, and so the last bit, never depends on the size of the batch.
            for values in flat.take(index.astype(np.int64)):
                sums[start : start + _ROWS_AT_ONCE] += values
        return sums

    @cached_property
    def _gather(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
        """Strides ``(t, d)``, bases ``(t, 1)`` and all values in a row: indices are one matrix product (exact in float32)."""
        fused: list[Table] = []
        for scope, values in self.tables:
            if fused:
                union = tuple(sorted({*fused[-1][0], *scope}))
                if np.prod(self.space.num_options[list(union)]) <= _FUSED:
                    before = _spread(self.space, *fused.pop(), union)
                    fused.append((union, before + _spread(self.space, scope, values, union)))
                    continue
            fused.append((scope, values))
        strides = np.zeros((len(fused), self.space.d), dtype=np.float32)
        for t, (scope, values) in enumerate(fused):
            strides[t, list(scope)] = np.cumprod((1, *values.shape[:0:-1]))[::-1]
        sizes = [values.size for _, values in fused]
        bases = np.cumsum([0, *sizes])[:-1, None].astype(np.float32)
        if sum(sizes) >= 2**24:
            raise SpaceError(
                f"the tables of a cost have {sum(sizes):,} entries together; at most {2**24:,} are allowed"
            )
        flat = np.concatenate([np.zeros(0), *(values.ravel() for _, values in fused)])
        return strides, bases, flat

    # -- in expectation ------------------------------------------------------------------------------------------------

    def by_shape(self, device: Any = None) -> list[tuple[list[Scope], Any]]:
        """Tables of equal shape as one array ``(tables, options...)``, to keep the number of operations low.

        Args:
            device: of torch, for tensors there; numpy arrays without one.
        """
        if device not in self._groups:
            import torch

            self._groups[device] = [(s, torch.as_tensor(w, device=device)) for s, w in self._groups[None]]
        return self._groups[device]

    @cached_property
    def _groups(self) -> dict[Any, list[tuple[list[Scope], Any]]]:
        groups: dict[tuple[int, ...], list[Table]] = {}
        for table in self.tables:
            groups.setdefault(table[1].shape, []).append(table)
        return {None: [([t[0] for t in same], np.stack([t[1] for t in same])) for same in groups.values()]}

    # -- on an automaton -----------------------------------------------------------------------------------------------

    def increments(self, automaton: Automaton) -> list[NDArray[np.float64]]:
        """What each transition adds: a list over steps of shape ``(K,)``."""
        sums = [np.zeros(len(step.rows)) for step in automaton.steps]
        for scope, values in self.tables:
            t = automaton.holds(scope)
            sums[t] += values[tuple(automaton.steps[t].rows[:, c] for c in scope)]
        return sums

    def extreme(
        self, automaton: Automaton, allowed: NDArray[np.bool_], sign: int
    ) -> tuple[Population, NDArray[np.bool_]]:
        """The cheapest (sign -1) or dearest (sign 1) architectures among those of allowed options.

        Args:
            automaton: of those that are looked at.
            allowed: in one-hot layout, shape ``(n, sum of options)``.
            sign: which of the two.

        Returns:
            Canonical rows, shape ``(n, d)``, and whether the allowed options make an architecture at all, shape ``(n,)``.
        """
        masks = automaton.scores(np.where(allowed, 0.0, -np.inf))
        increments = self.increments(automaton)
        rows, sums = automaton.best([sign * i[:, None] + mask for i, mask in zip(increments, masks, strict=True)])
        return rows, ~np.isneginf(sums)

    def ends(self, automaton: Automaton) -> Population:
        """A cheapest and a dearest architecture: shape ``(2, d)``."""
        return _ends(self, automaton)

    def excess(self, automaton: Automaton, constant: float) -> Excess:
        """The sum above its minimum; constants of about the same size share one."""
        largest = np.abs(self.sums(_ends(self, automaton), constant)).max()
        return _excess(self, automaton, 2.0 ** math.ceil(math.log2(largest)) if largest else 0.0)


@lru_cache(maxsize=_EXCESSES_KEPT)
def _ends(terms: Terms, automaton: Automaton) -> Population:
    increments = terms.increments(automaton)
    ends = [automaton.best([sign * increment[:, None] for increment in increments])[0] for sign in (-1, 1)]
    return np.concatenate(ends)


@lru_cache(maxsize=_EXCESSES_KEPT)
def _excess(terms: Terms, automaton: Automaton, largest: float) -> Excess:
    low, high = terms.sums(_ends(terms, automaton), 0.0).tolist()
    return Excess.make(automaton.reduced(terms.increments(automaton)), low, high, largest)


def close(space: SearchSpace, name: str, columns: Scope, values: NDArray[np.float64]) -> Table:
    """One table with all ancestors in its scope, columns rising, and entries read in canonical form.

    Raises:
        SpaceError: a column does not exist or is named twice, or values have the wrong shape or are not finite.
    """
    if len(set(columns)) != len(columns) or not all(0 <= c < space.d for c in columns):
        raise SpaceError(f"a table of {name} names columns {list(columns)}; allowed: 0 to {space.d - 1}, once each")
    shape = tuple(int(space.num_options[c]) for c in columns)
    if values.shape != shape:
        raise SpaceError(f"the table of {name} over columns {list(columns)} has shape {shape}, got {values.shape}")
    if not np.isfinite(values).all():
        raise SpaceError(f"the table of {name} over columns {list(columns)} has entries that are not finite")
    scope = closure(space, columns)
    rows = space.canonical(all_rows(space, scope))
    return scope, values[tuple(rows[:, c] for c in columns)].reshape(space.num_options[list(scope)])


def _spread(space: SearchSpace, scope: Scope, values: NDArray[np.float64], union: Scope) -> NDArray[np.float64]:
    """A table over more choices than it depends on."""
    shape = [int(space.num_options[c]) for c in union]
    aligned = values.reshape([size if c in scope else 1 for c, size in zip(union, shape, strict=True)])
    return np.broadcast_to(aligned, shape)

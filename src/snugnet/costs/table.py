"""CostTable: an additive cost as a sum of small tables, and everything that follows from that."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from snugnet.costs.budget import format_amount
from snugnet.costs.exact.automaton import Plan, Scope, all_rows, closure, make_plan
from snugnet.costs.exact.grid import Excess
from snugnet.costs.exact.sampling import Counts, Sampler
from snugnet.errors import BudgetError, SpaceError
from snugnet.spaces import Population, SearchSpace

_CHUNK = 1024  # rows at a time: stays in cache, and below the size from which BLAS starts threads
_FUSED = 4096  # entries: tables are added up beforehand while the sum is no larger
_SAMPLERS, _COUNTS = 64, 4  # kept; a sampler's counts take up to some 100 MB


class CostTable:
    """``cost(arch) = constant + sum_t table_t[arch[choices_t]]``.

    Attributes:
        space: whose architectures have this cost.
        name: of the cost, such as ``"madds"``.
        unit: of the numbers, such as ``"MAdds"`` or ``"ms"``.
        constant: the part that no choice changes.
        tables: pairs of columns and values; the values' shape is the choices' numbers of options. With a choice stand
            all its ancestors, so that every table knows by itself which of its choices matter.
    """

    def __init__(
        self, space: SearchSpace, name: str, unit: str, tables: Iterable[tuple[Sequence[int], ArrayLike]]
    ) -> None:
        """Check the tables and bring them into the form above.

        Args:
            space: the space.
            name: of the cost.
            unit: of the values.
            tables: pairs of columns and values, in any order; no columns and one value for what is constant. An entry
                for a choice that does not matter is never read: the entry for its option 0 stands in.

        Raises:
            SpaceError: a column does not exist or is named twice, or values have the wrong shape or are not finite.
        """
        self.space, self.name, self.unit = space, name, unit
        merged: dict[Scope, NDArray[np.float64]] = {}
        for columns, values in tables:
            scope, closed = _close(space, name, tuple(int(c) for c in columns), np.asarray(values, dtype=np.float64))
            merged[scope] = merged[scope] + closed if scope in merged else closed
        self.constant = float(merged.pop((), np.float64(0)))
        self.tables = list(merged.items())
        self._plans: dict[frozenset[Scope], Plan] = {}
        self._excess: dict[Plan, Excess] = {}
        self._samplers: OrderedDict[tuple[float, float], Sampler] = OrderedDict()
        self._counts: OrderedDict[tuple[float, int], Counts] = OrderedDict()
        self._weights: dict[Any, list[tuple[list[Scope], Any]]] = {}

    def __repr__(self) -> str:
        return f"CostTable({self.space.name}, {self.name}, {self.describe_range()})"

    # -- the cost of architectures -------------------------------------------------------------------------------------

    @cached_property
    def _gather(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
        """Strides ``(t, d)``, bases ``(t, 1)`` and all values in a row: indices are one matrix product (exact in float32)."""
        fused: list[tuple[Scope, NDArray[np.float64]]] = []
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
            raise SpaceError(f"the tables of {self.name} have {sum(sizes):,} entries; at most {2**24:,} are allowed")
        flat = np.concatenate([np.zeros(0), *(values.ravel() for _, values in fused)])
        return strides, bases, flat

    def __call__(self, archs: Population) -> NDArray[np.float64]:
        """Costs of a population.

        Args:
            archs: rows of valid option indices (see :meth:`snugnet.spaces.SearchSpace.rows`), shape ``(n, d)``; they
                need not be canonical.

        Returns:
            Costs in :attr:`unit`, shape ``(n,)``; exact where the tables hold whole numbers.
        """
        if archs.ndim != 2 or archs.shape[1] != self.space.d:
            raise SpaceError(f"architectures of {self.space.name} have shape (n, {self.space.d}), got {archs.shape}")
        strides, bases, flat = self._gather
        costs = np.full(len(archs), self.constant)
        for start in range(0, len(archs), _CHUNK):
            index = strides @ archs[start : start + _CHUNK].T.astype(np.float32)
            index += bases
            # Added up row by row: the order, and so the last bit, never depends on the size of the batch.
            for values in flat.take(index.astype(np.int64)):
                costs[start : start + _CHUNK] += values
        return costs

    def expectation(self, probabilities: Sequence[Any]) -> Any:
        """The expected cost when every choice is drawn on its own; differentiable in torch.

        Args:
            probabilities: for each choice of the space, shape ``(n, options)``: numpy arrays or torch tensors.

        Returns:
            Shape ``(n,)``, float64 (in float32 a count above 16.8 million is not exact). At one-hot probabilities it is
            the cost itself.

        Raises:
            SpaceError: there is not one array for each choice.
        """
        if len(probabilities) != self.space.d:
            raise SpaceError(f"{self.space.name} has {self.space.d} choices, got {len(probabilities)} probabilities")
        total: Any = self.constant
        stack = np.stack
        groups = self._by_shape
        if not isinstance(probabilities[0], np.ndarray):
            import torch

            stack = torch.stack  # type: ignore[assignment]  # called below with what both take
            groups = self._on_device(probabilities[0].device)
        for scopes, weights in groups:
            for j in reversed(range(len(scopes[0]))):
                factor = stack([probabilities[scope[j]] for scope in scopes], 1)  # (n, tables, options)
                weights = (weights * factor.reshape(*factor.shape[:2], *(1,) * j, factor.shape[2])).sum(-1)
            total = total + weights.sum(-1)
        if not groups:
            total = total + probabilities[0].sum(-1) * 0
        return total

    @cached_property
    def _by_shape(self) -> list[tuple[list[Scope], Any]]:
        """Tables of equal shape as one array ``(tables, options...)``, to keep the number of operations low."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for t, (_, values) in enumerate(self.tables):
            groups.setdefault(values.shape, []).append(t)
        return [
            ([self.tables[t][0] for t in members], np.stack([self.tables[t][1] for t in members]))
            for members in groups.values()
        ]

    def _on_device(self, device: Any) -> list[tuple[list[Scope], Any]]:
        import torch

        if device not in self._weights:
            self._weights[device] = [(s, torch.as_tensor(w, device=device)) for s, w in self._by_shape]
        return self._weights[device]

    # -- bounds and budgets --------------------------------------------------------------------------------------------

    @cached_property
    def plan(self) -> Plan:
        """The order in which this table's parts are gone through."""
        return self.plan_with([self])

    def plan_with(self, tables: Sequence[CostTable]) -> Plan:
        """One plan for several tables of this space."""
        scopes = [scope for table in tables for scope, _ in table.tables]
        key = frozenset(scopes)
        if key not in self._plans:
            self._plans[key] = make_plan(self.space, scopes)
        return self._plans[key]

    def excess(self, plan: Plan) -> Excess:
        """The cost above its minimum, spread over the transitions of a plan."""
        if plan not in self._excess:
            low, high = self.range
            self._excess[plan] = Excess.make(plan.reduced(plan.increments(self.tables)), low, high)
        return self._excess[plan]

    @cached_property
    def range(self) -> tuple[float, float]:
        """Cost of the cheapest and of the dearest architecture."""
        dearest = self.extreme(np.ones((1, self.space.offsets[-1]), dtype=bool), 1)
        return float(self(self.cheapest)[0]), float(self(dearest)[0])

    @cached_property
    def cheapest(self) -> Population:
        """A cheapest architecture: shape ``(1, d)``."""
        return self.extreme(np.ones((1, self.space.offsets[-1]), dtype=bool), -1)

    @overload
    def bounds(self) -> tuple[float, float]: ...

    @overload
    def bounds(self, partial: Population) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...

    def bounds(
        self, partial: Population | None = None
    ) -> tuple[float, float] | tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Costs of the cheapest and of the dearest completion of partial architectures.

        Args:
            partial: option indices, or -1 where nothing has been chosen yet: shape ``(n, d)``. An option given for a
                choice that turns out not to matter is not binding.

        Returns:
            Two arrays of shape ``(n,)``: costs of architectures that exist, so exact. Without an argument two numbers,
            :attr:`range`.

        Raises:
            SpaceError: the shape is wrong, or an index has no option.
        """
        if partial is None:
            return self.range
        space = self.space
        if partial.ndim != 2 or partial.shape[1] != space.d:
            raise SpaceError(f"partial architectures have shape (n, {space.d}), got {partial.shape}")
        if ((partial < -1) | (partial >= space.num_options)).any():
            raise SpaceError("a partial architecture holds option indices, or -1 where nothing has been chosen")
        chosen = np.repeat(partial, space.num_options, axis=1)
        option = np.arange(space.offsets[-1]) - np.repeat(space.offsets[:-1], space.num_options)
        allowed = (chosen == -1) | (chosen == option)
        return self(self.extreme(allowed, -1)), self(self.extreme(allowed, 1))

    def extreme(self, allowed: NDArray[np.bool_], sign: int) -> Population:
        """The cheapest (sign -1) or dearest (sign 1) architectures among those of allowed options.

        Args:
            allowed: in one-hot layout, shape ``(n, sum of options)``.
            sign: which of the two.

        Returns:
            Canonical rows, shape ``(n, d)``; meaningless where the allowed options make no architecture.
        """
        plan = self.plan
        masks = plan.scores(np.where(allowed, 0.0, -np.inf))
        increments = plan.increments(self.tables)
        return plan.best([sign * i[:, None] + mask for i, mask in zip(increments, masks, strict=True)])[0]

    def describe_range(self) -> str:
        """The range for people, such as ``121.3M to 566.2M MAdds``; the lower end is rounded up, so it is feasible."""
        return f"{format_amount(self.range[0], rounding=math.ceil)} to {format_amount(self.range[1], self.unit)}"

    def check_budget(self, budget: float, where: str = "") -> None:
        """Refuse a budget that no architecture meets.

        Args:
            budget: in :attr:`unit`.
            where: put before the message, such as ``"scenario 3: "``.

        Raises:
            BudgetError: with the feasible range.
        """
        if not budget >= self.range[0]:
            raise BudgetError(
                f"{where}no architecture of {self.space.name} has {self.name} <= {format_amount(budget, rounding=math.floor)}; "
                f"feasible: {self.describe_range()}"
            )

    # -- sampling ------------------------------------------------------------------------------------------------------

    def sampler(self, budget: float | None = None, at_least: float | None = None) -> Sampler:
        """The sampler of one budget or window; the last ones are kept.

        Raises:
            BudgetError: no architecture lies in it.
        """
        key = (np.inf if budget is None else float(budget), -np.inf if at_least is None else float(at_least))
        if key not in self._samplers:
            self._samplers[key] = Sampler(self, *key)
            while len(self._samplers) > _SAMPLERS:
                self._samplers.popitem(last=False)
        self._samplers.move_to_end(key)
        return self._samplers[key]

    def counts(self, upper: float, cells: int) -> Counts:
        """Path counts on a grid that reaches ``upper`` above the minimum; windows of one width share them."""
        key = (upper, cells)
        if key not in self._counts:
            self._counts[key] = Counts(self.plan, self.excess(self.plan), upper, cells)
            while len(self._counts) > _COUNTS:
                self._counts.popitem(last=False)
        self._counts.move_to_end(key)
        return self._counts[key]

    def sample(
        self, n: int, rng: np.random.Generator, budget: float | None = None, at_least: float | None = None
    ) -> Population:
        """Draw architectures uniformly among all canonical ones with ``at_least <= cost <= budget``.

        Args:
            n: how many.
            rng: source of randomness.
            budget: greatest cost allowed, in :attr:`unit`.
            at_least: smallest cost allowed.

        Returns:
            Canonical rows, shape ``(n, d)``.

        Raises:
            BudgetError: no architecture lies in between; found before anything is drawn.
        """
        return self.sampler(budget, at_least).sample(n, rng)

    # -- other tables --------------------------------------------------------------------------------------------------

    def shifted(self, delta: float) -> Self:
        """The same cost with a constant added."""
        return type(self)(self.space, self.name, self.unit, [*self.tables, ((), self.constant + delta)])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Plain arrays from which :meth:`from_arrays` makes this table again; ``np.savez`` needs no pickle for them."""
        scopes = [scope for scope, _ in self.tables]
        return {
            "name": np.array(self.name),
            "unit": np.array(self.unit),
            "constant": np.array(self.constant),
            "ranks": np.array([len(scope) for scope in scopes], dtype=np.int64),
            "choices": np.array([c for scope in scopes for c in scope], dtype=np.int64),
            "values": np.concatenate([np.zeros(0), *(values.ravel() for _, values in self.tables)]),
        }

    @classmethod
    def from_arrays(cls, space: SearchSpace, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The table that :meth:`arrays` took apart.

        Raises:
            SpaceError: an array is missing, or they do not fit each other or the space.
        """
        missing = [k for k in ("name", "unit", "constant", "ranks", "choices", "values") if k not in arrays]
        if missing:
            raise SpaceError(f"a cost table lacks its array {missing[0]!r}")
        choices, values, ranks = arrays["choices"], arrays["values"], arrays["ranks"]
        fits = (ranks > 0).all() and ranks.sum() == len(choices) and ((choices >= 0) & (choices < space.d)).all()
        if not fits:
            raise SpaceError(f"the cost table does not fit the space {space.name} with its {space.d} choices")
        tables: list[tuple[Sequence[int], ArrayLike]] = [((), arrays["constant"])]
        start = 0
        for scope in np.split(choices, np.cumsum(ranks)[:-1]) if len(ranks) else []:
            shape = space.num_options[scope]
            size = int(np.prod(shape))
            if start + size > len(values):
                raise SpaceError(f"the cost table holds {len(values)} values; the space {space.name} needs more")
            tables.append((scope.tolist(), values[start : start + size].reshape(shape)))
            start += size
        if start != len(values):
            raise SpaceError(f"the cost table holds {len(values)} values; the space {space.name} needs {start}")
        return cls(space, str(arrays["name"]), str(arrays["unit"]), tables)


def _close(
    space: SearchSpace, name: str, columns: Scope, values: NDArray[np.float64]
) -> tuple[Scope, NDArray[np.float64]]:
    """One table with all ancestors in its scope, columns rising, and entries read in canonical form."""
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

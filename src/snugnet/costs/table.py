"""CostTable: an additive cost as a sum of small tables, and everything that follows from that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from snugnet.costs.exact.allowed import Allowed, automaton_of
from snugnet.costs.exact.automaton import Automaton, Scope
from snugnet.costs.exact.excess import Excess
from snugnet.costs.exact.terms import Table, Terms
from snugnet.costs.ranged import check_budget, described_range
from snugnet.errors import BudgetError, SpaceError
from snugnet.spaces import Population, SearchSpace


@dataclass(frozen=True, init=False, repr=False)
class CostTable:
    """``cost(arch) = constant + sum_t table_t[arch[choices_t]]``.

    A value: it never changes, and those of equal terms are equal where name, unit and constant are.

    Attributes:
        name: of the cost, such as ``"madds"``.
        unit: of the numbers, such as ``"MAdds"`` or ``"ms"``.
        constant: the part that no choice changes.
        terms: the sum of tables.
    """

    name: str
    unit: str
    constant: float
    terms: Terms

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
        terms, constant = Terms.of(space, name, tables)
        self.__dict__.update(name=name, unit=unit, constant=constant, terms=terms)

    def __repr__(self) -> str:
        return f"CostTable({self.space.name}, {self.name}, {self.describe_range()})"

    @property
    def space(self) -> SearchSpace:
        """Whose architectures have this cost."""
        return self.terms.space

    @property
    def tables(self) -> tuple[Table, ...]:
        """Pairs of columns and values; the values' shape is the choices' numbers of options. With a choice stand all its
        ancestors, so that every table knows by itself which of its choices matter."""
        return self.terms.tables

    # -- the cost of architectures -------------------------------------------------------------------------------------

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
        return self.terms.sums(archs, self.constant)

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
        groups = self.terms.by_shape()
        if not isinstance(probabilities[0], np.ndarray):
            import torch

            stack = torch.stack  # type: ignore[assignment]  # called below with what both take
            groups = self.terms.by_shape(probabilities[0].device)
        for scopes, weights in groups:
            for j in reversed(range(len(scopes[0]))):
                factor = stack([probabilities[scope[j]] for scope in scopes], 1)  # (n, tables, options)
                weights = (weights * factor.reshape(*factor.shape[:2], *(1,) * j, factor.shape[2])).sum(-1)
            total = total + weights.sum(-1)
        if not groups:
            total = total + probabilities[0].sum(-1) * 0
        return total

    # -- bounds and budgets --------------------------------------------------------------------------------------------

    def automaton(self, allowed: Allowed | None = None) -> Automaton:
        """The steps in which this table's architectures are gone through: all of them, or those that are allowed.

        Raises:
            BudgetError: nothing is allowed.
        """
        return self._whole if allowed is None else automaton_of(self.space, self.terms.scopes, allowed)

    @cached_property
    def _whole(self) -> Automaton:
        return automaton_of(self.space, self.terms.scopes, None)

    def excess(self, automaton: Automaton) -> Excess:
        """The cost above its minimum, spread over the transitions of an automaton."""
        return self.terms.excess(automaton, self.constant)

    @cached_property
    def range(self) -> tuple[float, float]:
        """Cost of the cheapest and of the dearest architecture."""
        low, high = self(self.terms.ends(self._whole)).tolist()
        return low, high

    @overload
    def bounds(self, *, allowed: Allowed | None = None) -> tuple[float, float]: ...

    @overload
    def bounds(
        self, partial: Population, allowed: Allowed | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...

    def bounds(
        self, partial: Population | None = None, allowed: Allowed | None = None
    ) -> tuple[float, float] | tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Costs of the cheapest and of the dearest completion of partial architectures.

        Args:
            partial: option indices, or -1 where nothing has been chosen yet: shape ``(n, d)``. An option given for a
                choice that turns out not to matter is not binding.
            allowed: looks at these architectures alone.

        Returns:
            Two arrays of shape ``(n,)``: costs of architectures that exist, so exact. Without partial architectures two
            numbers: :attr:`range`, or that of what is allowed.

        Raises:
            SpaceError: the shape is wrong, or an index has no option.
            BudgetError: nothing is allowed, or no completion of a partial architecture is.
        """
        if partial is None and allowed is None:
            return self.range
        automaton = self.automaton(allowed)
        if partial is None:
            low, high = self(self.terms.ends(automaton)).tolist()
            return low, high
        space = self.space
        if partial.ndim != 2 or partial.shape[1] != space.d:
            raise SpaceError(f"partial architectures have shape (n, {space.d}), got {partial.shape}")
        if ((partial < -1) | (partial >= space.num_options)).any():
            raise SpaceError("a partial architecture holds option indices, or -1 where nothing has been chosen")
        chosen = np.repeat(partial, space.num_options, axis=1)
        option = np.arange(space.offsets[-1]) - np.repeat(space.offsets[:-1], space.num_options)
        open_ = (chosen == -1) | (chosen == option)
        (cheapest, found), (dearest, _) = (self.terms.extreme(automaton, open_, sign) for sign in (-1, 1))
        if allowed is not None and not found.all():
            raise BudgetError(f"partial architecture {found.argmin()} has no completion {allowed.text}")
        return self(cheapest), self(dearest)

    def describe_range(self, allowed: Allowed | None = None) -> str:
        """The range for people, such as ``121.3M to 566.2M MAdds``; the lower end is rounded up, so it is feasible."""
        return described_range(self, allowed)

    def check_budget(self, budget: float, where: str = "", allowed: Allowed | None = None) -> None:
        """Refuse a budget that no architecture meets.

        Args:
            budget: in :attr:`unit`.
            where: put before the message, such as ``"scenario 3: "``.
            allowed: looks at these architectures alone.

        Raises:
            BudgetError: with the feasible range.
        """
        check_budget(self, budget, where, allowed)

    # -- other tables --------------------------------------------------------------------------------------------------

    def shifted(self, delta: float) -> Self:
        """The same cost with a constant added; all that is known of the terms is shared."""
        other = copy(self)
        other.__dict__.pop("range", None)
        other.__dict__["constant"] = self.constant + float(delta)
        return other

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


def common_automaton(tables: Sequence[CostTable], allowed: Allowed | None = None) -> Automaton:
    """One automaton for several tables of a space.

    Raises:
        BudgetError: nothing is allowed.
    """
    scopes = frozenset[Scope]().union(*(table.terms.scopes for table in tables))
    same = scopes == tables[0].terms.scopes
    return tables[0].automaton(allowed) if same else automaton_of(tables[0].space, scopes, allowed)


def nothing(space: SearchSpace) -> CostTable:
    """A cost of 0 for every architecture: it bounds nothing."""
    return CostTable(space, "nothing", "", [((), np.array(0.0))])

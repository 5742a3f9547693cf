"""Which architectures are allowed: limits that are no sums, as transitions that are left out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from snugnet.costs.budget import format_amount
from snugnet.costs.exact.automaton import Automaton, Scope, all_rows, closure, make_automaton
from snugnet.costs.exact.terms import close
from snugnet.errors import BudgetError, SpaceError
from snugnet.spaces import Population, SearchSpace

_AUTOMATA_KEPT = 64


@dataclass(frozen=True, eq=False)
class Allowed:
    """Those architectures of a space for which every one of some small tables says yes; ``a & b`` for both.

    Attributes:
        space: the space.
        tables: scopes, closed under ancestors, and for each of their assignments whether it is allowed.
        text: what is asked, for messages, such as ``"peak_memory <= 2M"``.
    """

    space: SearchSpace
    tables: tuple[tuple[Scope, NDArray[np.bool_]], ...]
    text: str

    @classmethod
    def without(cls, space: SearchSpace, forbidden: Mapping[str, Collection[Any]]) -> Allowed:
        """Architectures that use none of some options; an option of a choice that does not matter is not used.

        Args:
            space: the space.
            forbidden: options by the name of their choice.

        Raises:
            SpaceError: there is no such choice or option.
        """
        tables = []
        for name, options in forbidden.items():
            if name not in space.column:
                raise SpaceError(f"{space.name} has no choice {name!r}; choices: {', '.join(space.column)}")
            column = space.column[name]
            scope = closure(space, (column,))
            rows = all_rows(space, scope)
            used = np.isin(rows[:, column], [space.choices[column].index(option) for option in options])
            fine = ~(used & space.active(rows)[:, column])
            tables.append((scope, fine.reshape(space.num_options[list(scope)])))
        said = (f"{name} in {', '.join(map(str, options))}" for name, options in forbidden.items())
        return cls(space, tuple(tables), f"without {' or '.join(said)}")

    @classmethod
    def at_most(
        cls, space: SearchSpace, tables: Iterable[tuple[Sequence[int], ArrayLike]], limit: float, name: str = "maximum"
    ) -> Allowed:
        """Architectures for which the largest entry of some tables, as of peak memory, is at most a limit.

        Args:
            space: the space.
            tables: pairs of columns and values, as those of a :class:`snugnet.costs.CostTable`; an entry for a choice that
                does not matter is never read: the entry for its option 0 stands in.
            limit: greatest entry allowed.
            name: of what is limited, for messages.

        Raises:
            SpaceError: a column does not exist or is named twice, or values have the wrong shape or are not finite.
            BudgetError: the limit is not a number.
        """
        if np.isnan(limit):
            raise BudgetError(f"a limit of {name} is a number, got {limit}")
        closed = (
            close(space, name, tuple(int(c) for c in columns), np.asarray(values, dtype=np.float64))
            for columns, values in tables
        )
        fine = (_needed(space, scope, values <= limit) for scope, values in closed)
        text = f"{name} <= {format_amount(limit)}"
        return cls(space, tuple((scope, values) for scope, values in fine if not values.all()), text)

    def __and__(self, other: Allowed) -> Allowed:
        if self.space.choices != other.space.choices:
            raise SpaceError("what is allowed together is of one space")
        return Allowed(self.space, (*self.tables, *other.tables), f"{self.text} and {other.text}")

    def __call__(self, archs: Population) -> NDArray[np.bool_]:
        """Whether architectures are allowed: rows, shape ``(n, d)``, that need not be canonical; shape ``(n,)``."""
        fine = np.ones(len(archs), dtype=bool)
        rows = self.space.canonical(archs)
        for scope, values in self.tables:
            fine &= values[tuple(rows[:, c] for c in scope)]
        return fine


def _needed(space: SearchSpace, scope: Scope, fine: NDArray[np.bool_]) -> tuple[Scope, NDArray[np.bool_]]:
    """The same table over as few choices as it depends on; ancestors stay."""
    for axis in reversed(range(len(scope))):
        above = any(space.parents[c] == scope[axis] for c in scope)
        if not above and (fine == fine.take([0], axis)).all():
            fine, scope = fine.take([0], axis).squeeze(axis), scope[:axis] + scope[axis + 1 :]
    return scope, fine


def automaton_of(space: SearchSpace, scopes: frozenset[Scope], allowed: Allowed | None) -> Automaton:
    """The automaton of allowed architectures, for tables with some scopes; the last ones are kept.

    Raises:
        BudgetError: nothing is allowed.
        SpaceError: what is allowed is of another space.
    """
    if allowed is None:
        return make_automaton(space, scopes)
    if allowed.space.choices != space.choices:
        raise SpaceError(f"what is allowed is of the space {allowed.space.name}, the cost table of {space.name}")
    return _restricted(allowed, scopes)


@lru_cache(maxsize=_AUTOMATA_KEPT)
def _restricted(allowed: Allowed, scopes: frozenset[Scope]) -> Automaton:
    space = allowed.space
    whole = make_automaton(space, scopes | {scope for scope, _ in allowed.tables if scope})
    masks = [np.ones(len(step.rows), dtype=bool) for step in whole.steps]
    for scope, values in allowed.tables:
        t = whole.holds(scope)
        masks[t] &= values[tuple(whole.steps[t].rows[:, c] for c in scope)]
    restricted = whole.restricted(masks)
    if restricted is None:
        raise BudgetError(f"no architecture of {space.name} is allowed: none is there {allowed.text}")
    return restricted

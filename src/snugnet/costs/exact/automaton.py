"""The order in which tables are gone through: one automaton for bounds, sampling and decoding.

Tables are taken one at a time. A choice is *introduced* by the first table that depends on it and forgotten after the
last; what must be remembered between two tables is the *state*, an assignment of the choices still needed. Each table
so becomes a step of a small automaton: transitions from a state before to a state after, each with the options that it
introduces. Every canonical architecture is exactly one path. (Bucket elimination: Dechter, 1999; on a chain, Viterbi.)
Where only some architectures are allowed, transitions are left out and what then leads nowhere goes with them: all that is
found on an automaton is found among the architectures that it has.

The width-1.0 OFA space needs 20 steps, at most 3 states, and 240 transitions for its 2e19 architectures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from snugnet.spaces import Population, SearchSpace

Scope = tuple[int, ...]
Floats = NDArray[np.floating]
_AUTOMATA_KEPT = 64


@dataclass(frozen=True, eq=False)
class Step:
    """What one table decides; ``K`` transitions, sorted by target.

    Attributes:
        scope: columns of the choices that the table depends on.
        rows: options of the choices in the scope and in the state, other columns 0: shape ``(K, d)``.
        source: index of the state before: shape ``(K,)``.
        target: index of the state after: shape ``(K,)``.
        sources: number of states before.
        targets: number of states after.
        introduced: columns that are decided here.
        hot: for each introduced choice the column of its option in one-hot form; the length of that form (one past its
            end) for a choice that does not matter: shape ``(K, len(introduced))``.
        ways: how many joint options of the introduced choices come to this one, which leaves some without a matter: shape ``(K,)``.
    """

    scope: Scope
    rows: Population
    source: NDArray[np.intp]
    target: NDArray[np.intp]
    sources: int
    targets: int
    introduced: Scope
    hot: NDArray[np.intp]
    ways: NDArray[np.float64]

    @cached_property
    def starts(self) -> NDArray[np.intp]:
        """Where the transitions into each target begin: shape ``(targets,)``."""
        return np.searchsorted(self.target, np.arange(self.targets))

    @cached_property
    def arriving(self) -> NDArray[np.intp]:
        """The transitions into each target, in order, the last one repeated to a common length: ``(targets, most)``."""
        counts = np.bincount(self.target, minlength=self.targets)
        return self.starts[:, None] + np.minimum(np.arange(counts.max()), counts[:, None] - 1)


Pick = Callable[[int, NDArray[np.intp]], tuple[NDArray[np.intp], NDArray[np.intp] | None]]
"""Going back: from the number of a step and the state after it of each path, by which transition each came. Where some came by
several and some by none: then which of the paths each of the transitions belongs to, else ``None``."""


@dataclass(frozen=True, eq=False)
class Automaton:
    """Steps from the empty state to the empty state, such that every canonical architecture is one path, or none.

    Attributes:
        d: number of choices.
        steps: in order; every state is on some path.
    """

    d: int
    steps: tuple[Step, ...]

    def holds(self, scope: Scope) -> int:
        """The first step whose transitions tell all choices of a scope."""
        return next(i for i, step in enumerate(self.steps) if set(scope) <= set(step.scope))

    def scores(self, scores: Floats) -> list[Floats]:
        """What each transition adds to a sum of per-option scores over the choices that matter.

        Args:
            scores: in one-hot layout, shape ``(n, sum of options)``.

        Returns:
            A list over steps of shape ``(K, n)``.
        """
        padded = np.zeros((scores.shape[1] + 1, len(scores)), dtype=scores.dtype)
        padded[:-1] = scores.T
        result = []
        for step in self.steps:
            total = np.zeros((len(step.rows), len(scores)), dtype=scores.dtype)
            for j in range(len(step.introduced)):
                total += padded[step.hot[:, j]]
            result.append(total)
        return result

    def best(self, gains: Sequence[Floats]) -> tuple[Population, Floats]:
        """The architectures with the greatest sum of gains (Viterbi); of equals, the first in the order of the automaton.

        Args:
            gains: a list over steps of shape ``(K, n)``; minus infinity forbids a transition.

        Returns:
            Canonical rows, shape ``(n, d)``, and their sums, shape ``(n,)``.
        """
        n = gains[0].shape[1] if gains else 1
        value, reached = np.zeros((1, n), dtype=gains[0].dtype if gains else np.float64), []
        for step, gain in zip(self.steps, gains, strict=True):
            reached.append(value[step.source] + gain)
            value = np.maximum.reduceat(reached[-1], step.starts, axis=0)
        each = np.arange(n)

        def pick(t: int, state: NDArray[np.intp]) -> tuple[NDArray[np.intp], None]:
            # A forbidden row is all minus infinity: any transition does, the caller sees the sum.
            step, sums = self.steps[t], reached[t]
            if step.targets == 1:
                return sums.argmax(axis=0), None
            arriving = step.arriving[state]
            return arriving[each, sums[arriving, each[:, None]].argmax(axis=1)], None

        return self.trace(n, pick), value[0]

    def trace(self, n: int, pick: Pick) -> Population:
        """Go ``n`` paths back from the end.

        Args:
            n: how many.
            pick: asked once a step, from the last to the first.

        Returns:
            Canonical rows, shape ``(n, d)``; more or fewer where ``pick`` says so.
        """
        columns, state = np.zeros((self.d, n), dtype=np.int16), np.zeros(n, dtype=np.intp)
        for t in reversed(range(len(self.steps))):
            step = self.steps[t]
            picked, path = pick(t, state)
            if path is not None:
                columns = columns[:, path]
            for c in step.introduced:
                columns[c] = step.rows[:, c].take(picked)
            state = step.source.take(picked)
        return columns.T.copy()

    def restricted(self, allowed: Sequence[NDArray[np.bool_]]) -> Automaton | None:
        """The automaton of those paths that take allowed transitions alone; ``None`` where there is no such path.

        Args:
            allowed: a list over steps of shape ``(K,)``.
        """
        kept = []
        live = np.ones(1, dtype=bool)
        for step, mask in zip(self.steps, allowed, strict=True):
            kept.append(mask & live[step.source])
            live = np.zeros(step.targets, dtype=bool)
            live[step.target[kept[-1]]] = True
        ends, live = [], np.ones(1, dtype=bool)
        for t in reversed(range(len(self.steps))):
            step = self.steps[t]
            ends.append(live)
            kept[t] &= live[step.target]
            live = np.zeros(step.sources, dtype=bool)
            live[step.source[kept[t]]] = True
        if not live.all():
            return None
        steps = []
        for step, keep, after in zip(self.steps, kept, reversed(ends), strict=True):
            source, target = (np.cumsum(states) - 1 for states in (live, after))
            steps.append(
                replace(
                    step,
                    rows=step.rows[keep],
                    source=source[step.source[keep]],
                    target=target[step.target[keep]],
                    sources=int(live.sum()),
                    targets=int(after.sum()),
                    hot=step.hot[keep],
                    ways=step.ways[keep],
                )
            )
            live = after
        return Automaton(self.d, tuple(steps))

    def reduced(self, increments: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
        """Increments with the cheapest completion as potential: never negative, and zero along a cheapest path.

        A path's sum is then its cost above the cheapest architecture, and any transition that alone exceeds what a
        budget leaves can be left out.
        """
        result: list[NDArray[np.float64]] = []
        ahead = np.zeros(1)
        for step, increment in zip(reversed(self.steps), reversed(increments), strict=True):
            through = increment + ahead[step.target]
            ahead = np.full(step.sources, np.inf)
            np.minimum.at(ahead, step.source, through)
            result.append(through - ahead[step.source])
        return result[::-1]


def closure(space: SearchSpace, scope: Iterable[int]) -> Scope:
    """The choices of a scope and all their ancestors, in the order of the space."""
    closed: set[int] = set()
    for column in scope:
        up: int | None = column
        while up is not None and up not in closed:
            closed.add(up)
            up = space.parents[up]
    return tuple(sorted(closed))


def make_automaton(space: SearchSpace, scopes: Iterable[Scope]) -> Automaton:
    """The automaton for tables with these scopes; choices in none of them get a step of their own. The last ones are kept.

    Because scopes are closed under ancestors, whether a choice matters is always known when it is introduced. The result
    does not depend on the order of the scopes: those of the network's parts come first, as the network has them.
    """
    return _make(_Tree(space), frozenset(scopes))


class _Tree:
    """A space as far as an automaton depends on it; equal for spaces whose automata are the same."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        choices = tuple(
            (len(c.options), parent, c.active) for c, parent in zip(space.choices, space.parents, strict=True)
        )
        self.key = (choices, tuple(part.choices for part in space.parts))

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Tree) and self.key == other.key


@lru_cache(maxsize=_AUTOMATA_KEPT)
def _make(tree: _Tree, scopes: frozenset[Scope]) -> Automaton:
    space = tree.space
    given = {closure(space, scope) for scope in scopes}
    of_parts = [scope for part in space.parts if (scope := closure(space, part.choices)) in given]
    closed = dict.fromkeys((*of_parts, *sorted(given), *(closure(space, (c,)) for c in range(space.d))))
    maximal = [scope for scope in closed if not any(set(scope) < set(other) for other in closed)]
    steps: list[Step] = []
    states, live = np.zeros((1, space.d), dtype=np.int16), frozenset[int]()
    sizes = space.num_options.tolist()
    order = min(_order(maximal, sizes), maximal, key=lambda order: _transitions(order, sizes))
    for i, scope in enumerate(order):
        introduced = tuple(c for c in scope if c not in live)
        rows, source = _extend(space, states, introduced)
        live = (live | set(scope)) & {c for later in order[i + 1 :] for c in later}
        kept = np.where([c in live for c in range(space.d)], rows, np.int16(0))
        after, target = np.unique(kept, axis=0, return_inverse=True)
        by_target = np.argsort(target.ravel(), kind="stable")
        rows, source, target = rows[by_target], source[by_target], target.ravel()[by_target]
        columns = list(introduced)
        matters = space.active(rows)[:, columns]
        hot = np.where(matters, space.offsets[columns] + rows[:, columns], space.offsets[-1])
        ways = np.where(matters, 1, space.num_options[columns]).prod(axis=1, dtype=np.float64)
        steps.append(Step(scope, rows, source, target, len(states), len(after), introduced, hot, ways))
        states = after
    return Automaton(space.d, tuple(steps))


def _order(scopes: Sequence[Scope], sizes: Sequence[int]) -> list[Scope]:
    """Greedily, the table that leaves the fewest states next; of equals, the first.

    Where neighbouring parts share choices this may work from both ends at once; then the order of the network is better.
    """
    order: list[Scope] = []
    left, live = list(scopes), set[int]()
    while left:
        after = {
            scope: (live | set(scope)) & {c for other in left if other is not scope for c in other} for scope in left
        }
        best = min(left, key=lambda scope: math.prod(sizes[c] for c in after[scope]))
        left.remove(best)
        live = after[best]
        order.append(best)
    return order


def _transitions(order: Sequence[Scope], sizes: Sequence[int]) -> int:
    """How many transitions an order takes, or a little more: combinations that are not canonical count as well."""
    total, live = 0, set[int]()
    for i, scope in enumerate(order):
        live |= set(scope)
        total += math.prod(sizes[c] for c in live)
        live &= {c for later in order[i + 1 :] for c in later}
    return total


def all_rows(space: SearchSpace, scope: Scope) -> Population:
    """Every combination of the options of some choices, the last one fastest; other columns are 0: ``(K, d)``."""
    rows = np.zeros((math.prod(space.num_options[list(scope)].tolist()), space.d), dtype=np.int16)
    if scope:
        rows[:, scope] = np.indices(space.num_options[list(scope)].tolist()).reshape(len(scope), -1).T
    return rows


def _extend(space: SearchSpace, states: Population, introduced: Scope) -> tuple[Population, NDArray[np.intp]]:
    """All canonical ways to go on from each state: rows, shape ``(K, d)``, and the state of each, shape ``(K,)``."""
    options = all_rows(space, introduced)
    source = np.repeat(np.arange(len(states)), len(options))
    rows = states[source] + np.tile(options, (len(states), 1))
    canonical = (rows == space.canonical(rows)).all(axis=1)
    return rows[canonical], source[canonical]

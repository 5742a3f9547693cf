"""Peak memory as a maximum over small tables: which choices each step of a network depends on, and what it holds under each of them.

In a row of blocks a block holds its own input and what it makes of it, so a table is over the choices of one part. In a graph it
depends on other parts what is still to be read: whether an edge is zero, and so reads nothing, and whether it is the identity, and so hands
on the very tensor. All of that is a function of a few choices (:class:`Fn`), found from the parts' blocks alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial, reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from snugnet.costs.exact.automaton import Scope, closure
from snugnet.costs.live import ZERO, gathered, program
from snugnet.spaces import Block, Blueprint, Population, SearchSpace

_DENSE = 2**16  # entries: a table over more is taken apart by which of its choices matter


@dataclass(frozen=True, eq=False)
class Fn:
    """A function of the choices in some columns, and of no others: ``values`` has their numbers of options as its shape."""

    columns: Scope
    values: NDArray[Any]

    def at(self, rows: Population) -> NDArray[Any]:
        """Its values for rows: shape ``(n,)``, or one value."""
        return self.values[tuple(rows[:, c] for c in self.columns)]


class _Functions:
    """Functions made of others, each over as few columns as it depends on; equal ones are one and the same.

    The cells of a network are alike, so nearly all that is asked was made before.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Scope, str, bytes], Fn] = {}
        self._made: dict[tuple[Callable[..., Any], Fn, Fn], Fn] = {}
        self.never, self.always = (self.over((), np.array(value)) for value in (False, True))

    def over(self, columns: Scope, values: NDArray[Any]) -> Fn:
        """The function with these values."""
        for axis in reversed(range(len(columns))):
            first = values.take([0], axis)
            if (values == first).all():
                values, columns = first.squeeze(axis), columns[:axis] + columns[axis + 1 :]
        return self._known.setdefault((columns, values.dtype.kind, values.tobytes()), Fn(columns, values))

    def all(self, *fns: Fn) -> Fn:
        """Whether all are true."""
        return reduce(partial(self._join, np.logical_and, self.always, self.never), fns, self.always)

    def any(self, *fns: Fn) -> Fn:
        """Whether one is true."""
        return reduce(partial(self._join, np.logical_or, self.never, self.always), fns, self.never)

    def no(self, fn: Fn) -> Fn:
        """Whether it is false."""
        return self.over(fn.columns, ~fn.values)

    def _join(self, join: Callable[..., Any], neutral: Fn, final: Fn, a: Fn, b: Fn) -> Fn:
        if a is b or b is neutral or a is final:
            return a
        if a is neutral or b is final:
            return b
        if (join, a, b) not in self._made:
            columns = tuple(sorted({*a.columns, *b.columns}))
            self._made[join, a, b] = self.over(columns, join(*(_aligned(fn, columns) for fn in (a, b))))
        return self._made[join, a, b]


def _aligned(fn: Fn, columns: Scope) -> NDArray[Any]:
    sizes = dict(zip(fn.columns, fn.values.shape, strict=True))
    return fn.values.reshape([sizes.get(c, 1) for c in columns])


@dataclass(frozen=True, eq=False)
class _Position:
    """Where a block stands, in some architectures or in all.

    Attributes:
        reads: positions whose outputs it takes; 0 is the image.
        concat: whether those stand side by side, not in a sum.
        zero: whether it is zeros, whatever it reads.
        bare: whether it hands on its input, or is not there.
        size: values of its output.
        entry: values of its input.
        free, beside: see :class:`snugnet.costs.live.Program`.
    """

    reads: tuple[int, ...]
    concat: bool
    zero: Fn
    bare: Fn
    size: Fn
    entry: Fn
    free: Fn
    beside: Fn


def peak_tables(space: SearchSpace, num_classes: int | None = None) -> list[tuple[Scope, NDArray[np.float64]]]:
    """Tables of which the largest entry of an architecture is :func:`snugnet.costs.live.peak_values` of its blueprint.

    Args:
        space: the space.
        num_classes: width of the classifier, if another than the space's.
    """
    column = space.column.get("resolution")
    sizes = [space.resolution] if column is None else space.choices[column].options
    pixels = np.array([space.in_channels * size**2 for size in sizes])
    fns = _Functions()
    image = fns.over((), pixels[0]) if column is None else fns.over((column,), pixels)
    rows = cache(lambda scope: canonical_rows(space, scope))
    merged: dict[Scope, NDArray[np.float64]] = {}
    for held in dict.fromkeys(_Graph(fns, image, _positions(fns, _parts(space, num_classes))).held()):
        scope = closure(space, held.scope)
        for columns, values in _apart(space, scope, rows(scope), held.at(rows(scope))):
            merged[columns] = np.maximum(merged[columns], values) if columns in merged else values
    return list(merged.items())


def canonical_rows(space: SearchSpace, scope: Scope) -> Population:
    """Every canonical assignment of a scope that is closed under ancestors, other columns 0: shape ``(K, d)``."""
    rows = np.zeros((1, space.d), dtype=np.int16)
    for c in scope:
        counts = np.where(space.active(rows)[:, c], space.num_options[c], 1)
        starts = np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.repeat(rows, counts, axis=0)
        rows[:, c] = np.arange(len(rows)) - starts
    return rows


def _apart(
    space: SearchSpace, scope: Scope, rows: Population, values: NDArray[Any]
) -> Iterable[tuple[Scope, NDArray[np.float64]]]:
    """Values of all canonical assignments as tables: one, or one for each set of choices that matter together."""
    columns = list(scope)
    if np.prod(space.num_options[columns], dtype=np.float64) <= _DENSE:
        which = np.zeros(len(rows), dtype=np.intp)
        sets = np.ones((1, len(columns)), dtype=bool)
    else:
        sets, which = np.unique(space.active(rows)[:, columns], axis=0, return_inverse=True)
        which = which.ravel()
    for k, matters in enumerate(sets):
        own = tuple(c for c, there in zip(columns, matters, strict=True) if there)
        table = np.zeros(tuple(space.num_options[list(own)]))
        chosen = rows[which == k]
        table[tuple(chosen[:, c] for c in own)] = values[which == k] if own else values[which == k].max()
        yield own, table


def _parts(space: SearchSpace, num_classes: int | None) -> Iterable[tuple[Scope, NDArray[Any]]]:
    """The blocks of each part, for every combination of the options of its choices."""
    for i, part in enumerate(space.parts):
        columns = tuple(sorted(part.choices))
        blocks = np.empty(space.num_options[list(columns)], dtype=object)
        for indices in np.ndindex(*blocks.shape):
            chosen = dict(zip(columns, indices, strict=True))
            made = space.part_blocks(i, tuple(chosen[c] for c in part.choices))
            if num_classes is not None and i == len(space.parts) - 1:
                made = Blueprint(made, space.in_channels, space.resolution).with_classes(num_classes).blocks
            blocks[indices] = made
        yield columns, blocks


def _positions(fns: _Functions, parts: Iterable[tuple[Scope, NDArray[Any]]]) -> list[_Position]:
    """All positions, first to last; the image, position 0, is none of them."""
    place: dict[str, int] = {}
    positions: list[_Position] = []
    for columns, options in parts:
        every: list[tuple[Block, ...]] = list(options.flat)
        names = dict.fromkeys(b.name for blocks in sorted(every, key=len, reverse=True) for b in blocks)
        by_name = [{block.name: block for block in blocks} for blocks in every]
        for name in names:
            there = [blocks.get(name) for blocks in by_name]
            over = partial(_over, fns, columns, options.shape, there)
            some = next(block for block in there if block is not None)
            positions.append(
                _Position(
                    reads=tuple(place[name] for name in some.reads) or (len(positions),),
                    concat=some.gather == "concat",
                    zero=over(lambda block: block.zero, False),
                    bare=over(lambda block: not block.zero and program(block).bare, True),
                    size=over(lambda block: block.out_channels * block.out_resolution**2, 0),
                    entry=over(gathered, 0),
                    free=over(lambda block: program(block).free, 0),
                    beside=over(lambda block: program(block).beside, 0),
                )
            )
            place[name] = len(positions)
    return positions


def _over(
    fns: _Functions, columns: Scope, shape: tuple[int, ...], blocks: list[Block | None],
    value: Callable[[Block], int], absent: int,
) -> Fn:  # fmt: skip
    values = [absent if block is None else value(block) for block in blocks]
    return fns.over(columns, np.array(values).reshape(shape))


class _Graph:
    """All positions in order, and for each what is alive while it runs; sums leave zeros out as :func:`snugnet.spaces.graph.steps` does.

    A block that is not there hands on its input, as an identity does.
    """

    def __init__(self, fns: _Functions, image: Fn, positions: Sequence[_Position]) -> None:
        self.fns, self.positions = fns, positions
        self.sizes = [image, *(p.size for p in positions)]
        n = len(self.sizes)
        self.kept = [fns.never] * (n - 1) + [fns.always]
        self.readers: list[dict[int, Fn]] = [{} for _ in range(n)]
        """For each position those that read its output, and when they do."""
        self.several = [fns.never] * n
        """Whether a position takes more than one output."""
        self.aliases: list[dict[int, Fn]] = [{} for _ in range(n)]
        """For each position those that hand on its very output, and when they do."""
        for s in reversed(range(1, n)):
            self._read(s)
        self.taken = [[y for y in range(x) if x in self.aliases[y]] for x in range(n)]
        """For each position those whose very output it may hand on."""
        self.makes = [fns.no(fns.any(*(self.aliases[y][x] for y in taken))) for x, taken in enumerate(self.taken)]
        """Whether its output is a tensor of its own."""
        self.until = [max([0, *readers]) for readers in self.readers]
        """The last position by which an output, or who hands it on, may be read."""
        for x in reversed(range(n)):
            self.until[x] = max([self.until[x], *(self.until[y] for y in self.aliases[x])])
        self._alive: dict[tuple[int, int, bool], Fn] = {}
        self._staying: dict[tuple[int, int], Fn] = {}

    def _read(self, s: int) -> None:
        """Note what a position reads; all behind it are known."""
        fns, own, kept = self.fns, self.positions[s - 1], self.kept[s]
        runs, sources = fns.all(kept, fns.no(own.zero)), own.reads
        if len(sources) == 1:
            reads = {sources[0]: runs}
        else:
            zeros = [fns.never if x == 0 or own.concat else self.positions[x - 1].zero for x in sources]
            reads = {x: fns.all(runs, fns.no(zero)) for x, zero in zip(sources, zeros, strict=True)}
            reads[sources[0]] = fns.any(reads[sources[0]], fns.all(runs, *zeros))
            others = (zeros[:i] + zeros[i + 1 :] for i in range(len(zeros)))
            self.several[s] = fns.all(runs, fns.no(fns.any(*(fns.all(*each) for each in others))))
        hands_on = fns.all(own.bare, fns.no(self.several[s]))
        for x, when in reads.items():
            if (alias := fns.all(when, hands_on)) is not fns.never:
                self.aliases[x][s] = alias
        reads[0] = fns.any(
            reads.get(0, fns.never), fns.all(kept, own.zero)
        )  # zeros know from it how many images there are
        for x, when in reads.items():
            if when is not fns.never:
                self.readers[x][s] = when
                self.kept[x] = fns.any(self.kept[x], when)

    def alive(self, x: int, s: int, now: bool) -> Fn:
        """Whether the output of ``x``, or who hands it on before ``s``, is read behind ``s``, or (``now``) by ``s``."""
        if self.until[x] < s or (self.until[x] == s and not now):
            return self.fns.never
        key = (x, s, now)
        if key not in self._alive:
            read = [when for r, when in self.readers[x].items() if r > s or (now and r == s)]
            handed = [self.fns.all(on, self.alive(y, s, now)) for y, on in self.aliases[x].items() if y < s]
            self._alive[key] = self.fns.any(*read, *handed)
        return self._alive[key]

    def _stays(self, x: int, s: int) -> Fn:
        """Whether the tensor that is the output of ``x`` is read behind ``s``, whoever made it."""
        if (x, s) not in self._staying:
            before = [self.fns.all(self.aliases[y][x], self._stays(y, s)) for y in self.taken[x]]
            own = self.fns.all(self.makes[x], self.alive(x, s, False))
            self._staying[x, s] = self.fns.any(own, *before)
        return self._staying[x, s]

    def held(self) -> Iterable[_Held]:
        """What each position holds that is run in some architectures, first to last."""
        fns = self.fns
        for s, own in enumerate(self.positions, 1):
            several = self.several[s]
            runs = fns.all(self.kept[s], fns.any(several, fns.no(own.bare)))
            if runs is fns.never:
                continue
            entries = (fns.all(self.readers[x][s], self._stays(x, s)) for x in {0, *own.reads} if s in self.readers[x])
            stays = fns.all(fns.any(*entries), fns.no(several))
            now, behind = self._tensors(s, True), self._tensors(s, False)
            yield _Held(runs, several, stays, own.zero, self.sizes[0], own.free, own.beside, own.entry, now, behind)

    def _tensors(self, s: int, now: bool) -> _Tensors:
        """Tensors made before ``s`` that are read behind it, or (``now``) by it."""
        live = (
            (self.fns.all(self.makes[x], self.alive(x, s, now)), self.sizes[x]) for x in range(s) if self.until[x] >= s
        )
        return frozenset(Counter(each for each in live if each[0] is not self.fns.never).items())


_Tensors = frozenset[tuple[tuple[Fn, Fn], int]]
"""When tensors are alive, their size, and how many of them are alike."""


class _Held(NamedTuple):
    """While one position runs; equal for positions that hold the same.

    Attributes:
        runs: whether it does.
        several: whether it first brings several outputs together.
        stays: whether what it takes, as it is, is read behind it as well.
        zero, free, beside, entry: see :class:`_Position`.
        image: values of the image.
        now: tensors made before it that are read by it or behind it.
        behind: those that are read behind it.
    """

    runs: Fn
    several: Fn
    stays: Fn
    zero: Fn
    image: Fn
    free: Fn
    beside: Fn
    entry: Fn
    now: _Tensors
    behind: _Tensors

    @property
    def scope(self) -> Scope:
        """The columns of the choices on which it depends."""
        fns = [self.runs, self.several, self.stays, self.free, *(fn for each, _ in self.behind for fn in each)]
        if self.stays.columns or self.stays.values:
            fns.append(self.beside)
        if self.zero.columns or self.zero.values:
            fns += [self.zero, self.image]
        if self.several.columns or self.several.values:
            fns += [self.entry, *(fn for each, _ in self.now for fn in each)]
        return tuple(sorted({c for fn in fns for c in fn.columns}))

    def at(self, rows: Population) -> NDArray[np.int64]:
        """The most values that are held at once, 0 where it does not run: rows of the scope, ``(n, d)``, to ``(n,)``."""
        behind = _sum(self.behind, rows)
        held = np.where(self.stays.at(rows), self.beside.at(rows), self.free.at(rows)) + behind
        if self.several.columns or self.several.values:
            gathered = np.maximum(_sum(self.now, rows) + self.entry.at(rows), behind + self.free.at(rows))
            held = np.where(self.several.at(rows), gathered, held)
        if self.zero.columns or self.zero.values:
            first = behind + ZERO + np.where(self.stays.at(rows), 0, self.image.at(rows))
            held = np.where(self.zero.at(rows), np.maximum(held, first), held)
        return np.where(self.runs.at(rows), held, 0)


def _sum(tensors: _Tensors, rows: Population) -> NDArray[np.int64]:
    total = np.zeros(len(rows), dtype=np.int64)
    for (live, size), count in tensors:
        total += live.at(rows) * size.at(rows) * count
    return total

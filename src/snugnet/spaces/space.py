"""Search spaces: named choices, and architectures as rows of integers.

A population is an integer array of shape ``(n, d)``: one row an architecture, one column a choice, each entry the index
of an option. Everything here works on whole populations. Equal networks have equal rows in *canonical form*: a choice
that does not matter (the kernel of a block that is skipped) is 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from itertools import product
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from snugnet.errors import SpaceError
from snugnet.registry import Registry
from snugnet.spaces.blueprint import Block, Blueprint
from snugnet.spaces.choices import Choice, Part

Population = NDArray[np.int16]
"""Architectures, one a row: shape ``(n, d)``, option indices."""


@dataclass
class SearchSpace(ABC):
    """Named choices, and the parts of the network that they shape.

    Attributes:
        options: what the space was made with; with ``name`` enough to make it again.
        choices: one a column.
        parts: first to last.
        in_channels: channels of the image.
        resolution: height and width of the image, in pixels; where the resolution is a choice (of that name), the largest.
    """

    options: dict[str, Any]
    choices: tuple[Choice, ...]
    parts: tuple[Part, ...]
    in_channels: int
    resolution: int
    _blocks: dict[tuple[int, ...], tuple[Block, ...]] = field(default_factory=dict, repr=False, compare=False)

    name: ClassVar[str]
    json_options: ClassVar[tuple[str, ...]] = ()
    """Options of the space that the JSON form of an architecture states as well."""

    @property
    def auxiliary_block(self) -> str | None:
        """The block on whose output a second classifier helps to train a network of this space; None where the space knows none."""
        return None

    # -- sizes ---------------------------------------------------------------------------------------------------------

    @property
    def d(self) -> int:
        """Number of choices: the length of a row."""
        return len(self.choices)

    @cached_property
    def num_options(self) -> NDArray[np.int64]:
        """Options of each choice: shape ``(d,)``."""
        return np.array([len(choice.options) for choice in self.choices])

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where each choice begins in one-hot form: shape ``(d + 1,)``; the last entry is the whole length."""
        return np.concatenate([[0], np.cumsum(self.num_options)])

    @cached_property
    def column(self) -> dict[str, int]:
        """From a choice's name to its column."""
        return {choice.name: i for i, choice in enumerate(self.choices)}

    @cached_property
    def parents(self) -> tuple[int | None, ...]:
        """Column of each choice's parent."""
        return tuple(None if c.parent is None else self.column[c.parent] for c in self.choices)

    @cached_property
    def size(self) -> int:
        """Number of different architectures (canonical rows)."""
        counts = [1] * self.d  # of what hangs below one choice, itself included
        children: list[list[int]] = [[] for _ in range(self.d)]
        for i, parent in enumerate(self.parents):
            if parent is not None:
                children[parent].append(i)
        for i in reversed(range(self.d)):
            total = 0
            for option in range(len(self.choices[i].options)):
                ways = 1
                for child in children[i]:
                    ways *= counts[child] if self.choices[child].active[option] else 1
                total += ways
            counts[i] = total
        result = 1
        for i, parent in enumerate(self.parents):
            if parent is None:
                result *= counts[i]
        return result

    @cached_property
    def layers(self) -> int:
        """Number of layers that choices belong to, at least 1: the length of the architecture generator's sequence."""
        return 1 + max((layer for choice in self.choices for layer in choice.layers), default=0)

    # -- populations ---------------------------------------------------------------------------------------------------

    def rows(self, archs: ArrayLike) -> Population:
        """Check a population and bring it into canonical form.

        Args:
            archs: option indices, shape ``(n, d)`` or ``(d,)``.

        Returns:
            A new array of shape ``(n, d)``.

        Raises:
            SpaceError: the shape is wrong, an entry is not an integer, or an index has no option.
        """
        array = np.atleast_2d(np.asarray(archs))
        if array.ndim != 2 or array.shape[1] != self.d:
            raise SpaceError(f"architectures of {self.name} have shape (n, {self.d}), got {np.shape(archs)}")
        if not np.issubdtype(array.dtype, np.integer):
            raise SpaceError(f"architectures are rows of integers, got {array.dtype}")
        bad = (array < 0) | (array >= self.num_options)
        if bad.any():
            row, col = np.argwhere(bad)[0]
            raise SpaceError(
                f"row {row}: {self.choices[col].name} has options 0 to {self.num_options[col] - 1}, got {array[row, col]}"
            )
        return self.canonical(array.astype(np.int16))

    def active(self, archs: Population) -> NDArray[np.bool_]:
        """Which choices matter: shape ``(n, d)``. A choice below one that does not matter does not matter either."""
        mask = np.ones(archs.shape, dtype=bool)
        for columns, parents, starts, flags in self._levels:
            mask[:, columns] = mask[:, parents] & flags.take(archs[:, parents] + starts)
        return mask

    @cached_property
    def _levels(self) -> list[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]]:
        """Choices below others, by their number of ancestors: columns, their parents, and where in the flags (last) each
        one's begin; so that activity takes a few operations a level, not a choice."""
        depth: list[int] = []
        for parent in self.parents:
            depth.append(0 if parent is None else depth[parent] + 1)
        levels = []
        for level in range(1, max(depth, default=0) + 1):
            columns = [i for i in range(self.d) if depth[i] == level]
            flags = [self.choices[i].active for i in columns]
            starts = np.cumsum([0, *map(len, flags)])[:-1]
            parents = np.array([self.parents[i] for i in columns], dtype=np.intp)
            levels.append(
                (np.array(columns), parents, starts, np.concatenate([np.array(f, dtype=bool) for f in flags]))
            )
        return levels

    def canonical(self, archs: Population) -> Population:
        """The same networks with every choice that does not matter set to 0: shape ``(n, d)``."""
        return archs * self.active(archs)

    def ways(self, archs: Population) -> NDArray[np.float64]:
        """How many rows of options have each canonical form: the product of the options of all choices that do not matter. (n,)."""
        found: NDArray[np.float64] = np.where(self.active(archs), 1, self.num_options).prod(axis=1, dtype=np.float64)
        return found

    def sample(self, n: int, rng: np.random.Generator) -> Population:
        """Draw ``n`` architectures, every choice uniform over its options (as OFA and SPOS draw them).

        This is not uniform over architectures: with an elastic depth, deep networks are many more than shallow ones.
        For that, and for either under a budget, see :func:`snugnet.costs.sample`.
        """
        draws = rng.random((n, self.d)) * self.num_options
        return self.canonical(draws.astype(np.int16))

    def mutate(
        self, archs: Population, probability: float, rng: np.random.Generator, *, another: bool = False
    ) -> Population:
        """Draw each choice anew with the given probability, uniformly.

        Args:
            archs: rows, (n, d).
            probability: of each choice.
            rng: draws.
            another: leave out the present option: a choice that is drawn anew then always changes (AttentiveNAS, in its code).
        """
        draws = rng.random(archs.shape, dtype=np.float32)
        count = self.num_options - another
        # where a draw is below the probability, its place below it tells the option
        scale = (count / max(probability, 1e-9)).astype(np.float32)
        options = np.minimum(draws * scale, (count - 1).astype(np.float32)).astype(np.int16)
        if another:
            options += options >= archs
        return self.canonical(np.where((draws < probability) & (count > 0), options, archs))

    def crossover(self, mothers: Population, fathers: Population, rng: np.random.Generator) -> Population:
        """Take each choice from one of the two parents, with even odds. Both have shape ``(n, d)``."""
        return self.canonical(np.where(rng.random(mothers.shape) < 0.5, mothers, fathers))

    def one_hot(self, archs: Population) -> NDArray[np.float32]:
        """One-hot code, shape ``(n, sum of options)``; a choice that does not matter is all zero."""
        code = np.zeros((len(archs), int(self.offsets[-1])), dtype=np.float32)
        np.put_along_axis(code, archs + self.offsets[:-1], self.active(archs).astype(np.float32), axis=1)
        return code

    @cached_property
    def smallest(self) -> Population:
        """The first option everywhere: shape ``(1, d)``."""
        return np.zeros((1, self.d), dtype=np.int16)

    @cached_property
    def largest(self) -> Population:
        """The last option everywhere: shape ``(1, d)``."""
        return self.canonical((self.num_options - 1).astype(np.int16)[None])

    @cached_property
    def centroid(self) -> Population:
        """The middle option everywhere: shape ``(1, d)``."""
        return self.canonical(((self.num_options - 1) // 2).astype(np.int16)[None])

    # -- one architecture ----------------------------------------------------------------------------------------------

    def blueprint(self, arch: ArrayLike) -> Blueprint:
        """The layers of one architecture.

        Args:
            arch: a row, shape ``(d,)`` or ``(1, d)``.

        Raises:
            SpaceError: not one valid architecture.
        """
        rows = self.rows(arch)
        if len(rows) != 1:
            raise SpaceError(f"a blueprint is of one architecture, got {len(rows)}")
        row = rows[0].tolist()
        blocks: list[Block] = []
        for i, part in enumerate(self.parts):
            blocks += self.part_blocks(i, tuple(row[c] for c in part.choices))
        return Blueprint(tuple(blocks), self.in_channels, self.resolution_of(rows[0]))

    @cached_property
    def union(self) -> Blueprint:
        """Every layer that any architecture has, each as large as it gets: what a supernet's weights have to hold.

        This is the largest network, but for layers that it does not need: where two widths meet, a shortcut's 1x1
        convolution may be needed by some architectures only. And where blocks are alternatives, all of them are in it, one
        after the other: a list of weights then, not a network that could be run.
        """
        blocks: list[Block] = []
        for i, part in enumerate(self.parts):
            positions: dict[str, dict[str, list[Block]]] = {}
            for indices in product(*(range(len(self.choices[c].options)) for c in part.choices)):
                for block in self.part_blocks(i, indices):
                    positions.setdefault(block.name, {}).setdefault(block.key, []).append(block)
            blocks += [Block.union(each) for same in positions.values() for each in same.values()]
        return Blueprint(tuple(blocks), self.in_channels, self.resolution)

    def resolution_of(self, row: NDArray[np.int16]) -> int:
        """Height and width of the image that one architecture, shape ``(d,)``, takes, in pixels."""
        column = self.column.get("resolution")
        return self.resolution if column is None else int(self.choices[column].options[row[column]])

    def part_blocks(self, part: int, indices: tuple[int, ...]) -> tuple[Block, ...]:
        """The blocks of one part under the given option indices of the choices that it depends on."""
        key = (part, *indices)
        if key not in self._blocks:
            columns = self.parts[part].choices
            values = [self.choices[c].options[i] for c, i in zip(columns, indices, strict=True)]
            self._blocks[key] = self.parts[part].build(*values)
        return self._blocks[key]

    def to_dict(self, arch: ArrayLike) -> dict[str, Any]:
        """The readable JSON form of one architecture: choices that matter, by name."""
        row = self.rows(arch)
        mask = self.active(row)[0]
        return {c.name: c.options[i] for c, i, on in zip(self.choices, row[0], mask, strict=True) if on}

    def from_dict(self, arch: Mapping[str, Any]) -> Population:
        """The row, shape ``(1, d)``, of an architecture in JSON form; keys that are not of this form are left alone.

        Raises:
            SpaceError: something that matters is missing, or has a value that is not an option.
        """
        return self.from_choices(arch)

    @classmethod
    def own_form(cls, arch: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """An architecture in this space's JSON form, from any form that the space knows; what it does not know stays as it is.

        Args:
            arch: as it was written; one in the space's own form is given back.
            options: of the space, as far as they are given.

        Raises:
            SpaceError: it is in a form that is known, and of another space.
        """
        return dict(arch)

    def from_choices(self, options: Mapping[str, Any]) -> Population:
        """The row, shape ``(1, d)``, of an architecture given as options by the choices' names; other keys are left alone.

        Raises:
            SpaceError: something that matters is missing, or has a value that is not an option; or another value is given
                for one of :attr:`json_options`.
        """
        self._check_stated(options)
        row = np.zeros((1, self.d), dtype=np.int16)
        for i, choice in enumerate(self.choices):
            if choice.name in options:
                row[0, i] = choice.index(options[choice.name])
            elif self.active(row)[0, i]:
                raise SpaceError(f"the architecture lacks {choice.name!r}; options: {list(choice.options)}")
        return self.rows(row)

    def _check_stated(self, arch: Mapping[str, Any]) -> None:
        """Refuse an architecture that states another value of an option of the space."""
        for key in self.json_options:
            if key in arch and key not in self.column and arch[key] != self.options[key]:
                raise SpaceError(f"the architecture has {key} {arch[key]!r}, this space {self.options[key]!r}")

    # -- the space itself ----------------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def create(cls, /, **options: Any) -> Self:
        """Make the space; see the class for its options."""

    def with_options(self, **changes: Any) -> Self:
        """The same space with some options changed, such as ``num_classes``; a new ``resolution`` takes the place of old
        ``resolutions``, and the other way round."""
        sizes = {"resolution", "resolutions"}
        kept = {key: value for key, value in self.options.items() if not (sizes & changes.keys() and key in sizes)}
        return type(self).create(**{**kept, **changes})

    def to_json(self) -> dict[str, Any]:
        """Name and options: what :func:`snugnet.spaces.get_space` needs to make this space again."""
        return {"name": self.name, "options": self.options}

    def extremes(self) -> dict[str, Population]:
        """The three networks to look at before any work begins: smallest, centroid, largest."""
        return {"smallest": self.smallest, "centroid": self.centroid, "largest": self.largest}


SPACES: Registry[type[SearchSpace]] = Registry(
    "snugnet.spaces",
    "space",
    SpaceError,
    lambda thing: isinstance(thing, type) and issubclass(thing, SearchSpace),
)
"""Search spaces by name; installed packages bring theirs through entry points."""


def register(space: type[SearchSpace]) -> type[SearchSpace]:
    """Class decorator: make a space known by its ``name``; tests cover every registered space."""
    return SPACES.add(space.name, space)


def list_spaces() -> list[str]:
    """Names of the registered spaces; nothing of an installed package is imported."""
    return SPACES.names()


def space_class(name: str) -> type[SearchSpace]:
    """The registered space of that name.

    Raises:
        SpaceError: there is none, or the package that brings it cannot be imported.
    """
    return SPACES[name]


def get_space(name: str, /, **options: Any) -> SearchSpace:
    """Make a space by name.

    Raises:
        SpaceError: the space, an option of it, or a value is unknown.

    Examples:
        >>> get_space("nas-bench-201", num_classes=10).size
        15625
    """
    kind = space_class(name)
    known = signature(kind.create).parameters
    if not any(each.kind is each.VAR_KEYWORD for each in known.values()) and (
        unknown := sorted(options.keys() - known)
    ):
        raise SpaceError(f"unknown option {unknown[0]!r} of space {name}; allowed: {', '.join(known)}")
    return kind.create(**options)


def check_sequence(name: str, values: Any, length: int | None = None) -> Sequence[Any]:
    """A list from JSON or YAML, of the given length if one is given.

    Raises:
        SpaceError: it is something else.
    """
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise SpaceError(f"{name} is a list, got {values!r}")
    if length is not None and len(values) != length:
        raise SpaceError(f"{name} has {length} entries, got {len(values)}: {list(values)}")
    return values

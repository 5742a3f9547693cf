"""Small spaces in which every architecture can be enumerated."""

import itertools
from typing import Any, Self

import numpy as np

from snugnet.costs import CostTable
from snugnet.spaces import Block, Choice, Layer, Part, SearchSpace


def conv(name: str, channels: int, kernel: int, resolution: int) -> tuple[Block, ...]:
    return (Block(name, (Layer("conv", "conv", channels, channels, resolution, kernel, norm=True),)),)


def head() -> tuple[Block, ...]:
    return (Block("head", (Layer("classifier", "linear", 8, 10, 1, bias=True),)),)


class Toy(SearchSpace):
    """A global choice in most parts, an elastic depth, a gate above a choice above a choice, and a choice for free."""

    name = "toy"

    @classmethod
    def create(cls, **options: Any) -> Self:
        choices = (
            Choice("resolution", (8, 12), "resolution", (0,)),
            Choice("depth", (1, 2, 3), "depth", (1, 2)),
            Choice("k1", (1, 3), "kernel_size", (0,)),
            Choice("k2", (1, 3, 5), "kernel_size", (1, 1), "depth", (False, True, True)),
            Choice("k3", (3, 5), "kernel_size", (2,), "depth", (False, False, True)),
            Choice("gate", (0, 1), "gate", (3,)),
            Choice("wide", (4, 8, 12), "width", (3, 3), "gate", (False, True)),
            Choice("deep", (1, 2), "width", (3,), "wide", (False, True, True)),
            Choice("free", ("a", "b", "c"), "free", (4, 4)),
        )
        parts = (
            Part("stem", (0,), lambda r: conv("stem", 3, 3, r)),
            Part("b1", (0, 2), lambda r, k: conv("b1", 4, k, r)),
            Part("b2", (1, 0, 3), lambda d, r, k: conv("b2", 4, k, r) if d > 1 else ()),
            Part("b3", (0, 1, 4), lambda r, d, k: conv("b3", 5, k, r) if d > 2 else ()),
            Part("g", (5, 6, 7), lambda g, w, d: conv("g", w * d if w > 4 else w, 3, 4) if g else ()),
            Part("head", (), head),
        )
        return cls({}, choices, parts, 3, 12)


class Chain(SearchSpace):
    """Widths that neighbouring parts share, and a kernel in each part: tables over three choices."""

    name = "chain"

    @classmethod
    def create(cls, **options: Any) -> Self:
        choices = tuple(Choice(f"w{i}", (4, 6, 8), "width", (i, i)) for i in range(4)) + tuple(
            Choice(f"k{i}", (1, 3), "kernel_size", (i,)) for i in range(3)
        )

        def build(i: int, a: int, b: int, k: int) -> tuple[Block, ...]:
            return (Block(f"p{i}", (Layer("conv", "conv", a, b, 6, k, norm=True),)),)

        parts = tuple(Part(f"p{i}", (i, i + 1, 4 + i), lambda a, b, k, i=i: build(i, a, b, k)) for i in range(3))
        return cls({}, choices, (*parts, Part("head", (), head)), 3, 6)


SPACES = [Toy.create(), Chain.create()]


def all_rows(space: SearchSpace) -> np.ndarray:
    """Every combination of options, canonical or not."""
    return np.array(list(itertools.product(*map(range, space.num_options))), dtype=np.int16)


def all_archs(space: SearchSpace) -> np.ndarray:
    """Every architecture once."""
    return np.unique(space.canonical(all_rows(space)), axis=0)


ALL = {space.name: all_archs(space) for space in SPACES}


def random_table(space: SearchSpace, rng: np.random.Generator, *, whole: bool, name: str = "cost") -> CostTable:
    """Random tables over the parts' choices, one over a choice without its parent, and a constant."""
    scopes = [part.choices for part in space.parts if part.choices] + [(space.d - 2,), (3,)]
    tables = [((), np.array(7.0))]
    for scope in scopes:
        shape = [int(space.num_options[c]) for c in scope]
        values = rng.integers(-5, 40, shape).astype(float) if whole else rng.gamma(0.6, 10, shape)
        tables.append((scope, values))
    return CostTable(space, name, "units", tables)


def brute_cost(table: CostTable, archs: np.ndarray) -> np.ndarray:
    """The definition, term by term."""
    return table.constant + sum(values[tuple(archs[:, c] for c in scope)] for scope, values in table.tables)

"""Laws that hold in every space."""

import itertools
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_spaces import TINY_SPACES

from snugnet.errors import SpaceError
from snugnet.spaces import Choice, Part, SearchSpace, get_space, list_spaces, space_class


class Nested(SearchSpace):
    """A choice below a choice below a choice, and one beside them."""

    name = "nested"

    @classmethod
    def create(cls, **options: Any) -> Self:
        choices = (
            Choice("a", (1, 2, 3), "depth", (0, 0)),
            Choice("b", ("x", "y"), "kind", (1,), "a", (False, True, True)),
            Choice("c", (1, 2, 3), "kind", (1, 1), "b", (False, True)),
            Choice("d", (5, 6), "kind", (2,), "a", (True, False, True)),
            Choice("e", (0, 1), "kind", (3,)),
        )
        return cls({}, choices, (Part("all", (0, 1, 2, 3, 4), lambda *values: ()),), 3, 8)


SPACES = [Nested.create(), *(get_space(name) for name in list_spaces())]
spaces = pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)


def rows(space, rng, n=200):
    """Rows that need not be canonical."""
    return (rng.random((n, space.d)) * space.num_options).astype(np.int16)


def test_every_space_is_covered():
    """Tests of other rooms go through ``TINY_SPACES``: a space that is registered is tested."""
    assert list(TINY_SPACES) == list_spaces()


def test_a_new_resolution_takes_the_place_of_the_old(tiny_space):
    small = tiny_space.with_options(resolution=11)
    assert small.resolution == 11
    assert all(c.options == (11,) for c in small.choices if c.name == "resolution")
    several = small.with_options(resolutions=(5, 7))
    assert several.resolution == 7
    assert several.choices[several.column["resolution"]].options == (5, 7)
    assert several.with_options(num_classes=3).options == {**several.options, "num_classes": 3}


def test_size_by_enumeration():
    space = Nested.create()
    every = np.array(list(itertools.product(*map(range, space.num_options))), dtype=np.int16)
    assert len(np.unique(space.canonical(every), axis=0)) == space.size == 2 * (2 + 4 + 4 * 2)


def test_activity_is_inherited():
    space = Nested.create()
    mask = space.active(np.array([[0, 1, 1, 1, 1], [1, 0, 2, 1, 0], [2, 1, 0, 0, 0]], dtype=np.int16))
    assert mask.tolist() == [[1, 0, 0, 1, 1], [1, 1, 0, 0, 1], [1, 1, 1, 1, 1]]
    assert space.canonical(np.array([[0, 1, 2, 1, 1]], dtype=np.int16)).tolist() == [[0, 0, 0, 1, 1]]


@spaces
def test_shape_of_a_space(space):
    assert space.d == len(space.choices) == len(space.num_options)
    assert space.offsets[-1] == space.num_options.sum()
    for i, (choice, parent) in enumerate(zip(space.choices, space.parents, strict=True)):
        assert len(choice.layers) == len(choice.options) - 1
        assert parent is None or (parent < i and len(choice.active) == space.num_options[parent])
        assert all(choice.index(option) == j for j, option in enumerate(choice.options))
    assert len({c.name for c in space.choices}) == space.d
    assert space.layers > max(layer for c in space.choices for layer in c.layers)


@spaces
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_canonical_form(space, seed):
    raw = rows(space, np.random.default_rng(seed), 40)
    canonical = space.canonical(raw)
    assert canonical.dtype == np.int16
    assert np.array_equal(space.canonical(canonical), canonical)
    assert np.array_equal(space.active(canonical), space.active(raw))
    assert (canonical[~space.active(raw)] == 0).all()
    assert np.array_equal(canonical[space.active(raw)], raw[space.active(raw)])
    for a, b in zip(raw[:3], canonical[:3], strict=True):
        assert space.blueprint(a) == space.blueprint(b)


@spaces
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), probability=st.sampled_from([0.0, 0.1, 1.0]))
def test_sample_mutate_cross_over(space, seed, probability):
    rng = np.random.default_rng(seed)
    mothers, fathers = space.sample(40, rng), space.sample(40, rng)
    children, mutants = space.crossover(mothers, fathers, rng), space.mutate(mothers, probability, rng)
    for population in (mothers, fathers, children, mutants):
        assert np.array_equal(space.rows(population), population)
    assert ((children == mothers) | (children == fathers) | (children == 0)).all()
    assert probability > 0 or np.array_equal(mutants, mothers)
    again = np.random.default_rng(seed)
    assert np.array_equal(space.sample(40, again), mothers)


def test_sampling_draws_every_option_alike():
    space = SPACES[0]
    roots = space.sample(30_000, np.random.default_rng(0))[:, [0, 4]]
    assert np.bincount(roots[:, 0]) == pytest.approx(10_000, rel=0.05)
    assert np.bincount(roots[:, 1]) == pytest.approx(15_000, rel=0.05)


@pytest.mark.parametrize("probability", [0.03, 0.3, 1.0])
def test_mutation_draws_every_option_alike(probability):
    space = SPACES[0]
    parents = np.repeat(space.largest, 60_000, 0)
    roots = space.mutate(parents, probability, np.random.default_rng(0))[:, [0, 4]]
    for column, options in zip(roots.T, space.num_options[[0, 4]], strict=True):
        found = np.bincount(column, minlength=options) / len(column)
        expected = np.full(options, probability / options)
        expected[-1] += 1 - probability
        assert np.all(np.abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) / len(column)) + 1e-12)


@pytest.mark.parametrize("probability", [0.03, 0.3, 1.0])
def test_mutation_to_another_option_draws_all_others_alike(probability):
    space = SPACES[0]
    parents = np.repeat(space.largest, 60_000, 0)
    roots = space.mutate(parents, probability, np.random.default_rng(0), another=True)[:, [0, 4]]
    for column, options in zip(roots.T, space.num_options[[0, 4]], strict=True):
        found = np.bincount(column, minlength=options) / len(column)
        expected = np.full(options, probability / (options - 1))
        expected[-1] = 1 - probability
        assert np.all(np.abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) / len(column)) + 1e-12)


@spaces
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_mutation_to_another_option_leaves_none_as_it_was(space, seed):
    rng = np.random.default_rng(seed)
    parents = space.sample(20, rng)
    mutants = space.mutate(parents, 1.0, rng, another=True)
    assert np.array_equal(space.rows(mutants), mutants)
    moved = space.active(parents) & space.active(mutants) & (space.num_options > 1)
    assert (mutants != parents)[moved].all()


@spaces
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_one_hot(space, seed):
    population = space.sample(20, np.random.default_rng(seed))
    code = space.one_hot(population)
    assert code.shape == (20, space.offsets[-1])
    assert code.dtype == np.float32
    for i, choice in enumerate(space.choices):
        piece = code[:, space.offsets[i] : space.offsets[i + 1]]
        assert piece.shape[1] == len(choice.options)
        assert np.array_equal(piece.sum(1), space.active(population)[:, i])
        assert np.array_equal(piece.argmax(1), population[:, i])


@spaces
def test_json_round_trip(space):
    population = space.sample(20, np.random.default_rng(0))
    assert all(np.array_equal(space.from_dict(space.to_dict(row))[0], row) for row in population)
    for row in space.extremes().values():
        assert np.array_equal(space.from_dict(space.to_dict(row)), row)


@spaces
@pytest.mark.parametrize(
    ("archs", "message"),
    [
        (lambda space: np.zeros((2, space.d + 1), dtype=int), "shape"),
        (lambda space: np.zeros((2, 2, space.d), dtype=int), "shape"),
        (lambda space: np.zeros((2, space.d)), "integers"),
        (lambda space: np.full((2, space.d), -1), "row 0: .* has options 0 to"),
        (lambda space: np.full((2, space.d), 99), "row 0: .* has options 0 to"),
        (lambda space: np.full((2, space.d), 2**16), "row 0: .* has options 0 to"),
    ],
)
def test_rows_are_checked(space, archs, message):
    with pytest.raises(SpaceError, match=message):
        space.rows(archs(space))


@spaces
def test_rows_accepts_one_row_and_lists(space):
    assert space.rows([0] * space.d).shape == (1, space.d)
    with pytest.raises(SpaceError, match="one architecture, got 2"):
        space.blueprint(np.zeros((2, space.d), dtype=int))


def test_bad_json_form():
    space = SPACES[0]
    with pytest.raises(SpaceError, match="lacks 'e'"):
        space.from_dict({"a": 1, "d": 5})
    with pytest.raises(SpaceError, match=r"a = 4 is not in this space; allowed: \[1, 2, 3\]"):
        space.from_dict({"a": 4})
    assert space.from_dict({"a": 1, "b": "y", "d": 5, "e": 0, "other": 1}).tolist() == [[0, 0, 0, 0, 0]]


def test_registry():
    assert "ofa-mobilenet-v3" in list_spaces()
    with pytest.raises(SpaceError, match=r"unknown space 'ofa'; known: .*ofa-mobilenet-v3"):
        get_space("ofa")
    with pytest.raises(SpaceError):
        space_class("")


@spaces
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_activity_is_that_of_the_definition(space, seed):
    raw = rows(space, np.random.default_rng(seed), 20)
    expected = np.ones(raw.shape, dtype=bool)
    for i, (choice, parent) in enumerate(zip(space.choices, space.parents, strict=True)):
        if parent is not None:
            expected[:, i] = expected[:, parent] & np.array(choice.active)[raw[:, parent]]
    assert np.array_equal(space.active(raw), expected)


@spaces
def test_the_union_holds_every_layer_of_every_architecture(space):
    union = {block.key: {layer.name: layer for layer in block.all_layers} for block in space.union.blocks}
    for row in space.sample(20, np.random.default_rng(0)):
        for block in space.blueprint(row).blocks:
            assert list(union[block.key])[: len(block.layers)] == [layer.name for layer in block.layers]
            for layer in block.all_layers:
                whole = union[block.key][layer.name]
                assert (layer.op, layer.stride, layer.activation) == (whole.op, whole.stride, whole.activation)
                for size in ("in_channels", "out_channels", "kernel", "hidden", "resolution", "groups"):
                    assert getattr(layer, size) <= getattr(whole, size)

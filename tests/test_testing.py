"""What is in the tree keeps the contracts, and the kit says which one is broken."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import pytest
from choice_space import ChoiceSpace
from test_every_space import FEW
from tiny_spaces import TINY_SPACES

from snugnet.costs import COSTS
from snugnet.errors import SpaceError
from snugnet.predictors import ForestPredictor
from snugnet.predictors.predictor import PREDICTORS
from snugnet.search.method import METHODS, Method, Round, make_method
from snugnet.spaces import Block, Choice, Part, Population, SearchSpace, get_space
from snugnet.testing import ContractError, check_cost, check_method, check_predictor, check_space

SHORT: dict[str, dict[str, Any]] = {
    "evolution": {"population": 10, "rounds": 4},
    "generator": {"candidates": 20},
    "nsga2": {"population": 10, "rounds": 4},
    "predictor": {"samples": 30, "top": 5},
    "random": {"samples": 40},
}
SHORT_FITS: dict[str, dict[str, Any]] = {"mlp": {"steps": 60, "hidden": (16, 16)}}


@pytest.mark.parametrize("name", TINY_SPACES)
def test_spaces(name: str) -> None:
    check_space(get_space(name, **TINY_SPACES[name]))


@pytest.mark.parametrize("name", FEW)
def test_spaces_that_can_be_listed(name: str) -> None:
    check_space(get_space(name, num_classes=10, **FEW[name]), networks=False)


@pytest.mark.parametrize("name", COSTS.names())
def test_costs(name: str) -> None:
    # elsewhere there are no BitOps, and all networks hold the same in their first blocks
    apart = {
        "bitops": "resnet-mixed-precision",
        "peak_memory": "ofa-mobilenet-v3",
        "peak_memory_int8": "ofa-mobilenet-v3",
    }
    where = apart.get(name)
    check_cost(COSTS[name], None if where is None else get_space(where, **TINY_SPACES[where]))


@pytest.mark.parametrize("name", METHODS.names())
def test_methods(name: str) -> None:
    check_method(make_method(name, SHORT[name]))


@pytest.mark.parametrize("name", PREDICTORS.names())
def test_predictors(name: str) -> None:
    check_predictor(PREDICTORS[name], rows=40, settings=SHORT_FITS.get(name))


def test_a_space_that_cannot_be_made_for_other_classes() -> None:
    with pytest.raises(
        ContractError, match="choice-blocks: with num_classes=3 its networks have so many outputs; found: 4"
    ):
        check_space(ChoiceSpace.create())


# -- what breaks a contract is told which one --------------------------------------------------------------------------

Change = Callable[[list[Choice], list[Part]], None]


def with_a_choice_twice(choices: list[Choice], parts: list[Part]) -> None:
    choices[1] = replace(choices[1], name=choices[0].name)


def with_an_idle_choice(choices: list[Choice], parts: list[Part]) -> None:
    choices.append(Choice("idle", (1, 2), "kernel_size", (0,)))


def with_a_gate_too_few(choices: list[Choice], parts: list[Part]) -> None:
    choices[0] = replace(choices[0], layers=())


def with_a_parent_that_comes_later(choices: list[Choice], parts: list[Part]) -> None:
    choices[0] = replace(choices[0], parent=choices[-1].name, active=(True,) * len(choices[-1].options))


def with_a_block_that_does_not_fit(choices: list[Choice], parts: list[Part]) -> None:
    build = parts[1].build

    def wider(*options: Any) -> tuple[Block, ...]:
        first, *rest = build(*options)
        layer, *others = first.layers
        return (replace(first, layers=(replace(layer, in_channels=layer.in_channels + 1), *others)), *rest)

    parts[1] = replace(parts[1], build=wider)


def with_a_name_twice(choices: list[Choice], parts: list[Part]) -> None:
    build = parts[1].build
    parts[1] = replace(parts[1], build=lambda *options: tuple(replace(b, name="stem") for b in build(*options)))


def with_fixed_classes(choices: list[Choice], parts: list[Part]) -> None:
    head = parts[-1].build(*(choices[c].options[0] for c in parts[-1].choices))
    parts[-1] = replace(parts[-1], build=lambda *_: head)


def space_with(change: Change | None, *, takes: tuple[str, ...] = ("resolution", "num_classes")) -> SearchSpace:
    """MobileNetV2's space with one thing wrong."""
    original = TINY_SPACES["mobilenet-v2"]

    class Wrong(SearchSpace):
        name = "wrong"

        @classmethod
        def create(cls, **options: Any) -> Self:
            if unknown := options.keys() - set(takes):
                raise SpaceError(f"no option {min(unknown)}")
            options = {"resolution": 9, "num_classes": 4, **options}
            asked = options if change is not with_fixed_classes else {**options, "num_classes": 4}
            made = get_space("mobilenet-v2", **{**original, **asked})
            choices, parts = list(made.choices), list(made.parts)
            if change is not None:
                change(choices, parts)
            return cls(options, tuple(choices), tuple(parts), made.in_channels, made.resolution)

    return Wrong.create()


def test_a_space_with_nothing_wrong() -> None:
    check_space(space_with(None), networks=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_a_choice_twice, "wrong: names of choices are unique"),
        (with_an_idle_choice, r"wrong: every choice shapes some part of the network; found: \['idle'\]"),
        (with_a_gate_too_few, r"layers names the layer of each of its \(options - 1\) nested gates"),
        (with_a_parent_that_comes_later, "its parent is a choice that stands before it"),
        (with_a_block_that_does_not_fit, "takes what comes before it, .* channels at"),
        (with_a_name_twice, "names of blocks are unique in a blueprint"),
        (with_fixed_classes, "with num_classes=3 its networks have so many outputs"),
    ],
)
def test_what_is_wrong_with_a_space_is_said(change: Change, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_space(space_with(change), networks=False)


def test_arguments_that_a_recipe_needs() -> None:
    with pytest.raises(
        ContractError,
        match=r"create takes num_classes=\.\.\., .*; found: no option num_classes|takes back the very options",
    ):
        check_space(space_with(None, takes=("resolution",)), networks=False)


def test_enough_architectures() -> None:
    one = {"kernel_sizes": [3], "expand_ratios": [6], "blocks": [1] * 6, "resolution": 9, "width_mult": 0.1}
    with pytest.raises(ContractError, match="at least two architectures to choose between; found: 1"):
        check_space(get_space("mobilenet-v2", **one), networks=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "of all"}, "the name can stand in --budget NAME=N"),
        ({"unit": ""}, "unit is text"),
        ({"block": lambda block, _: -1.0}, "is finite and not negative"),
        ({"block": lambda block, _: 1 / 0}, "gives a number for every block of a space; found: ZeroDivisionError"),
        ({"block": lambda block, _: float(next(CLOCK))}, "is the same when it is asked again|is a sum over the blocks"),
        ({"block": lambda block, _: 0.0}, "tells architectures of the space apart"),
    ],
)
def test_what_is_wrong_with_a_cost_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_cost(replace(COSTS["madds"], **changes))


CLOCK = itertools.count()


@dataclass(frozen=True)
class Own(Method):
    """Samples, with one thing wrong or nothing."""

    name: ClassVar[str] = "own"
    samples: int = 12
    wrong: str = ""

    @property
    def rounds(self) -> int:
        return 2

    @property
    def evaluations(self) -> int:
        return 2 * self.samples - (self.wrong == "too many")

    def propose(self, now: Round) -> Population:
        space = now.problem.space
        match self.wrong:
            case "limits":
                return space.sample(self.samples, now.rng)
            case "seed":
                return now.problem.sample(self.samples, np.random.default_rng())
            case "canonical":
                return now.samples(self.samples) * 0 + space.largest * (1 - space.active(space.smallest)).astype(
                    np.int16
                )
            case "memory":
                return now.problem.sample(self.samples, np.random.default_rng(next(CLOCK)))
        return now.samples(self.samples)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("limits", "proposes rows within all limits"),
        ("seed", "a function of its settings and the seed"),
        ("memory", "a function of its settings and the seed"),
        ("too many", "evaluates at most 23 architectures, as it says; found: 24"),
        ("canonical", "proposes canonical rows"),
    ],
)
def test_what_is_wrong_with_a_method_is_said(wrong: str, message: str) -> None:
    check_method(Own())
    with pytest.raises(ContractError, match=message):
        check_method(Own(wrong=wrong))


def test_a_method_needs_defaults() -> None:
    @dataclass(frozen=True)
    class Needs(Own):
        """A setting without a default."""

        more: int = field(kw_only=True)

    with pytest.raises(ContractError, match="every setting has a default"):
        check_method(Needs)
    check_method(Needs(more=1))


class Noisy(ForestPredictor):
    """Another prediction each time."""

    def outputs(self, rows: Population) -> np.ndarray:
        return super().outputs(rows) + next(CLOCK)


class Constant(ForestPredictor):
    """Knows nothing."""

    def outputs(self, rows: Population) -> np.ndarray:
        return (
            np.random.default_rng(0).normal(size=(1, len(self.targets))) + np.zeros((len(rows), 1)) + 1e-9 * rows[:, :1]
        )


def test_what_is_wrong_with_a_predictor_is_said() -> None:
    with pytest.raises(
        ContractError, match=r"does not depend on what else is asked|a function of rows, values and seed"
    ):
        check_predictor(Noisy, rows=40)
    with pytest.raises(ContractError, match="knows something about the rows"):
        check_predictor(Constant, rows=40)

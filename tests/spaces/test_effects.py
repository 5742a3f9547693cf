"""What choices do to layers, read off the blueprints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from choice_space import ChoiceSpace

from snugnet.errors import SpaceError
from snugnet.spaces import Block, Choice, Layer, Part, SearchSpace, get_space
from snugnet.spaces.effects import Effect, Fact, effects


def test_one_effect_of_each_kind() -> None:
    space = get_space(
        "ofa-mobilenet-v3", width_mult=0.5, resolution=32, depths=(1, 2), kernel_sizes=(3, 5), expand_ratios=(3, 6)
    )
    plan = effects(space)
    name = "stage2.block2"
    assert [fact for fact in plan.facts() if fact.layer.startswith(name)] == [
        Fact(f"{name}.expand..project", "there", ("stage2.depth",), (0, 1)),
        Fact(f"{name}.expand", "out_channels", (f"{name}.expand_ratio",), (72, 144)),
        Fact(f"{name}.depthwise", "out_channels", (f"{name}.expand_ratio",), (72, 144)),
        Fact(f"{name}.depthwise", "kernel", (f"{name}.kernel_size",), (3, 5)),
        Fact(f"{name}.se", "out_channels", (f"{name}.expand_ratio",), (72, 144)),
        Fact(f"{name}.se", "hidden", (f"{name}.expand_ratio",), (24, 40)),
    ]


def test_the_plan_is_read_without_torch() -> None:
    code = (
        "import sys; from snugnet.spaces import get_space; from snugnet.spaces.effects import effects;"
        "print(effects(get_space('attentive-nas'))); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "mb1.block1.depthwise kernel mb1.kernel_size: 3 5" in lines
    assert "mb3.block1.expand out_channels mb2.width x mb3.expand_ratio: 96 120 144 | 128 160 192" in lines


def test_facts_are_the_blueprints(tiny_space: SearchSpace) -> None:
    """Every number of every layer of an architecture is what the plan says under its options."""
    rng = np.random.default_rng(0)
    plan = effects(tiny_space)
    for row in tiny_space.sample(20, rng):
        layers = {f"{b.key}.{layer.name}": layer for b in tiny_space.blueprint(row).blocks for layer in b.all_layers}
        for position in plan.positions:
            for each in position.rows:
                if not value(tiny_space, each.there, row):
                    continue
                for sized in each.layers:
                    layer = layers.pop(f"{each.key}.{sized.layer.name}")
                    assert value(tiny_space, sized.channels, row) == layer.out_channels
                    assert value(tiny_space, sized.kernel, row) == layer.kernel
                    assert value(tiny_space, sized.hidden, row) == layer.hidden
        assert not layers  # every layer belongs to one row


def value(space: SearchSpace, effect: Effect, row: np.ndarray) -> int:
    shape = [len(space.choices[c].options) for c in effect.columns]
    return int(np.array(effect.values).reshape(shape)[tuple(row[list(effect.columns)])])


def test_an_effect_keeps_the_choices_that_matter() -> None:
    values = np.array([[[3, 5], [3, 5]], [[-1, -1], [3, 5]]])
    assert Effect.of((4, 7, 9), values) == Effect((9,), (3, 5))
    assert Effect.of((4, 7), np.array([[8, 8], [8, 8]])) == Effect((), (8,))
    assert Effect.of((4, 7), np.array([[1, 2], [3, 4]])) == Effect((4, 7), (1, 2, 3, 4))
    assert Effect((4,), (5, -1, 3, 5)).levels == (3, 5)


def test_alternatives_are_rows_of_their_own() -> None:
    space = ChoiceSpace.create()
    block, scale, mid = "flat.block", "flat.scale", "down.mid"
    assert list(effects(space).facts()) == [
        Fact("down.k3.expand..project", "there", ("down.block",), (1, 0, 0)),
        Fact("down.k5.expand..project", "there", ("down.block",), (0, 1, 0)),
        Fact("down.xception.depthwise1..pointwise2", "there", ("down.block",), (0, 0, 1)),
        Fact("down.xception.pointwise1", "out_channels", (mid,), (3, 5, 8)),
        Fact("down.xception.depthwise2", "out_channels", (mid,), (3, 5, 8)),
        Fact("down.xception.around_pool..around_conv", "there", ("down.block",), (0, 0, 1)),
        *(
            fact
            for i, name in enumerate(("k3", "k5"), start=1)
            for fact in (
                Fact(f"flat.{name}.expand..project", "there", (block,), tuple(int(o == i) for o in range(4))),
                Fact(f"flat.{name}.expand", "out_channels", (scale,), (3, 6, 9)),
                Fact(f"flat.{name}.depthwise", "out_channels", (scale,), (3, 6, 9)),
            )
        ),
        # a kernel that mixes channels has no gate: it is run once for each
        Fact("flat.plain.conv", "there", (block, "flat.kernel"), (0, 0, 0, 0, 0, 0, 1, 0)),
        Fact("flat.plain.conv", "there", (block, "flat.kernel"), (0, 0, 0, 0, 0, 0, 0, 1)),
        Fact("flat.input", "there", (block,), (1, 1, 1, 0)),
    ]


def test_what_is_inside_a_block_has_paths_of_its_own_in_multi_path() -> None:
    """What a choice does decides that, not what it is called; an alternative that does not have it is run once."""
    down, flat = (
        position
        for position in effects(ChoiceSpace.create(), "multi-path").positions
        if position.name in ("down", "flat")
    )
    assert [row.key for row in down.rows] == ["down.k3", "down.k5", *["down.xception"] * 4]
    assert [row.key for row in flat.rows] == [*["flat.k3"] * 3, *["flat.k5"] * 3, "flat.plain", "flat.plain", ""]
    space = get_space("mobilenet-v2", kernel_sizes=(3, 5), expand_ratios=(2, 3, 6))
    paths = {p.name: len([row for row in p.rows if row.key]) for p in effects(space, "multi-path").positions}
    assert {paths.pop(name) for name in ("stem", "first", "head")} == {1}
    assert set(paths.values()) == {6}


def test_a_new_number_has_paths_of_its_own() -> None:
    """An activation (say) has no gate, so both are run; so are rows with and without a layer."""

    class New(SearchSpace):
        name = "new"

        @classmethod
        def create(cls, /, **options: object) -> New:
            def build(activation: str, twice: int) -> tuple[Block, ...]:
                first = Layer("first", "conv", 3, 4, 8, 3, activation=activation)  # type: ignore[arg-type]
                second = Layer("second", "conv", 4, 4, first.out_resolution)
                return (Block("only", (first, second)[:twice]),)

            choices = (
                Choice("activation", ("relu", "swish"), "activation", (0,)),
                Choice("twice", (1, 2), "length", (0,)),
            )
            return cls({}, choices, (Part("only", (0, 1), build),), 3, 8)

    (position,) = effects(New.create()).positions
    assert len(position.rows) == 4
    assert all(row.there.columns == (0, 1) and sum(row.there.values) == 1 for row in position.rows)


def test_a_block_that_shrinks_the_image_cannot_be_skipped() -> None:
    class Skipping(SearchSpace):
        name = "skipping"

        @classmethod
        def create(cls, /, **options: object) -> Skipping:
            halves = (Block("halves", (Layer("conv", "conv", 3, 3, 8, 3, 2),)),)
            part = Part("halves", (0,), lambda keep: halves if keep else ())
            return cls({}, (Choice("keep", (0, 1), "depth", (0,)),), (part,), 3, 8)

    with pytest.raises(SpaceError, match="halves is skipped under some options, but its output is smaller"):
        effects(Skipping.create())


def test_the_example_of_the_design_notes() -> None:
    text = (Path(__file__).parents[2] / "docs" / "design.md").read_text()
    names: dict[str, Any] = {"Block": Block, "Choice": Choice, "Layer": Layer, "Part": Part}
    exec(text.split("```python\n")[1].split("```")[0], names)

    class Example(SearchSpace):
        name = "example"

        @classmethod
        def create(cls, /, **options: object) -> Example:
            return cls({}, names["choices"], (names["part"],), 16, 8)

    assert " ".join(str(effects(Example.create())).split()) == " ".join(
        [
            "block1.k3.expand..project",
            "there",
            "block1.block:",
            "0",
            "1",
            "0",
            "block1.k3.expand",
            "out_channels",
            "block1.scale:",
            "8",
            "16",
            "24",
            "block1.k3.depthwise",
            "out_channels",
            "block1.scale:",
            "8",
            "16",
            "24",
            "block1.k5.expand..project",
            "there",
            "block1.block:",
            "0",
            "0",
            "1",
            "block1.k5.expand",
            "out_channels",
            "block1.scale:",
            "8",
            "16",
            "24",
            "block1.k5.depthwise",
            "out_channels",
            "block1.scale:",
            "8",
            "16",
            "24",
        ]
    )

"""The laws of a search space."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from snugnet.costs import COSTS
from snugnet.spaces import Block, Blueprint, Population, SearchSpace
from snugnet.spaces.effects import effects
from snugnet.spaces.graph import flow, in_order
from snugnet.testing.contract import holds, works
from snugnet.testing.exactness import check_exactness

ROWS = 24  # architectures that are looked at one by one
CLASSES = 3
_RESIZING = ("conv", "linear")  # all other layers leave the channels as they are


def check_space(space: SearchSpace, *, networks: bool = True, seed: int = 0) -> None:
    """Check every law that the other rooms rely on.

    Give a small one: its networks are built and run, its gates tried, its ONNX files run by ONNX Runtime. Of one with few enough
    architectures to list them all, ranges, draws and decodes are held against brute force as well.

    Args:
        space: to check, such as ``MySpace.create(resolution=8, num_classes=4)``.
        networks: also build, run, gate and export its networks (this imports torch).
        seed: of the architectures that are looked at.

    Raises:
        ContractError: the first law that is broken, and what was found.
    """
    _check_choices(space)
    _check_arguments(space)
    rows = _rows(space, seed)
    _check_populations(space, seed)
    _check_forms(space, rows)
    for row in rows:
        _check_blueprint(space, space.blueprint(row))
    _check_union(space, rows)
    with works(space.name, "what a block reads is the same in every architecture"):
        effects(space)
    _check_costs(space, rows)
    check_exactness(space, seed)
    if networks:
        from snugnet.testing.networks import check_networks

        check_networks(space, rows[:8])


def _rows(space: SearchSpace, seed: int) -> Population:
    """The extremes, then samples, each once."""
    drawn = [*space.extremes().values(), space.sample(ROWS, np.random.default_rng(seed))]
    return np.array(list(dict.fromkeys(map(tuple, np.concatenate(drawn).tolist()))), dtype=np.int16)


def raw_rows(space: SearchSpace, rng: np.random.Generator, n: int) -> Population:
    """Rows that need not be canonical, (n, d)."""
    return (rng.random((n, space.d)) * space.num_options).astype(np.int16)


# -- how it is made ----------------------------------------------------------------------------------------------------


def _check_arguments(space: SearchSpace) -> None:
    what = space.name
    with works(what, "options are plain JSON, so that a file can say which space it is of"):
        options = json.loads(json.dumps(space.options))
    with works(what, "create(**options) takes back the very options that the space was made with"):
        again = type(space).create(**options)
    holds(again.choices == space.choices, what, "made again from its options it has the same choices")
    for key, value in (("num_classes", CLASSES), ("resolution", space.resolution)):
        with works(what, f"create takes {key}=..., which a recipe's images decide"):
            changed = space.with_options(**{key: value})
        if key == "num_classes":
            holds(
                changed.blueprint(changed.smallest).num_classes == CLASSES,
                what, f"with num_classes={CLASSES} its networks have so many outputs", changed.blueprint(changed.smallest).num_classes,
            )  # fmt: skip
        else:
            holds(
                changed.resolution == value,
                what,
                f"with resolution={value} it takes images of that size",
                changed.resolution,
            )


def _check_choices(space: SearchSpace) -> None:
    what, names = space.name, [choice.name for choice in space.choices]
    holds(len(set(names)) == len(names), what, "names of choices are unique", names)
    holds(space.size >= 2, what, "there are at least two architectures to choose between", f"{space.size}")
    for i, choice in enumerate(space.choices):
        own = f"{what}, choice {choice.name}"
        holds(len(choice.options) >= 1, own, "has an option")
        holds(len(set(map(str, choice.options))) == len(choice.options), own, "options differ", choice.options)
        holds(
            len(choice.layers) == len(choice.options) - 1,
            own, "layers names the layer of each of its (options - 1) nested gates", choice.layers,
        )  # fmt: skip
        if choice.parent is None:
            holds(choice.active == (), own, "active is for choices below another", choice.active)
            continue
        holds(choice.parent in names[:i], own, "its parent is a choice that stands before it", choice.parent)
        options = space.choices[names.index(choice.parent)].options
        holds(
            len(choice.active) == len(options) and any(choice.active),
            own, f"active says for each option of {choice.parent} whether it matters, for one at least", choice.active,
        )  # fmt: skip
    used = {c for part in space.parts for c in part.choices}
    holds(used <= set(range(space.d)), what, "parts name columns of choices that exist", sorted(used))
    left = [names[c] for c in range(space.d) if c not in used and len(space.choices[c].options) > 1]
    holds(not left, what, "every choice shapes some part of the network", left)


# -- rows --------------------------------------------------------------------------------------------------------------


def _check_populations(space: SearchSpace, seed: int) -> None:
    what, rng = space.name, np.random.default_rng(seed)
    raw = raw_rows(space, rng, 200)
    canonical = space.canonical(raw)
    holds(np.array_equal(space.canonical(canonical), canonical), what, "canonical form is the form of itself")
    for a, b in zip(raw[:ROWS], canonical[:ROWS], strict=True):
        holds(
            space.blueprint(a) == space.blueprint(b),
            what, "a choice that does not matter changes nothing in the blueprint", f"{a.tolist()} and {b.tolist()}",
        )  # fmt: skip
    mothers, fathers = space.sample(100, rng), space.sample(100, rng)
    made = {
        "sample": mothers,
        "mutate": space.mutate(mothers, 0.3, rng),
        "crossover": space.crossover(mothers, fathers, rng),
    }
    for name, population in made.items():
        holds(np.array_equal(space.rows(population), population), what, f"{name} gives canonical rows")
    first, second = (space.sample(20, np.random.default_rng(seed)) for _ in range(2))
    holds(np.array_equal(first, second), what, "what sample draws is a function of its generator")


def _check_forms(space: SearchSpace, rows: Population) -> None:
    what = space.name
    for row in rows:
        with works(what, "an architecture's form (to_dict) is plain JSON"):
            form = json.loads(json.dumps(space.to_dict(row)))
        with works(what, "from_dict takes back what to_dict gives"):
            back = space.from_dict(form)
        holds(
            np.array_equal(back[0], row),
            what,
            "from_dict takes back what to_dict gives",
            f"{row.tolist()} came back as {back.tolist()}",
        )


# -- blueprints --------------------------------------------------------------------------------------------------------


def _check_blueprint(space: SearchSpace, blueprint: Blueprint) -> None:
    what = space.name
    names = [block.name for block in blueprint.blocks]
    holds(len(set(names)) == len(names), what, "names of blocks are unique in a blueprint", names)
    last = blueprint.blocks[-1].layers[-1]
    holds(last.op == "linear", what, "the last layer is the classifier, a linear one", last)
    for block in blueprint.blocks:
        own = [layer.name for layer in block.all_layers]
        holds(len(set(own)) == len(own), f"{what}, block {block.name}", "names of layers are unique in a block", own)
    with works(what, "a block reads blocks that stand before it, in every architecture"):
        wired = in_order(blueprint.blocks)

    def gather(outputs: list[_Size], block: Block) -> _Size:
        own = f"{what}, block {block.name}"
        same = len({output.resolution for output in outputs}) == 1
        holds(same, own, "what it gathers is of one resolution", outputs)
        widths = [output.channels for output in outputs]
        if block.gather == "concat":
            return _Size(sum(widths), outputs[0].resolution)
        holds(len(set(widths)) == 1, own, "what it adds up has equally many channels", widths)
        return outputs[0]

    def run(block: Block, size: _Size) -> _Size:
        _check_branches(f"{what}, block {block.name}", block, *size)
        return _Size(block.out_channels, block.out_resolution)

    flow(wired, _Size(blueprint.in_channels, blueprint.resolution), gather, run)


class _Size(NamedTuple):
    """Of an output."""

    channels: int
    resolution: int


def _check_branches(what: str, block: Block, channels: int, resolution: int) -> None:
    """That a block fits what comes before it, and its branches each other."""
    join = f"{'split, ' if block.split else ''}{block.join}"
    holds(
        block.shortcut is not None or (block.join == "add" and not block.split),
        what, "a split and a concatenation are between the layers and a shortcut", f"{join}, without one",
    )  # fmt: skip
    holds(not block.split or channels % 2 == 0, what, "splits an even number of channels", channels)
    sizes = {branch.layers[-1].out_resolution if branch.layers else resolution for branch in block.branches}
    holds(len(sizes) == 1, what, "its layers and its shortcut give outputs of one resolution", sorted(sizes))
    widths = [branch.channels for branch in block.branches]
    holds(block.join == "concat" or len(set(widths)) == 1, what, "what is added has equally many channels", widths)
    for branch in block.branches:
        before = len(range(branch.first, channels, branch.step)), resolution
        holds(
            branch.layers or branch.channels == before[0],
            what,
            "its input goes on whole",
            f"{branch.channels} of {before[0]}",
        )
        for layer in branch.layers:
            holds(
                layer.op in _RESIZING or layer.in_channels == layer.out_channels,
                f"{what}, layer {layer.name}",
                f"{layer.op} gives as many channels as it takes, {layer.in_channels}", layer.out_channels,
            )  # fmt: skip
        for layer in branch.layers[:1]:
            holds(
                (layer.in_channels, layer.resolution) == before,
                f"{what}, layer {layer.name}",
                f"takes what comes before it, {before[0]} channels at {before[1]} pixels", f"{layer.in_channels} at {layer.resolution}",
            )  # fmt: skip
        for first, layer in pairwise(branch.layers):
            holds(
                (layer.in_channels, layer.resolution) == (first.out_channels, first.out_resolution),
                f"{what}, layer {layer.name}",
                f"takes what {first.name} gives, {first.out_channels} channels at {first.out_resolution} pixels",
                f"{layer.in_channels} at {layer.resolution}",
            )  # fmt: skip


def _check_union(space: SearchSpace, rows: Population) -> None:
    what = space.name
    union = {block.key: {layer.name: layer for layer in block.all_layers} for block in space.union.blocks}
    for row in rows:
        for block in space.blueprint(row).blocks:
            for layer in block.all_layers:
                whole = union.get(block.key, {}).get(layer.name)
                own = f"{what}, block {block.key}, layer {layer.name}"
                holds(whole is not None, own, "the union holds every layer of every architecture")
                assert whole is not None
                fixed = [
                    (getattr(layer, key), getattr(whole, key))
                    for key in ("op", "stride", "dilation", "activation", "norm", "bias")
                ]
                holds(all(a == b for a, b in fixed), own, "is the same operation in every architecture", fixed)
                for size in ("in_channels", "out_channels", "kernel", "hidden"):
                    holds(
                        getattr(layer, size) <= getattr(whole, size),
                        own, f"{size} is at most that of the union", f"{getattr(layer, size)} > {getattr(whole, size)}",
                    )  # fmt: skip


def _check_costs(space: SearchSpace, rows: Population) -> None:
    for name in COSTS.names():
        cost = COSTS[name]
        with works(space.name, f"the cost {name} has a table over its parts"):
            table = cost.table(space)
        for row, got in zip(rows, table(rows), strict=True):
            blueprint = space.blueprint(row)
            expected = cost.of(blueprint)
            holds(
                math.isclose(got, expected, rel_tol=1e-12),
                space.name, f"its parts make up its networks: {name} of a table is that of the blueprint, {expected:,}", f"{got:,}",
            )  # fmt: skip

"""The graph of a network: which outputs each block takes, in what order they are made, and when they are not needed any more.

A network, a supernet, gates, ONNX files and the laws of a space all go through it with :func:`flow`; what an output is (a
tensor, a name, a size) is theirs. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from snugnet.errors import SpaceError
from snugnet.spaces.blueprint import Block, Blueprint, Join

IMAGE = ""
"""The image's name among the outputs."""


class Node(Protocol):
    """What stands in a graph: a block, or a position of the supernet."""

    @property
    def name(self) -> str:
        """Unique in its graph."""

    @property
    def reads(self) -> tuple[str, ...]:
        """See :class:`snugnet.spaces.Block`."""

    @property
    def gather(self) -> Join:
        """See :class:`snugnet.spaces.Block`."""


N = TypeVar("N", bound=Node)
T = TypeVar("T")


class Step(NamedTuple, Generic[N]):
    """One node, when it is its turn.

    Attributes:
        node: to be run.
        sources: whose outputs it takes, :data:`IMAGE` for the image; at least one.
        done: whose outputs nobody takes afterwards.
    """

    node: N
    sources: tuple[str, ...]
    done: tuple[str, ...]


def in_order(nodes: Sequence[N]) -> tuple[Step[N], ...]:
    """All nodes, as they stand; one that names nothing takes the output of the node before, the first one the image.

    Raises:
        SpaceError: a node takes the output of one that does not stand before it.
    """
    before, wired = IMAGE, []
    known = set[str]()
    for node in nodes:
        for name in node.reads:
            if name not in known:
                raise SpaceError(f"{node.name} reads {name!r}, and there is no such block before it")
        wired.append((node, node.reads or (before,)))
        known.add(node.name)
        before = node.name
    return _with_ends(wired)


def steps(blueprint: Blueprint) -> tuple[Step[Block], ...]:
    """What it takes to run a network: the blocks that its output depends on, and no others.

    A block that is zero (:attr:`snugnet.spaces.Block.zero`) adds nothing to a sum, so sums leave it out, but for one where there is
    nothing else. It takes the image, of which it needs the number of images alone. So what reaches the output through zeros only
    is not run at all.

    Raises:
        SpaceError: a block takes the output of one that does not stand before it.
    """
    wired = in_order(blueprint.blocks)
    zeros = {step.node.name for step in wired if step.node.zero}
    kept: list[tuple[Block, tuple[str, ...]]] = []
    needed = {wired[-1].node.name}
    for block, sources, _ in reversed(wired):
        if block.name not in needed:
            continue
        if block.zero:
            sources = (IMAGE,)
        elif block.gather == "add":
            sources = tuple(name for name in sources if name not in zeros) or sources[:1]
        kept.append((block, sources))
        needed.update(sources)
    return _with_ends(kept[::-1])


def operations(steps: Iterable[Step[Block]]) -> frozenset[str]:
    """Names of the blocks that are an operation between two nodes of a cell, and no identity.

    Such a block's output goes into one sum of several, and nowhere else; in training, an image may do without it (drop path).
    """
    steps = tuple(steps)
    readers: dict[str, list[Step[Block]]] = {}
    for step in steps:
        for name in step.sources:
            readers.setdefault(name, []).append(step)
    bare = {step.node.name for step in steps if {layer.op for layer in step.node.all_layers} <= {"identity", "zero"}}
    return frozenset(
        name
        for name, (first, *more) in readers.items()
        if not more and len(first.sources) > 1 and first.node.gather == "add" and name not in bare | {IMAGE}
    )


def _with_ends(wired: Sequence[tuple[N, tuple[str, ...]]]) -> tuple[Step[N], ...]:
    """Steps from nodes and their sources."""
    last = {name: i for i, (_, sources) in enumerate(wired) for name in sources}
    done: list[list[str]] = [[] for _ in wired]
    for name, i in last.items():
        done[i].append(name)
    return tuple(Step(node, sources, tuple(done[i])) for i, (node, sources) in enumerate(wired))


def flow(steps: Iterable[Step[N]], image: T, gather: Callable[[list[T], N], T], run: Callable[[N, T], T]) -> T:
    """Go through a graph.

    Args:
        steps: at least one; the last one's output is the result. No output is held longer than it is needed.
        image: what goes in.
        gather: several outputs, of the nodes that the given one takes, as one; asked where there are several.
        run: a node on what it takes.
    """
    outputs = {IMAGE: image}
    del image
    name = IMAGE
    for node, sources, done in steps:
        name = node.name
        if len(sources) == 1:
            outputs[name] = run(node, outputs[sources[0]])
        else:
            outputs[name] = run(node, gather([outputs[source] for source in sources], node))
        for each in done:
            del outputs[each]
    return outputs[name]

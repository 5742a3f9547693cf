"""The network of a differentiable search: on every edge of a cell all operations at once, mixed by weights that are an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snugnet.errors import ConfigError
from snugnet.nn.layers import BlockModule
from snugnet.nn.network import initialise
from snugnet.spaces.blueprint import Block, Join, Layer
from snugnet.spaces.cells import NONE, CellSpace
from snugnet.spaces.graph import flow, in_order


class Place(NamedTuple):
    """One block of a cell network, whichever operation stands there; ``edge`` is the place among the space's edges, or -1."""

    name: str
    reads: tuple[str, ...]
    gather: Join
    block: Block
    edge: int


class Fan(NamedTuple):
    """The edges of one cell that leave one node: their blocks' names, and their places among the space's edges."""

    blocks: tuple[str, ...]
    edges: tuple[int, ...]
    mixed: bool


class MixedNetwork(nn.Module):
    """All architectures of a space of cells in one pass (DARTS, equation 2; DCA-NAS, equations 1 and 5).

    The output of an edge is the sum of its operations' outputs, each times its weight. What makes that cheap can be switched off
    one by one (DCA-NAS, section 3.3):

    * **weight sharing**: an operation on a node's output has the same weights on all edges that leave the node, so it runs once
      (equation 5);
    * **derived cells**: only the first cell of each kind is mixed, and the others run the architecture that is derived from the
      weights so far;
    * **channel bottleneck**: a 1x1 convolution in front of a node's operations leaves one channel in so many, and one behind each
      node's sum brings them back;
    * **partial channels** (PC-DARTS, section 3.2): operations see one channel in so many, the others go around them.

    As in DARTS, batch norms of operations learn no scale, which would stand in for the weights, pools have a batch norm behind them, and
    all use the statistics of the batch at hand, also where accuracy is measured: keep the network in training mode.

    Attributes:
        space: of the cells, at the search's own number of cells and channels.
    """

    def __init__(
        self,
        space: CellSpace,
        *,
        weight_sharing: bool = False,
        derived_cells: bool = False,
        bottleneck: int = 1,
        partial_channels: int = 1,
        seed: int = 0,
    ) -> None:
        """Make it with fresh weights.

        Raises:
            ConfigError: the space's channels cannot be divided so.
        """
        super().__init__()
        self.space = space
        self.narrow, self.partial = bottleneck, partial_channels
        if bottleneck > 1 and partial_channels > 1:
            raise ConfigError("a channel bottleneck and partial channels are two ways to one thing; switch one off")
        first = {blocks[0] for blocks in space.positions.values()}
        places, alternatives = _places(space)
        self._steps = in_order(places)
        self._fans: dict[str, Fan] = {}
        fans: dict[str, list[Place]] = {}
        for place in places:
            if place.edge >= 0:
                fans.setdefault(place.reads[0] if weight_sharing else place.name, []).append(place)
        self.operations = nn.ModuleDict()
        for edges in fans.values():
            mixed = not derived_cells or edges[0].name in first
            fan = Fan(tuple(edge.name for edge in edges), tuple(edge.edge for edge in edges), mixed)
            self._fans |= dict.fromkeys(fan.blocks, fan)
            own = {name: b for name, b in alternatives[edges[0].name].items() if name != NONE}
            self.operations[_key(edges[0].name)] = nn.ModuleDict(
                {name: _operation(block, bottleneck * partial_channels) for name, block in own.items()}
            )
        edges_read = {place.reads[0]: place for place in places if place.edge >= 0}
        nodes = {place.name: place for place in places if any(read in self._fans for read in place.reads)}
        self.blocks = nn.ModuleDict(
            {_key(p.name): BlockModule(p.block) for p in places if p.edge < 0 and p.name not in nodes}
        )
        self.reduce, self.expand = nn.ModuleDict(), nn.ModuleDict()
        if bottleneck > 1:
            for name, place in edges_read.items():
                width = place.block.in_channels
                self.reduce[_key(name)] = _pointwise(width, width // bottleneck)
            for name, place in nodes.items():
                self.expand[_key(name)] = _pointwise(place.block.in_channels // bottleneck, place.block.in_channels)
        self._nodes = nodes
        initialise(self, seed)

    def forward(self, x: Tensor, weights: Tensor, derived: Sequence[int] | None = None) -> Tensor:
        """Run.

        Args:
            x: images, normalised: shape (n, c, h, h).
            weights: of the operations on each edge, shape (edges, operations), in the order of the space's edges.
            derived: for each edge the place of the one operation that the cells have which are not mixed; needed where there are
                such.

        Returns:
            Logits, shape (n, classes).
        """
        ready: dict[str, Tensor | None] = {}
        narrowed: dict[str, Tensor] = {}

        def run(place: Place, x: Tensor | None) -> Tensor | None:
            if place.edge >= 0:
                assert x is not None
                if place.name not in ready:
                    source = place.reads[0]
                    if self.narrow > 1 and source not in narrowed:
                        narrowed[source] = self.reduce[_key(source)](x)
                    self._fan(self._fans[place.name], narrowed.get(source, x), weights, derived, ready)
                return ready.pop(place.name)
            if place.name in self._nodes:
                if x is None:  # a node that no operation leads to
                    return images.new_zeros(len(images), *_shape(place.block))
                return self.expand[_key(place.name)](x) if self.narrow > 1 else x
            out: Tensor | None = self.blocks[_key(place.name)](x)
            return out

        images = x
        logits = flow(self._steps, cast("Tensor | None", x), _gathered, run)  # an edge may carry nothing
        assert logits is not None
        return logits

    def _fan(
        self,
        fan: Fan,
        x: Tensor,
        weights: Tensor,
        derived: Sequence[int] | None,
        ready: dict[str, Tensor | None],
    ) -> None:
        """Put the outputs of some edges that leave one node into ``ready``."""
        operations: Mapping[str, nn.Module] = self.operations[_key(fan.blocks[0])]  # type: ignore[assignment]
        x, around = self._split(x)
        if fan.mixed:
            some = _mixed([weights[e] for e in fan.edges], self.space.edges[fan.edges[0]].operations, operations, x)
            ready.update({name: self._joined(y, around) for name, y in zip(fan.blocks, some, strict=True)})
            return
        if derived is None:
            raise ConfigError("some cells are derived, so the architecture that they have is needed")
        known: dict[str, Tensor] = {}
        for name, e in zip(fan.blocks, fan.edges, strict=True):
            operation = self.space.edges[e].operations[derived[e]]
            if operation == NONE:
                ready[name] = None
                continue
            if operation not in known:
                known[operation] = self._joined(operations[operation](x), around)
            ready[name] = known[operation]

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """What operations see of a node's output, and what goes around them."""
        if self.partial == 1:
            return x, None
        seen = x.shape[1] // self.partial
        return x[:, :seen], x[:, seen:]

    def _joined(self, y: Tensor, around: Tensor | None) -> Tensor:
        """Operations' output with what went around them, channels shuffled so that others come first on the next edge."""
        if around is None:
            return y
        if y.shape[-1] != around.shape[-1]:
            around = F.max_pool2d(around, 2, 2, ceil_mode=True)
        return F.channel_shuffle(torch.cat((y, around), 1), self.partial)


def _places(space: CellSpace) -> tuple[list[Place], dict[str, dict[str, Block]]]:
    """What stands in the network, in order, and the alternatives of each place by name."""
    edges = {block: e for e, edge in enumerate(space.edges) for block in space.positions[edge.name]}
    alternatives: dict[str, dict[str, Block]] = {}
    for block in space.union.blocks:
        alternatives.setdefault(block.name, {})[block.alternative] = block
    places = []
    for name, each in alternatives.items():
        block = next(reversed(each.values()))
        places.append(Place(name, block.reads, block.gather, block, edges.get(name, -1)))
    return places, alternatives


def _key(name: str) -> str:
    return name.replace(".", "_")


def _gathered(outputs: list[Tensor | None], place: Place) -> Tensor | None:
    there = [output for output in outputs if output is not None]
    if place.gather == "concat":
        return torch.cat(there, 1)
    return sum(there[1:], there[0]) if there else None


def _mixed(
    weights: Sequence[Tensor], names: Sequence[str], operations: Mapping[str, nn.Module], x: Tensor
) -> list[Tensor]:
    """The weighted sums of all operations' outputs, one an edge: (n, c, h, w) each.

    All sums at once are one product of matrices, which reads every output once.
    """
    kept = [i for i, name in enumerate(names) if name != NONE]
    outputs = [operations[names[i]](x) for i in kept]
    n, c, h, w = outputs[0].shape
    flat = torch.stack([y.permute(0, 2, 3, 1).reshape(-1) for y in outputs])  # no copy where channels come last
    sums = torch.stack([weight[kept] for weight in weights]).to(flat.dtype) @ flat
    return [each.view(n, h, w, c).permute(0, 3, 1, 2) for each in sums]


def _operation(block: Block, factor: int) -> nn.Module:
    """An operation on one channel in ``factor``, with batch norms that learn nothing."""
    module: nn.Module = BlockModule(narrowed(block, factor))
    if block.layers[-1].op in ("avg_pool", "max_pool"):
        module = nn.Sequential(module, nn.BatchNorm2d(block.out_channels // factor, affine=False))
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.requires_grad_(False)
    return module


def _pointwise(before: int, after: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after, affine=False))


def _shape(block: Block) -> tuple[int, int, int]:
    return block.out_channels, block.out_resolution, block.out_resolution


def narrowed(block: Block, factor: int) -> Block:
    """The same block with one channel in ``factor``.

    Raises:
        ConfigError: a number of channels cannot be divided so.
    """
    if factor == 1:
        return block

    def smaller(layer: Layer) -> Layer:
        if layer.in_channels % factor or layer.out_channels % factor:
            raise ConfigError(
                f"{block.name} has {layer.in_channels} to {layer.out_channels} channels, which {factor} does not divide; choose other "
                "channels of the search network, or a smaller bottleneck or share of channels"
            )
        groups = layer.groups // factor if layer.groups > 1 else 1
        return replace(
            layer, in_channels=layer.in_channels // factor, out_channels=layer.out_channels // factor, groups=groups
        )

    around = None if block.shortcut is None else tuple(map(smaller, block.shortcut))
    return replace(block, layers=tuple(map(smaller, block.layers)), shortcut=around)

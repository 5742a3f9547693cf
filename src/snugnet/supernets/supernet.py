"""The weight-sharing network: every architecture of a space, run on parts of one set of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor, nn

from snugnet.errors import ConfigError, SpaceError
from snugnet.nn.layers import BlockModule, ConvLayer, LinearLayer, cropped
from snugnet.nn.network import Network, blank, build, fill, gathered, module_name, resized
from snugnet.spaces import Block, Blueprint, SearchSpace
from snugnet.spaces.graph import flow, steps

BlockRunner = Callable[[Block, Tensor], Tensor | None]
"""Runs a block of the given size on its input in the supernet's place, or gives None where the supernet is to do it."""
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@torch.no_grad()
def _begin_alike(network: Network) -> None:
    """Give the convolutions of each alternative the weights of the position's first alternative, by the layer's name.

    Kernels are laid centre on centre: the larger one is 0 around the smaller, so that units that differ in the kernel alone
    begin as one function.

    Args:
        network: of a space's union; changed in place.
    """
    first: dict[str, BlockModule] = {}
    for module in network.block_modules().values():
        base = first.setdefault(module.block.name, module)
        alike = {} if base is module else base.layer_modules()
        for name, layer in module.layer_modules().items():
            like = alike.get(name)
            if not isinstance(layer, ConvLayer) or not isinstance(like, ConvLayer):
                continue
            ours, theirs = layer.conv.weight, like.conv.weight
            if ours.shape[:2] == theirs.shape[:2] and layer.conv.groups == like.conv.groups:
                kernel = min(ours.shape[-1], theirs.shape[-1])
                sizes = (*ours.shape[:2], kernel)
                ours.zero_()
                cropped(ours, *sizes).copy_(cropped(theirs, *sizes))


@torch.no_grad()
def begin_at_shortcuts(network: Network) -> None:
    """Set the last batch norm of every block with something added around it to 0, so that it is its shortcut at first.

    So AttentiveNAS begins (its published code; Goyal et al., arXiv 1706.02677, section 5.1). Blocks without such a batch norm stay as
    they are.

    Args:
        network: of a space's union; changed in place.
    """
    for module in network.block_modules().values():
        block = module.block
        last = module.layer_modules()[block.layers[-1].name]
        if block.shortcut is not None and block.join == "add" and isinstance(last, ConvLayer) and last.norm is not None:
            last.norm.weight.zero_()


def _stage(name: str) -> str:
    """The stage that a block is of: what stands before the first point of its name."""
    return name.partition(".")[0]


def _stages(blueprint: Blueprint) -> list[str]:
    """The stages, first to last: what has several blocks, or may have; stem and head are none."""
    return list(dict.fromkeys(_stage(block.name) for block in blueprint.blocks if "." in block.name))


class Supernet(nn.Module):
    """One set of weights, large enough for every network of the space; the architecture is an argument.

    Alternatives of one position (choice blocks) begin alike where their layers are alike, and then learn apart: what follows
    them would otherwise have to make sense of features that have nothing in common, one path a step.

    Nothing is switched on beforehand, so two threads may run two sub-networks at once (in eval mode; in training mode
    they would update the same batch-norm statistics).

    Attributes:
        space: the search space.
        network: every layer at its largest, of which each architecture uses a part.
    """

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        super().__init__()
        self.space = space
        self.network = build(space.union, seed=seed)
        _begin_alike(self.network)

    def module_of(self, block: Block) -> BlockModule:
        """The weights of a block, at their largest."""
        module = self.network._modules[module_name(block)]
        assert isinstance(module, BlockModule)
        return module

    @property
    def classifier(self) -> LinearLayer:
        """The last layer."""
        block = self.network.blueprint.blocks[-1]
        module = self.module_of(block)._modules[block.layers[-1].name]
        assert isinstance(module, LinearLayer)
        return module

    def forward(
        self,
        x: Tensor,
        arch: ArrayLike,
        classes: Sequence[int] | Tensor | None = None,
        *,
        dropout: float = 0.0,
        drop_connect: float = 0.0,
        drop_connect_stages: int | None = None,
        blocks: BlockRunner | None = None,
    ) -> Tensor:
        """Run one sub-network.

        Args:
            x: images, normalised: shape (n, c, h, h); they are brought to the architecture's resolution.
            arch: a row of the space, shape (d,) or (1, d).
            classes: indices of the classes to give logits for, in that order; all of them without it.
            dropout: in training mode, the rate at which the classifier's input is dropped. With ``drop_connect``, what
                AttentiveNAS regularises the largest sub-network with (section 5).
            drop_connect: in training mode, the rate of stochastic depth at the end of the network, rising linearly from 0
                at its beginning; for blocks around an identity, and for each image on its own.
            drop_connect_stages: so many stages at the end of the network have it; all without it.
            blocks: asked first for every block in which nothing is drawn, such as ready graphs of them
                (:class:`snugnet.supernets.graphs.BlockGraphs`).

        Returns:
            Logits, shape (n, classes).

        Raises:
            SpaceError: ``arch`` is not one architecture of the space, or a class does not exist.
            ConfigError: a rate is not in [0, 1).
        """
        for name, rate in (("dropout", dropout), ("drop_connect", drop_connect)):
            if not 0 <= rate < 1:
                raise ConfigError(f"{name} is a rate in [0, 1), got {rate!r}")
        blueprint = self.space.blueprint(arch)
        *body, head = steps(blueprint)
        rates = {step.node.name: drop_connect * position / len(body) for position, step in enumerate(body)}
        if drop_connect and drop_connect_stages is not None:
            last = _stages(blueprint)[-drop_connect_stages:]
            rates = {name: rate if _stage(name) in last else 0.0 for name, rate in rates.items()}

        def as_it_is(block: Block) -> bool:
            """Whether nothing is drawn in a block, and nothing left out."""
            if block is head.node:
                return classes is None and not (self.training and dropout)
            return not (self.training and rates[block.name] and block.shortcut == ())

        def run(block: Block, x: Tensor) -> Tensor:
            if blocks is not None and as_it_is(block) and (out := blocks(block, x)) is not None:
                return out
            if block is head.node:
                return self._classified(block, x, classes, dropout)
            result: Tensor = self.module_of(block)(x, block, rates[block.name])
            return result

        return flow((*body, head), resized(x, blueprint.resolution), gathered, run)

    def _classified(self, head: Block, x: Tensor, classes: Sequence[int] | Tensor | None, dropout: float) -> Tensor:
        """The last block, with dropout before its last layer, for some classes or all."""
        module = self.module_of(head)
        for layer in head.layers[:-1]:
            x = module._modules[layer.name](x, layer)  # type: ignore[misc]
        x = F.dropout(x, dropout, self.training)
        if classes is None:
            out: Tensor = self.classifier(x, head.layers[-1])
            return out
        index = self._class_index(classes)
        return F.linear(x, *(view[index] for view in self.classifier.views(head.layers[-1]).values()))

    def extract(self, arch: ArrayLike, classes: Sequence[int] | Tensor | None = None) -> Network:
        """The static network of one architecture, with copied weights.

        Args:
            arch: a row of the space, shape (d,) or (1, d).
            classes: indices of the classes to keep in the head, in that order; all of them without it.

        Returns:
            A network in the supernet's mode (train or eval), on its device.

        Raises:
            SpaceError: ``arch`` is not one architecture of the space, or a class does not exist.
        """
        blueprint = self.space.blueprint(arch)
        state = self._views(blueprint)
        if classes is not None:
            index = self._class_index(classes)
            blueprint = blueprint.with_classes(len(index))
            classifier = f"{module_name(blueprint.blocks[-1])}.{self.classifier.layer.name}."
            state |= {key: view[index] for key, view in state.items() if key.startswith(classifier)}
        with torch.no_grad():
            copies = {key: view.detach().clone(memory_format=torch.contiguous_format) for key, view in state.items()}
        network = build(blueprint, copies)
        for parameter in network.parameters():
            parameter.requires_grad_(True)
        return network.train(self.training)

    def block_on_weights(self, block: Block) -> BlockModule:
        """A block of that size whose weights and statistics lie in the supernet's own memory.

        Its parameters are leaves, with gradients of their own size; what changes the supernet's changes them, and the other way round.
        """
        module = blank(block)
        fill(module, self._block_views(block))
        return module.train(self.training)

    def network_on_weights(self, arch: ArrayLike) -> Network:
        """The same of a whole architecture: what :meth:`extract` gives, without copies.

        Raises:
            SpaceError: ``arch`` is not one architecture of the space.
        """
        blueprint = self.space.blueprint(arch)
        return build(blueprint, self._views(blueprint)).train(self.training)

    def parameters_of(self, block: Block) -> Iterator[nn.Parameter]:
        """The parameters, each whole, of which a block of that size runs a part: those that get a gradient."""
        layers = self.module_of(block).layer_modules()
        for layer in block.all_layers:
            yield from layers[layer.name].parameters()

    def _views(self, blueprint: Blueprint) -> dict[str, Tensor]:
        return {
            f"{module_name(block)}.{key}": view
            for block in blueprint.blocks
            for key, view in self._block_views(block).items()
        }

    def _block_views(self, block: Block) -> dict[str, Tensor]:
        layers = self.module_of(block).layer_modules()
        return {
            f"{layer.name}.{key}": view
            for layer in block.all_layers
            for key, view in layers[layer.name].views(layer).items()
        }

    def _class_index(self, classes: Sequence[int] | Tensor) -> Tensor:
        total = self.classifier.layer.out_channels
        try:
            index: Tensor | None = torch.as_tensor(classes)  # a list is looked at here: reading a GPU would wait for it
        except (TypeError, ValueError, RuntimeError):
            index = None
        whole = index is not None and index.ndim == 1 and index.dtype in INTEGERS and len(index) > 0
        if index is None or not whole or bool((index < 0).any()) or bool((index >= total).any()):
            raise SpaceError(f"classes are indices from 0 to {total - 1}, at least one, got {classes!r}")
        return index.long().to(self.classifier.linear.weight.device, non_blocking=True)

"""A network made from a blueprint."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snugnet.errors import SpaceError
from snugnet.nn.layers import BlockModule, ConvLayer, dropped
from snugnet.nn.quantise import INITIAL_CLIP
from snugnet.spaces.blueprint import Block, Blueprint, Superclasses
from snugnet.spaces.graph import flow, operations, steps

M = TypeVar("M", bound=nn.Module)


def module_name(block: Block) -> str:
    """The block's key as the prefix of its parameters (``stage1.block2`` -> ``stage1_block2``)."""
    return block.key.replace(".", "_")


def resized(x: Tensor, resolution: int) -> Tensor:
    """Square images (n, c, h, h) at another resolution, on their device; at their own they are returned as they are."""
    if x.shape[-1] == resolution:
        return x
    return F.interpolate(x, (resolution, resolution), mode="bilinear", antialias=True)


def gathered(outputs: list[Tensor], block: Block) -> Tensor:
    """Several outputs (n, c, h, w) as the one that a block takes."""
    return torch.cat(outputs, 1) if block.gather == "concat" else sum(outputs[1:], outputs[0])


def told(logits: Tensor, superclasses: Superclasses | None) -> Tensor:
    """What a network says: its classifier's logits (n, classes), or one for each superclass, (n, superclasses).

    The log-sum-exp of a superclass's logits is the log of its classes' summed softmax probabilities, but for a term that all
    superclasses share.
    """
    if superclasses is None:
        return logits
    parts = logits.split(list(superclasses.sizes), 1)
    if superclasses.over == "max":
        return torch.stack([part.amax(1) for part in parts], 1)
    return torch.stack([part.logsumexp(1) for part in parts], 1)


class Network(nn.Module):
    """The static network that a blueprint describes: images (n, c, h, w), normalised, to logits (n, classes).

    Attributes:
        blueprint: what it was made from.
    """

    def __init__(self, blueprint: Blueprint, make: Callable[[Block], BlockModule] = BlockModule) -> None:
        super().__init__()
        self.blueprint = blueprint
        self._steps = steps(blueprint)
        self._operations = operations(self._steps)
        for block in blueprint.blocks:
            self.add_module(module_name(block), make(block))

    def block_modules(self) -> dict[str, BlockModule]:
        """The blocks' modules by block key, first to last."""
        return {module.block.key: module for module in self.children() if isinstance(module, BlockModule)}

    def block(self, name: str) -> Block:
        """The block of that name.

        Raises:
            SpaceError: there is none that is run.
        """
        for step in self._steps:
            if step.node.name == name:
                return step.node
        raise SpaceError(f"this network has no block {name!r} that its output depends on")

    def forward(self, x: Tensor, drop_path: float = 0.0, also: str | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Images to logits.

        Args:
            x: shape (n, c, h, w).
            drop_path: in training mode, the probability that an image does without an operation of a cell (identities stay, as in
                DARTS, section 3.2; each operation on its own), or without what stands around an identity (stochastic depth); what
                is kept is scaled by 1 / (1 - drop_path).
            also: the name of a block that is run, whose output is given as well.

        Returns:
            Logits (n, classes), or (n, superclasses) where the blueprint has some; with ``also``, beside them that block's output (n, c, h, w).
        """
        rate = drop_path if self.training else 0.0
        inner: list[Tensor] = []

        def run(block: Block, x: Tensor) -> Tensor:
            out: Tensor = self._modules[module_name(block)](x, drop=rate)  # type: ignore[misc]
            if rate and block.name in self._operations:
                out = dropped(out, rate)
            if block.name == also:
                inner.append(out)
            return out

        logits = told(flow(self._steps, x, gathered, run), self.blueprint.superclasses)
        return logits if also is None else (logits, inner[0])


def with_layout(module: M, layout: torch.memory_format) -> M:
    """The module with its weights laid out anew, in place: channels last is twice as fast to train on a CPU."""
    module.to(memory_format=layout)  # type: ignore[call-overload]
    return module


def initialise(network: nn.Module, seed: int) -> None:
    """Fresh weights: He normal over the fan-out for convolutions, small normal for the classifier, batch norm at 1 and 0,
    clips where they begin.

    Args:
        network: changed in place.
        seed: of the draw; it does not touch torch's global generator.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out), generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01, generator=generator)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, ConvLayer) and module.clip is not None:
            nn.init.constant_(module.clip, INITIAL_CLIP)


def build(blueprint: Blueprint, state: dict[str, Tensor] | None = None, *, seed: int = 0) -> Network:
    """Make the static network of a blueprint.

    Args:
        blueprint: what to build.
        state: its weights; they are taken as they are, not copied. Without them the weights are drawn anew.
        seed: of that draw.
    """
    network = Network(blueprint, blank)
    if state is not None:
        fill(network, state)
        return network
    network.to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    initialise(network, seed)
    return network


def with_classes(network: Network, classes: Sequence[int]) -> Network:
    """The same network with only some of the classifier's outputs, in the given order; all other weights are shared, not copied."""
    blueprint = network.blueprint.with_classes(len(classes))
    head = blueprint.blocks[-1]
    prefix = f"{module_name(head)}.{head.layers[-1].name}."
    state = {
        name: tensor.detach()[list(classes)] if name.startswith(prefix) else tensor
        for name, tensor in network.state_dict(keep_vars=True).items()
    }
    return build(blueprint, state).train(network.training).requires_grad_(False)


def with_superclasses(network: Network, superclasses: Superclasses) -> Network:
    """The same network, which tells superclasses; all weights are shared, not copied."""
    state = {name: tensor.detach() for name, tensor in network.state_dict(keep_vars=True).items()}
    blueprint = network.blueprint.with_superclasses(superclasses)
    return build(blueprint, state).train(network.training).requires_grad_(False)


def blank(block: Block) -> BlockModule:
    """A block's module whose weights take no memory yet.

    Constructing torch's modules is most of the time that a network takes to build, so each block is constructed once and
    then copied: its structure, not its (empty) weights.
    """
    return structure(_template(block))


@lru_cache(maxsize=16384)
def _template(block: Block) -> BlockModule:
    with torch.device("meta"):
        return BlockModule(block)


def structure(module: M) -> M:
    """A twin of a module: containers (of hooks, parameters, ...) are its own, what they hold is shared."""
    twin = module.__class__.__new__(module.__class__)
    held = {key: value.copy() if isinstance(value, (dict, set)) else value for key, value in module.__dict__.items()}
    held["_modules"] = {name: None if child is None else structure(child) for name, child in module._modules.items()}
    twin.__dict__.update(held)
    return twin


def fill(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Give a blank network, or a blank block, its weights and statistics, as they are.

    Args:
        network: made of blank blocks, or one; changed in place.
        state: by name, exactly what its state dict holds.

    Raises:
        SpaceError: a name is missing or too many, or a shape is wrong: the weights are of another blueprint.
    """
    left = dict(state)
    for prefix, module in network.named_modules():
        for tensors in (module._parameters, module._buffers):
            for name, old in tensors.items():
                if old is None:
                    continue
                new = left.pop(f"{prefix}.{name}", None)
                if new is None or new.shape != old.shape:
                    given = "missing" if new is None else f"of shape {tuple(new.shape)}"
                    raise SpaceError(f"weights do not fit: {prefix}.{name} is {given}, expected {tuple(old.shape)}")
                tensors[name] = nn.Parameter(new) if tensors is module._parameters else new
    if left:
        raise SpaceError(f"weights do not fit: the network has no {next(iter(left))}")

"""The laws of a space's networks: one set of weights, one blueprint, the same numbers whichever way they are run."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from snugnet.deploy.export import QUANTISED_TOLERANCE, onnx_bytes, onnx_difference
from snugnet.nn.gated import GatedSupernet
from snugnet.nn.network import module_name, resized
from snugnet.spaces import Population, SearchSpace
from snugnet.spaces.effects import Encoding
from snugnet.spaces.graph import steps
from snugnet.supernets import Supernet
from snugnet.supernets.sorting import channel_axes, sort_channels
from snugnet.testing.contract import holds, works

ROUNDING = 1e-9  # of float64, relative to the largest logit
ONNX_ROUNDING = 1e-4  # of float32
ENCODINGS: tuple[Encoding, ...] = ("single-path", "multi-path")


def check_networks(space: SearchSpace, rows: Population, seed: int = 0) -> None:
    """Build, run, gate and export some of a space's networks.

    Args:
        space: small, so that this takes seconds.
        rows: architectures to look at, (n, d).
        seed: of weights and images.

    Raises:
        ContractError: the first law that is broken.
    """
    what = space.name
    with works(what, "a supernet can be built from the union of its blueprints"):
        supernet = Supernet(space, seed=seed).double()
    randomise(supernet, seed + 1)
    x = images(space, 3, seed)
    for row in rows:
        _check_subnetwork(supernet, row, x)
    _check_gates(supernet, rows[:3], seed)
    _check_sorting(supernet.eval(), x)
    for row in rows[:2]:
        network = supernet.eval().extract(row).float()
        with works(what, "its networks can be written as ONNX (every op of a layer has a writer)"):
            difference = onnx_difference(network, onnx_bytes(network, {}))
        allowed = QUANTISED_TOLERANCE if network.blueprint.quantised else ONNX_ROUNDING
        holds(difference < allowed, what, "ONNX Runtime gives torch's logits", f"{difference:.1e} of the largest")


def images(space: SearchSpace, n: int, seed: int) -> Tensor:
    """Noise of the size that a space takes, (n, c, h, w), in float64."""
    generator = torch.Generator().manual_seed(seed)
    shape = (n, space.in_channels, space.resolution, space.resolution)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@torch.no_grad()
def randomise(module: nn.Module, seed: int) -> None:
    """Give every bias, batch norm and classifier values that are not the trivial ones of a fresh network."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_(0, 0.2, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
            part.weight.uniform_(0.5, 1.5, generator=generator)
            part.bias.normal_(0, 0.2, generator=generator)
        elif isinstance(part, (nn.Conv2d, nn.Linear)) and part.bias is not None:
            part.bias.normal_(0, 0.1, generator=generator)
        if isinstance(part, nn.Linear):
            part.weight.normal_(0, 0.2, generator=generator)


def _difference(got: Tensor, expected: Tensor) -> float:
    got, expected = got.detach(), expected.detach()
    return float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


def _check_subnetwork(supernet: Supernet, row: Population, x: Tensor) -> None:
    space, what = supernet.space, f"{supernet.space.name}, architecture {row.tolist()}"
    blueprint = space.blueprint(row)
    for training in (False, True):
        supernet.train(training)
        with works(what, "a static network can be cut out of the supernet"):
            network = supernet.extract(row)
        count = sum(p.numel() for p in network.parameters())
        holds(
            count == blueprint.params,
            what,
            f"the network has as many parameters as its blueprint counts, {blueprint.params:,}",
            f"{count:,}",
        )
        with works(what, "network and supernet can be run"):
            expected, got = network(resized(x, blueprint.resolution)), supernet(x, row)
        holds(
            tuple(expected.shape) == (len(x), blueprint.num_classes),
            what,
            "gives a logit a class",
            tuple(expected.shape),
        )
        off = _difference(got, expected)
        mode = "training" if training else "eval"
        holds(
            off < ROUNDING,
            what,
            f"in {mode} mode the supernet runs it as the static network does",
            f"off by {off:.1e}",
        )
    supernet.zero_grad(set_to_none=True)
    supernet(x, row).sum().backward()
    live = tuple(f"{module_name(step.node)}." for step in steps(blueprint))
    own = {f"network.{name}" for name, _ in network.named_parameters() if name.startswith(live)}
    moved = {name for name, p in supernet.named_parameters() if p.grad is not None}
    holds(moved == own, what, "gradients reach the parameters on its path and no others", sorted(moved ^ own)[:4])
    supernet.eval()


def _check_sorting(supernet: Supernet, x: Tensor) -> None:
    what, largest = supernet.space.name, supernet.space.largest
    twin = copy.deepcopy(supernet)
    with works(what, "channels can be followed from the layers that make them to those that read them"):
        axes = channel_axes(supernet.space)
    sort_channels(axes, twin.network.state_dict())
    off = _difference(twin(x, largest), supernet(x, largest))
    holds(off < ROUNDING, what, "the largest network stays the same when channels are sorted", f"off by {off:.1e}")


def _check_gates(supernet: Supernet, rows: Population, seed: int) -> None:
    space = supernet.space
    supernet.zero_grad(set_to_none=True)
    supernet.eval().requires_grad_(False)
    x = torch.stack([images(space, 4, seed + p) for p in range(len(rows))], 1)
    supernet.train()  # gates run on the batch's own statistics
    expected = torch.stack([supernet(x[:, p], row) for p, row in enumerate(rows)], 1)
    supernet.eval()
    hot = [torch.from_numpy(np.eye(n)[rows[:, c]]).requires_grad_() for c, n in enumerate(space.num_options.tolist())]
    for encoding in ENCODINGS:
        with works(space.name, f"a generator can be trained on it: its {encoding} gates can be run"):
            got = GatedSupernet(space, supernet.network)(x, hot, encoding)
        off = _difference(got.detach(), expected)
        holds(off < ROUNDING, space.name, f"hard {encoding} gates give the sub-network itself", f"off by {off:.1e}")
        gradients = torch.autograd.grad(got.square().sum(), hot, allow_unused=True)
        for choice, gradient in zip(space.choices, gradients, strict=True):
            if len(choice.options) > 1:
                finite = gradient is not None and bool(gradient.isfinite().all())
                holds(finite, f"{space.name}, choice {choice.name}", f"{encoding} gates give it a gradient")
    supernet.requires_grad_(True)

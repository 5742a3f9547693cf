"""Training by recorded graphs: what is recorded for a stage, how much memory that may take, and what is said about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snugnet.nn.judged import FoldedConv, folded
from snugnet.nn.network import Network, build, with_layout
from snugnet.progress import progress_bar
from snugnet.recipe import StageConfig
from snugnet.spaces import Block, Population
from snugnet.spaces.variants import block_variants
from snugnet.supernets import Supernet
from snugnet.supernets.graphs import BlockGraphs, CudaRecorder, Recorder, Recording, fitting, recorded_output

SHARE = 0.6
"""Of the memory that is free, so much is given to graphs; the rest is for what runs beside them."""
GIB = 2**30


def recorder_for(device: torch.device) -> Recorder | None:
    """What records on a device; None where it would bring nothing."""
    return CudaRecorder() if device.type == "cuda" else None


def without_cache(device: torch.device, precision: str) -> Callable[[], AbstractContextManager[Any]]:
    """The autocast that Fabric's precision stands for, without its cache of cast weights, which a graph must not depend on."""
    mixed = precision == "bf16-mixed"
    return lambda: torch.autocast(device.type, torch.bfloat16, enabled=mixed, cache_enabled=False)


def folded_copy(network: Network, dtype: torch.dtype) -> Network:
    """A network that only predicts: batch norm taken into the convolutions, and their weights cast once.

    Convolutions at a few bits stay as they are; there both would move levels.
    """
    state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    copy = folded(with_layout(build(network.blueprint, state), torch.channels_last).eval().requires_grad_(False))
    if not copy.blueprint.quantised:
        for module in copy.modules():
            if isinstance(module, FoldedConv):
                module.cast(dtype)
            elif isinstance(module, (nn.Conv2d, nn.Linear)):
                module.to(dtype)
    return copy


@dataclass
class TrainingGraphs:
    """The graphs of one training, which its stages share.

    Attributes:
        supernet: that is trained; its weights are on the device, and stay where they are.
        images: in every batch that it sees.
        recorder: of the device.
        precision: Fabric's name of it.
        note: takes what there is to say, a line each.
        progress: whether to show bars.
    """

    supernet: Supernet
    images: int
    recorder: Recorder
    precision: str
    note: Callable[[str], None]
    progress: bool = True
    _said: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.device = self.supernet.classifier.linear.weight.device
        self.dtype = torch.bfloat16 if self.precision == "bf16-mixed" else torch.float32
        self._cast = without_cache(self.device, self.precision)
        self.blocks = BlockGraphs(self.supernet, self.images, self.recorder, self.dtype, self._cast)

    def begin_step(self, archs: Population) -> None:
        """Zero the gradients that these architectures, (n, d), reach; no others are left."""
        self.blocks.begin(archs)

    def end_stage(self) -> None:
        """Leave no gradients."""
        self.blocks.gradients.end()

    def for_stage(self, stage: StageConfig, used: NDArray[np.int64], model: Callable[..., Tensor]) -> Graphed:
        """Record what a stage runs, and is not recorded yet.

        Args:
            stage: to come.
            used: options of each choice that it draws, counted from the last: (d,).
            model: the supernet, as Fabric has set it up.

        Returns:
            What takes the model's place.
        """
        if stage.largest_only:
            return Graphed(model, self._run, self._whole(stage))
        began, free = time.monotonic(), self.recorder.free()
        variants = block_variants(self.supernet.space, used)
        new = [variant for variant in variants if variant.block not in self.blocks]
        blocks, size = fitting(new, self.images, self.dtype.itemsize, SHARE * free)
        with progress_bar(f"warming up: {stage.name}", len(blocks), shown=self.progress) as advance:
            failed = self.blocks.add(blocks, advance)
        seconds, made = time.monotonic() - began, sum(block in self.blocks for block, _ in variants)
        few = (
            ""
            if len(blocks) == len(new)
            else f"; more than {SHARE:.0%} of that they do not get, the others run without"
        )
        self._say(
            f"warming up took {seconds:.1f} s: graphs for {made} of {len(variants)} sizes of blocks, about {size / GIB:.2f} of "
            f"{free / GIB:.1f} GiB free{few}"
        )
        if failed:
            self._say(f"no graph, and none after it, could be made of {failed}; those blocks run without")
        return Graphed(model, self._run)

    def teacher(self, network: Network) -> Callable[[Tensor], Tensor] | None:
        """A frozen network as one graph, batch norm folded and weights cast; None where it cannot be.

        Returns:
            A function from images (images, 3, h, h) to logits (images, classes), which its next call fills anew.
        """
        blueprint = network.blueprint
        x = torch.zeros(
            (self.images, blueprint.in_channels, blueprint.resolution, blueprint.resolution), device=self.device
        )
        try:
            copy = folded_copy(network, self.dtype)
            return recorded_output(copy, x.to(memory_format=torch.channels_last), self.recorder, self._cast)
        except RuntimeError as error:
            self._say(f"the teacher runs without a graph: {_reason(error)}")
            return None

    def _whole(self, stage: StageConfig) -> Recording | None:
        began = time.monotonic()
        try:
            with progress_bar(f"warming up: {stage.name}", 1, shown=self.progress) as advance:
                whole = self.blocks.whole(self.supernet.space.largest)
                advance()
        except RuntimeError as error:
            self._say(f"the largest network runs without a graph: {_reason(error)}")
            return None
        self._say(f"warming up took {time.monotonic() - began:.1f} s: one graph of the largest network")
        return whole

    def _run(self, block: Block, x: Tensor) -> Tensor | None:
        out = self.blocks(block, x)
        if out is None and self.blocks.missed:
            self._say(
                f"blocks of another shape than was recorded, such as {tuple(x.shape)}, run without a graph", "missed"
            )
        return out

    def _say(self, text: str, once: str = "") -> None:
        if once not in self._said or not once:
            self._said.add(once)
            self.note(text)


def _reason(error: RuntimeError) -> str:
    return " ".join(str(error).split())[:120]


@dataclass(frozen=True)
class Graphed:
    """A supernet in training, called as it is itself: by graphs where there are any, and else as ever.

    Attributes:
        model: the supernet, as Fabric has set it up.
        blocks: runs those that have graphs.
        whole: of the one architecture that is run, if there is one.
    """

    model: Callable[..., Tensor]
    blocks: Callable[[Block, Tensor], Tensor | None]
    whole: Recording | None = None

    def __call__(self, x: Tensor, arch: Population | Sequence[int], **draws: Any) -> Tensor:
        """Logits (n, classes), float32, in memory of their own."""
        if self.whole is not None and not draws and self.whole.takes(x):
            out = self.whole(x)
        else:
            out = self.model(x, arch, blocks=self.blocks, **draws)
        return out.to(torch.float32, copy=True)

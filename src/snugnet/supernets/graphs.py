"""A supernet's blocks as recorded graphs: the host starts one for a block, instead of a hundred kernels one after the other.

Each variant of a block (:mod:`snugnet.spaces.variants`) is recorded once, forward and backward, as a static block on the supernet's own
weights. A recording reads and writes memory that never moves: its input, its output, the gradients of both, and the buffers that gradients
of weights are added to (:class:`snugnet.supernets.gradients.StandingGradients`). Every architecture is then a walk over recordings.

Variants of one position never run in one sub-network, so they share their input and all that lies between forward and backward.
Hence one sub-network at a time: forward, backward, then the next. A backward pass that comes too late is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from snugnet.errors import TrainingError
from snugnet.spaces import Block, Population
from snugnet.spaces.graph import IMAGE, in_order, steps
from snugnet.spaces.variants import Variant
from snugnet.supernets.gradients import StandingGradients
from snugnet.supernets.supernet import Supernet

T = TypeVar("T")

KEPT = 2.5
"""What a training step keeps of a block for its backward pass, or needs beside it: so many times what its layers put out. (Measured on an H100,
bf16: 24 GiB for the 183 variants of ofa-mobilenet-v3 at 64 pixels and batches of 256, whose layers put out 10.5 GiB.)"""
RECORDING = 1 << 20
"""Bytes that a recording itself takes, at most."""


class Recorder(Protocol):
    """Records work on a device, to be repeated."""

    def pool(self) -> Any:
        """Memory that recordings share of which one runs at a time."""

    def free(self) -> int:
        """Bytes that are free on the device."""

    def warm(self, work: Callable[[], object]) -> None:
        """Do the work as a recording would, but at once: the first use of a shape takes longer, and must not be recorded."""

    def record(self, work: Callable[[], T], pool: Any) -> tuple[T, Callable[[], None]]:
        """Record the work.

        Returns:
            The tensors that it made, and what repeats it: with the same tensors, filled anew.
        """


class CudaRecorder:
    """CUDA graphs."""

    def __init__(self) -> None:
        self._aside = torch.cuda.Stream()

    def pool(self) -> Any:
        """A pool of the allocator's."""
        return torch.cuda.graph_pool_handle()

    def free(self) -> int:
        """What the driver has, and what torch's allocator keeps for later."""
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()

    def warm(self, work: Callable[[], object]) -> None:
        """On a stream aside, as torch's notes on graphs ask."""
        self._aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._aside):
            work()
        torch.cuda.current_stream().wait_stream(self._aside)

    def record(self, work: Callable[[], T], pool: Any) -> tuple[T, Callable[[], None]]:
        """Other threads may go on meanwhile: they pin memory for batches, or watch over ranks."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            made = work()
        return made, graph.replay


@dataclass
class Slot:
    """What recordings share of which one is under way at a time, from its forward to its backward pass.

    Attributes:
        pool: their memory.
        turn: counts forward passes, so that a backward pass knows whether the memory is still its own.
    """

    pool: Any
    turn: int = 0
    _held: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)

    def held(self, role: str, like: Tensor) -> Tensor:
        """A tensor of that shape, type and layout, of zeros at first; the same one whenever it is asked for."""
        key = (role, like.shape, like.dtype, like.requires_grad)
        if key not in self._held:
            zeros = torch.zeros_like(like, requires_grad=False)
            self._held[key] = zeros.requires_grad_(like.requires_grad)
        return self._held[key]


class Recording:
    """A module in training mode, forward and backward as two graphs. Called as the module is."""

    def __init__(
        self,
        module: nn.Module,
        like: Tensor,
        slot: Slot,
        recorder: Recorder,
        gradients: StandingGradients,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        """Warm up, and record.

        Args:
            module: on memory of the gradients' module; its batch norm counts the warming up, too.
            like: of the input's shape, type, layout, and whether it needs a gradient.
            slot: shared with others.
            recorder: of the device.
            gradients: that the parameters' gradients are added to.
            precision: what the forward pass runs in; an autocast without its cache.
        """
        parameters = list(module.parameters())
        buffers = [gradients.of(parameter) for parameter in parameters]
        self._slot, self._x = slot, slot.held("input", like)
        self._anchor = torch.zeros((), device=like.device, requires_grad=True)
        live: list[Tensor] = []  # from a forward to its backward pass

        def forward() -> Tensor:
            with torch.enable_grad(), precision():
                live[:] = [module(self._x)]
            return live[0].detach()

        def backward() -> Tensor | None:
            wanted = [self._x, *parameters] if like.requires_grad else parameters
            found = torch.autograd.grad(live.pop(), wanted, self._grad)
            torch._foreach_add_(buffers, list(found[-len(parameters) :]))
            return found[0] if like.requires_grad else None

        def once() -> None:
            self._grad = slot.held("gradient", forward())
            backward()

        for _ in range(2):
            recorder.warm(once)
        self._out, self._run_forward = recorder.record(forward, slot.pool)
        self._grad_x, self._run_backward = recorder.record(backward, slot.pool)

    def takes(self, x: Tensor) -> bool:
        """Whether this is an input as it was recorded with."""
        known = self._x.shape == x.shape and self._x.dtype == x.dtype and self._x.device == x.device
        return known and (self._x.requires_grad or not (x.requires_grad and torch.is_grad_enabled()))

    def __call__(self, x: Tensor) -> Tensor:
        """Run it. What is returned is filled anew by the next run of the same slot."""
        out: Tensor = _Replay.apply(  # type: ignore[no-untyped-call]
            self, x, self._anchor
        )  # the anchor makes it need a gradient where the input has none
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Repeat the forward pass on another input."""
        self._slot.turn += 1
        self._x.copy_(x)
        self._run_forward()
        return self._out.detach()

    def backward(self, grad: Tensor, turn: int) -> Tensor | None:
        """Repeat the backward pass of the forward pass with that number.

        Raises:
            TrainingError: another one has taken its memory.
        """
        if turn != self._slot.turn:
            raise TrainingError("of a graph, only the last forward pass can be gone back through, and once")
        self._slot.turn += 1
        self._grad.copy_(grad)
        self._run_backward()
        return None if self._grad_x is None else self._grad_x.detach()


class _Replay(torch.autograd.Function):
    """A recording among other operations."""

    @staticmethod
    def forward(ctx: Any, recording: Recording, x: Tensor, anchor: Tensor) -> Tensor:
        out = recording.forward(x)
        ctx.recording, ctx.turn = recording, recording._slot.turn
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, None]:
        return None, ctx.recording.backward(grad, ctx.turn), None


def recorded_output(
    module: nn.Module, x: Tensor, recorder: Recorder, precision: Callable[[], AbstractContextManager[Any]]
) -> Callable[[Tensor], Tensor]:
    """A module that learns nothing as one graph.

    Args:
        module: in eval mode.
        x: an input of the shape, type and layout of all that will come.
        recorder: of the device.
        precision: what it runs in; an autocast without its cache.

    Returns:
        A function from inputs to outputs; the next call fills the output anew.
    """
    static = torch.empty_like(x).copy_(x)

    def forward() -> Tensor:
        with torch.no_grad(), precision():
            out: Tensor = module(static)
        return out

    for _ in range(2):
        recorder.warm(forward)
    out, replay = recorder.record(forward, recorder.pool())

    def run(x: Tensor) -> Tensor:
        static.copy_(x)
        replay()
        return out

    return run


def fitting(variants: Iterable[Variant], images: int, width: int, allowed: float) -> tuple[list[Block], float]:
    """Those variants whose recordings fit into memory, the most frequent first; they are given in their own order.

    What lies between forward and backward is shared by the variants of a position; outputs and the gradients of inputs each has for itself.

    Args:
        variants: to choose from.
        images: in a batch.
        width: bytes of a number.
        allowed: bytes.

    Returns:
        The blocks, and the bytes that they take by this estimate.
    """
    variants = list(variants)
    shared: dict[str, float] = {}
    total, kept = 0.0, set[Block]()
    for block, _ in sorted(variants, key=lambda variant: -variant.share):
        made = sum(layer.activations for layer in block.all_layers)
        first = block.layers[0]
        ends = block.out_channels * block.out_resolution**2 + block.in_channels * first.resolution**2
        between = KEPT * images * width * made
        own = images * width * ends + RECORDING
        extra = max(0.0, between - shared.get(block.name, 0.0)) + own
        if total + extra <= allowed:
            total += extra
            shared[block.name] = max(between, shared.get(block.name, 0.0))
            kept.add(block)
    return [block for block, _ in variants if block in kept], total


class BlockGraphs:
    """Recordings of a supernet's blocks: what :meth:`Supernet.forward` may be given as ``blocks``.

    Attributes:
        gradients: of the supernet; a step begins them.
        missed: blocks whose recording was asked for with another input than it takes, so that the supernet ran them itself.
    """

    def __init__(
        self,
        supernet: Supernet,
        images: int,
        recorder: Recorder,
        dtype: torch.dtype,
        precision: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        """None yet.

        Args:
            supernet: whose weights stay where they are from now on.
            images: in every batch.
            recorder: of the device.
            dtype: of what blocks hand on; images are float32.
            precision: what blocks run in; an autocast without its cache.
        """
        self.supernet, self.images, self.recorder = supernet, images, recorder
        self.dtype, self.precision = dtype, precision
        self.gradients = StandingGradients(supernet)
        self.missed = set[Block]()
        self._slots: dict[str, Slot] = {}
        self._blocks: dict[Block, Recording] = {}
        self._parameters: dict[Block, tuple[nn.Parameter, ...]] = {}
        wired = in_order(supernet.space.blueprint(supernet.space.largest).blocks)
        self._first = {step.node.name for step in wired if step.sources == (IMAGE,)}  # an image needs no gradient

    def __len__(self) -> int:
        """How many blocks have been recorded."""
        return len(self._blocks)

    def __call__(self, block: Block, x: Tensor) -> Tensor | None:
        """Run a block by its graph; None where there is none for such an input."""
        recording = self._blocks.get(block)
        if recording is None or not self.supernet.training:
            return None
        if recording.takes(x):
            return recording(x)
        self.missed.add(block)
        return None

    def begin(self, archs: Population) -> None:
        """Begin a step in which some architectures run, (n, d): see :meth:`StandingGradients.begin`."""
        reached: list[nn.Parameter] = []
        for arch in archs:
            for block in (step.node for step in steps(self.supernet.space.blueprint(arch))):
                if block not in self._parameters:
                    self._parameters[block] = tuple(self.supernet.parameters_of(block))
                reached += self._parameters[block]
        self.gradients.begin(reached)

    def __contains__(self, block: object) -> bool:
        """Whether a block has been recorded at its size."""
        return block in self._blocks

    def add(self, blocks: Iterable[Block], advance: Callable[[], object] = lambda: None) -> str:
        """Record blocks that have not been; statistics and gradients are as before.

        Args:
            blocks: sizes that the supernet's blocks run at.
            advance: called after each.

        Returns:
            Why it ended before the last one, or "" if it did not.
        """
        found = ""
        with self._undisturbed():
            for block in blocks:
                if block not in self._blocks and not found:
                    try:
                        self._record(block)
                    except RuntimeError as error:  # of CUDA: memory among others
                        found = f"{block.key}: {' '.join(str(error).split())[:120]}"
                advance()
        return found

    def whole(self, arch: Any) -> Recording:
        """One graph of a whole architecture, by itself; statistics and gradients are as before.

        Raises:
            RuntimeError: CUDA cannot record it; memory does not suffice, for example.
        """
        blueprint = self.supernet.space.blueprint(arch)
        like = self._input((self.images, blueprint.in_channels, blueprint.resolution, blueprint.resolution), True)
        with self._undisturbed():
            return self._recording(self.supernet.network_on_weights(arch), like, Slot(self.recorder.pool()))

    def _record(self, block: Block) -> None:
        module = self.supernet.block_on_weights(block)
        if not any(True for _ in module.parameters()):
            return  # one kernel or none
        layer = block.layers[0]
        sizes = () if layer.op == "linear" else (layer.resolution, layer.resolution)
        like = self._input((self.images, block.in_channels, *sizes), block.name in self._first)
        slot = self._slots.setdefault(block.name, Slot(self.recorder.pool()))
        self._blocks[block] = self._recording(module, like, slot)

    def _recording(self, module: nn.Module, like: Tensor, slot: Slot) -> Recording:
        return Recording(module, like, slot, self.recorder, self.gradients, self.precision)

    def _input(self, shape: tuple[int, ...], image: bool) -> Tensor:
        device = self.supernet.classifier.linear.weight.device
        empty = torch.empty(shape, dtype=torch.float32 if image else self.dtype, device=device)
        if len(shape) == 4:
            empty = empty.to(memory_format=torch.channels_last)
        return empty.requires_grad_(not image)

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Puts batch norm's statistics back at the end, and leaves no gradients."""
        buffers = list(self.supernet.buffers())
        kept = [buffer.clone() for buffer in buffers]
        self.gradients.begin(self.supernet.parameters())
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in zip(buffers, kept, strict=True):
                    buffer.copy_(before)
            self.gradients.end()

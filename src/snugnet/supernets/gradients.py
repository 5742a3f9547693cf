"""Gradients that stay where they are: one buffer a parameter, which graphs add to."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class StandingGradients:
    """For every parameter of a module a buffer for its gradient, that never moves.

    Parameters that a step does not reach have no gradient, as without buffers, so optimizers leave them alone: neither weight decay
    nor momentum moves a block that no sub-network of the step has. Those that it reaches have their buffer, zeroed, as gradient;
    whatever runs them adds to it.
    """

    def __init__(self, module: nn.Module) -> None:
        self._buffers = {id(p): torch.zeros_like(p, requires_grad=False) for p in module.parameters()}
        self._owners = {p.untyped_storage().data_ptr(): p for p in module.parameters()}
        self._reached: dict[int, nn.Parameter] = {}

    def begin(self, reached: Iterable[nn.Parameter]) -> None:
        """Begin a step: zeros in the buffers of the parameters that it reaches, and no gradient for all others.

        Args:
            reached: some of the module's own; one may come several times.
        """
        for parameter in self._reached.values():
            parameter.grad = None
        self._reached = {id(parameter): parameter for parameter in reached}
        for key, parameter in self._reached.items():
            parameter.grad = self._buffers[key]
        if self._reached:
            torch._foreach_zero_([self._buffers[key] for key in self._reached])

    def of(self, view: Tensor) -> Tensor:
        """The part of the buffers where the gradient of a part of a parameter belongs.

        Args:
            view: that shares the parameter's memory, of any shape.
        """
        owner = self._owners[view.untyped_storage().data_ptr()]
        offset = view.storage_offset() - owner.storage_offset()
        return self._buffers[id(owner)].as_strided(view.shape, view.stride(), offset)

    def end(self) -> None:
        """No gradients any more."""
        self.begin(())

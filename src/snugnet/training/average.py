"""Exponential moving average of a module's weights and statistics."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

WARM_UP = 10
"""Early on the average follows faster: the decay of step t is at most (1 + t) / (WARM_UP + t)."""


class Average:
    """The average of what a module holds, step after step; counters are left out.

    Attributes:
        tensors: the averages, by the module's names.
    """

    def __init__(self, module: nn.Module, decay: float, held: Mapping[str, Tensor]) -> None:
        """Begin, or go on.

        Args:
            module: that is trained.
            decay: of a step, in [0, 1).
            held: averages so far; what the module holds now where there are none.
        """
        self.decay = decay
        self._live = {name: tensor for name, tensor in module.state_dict().items() if tensor.is_floating_point()}
        self.tensors = {name: torch.empty_like(live).copy_(held.get(name, live)) for name, live in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in what the module holds after a step, counted from 0."""
        decay = min(self.decay, (1 + step) / (WARM_UP + step))
        torch._foreach_lerp_(list(self.tensors.values()), list(self._live.values()), 1 - decay)

    @torch.no_grad()
    def hand_over(self) -> None:
        """Put the averages into the module."""
        torch._foreach_copy_(list(self._live.values()), list(self.tensors.values()))

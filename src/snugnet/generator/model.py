"""The architecture generator: from (group, budget) to gate logits in one forward pass (EAS section 3.2)."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snugnet.nn.gates import num_gates, option_scores
from snugnet.spaces import SearchSpace
from snugnet.spaces.effects import Encoding


class ArchitectureGenerator(nn.Module):
    """An LSTM over the layers, with one fully connected head a kind of choice (depth, width, kernel).

    Every superclass has a learnable embedding, and so have K budgets evenly spaced over the range of costs; a budget
    between two of them gets the linear interpolation of their embeddings.

    Attributes:
        space: whose gates it makes.
        encoding: of the gates.
        shared: whether all superclasses get the same architecture (the paper's EAS-V): one embedding for all of them.
        low, high: the smallest and largest budget, C_L and C_H, in the unit of the cost.
    """

    def __init__(
        self,
        space: SearchSpace,
        groups: int,
        low: float,
        high: float,
        *,
        budgets: int = 10,
        embedding_size: int = 32,
        hidden_size: int = 64,
        encoding: Encoding = "single-path",
        shared: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.space = space
        self.shared = shared
        self.encoding: Encoding = encoding
        self.low, self.high = float(low), float(high)
        self.options: dict[str, Any] = {
            "groups": groups,
            "low": self.low,
            "high": self.high,
            "budgets": budgets,
            "embedding_size": embedding_size,
            "hidden_size": hidden_size,
            "encoding": encoding,
            "shared": shared,
        }
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed a GPU's as well, for good
            self.group_embedding = nn.Parameter(0.1 * torch.randn(1 if shared else groups, embedding_size))
            self.budget_embedding = nn.Parameter(0.1 * torch.randn(budgets, embedding_size))
            self.lstm = nn.LSTM(2 * embedding_size, hidden_size, batch_first=True)
            slots, widths = _slots(space, encoding)
            self.heads = nn.ModuleDict({kind: nn.Linear(hidden_size, width) for kind, width in widths.items()})
        self.slots = slots
        start = dict(zip(widths, [0, *torch.tensor(list(widths.values())).cumsum(0).tolist()], strict=False))
        total = sum(widths.values())
        index = [layer * total + start[kind] + unit for layer, kind, unit in slots]
        self.index: Tensor
        self.register_buffer("index", torch.tensor(index, dtype=torch.long), persistent=False)

    def forward(self, groups: Tensor, budgets: Tensor) -> Tensor:
        """Gate logits.

        Args:
            groups: a weight for each superclass, (n, groups); one-hot for a superclass, a mixture for other sets of classes.
            budgets: in the unit of the cost, (n,); outside [low, high] the nearest end counts.

        Returns:
            (n, gates), choice by choice as :func:`snugnet.nn.gates.num_gates` counts them.
        """
        weights = groups.sum(1, keepdim=True) if self.shared else groups
        x = torch.cat([self.embed_budget(budgets), weights @ self.group_embedding], 1)
        hidden, _ = self.lstm(x[:, None].expand(-1, self.space.layers, -1))
        # a space of one architecture has no gates, and so no heads
        out = torch.cat([hidden[..., :0], *(head(hidden) for head in self.heads.values())], 2)
        return out.flatten(1)[:, self.index]

    def embed_budget(self, budgets: Tensor) -> Tensor:
        """Linear interpolation between the embeddings of the two nearest of the K budgets: (n, embedding)."""
        last = len(self.budget_embedding) - 1
        place = ((budgets.to(self.budget_embedding) - self.low) / max(self.high - self.low, 1e-12) * last).clamp(
            0, last
        )
        below = place.floor().clamp(max=last - 1).long()
        weight = (place - below)[:, None]
        return (1 - weight) * self.budget_embedding[below] + weight * self.budget_embedding[below + 1]

    @torch.no_grad()
    def scores(self, groups: Tensor, budgets: Tensor) -> Tensor:
        """Log-probability of every option of every choice, (n, sum of options): what decoding adds up."""
        return option_scores(self(groups, budgets), self.space, self.encoding)


def regrets(scores: NDArray[np.float32], space: SearchSpace) -> NDArray[np.float32]:
    """Scores of each choice relative to its best option, (n, sum of options): what decoding is given.

    A sum of plain log-probabilities runs over the choices that matter only, so each further block would cost something
    whatever its probability, and the shallowest network would win. Relative to the best, doing what the generator holds
    most probable costs nothing, at any depth.
    """
    best = np.maximum.reduceat(scores, space.offsets[:-1], axis=1)
    found: NDArray[np.float32] = scores - np.repeat(best, space.num_options, axis=1)
    return found


def _slots(space: SearchSpace, encoding: Encoding) -> tuple[list[tuple[int, str, int]], dict[str, int]]:
    """Where each gate comes from, (layer, head, unit of the head), and how many units each head needs."""
    slots: list[tuple[int, str, int]] = []
    used: dict[tuple[int, str], int] = defaultdict(int)
    widths: dict[str, int] = {}
    for choice, gates in zip(space.choices, num_gates(space, encoding), strict=True):
        layers = choice.layers if encoding == "single-path" else (min(choice.layers, default=0),) * gates
        for layer in layers:
            slots.append((layer, choice.kind, used[layer, choice.kind]))
            used[layer, choice.kind] += 1
            widths[choice.kind] = max(widths.get(choice.kind, 0), used[layer, choice.kind])
    return slots, widths

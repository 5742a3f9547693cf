"""The architecture generator trained against a predictor alone: no images, no supernet.

Two ways. *Gates*: gradients of the predictor reach the generator through relaxed gates, as EAS (section 3.2) has it with a
supernet in the predictor's place. *Front*: the predictor is searched at many budgets (:class:`snugnet.search.optimisers.ascent.Ascent`),
all that was scored makes up one front, and the generator learns, at every budget between, the best that the front has there.
The second comes much closer to the best architectures (docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from snugnet.costs import CostTable, decode
from snugnet.generator.model import ArchitectureGenerator, regrets
from snugnet.generator.training import budget_loss
from snugnet.nn.gates import option_scores, relax
from snugnet.predictors import MLPPredictor
from snugnet.progress import progress_bar
from snugnet.search.optimisers.ascent import Ascent
from snugnet.search.optimisers.optimiser import predictor_problem
from snugnet.spaces import Population, SearchSpace
from snugnet.training.loop import cosine, seed_step

ON_PREDICTOR_PHASE = 2000
"""Number of this phase, for seeding."""
ASKED_BUDGETS = 256  # budgets that the generator is asked for at once
_FINE_CELLS = 1024


def relaxed_code(probabilities: Sequence[Tensor], space: SearchSpace) -> Tensor:
    """The one-hot code of architectures of which only probabilities are known; differentiable.

    Each option's probability is weighted with that of its choice mattering at all, so at one-hot probabilities this is
    :meth:`snugnet.spaces.SearchSpace.one_hot`.

    Args:
        probabilities: for each choice (n, options).
        space: whose choices they are.

    Returns:
        (n, sum of options).
    """
    matters: list[Tensor] = []
    for choice, parent in zip(space.choices, space.parents, strict=True):
        if parent is None:
            matters.append(torch.ones_like(probabilities[0][:, :1]))
        else:
            active = torch.tensor(choice.active).to(probabilities[parent])
            matters.append(matters[parent] * (probabilities[parent] @ active)[:, None])
    return torch.cat([p * on for p, on in zip(probabilities, matters, strict=True)], 1)


@dataclass(frozen=True)
class Front:
    """Architectures none of which is both dearer and worse than another.

    Attributes:
        rows: (n, d), the cheapest first.
        costs: (n,), rising.
        scores: (n,), rising.
    """

    rows: Population
    costs: NDArray[np.float64]
    scores: NDArray[np.float64]

    @classmethod
    def of(cls, rows: Population, costs: NDArray[np.float64], scores: NDArray[np.float64]) -> Front:
        """The front of some architectures."""
        order = np.lexsort((-scores, costs))
        rows, costs, scores = rows[order], costs[order], scores[order]
        ahead = np.concatenate([[-np.inf], np.maximum.accumulate(scores)[:-1]])
        kept = scores > ahead
        return cls(rows[kept], costs[kept], scores[kept])

    def best(self, budgets: ArrayLike) -> NDArray[np.intp]:
        """Place of the best within each budget, (n,); the cheapest where none is within it."""
        return np.maximum(np.searchsorted(self.costs, np.asarray(budgets), side="right") - 1, 0)


def search_front(
    predictor: MLPPredictor,
    table: CostTable,
    low: float,
    high: float,
    *,
    searches: int = 80,
    seed: int = 0,
    progress: bool = True,
) -> Front:
    """Search a predictor at budgets spread evenly from ``low`` to ``high``; all that was scored makes up the front.

    Raises:
        BudgetError: no architecture is within ``low``.
    """
    found = []
    with progress_bar("front", searches, shown=progress) as advance:
        for i, budget in enumerate(np.linspace(low, high, searches)):
            problem = predictor_problem(predictor, {table.name: table}, {table.name: float(budget)})
            rows, scores = Ascent().maximise(problem, seed=seed + i)
            found.append(Front.of(rows, table(rows), scores))
            advance()
    return Front.of(*(np.concatenate([getattr(f, name) for f in found]) for name in ("rows", "costs", "scores")))


def train_on_front(
    generator: ArchitectureGenerator,
    front: Front,
    *,
    steps: int = 1500,
    pairs: int = 64,
    learning_rate: float = 5e-3,
    seed: int = 0,
    progress: bool = True,
) -> float:
    """Train a generator of one group in place to give, at every budget, the best of a front: cross-entropy over the choices
    that matter.

    Returns:
        The loss of the last step, in nats a choice.
    """
    space = generator.space
    codes = torch.from_numpy(space.one_hot(front.rows))

    def loss(budgets: Tensor, logits: Tensor, done: float) -> Tensor:
        wanted = codes[torch.from_numpy(front.best(budgets.numpy()))]
        return -(wanted * option_scores(logits, space, generator.encoding)).sum() / wanted.sum()

    return _optimise(generator, loss, steps, pairs, learning_rate, seed, progress)


def train_by_gates(
    generator: ArchitectureGenerator,
    predictor: MLPPredictor,
    table: CostTable,
    *,
    budget_weight: float = 30.0,
    temperature: tuple[float, float] = (1.0, 0.3),
    steps: int = 2500,
    pairs: int = 128,
    learning_rate: float = 1e-2,
    seed: int = 0,
    progress: bool = True,
) -> float:
    """Train a generator of one group in place with the predictor's gradient through the gates.

    The loss is minus the predicted value, plus ``budget_weight`` times (C / B - 1)^2.

    Returns:
        The loss of the last step.
    """
    first, last = temperature

    def loss(budgets: Tensor, logits: Tensor, done: float) -> Tensor:
        gates = relax(logits, generator.space, generator.encoding, first * (last / first) ** done)
        values = predictor.module(relaxed_code(gates, generator.space))[:, 0]
        out: Tensor = budget_weight * budget_loss(table.expectation(gates), budgets) - values.mean()
        return out

    return _optimise(generator, loss, steps, pairs, learning_rate, seed, progress)


def _optimise(
    generator: ArchitectureGenerator, loss_of: Callable[[Tensor, Tensor, float], Tensor], steps: int, pairs: int,
    learning_rate: float, seed: int, progress: bool,
) -> float:  # fmt: skip
    """Adam on budgets spread evenly over the generator's range; the learning rate falls as a cosine."""
    optimizer = torch.optim.Adam(generator.parameters(), lr=learning_rate)
    group, value = torch.ones(pairs, 1), 0.0
    generator.train()
    with progress_bar("generator", steps, shown=progress) as advance:
        for step in range(steps):
            seed_step(seed, ON_PREDICTOR_PHASE, step)
            for each in optimizer.param_groups:
                each["lr"] = learning_rate * cosine(step, steps)
            place = (torch.arange(pairs) + torch.rand(pairs)) / pairs
            budgets = generator.low + place * (generator.high - generator.low)
            loss = loss_of(budgets, generator(group, budgets), step / steps)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(generator.parameters(), 1.0)
            optimizer.step()
            value = loss.item()
            advance(f"loss {value:.3f}")
    generator.eval()
    return value


def generate(
    generator: ArchitectureGenerator, predictor: MLPPredictor, table: CostTable, budgets: Sequence[float]
) -> Population:
    """The generator's architecture for each budget: one forward pass over a grid of conditions, one exact decode.

    The generator's architecture at a neighbouring condition, trimmed to the budget, can be better than at the budget itself; the
    predictor tells which is best.

    Args:
        generator: of one group.
        predictor: of what is wanted.
        table: the cost that budgets are of.
        budgets: never exceeded.

    Returns:
        Rows, (budgets, d).

    Raises:
        BudgetError: no architecture is within a budget.
    """
    grid = torch.linspace(generator.low, generator.high, ASKED_BUDGETS)
    scores = regrets(generator.scores(torch.ones(ASKED_BUDGETS, 1), grid).numpy(), generator.space)
    limits = np.repeat(np.asarray(budgets, dtype=np.float64), ASKED_BUDGETS)
    rows = decode([table], np.tile(scores, (len(budgets), 1)), limits, cells=_FINE_CELLS)
    best = predictor.predict(rows).reshape(len(budgets), ASKED_BUDGETS).argmax(1)
    found: Population = rows.reshape(len(budgets), ASKED_BUDGETS, -1)[np.arange(len(budgets)), best]
    return found

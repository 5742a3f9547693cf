"""Gates: architectures that gradients can reach, and the supernet run under them.

Two encodings of a choice with m options, both relaxed so that ``forward`` uses hard values and ``backward`` soft ones:

* **single-path** (EAS section 3.2, equations 5-10): m - 1 nested binary gates; option i is taken when the gates up to i
  are open and the next is closed. A larger kernel contains the smaller one, a wider block the narrower one, a deeper stage
  the shallower one, so one pass over the largest network holds every architecture.
* **multi-path** (the paper's comparison, after DARTS and FBNet): a softmax over the m options; what is inside a block
  (kernel and expand ratio) is run once for each of the joint options and the outputs are mixed.

Either way an architecture is a list of ``probabilities``: for each choice a tensor (P, m), one-hot in value. What the
choices do to a layer is read off the blueprint (:mod:`snugnet.spaces.effects`): each number that describes it (channels,
kernel, hidden units) is a function of a few choices, and its gate the sum of the probabilities of the options that reach
so far. What has no such order (alternatives with weights of their own) is run once each and mixed in either encoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from snugnet.errors import ConfigError
from snugnet.spaces import SearchSpace
from snugnet.spaces.effects import Encoding

Probabilities = Sequence[Tensor]


def check_encoding(encoding: str) -> None:
    """Refuse a name that is no encoding.

    Raises:
        ConfigError: it is none.
    """
    if encoding not in get_args(Encoding):
        raise ConfigError(f"unknown encoding {encoding!r}; known: {', '.join(get_args(Encoding))}")


def logistic_noise(like: Tensor) -> Tensor:
    """log u - log(1 - u) for u uniform on (0, 1): the difference of two Gumbel draws (equation 9)."""
    return _logistic(torch.rand_like(like))


def _logistic(u: Tensor) -> Tensor:
    u = u.clamp(1e-6, 1 - 1e-6)
    return u.log() - (1 - u).log()


def _gumbel(u: Tensor) -> Tensor:
    return -torch.log(-torch.log(u.clamp(1e-6, 1 - 1e-6)))


def binary_gates(logits: Tensor, temperature: float, noise: Tensor | None = None) -> Tensor:
    """Open or closed, drawn from Bernoulli(sigmoid(logits)), with a straight-through gradient (equations 8-10).

    Args:
        logits: any shape.
        temperature: of the relaxation; smaller is closer to hard.
        noise: the logistic noise; 0 gives the more probable value.

    Returns:
        0 or 1 in value; the gradient is that of ``sigmoid((logits + noise) / temperature)``.
    """
    soft = torch.sigmoid((logits + (logistic_noise(logits) if noise is None else noise)) / temperature)
    return (soft > 0.5).to(soft) + (soft - soft.detach())  # the brackets keep 0 and 1 exact


def one_of(logits: Tensor, temperature: float, noise: Tensor | None = None) -> Tensor:
    """One option of the last axis, drawn by Gumbel softmax, with a straight-through gradient."""
    if noise is None:
        noise = _gumbel(torch.rand_like(logits))
    soft = torch.softmax((logits + noise) / temperature, -1)
    hard = F.one_hot(soft.argmax(-1), logits.shape[-1]).to(soft)
    return hard + (soft - soft.detach())


def thermometer(gates: Tensor) -> Tensor:
    """From m - 1 nested gates (..., m - 1) to "option i or larger" (..., m): 1, g1, g1 g2, ..."""
    kept = list(accumulate(gates.unbind(-1), torch.mul))  # the gradient of cumprod looks for zeros on the host
    first = gates.new_ones(*gates.shape[:-1], 1)
    return torch.cat([first, torch.stack(kept, -1) if kept else gates], -1)


def from_thermometer(kept: Tensor) -> Tensor:
    """From "option i or larger" (..., m) to option probabilities (..., m)."""
    return kept - F.pad(kept[..., 1:], (0, 1))


def to_thermometer(probabilities: Tensor) -> Tensor:
    """The inverse of :func:`from_thermometer`."""
    return probabilities.flip(-1).cumsum(-1).flip(-1)


def num_gates(space: SearchSpace, encoding: Encoding) -> list[int]:
    """How many numbers of the generator's output belong to each choice.

    Raises:
        ConfigError: the encoding is unknown.
    """
    check_encoding(encoding)
    return [len(c.options) - (encoding == "single-path") for c in space.choices]


def relax(
    logits: Tensor, space: SearchSpace, encoding: Encoding, temperature: float, *, noisy: bool = True
) -> list[Tensor]:
    """Draw an architecture a row from gate logits.

    Args:
        logits: (P, gates), choice by choice as :func:`num_gates` counts them.
        space: whose choices they are.
        encoding: how a choice is encoded.
        temperature: of the relaxation.
        noisy: draw; otherwise take the more probable value of each gate.

    Returns:
        For each choice (P, m): one-hot in value, soft in gradient.
    """
    gates = tuple(num_gates(space, encoding))
    noise = _noise(logits, gates, encoding) if noisy else torch.zeros_like(logits)
    nested = encoding == "single-path"
    values = binary_gates(logits, temperature, noise) if nested else logits
    result: dict[int, Tensor] = {}
    for choices, columns in _by_number_of_gates(gates, encoding, logits.device)[
        0
    ]:  # all choices of so many gates at once
        part = values[:, columns]  # (P, choices, gates)
        drawn = from_thermometer(thermometer(part)) if nested else one_of(part, temperature, noise[:, columns])
        result.update(zip(choices, drawn.unbind(1), strict=True))
    return [result[c] for c in range(len(gates))]


def _noise(logits: Tensor, gates: tuple[int, ...], encoding: Encoding) -> Tensor:
    """Noise for all gates, (P, gates): the numbers of one draw, choice by choice."""
    u = torch.rand(logits.numel(), device=logits.device, dtype=logits.dtype)
    u = u[_choice_by_choice(gates, len(logits), logits.device)]
    return _logistic(u) if encoding == "single-path" else _gumbel(u)


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # training uses it too, whoever asked first
def _choice_by_choice(gates: tuple[int, ...], rows: int, device: torch.device) -> Tensor:
    """(rows, gates): the place of each gate among numbers that stand choice by choice, each a block of all rows."""
    starts = np.cumsum([0, *gates[:-1]])
    blocks = [rows * start + np.arange(rows * n).reshape(rows, n) for start, n in zip(starts, gates, strict=True)]
    return torch.from_numpy(np.concatenate(blocks, 1)).to(device)


def option_scores(logits: Tensor, space: SearchSpace, encoding: Encoding) -> Tensor:
    """Log-probability of every option of every choice: (pairs, sum of options), in one-hot layout."""
    scores = []
    by_size, order = _by_number_of_gates(tuple(num_gates(space, encoding)), encoding, logits.device)
    for _, columns in by_size:
        part = logits[:, columns]  # (pairs, choices, gates)
        if encoding == "multi-path":
            scores.append(F.log_softmax(part, 2).flatten(1))
            continue
        opened = F.pad(F.logsigmoid(part).cumsum(2), (1, 0))
        closed = F.pad(F.logsigmoid(-part), (0, 1))
        scores.append((opened + closed).flatten(1))
    return torch.cat(scores, 1)[:, order]


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # as above
def _by_number_of_gates(
    gates: tuple[int, ...], encoding: Encoding, device: torch.device
) -> tuple[list[tuple[list[int], Tensor]], Tensor]:
    """For each number of gates the choices that have so many, and their columns of the logits, (choices, gates); and where the
    options of the choices taken in that order belong."""
    starts = np.cumsum([0, *gates])
    options = [each + (encoding == "single-path") for each in gates]
    places = np.cumsum([0, *options])
    by_size: list[tuple[list[int], Tensor]] = []
    found: list[int] = []
    for size in sorted(set(gates)):
        choices = [c for c, each in enumerate(gates) if each == size]
        columns = starts[choices][:, None] + np.arange(size)
        by_size.append((choices, torch.from_numpy(columns).to(device)))
        found += [int(places[c]) + o for c in choices for o in range(options[c])]
    return by_size, torch.tensor(np.argsort(found), dtype=torch.long, device=device)

"""Superclass dropout and the losses that respect it (EAS section 3.1, equations 1 and 2)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def superclass_mask(labels: Tensor, class_to_group: Tensor, rate: float) -> Tensor:
    """Draw the logits that stay: for each sample its own superclass, and each other one with probability 1 - rate.

    Args:
        labels: class indices, (n,).
        class_to_group: superclass of each class, (classes,).
        rate: the drop rate p, from 0 (plain training) to 1 (the target superclass only).

    Returns:
        True where the class stays in the softmax: (n, classes). Drawn from torch's global generator.
    """
    target = class_to_group[labels]
    # a column a superclass; there are at most as many as classes, and counting them would wait for a GPU
    kept = torch.rand(len(labels), len(class_to_group), device=labels.device) >= rate
    kept.scatter_(1, target[:, None], True)
    return kept[:, class_to_group]


def masked_log_softmax(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Log-softmax over what the mask keeps; what it drops has probability 0 and log-probability 0 (so 0 log 0 is 0)."""
    if mask is None:
        return F.log_softmax(logits.float(), 1)
    return F.log_softmax(logits.float().masked_fill(~mask, -torch.inf), 1).masked_fill(~mask, 0.0)


def cross_entropy(logits: Tensor, labels: Tensor, mask: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy over the kept classes, with label smoothing spread over them alone.

    Args:
        logits: (n, classes).
        labels: (n,); each sample's own class is kept.
        mask: (n, classes), True where kept; all without it.
        smoothing: share of the target spread evenly over the kept classes.
    """
    log_p = masked_log_softmax(logits, mask)
    own = log_p.gather(1, labels[:, None]).squeeze(1)
    kept = logits.shape[1] if mask is None else mask.sum(1)
    return -((1 - smoothing) * own + smoothing * log_p.sum(1) / kept).mean()


def distillation_loss(
    logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    temperature: float = 1.0,
    divergence: Literal["kl", "alpha"] = "kl",
) -> Tensor:
    """How far the student's probabilities are from the teacher's, on average; both softmaxes are over the kept classes.

    Args:
        logits: (n, classes).
        teacher_logits: (n, classes); no gradient flows into them.
        mask: (n, classes), True where kept.
        temperature: that both logits are divided by. The loss is multiplied by its square, so that gradients stay of one size
            (Hinton et al., arXiv 1503.02531, section 2).
        divergence: ``kl``, given as the cross-entropy, or :func:`alpha_divergence`.
    """
    log_q = masked_log_softmax(logits / temperature, mask)
    log_p = masked_log_softmax(teacher_logits.detach() / temperature, mask)
    kept = 1.0 if mask is None else mask
    each = -(log_p.exp() * kept * log_q).sum(1) if divergence == "kl" else alpha_divergence(log_q, log_p, kept)
    return each.mean() * temperature**2


CLIP = 5.0
"""At most what a ratio of probabilities, to the power alpha, counts (AlphaNet, section 4)."""


def alpha_divergence(log_q: Tensor, log_p: Tensor, kept: Tensor | float = 1.0) -> Tensor:
    """The greater of two clipped alpha-divergences of each sample (AlphaNet: Wang et al., ICML 2021, arXiv 2102.07954).

    That of alpha 1 is the KL divergence, which charges a student for what it misses; that of alpha -1 charges it for probability where
    the teacher has none. Ratios are held fixed in the gradient, which is minus the sum of q (p / q)^alpha d log q, over alpha, and clipped
    at :data:`CLIP` there and in the value.

    Args:
        log_q: the student's log-probabilities, (n, classes).
        log_p: the teacher's.
        kept: (n, classes), 1 or True where a class counts.

    Returns:
        The divergences, (n,).
    """
    fixed = log_q.detach()
    q, log_ratio = fixed.exp() * kept, log_p - fixed
    missed, invented = log_ratio.exp().clamp(max=CLIP), (-log_ratio).exp().clamp(max=CLIP)
    values = torch.stack(((q * missed * log_ratio).sum(1), (q * (invented - 1)).sum(1) / 2))
    pulls = torch.stack((-(q * missed * log_q).sum(1), (q * invented * log_q).sum(1)))
    greater = values.argmax(0, keepdim=True)
    value, pull = (each.gather(0, greater).squeeze(0) for each in (values, pulls))
    return value + pull - pull.detach()

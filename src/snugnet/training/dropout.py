"""Superclass dropout and the losses that respect it (EAS section 3.1, equations 1 and 2)."""

from __future__ import annotations

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
    logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """Mean cross-entropy against the teacher's probabilities; both softmaxes are over the kept classes.

    Args:
        logits: (n, classes).
        teacher_logits: (n, classes); no gradient flows into them.
        mask: (n, classes), True where kept.
        temperature: that both logits are divided by. The loss is multiplied by its square, so that gradients stay of one size
            (Hinton et al., arXiv 1503.02531, section 2).
    """
    teacher = teacher_logits.detach().float() / temperature
    if mask is not None:
        teacher = teacher.masked_fill(~mask, -torch.inf)
    log_p = masked_log_softmax(logits / temperature, mask)
    return -(F.softmax(teacher, 1) * log_p).sum(1).mean() * temperature**2

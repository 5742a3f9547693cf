"""The optimizer of every training of weights."""

from __future__ import annotations

import torch
from torch import nn


def make_optimizer(module: nn.Module, momentum: float, weight_decay: float, nesterov: bool = True) -> torch.optim.SGD:
    """SGD with momentum, Nesterov's or plain; no weight decay on biases and batch norm (the learning rate is set step by step).

    On CUDA all parameters are updated by few kernels.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = all(p.is_cuda for p in parameters)
    return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=nesterov and momentum > 0, fused=fused or None)

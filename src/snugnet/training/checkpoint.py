"""Checkpoints: safetensors, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from snugnet.errors import TrainingError
from snugnet.files import write_atomically


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Save tensors and a JSON-able state in one file.

    Args:
        path: of the file; replaced atomically.
        tensors: by name; copied to the CPU.
        state: counters and the like, kept in the file's metadata.

    Raises:
        TrainingError: a tensor is not finite; the old file is as it was.
    """
    cpu = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    for name, tensor in cpu.items():
        if not bool(tensor.isfinite().all()):
            raise TrainingError(
                f"{name} is no longer finite; {path} is as it was. Lower the learning rate and start anew with --fresh"
            )
    write_atomically(path, save(cpu, metadata={"state": json.dumps(dict(state))}))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load what :func:`save_checkpoint` saved.

    Raises:
        TrainingError: the file is no whole checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {})["state"])
            return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
        raise TrainingError(
            f"{path} is no checkpoint that can be read ({error}); delete it to start training anew"
        ) from error


def split_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix.``, without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(prefix + ".")}


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state as ``parameter/key`` -> tensor; parameters that had no gradient yet have none."""
    return {
        f"{name}/{key}": tensor
        for name, parameter in module.named_parameters()
        for key, tensor in optimizer.state.get(parameter, {}).items()
        if isinstance(tensor, Tensor)
    }


def load_optimizer(optimizer: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` gave."""
    parameters = dict(module.named_parameters())
    for key, tensor in tensors.items():
        name, _, field = key.partition("/")
        parameter = parameters[name]
        # a counter (shape ()) stays where the optimizer keeps it: on the CPU; the rest is laid out in memory as the parameter is
        if tensor.ndim:
            tensor = torch.empty_like(parameter, requires_grad=False).copy_(tensor)
        optimizer.state[parameter][field] = tensor

"""Where a recipe is run, and how exactly."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric

from snugnet.errors import TrainingError
from snugnet.recipe import NetworkRecipe
from snugnet.training.memory import keep_freed_memory


def resolve_device(recipe: NetworkRecipe) -> tuple[str, str]:
    """What ``auto`` means here: Fabric's accelerator, and the precision: bf16 on a GPU and float32 elsewhere."""
    accelerator = {"cuda": "gpu"}.get(recipe.device, recipe.device)
    if accelerator == "auto":
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    precision = recipe.precision
    if precision == "auto":
        precision = "bf16-mixed" if accelerator == "gpu" else "32-true"
    return accelerator, precision


def make_fabric(recipe: NetworkRecipe) -> Fabric:
    """Device and precision of a recipe.

    Supernets are called as they were set up, never through a method of theirs: on one device Fabric's ``mark_forward_method`` would
    run that method without autocast (2.6). And the backward pass of one sub-network comes before the forward pass of the next:
    with several ranks (DDP), two forward passes before two backward passes leave the ranks with different gradients, and nothing says so.

    Raises:
        TrainingError: there is no such device here.
    """
    accelerator, precision = resolve_device(recipe)
    if accelerator == "cpu":
        keep_freed_memory()
    try:
        return Fabric(accelerator=accelerator, devices=1, precision=precision)  # type: ignore[arg-type]
    except (RuntimeError, ValueError) as error:  # Fabric's own errors derive from these
        raise TrainingError(f"device {recipe.device!r} with precision {precision!r}: {error}") from error

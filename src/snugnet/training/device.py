"""Where a recipe is run, and how exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from snugnet.errors import TrainingError
from snugnet.extras import needs
from snugnet.recipe import NetworkRecipe
from snugnet.training.memory import keep_freed_memory

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import Strategy


def resolve_device(recipe: NetworkRecipe) -> tuple[str, str]:
    """What ``auto`` means here: Fabric's accelerator, and the precision: bf16 on a GPU and float32 elsewhere."""
    accelerator = {"cuda": "gpu"}.get(recipe.device, recipe.device)
    if accelerator == "auto":
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    precision = recipe.precision
    if precision == "auto":
        precision = "bf16-mixed" if accelerator == "gpu" else "32-true"
    return accelerator, precision


def make_fabric(
    recipe: NetworkRecipe, devices: int = 1, num_nodes: int = 1, strategy: Strategy | Literal["auto"] = "auto"
) -> Fabric:
    """Device and precision of a recipe; one device, but for a supernet's training (:func:`snugnet.training.joining.join_ranks`).

    Supernets are called as they were set up, never through a method of theirs: on one device Fabric's ``mark_forward_method`` would
    run that method without autocast (2.6).

    Raises:
        TrainingError: there is no such device here.
        MissingPackageError: the extra ``train`` is not installed.
    """
    needs("lightning_fabric")
    from lightning_fabric import Fabric
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    accelerator, precision = resolve_device(recipe)
    if accelerator == "cpu":
        keep_freed_memory()
    try:
        return Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=num_nodes,
            strategy=strategy,
            precision=precision,  # type: ignore[arg-type]
        )
    except (RuntimeError, ValueError, MisconfigurationException) as error:  # Fabric's own
        raise TrainingError(f"device {recipe.device!r} with precision {precision!r}: {error}") from error

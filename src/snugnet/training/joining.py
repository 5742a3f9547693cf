"""How a process comes to be one of several that train together: ``torchrun`` starts them, Lightning Fabric knows their devices."""

from __future__ import annotations

import atexit
import logging
import os
import platform
import time
import warnings
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from snugnet.errors import TrainingError
from snugnet.extras import needs
from snugnet.recipe import Recipe
from snugnet.training.device import make_fabric, resolve_device
from snugnet.training.ranks import answering

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import Strategy

_FIRST_IS_AT = "snugnet/first"
_PATIENCE = timedelta(seconds=2)


def started_by_torchrun() -> int | None:
    """How many processes torchrun started, this one among them; None where it did not start this one."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else None


def started_again() -> bool:
    """Whether torchrun started this process in the place of one that ended (``--max-restarts``)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def check_devices(recipe: Recipe) -> None:
    """Refuse more GPUs a machine than this one has. On a CPU a device is a process, and there may be any number.

    Raises:
        TrainingError: there are fewer.
    """
    here = torch.cuda.device_count()
    if resolve_device(recipe)[0] == "gpu" and 0 < here < recipe.devices:
        raise TrainingError(
            f"devices is {recipe.devices}, and {platform.node()} has {here} GPU{'s' * (here > 1)}; give devices={here} or fewer"
        )


def join_ranks(recipe: Recipe) -> Fabric:
    """Device and precision of a recipe, and a place among its ranks where it asks for several.

    Raises:
        TrainingError: there are no such devices, torchrun started another number of processes, or one of them does not answer.
    """
    started, asked = started_by_torchrun(), f"devices {recipe.devices} x num_nodes {recipe.num_nodes}"
    if started is None and recipe.ranks > 1:
        nodes = f"--nnodes {recipe.num_nodes} " if recipe.num_nodes > 1 else ""
        raise TrainingError(
            f"{asked} are {recipe.ranks} processes, which torchrun starts: torchrun {nodes}--nproc-per-node {recipe.devices} "
            "-m snugnet train RECIPE"
        )
    if (started or 1) != recipe.ranks:
        raise TrainingError(
            f"torchrun started {started} processes, and the recipe has {asked}; give devices=N (of one machine) and num_nodes=N as "
            "torchrun has --nproc-per-node and --nnodes"
        )
    if recipe.ranks == 1:
        return make_fabric(recipe)
    check_devices(recipe)
    if int(os.environ["RANK"]):  # what there is to say about the images the first rank says
        warnings.filterwarnings("ignore", category=UserWarning, module=r"snugnet\.")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it says of every process that it has begun
    timeout = timedelta(seconds=recipe.rank_timeout)
    fabric = make_fabric(recipe, recipe.devices, recipe.num_nodes, _joined(timeout))
    with answering(fabric.global_rank, fabric.world_size):
        if not dist.is_initialized():
            backend = "nccl" if fabric.device.type == "cuda" else "gloo"
            place: dict[str, Any] = {"rank": fabric.global_rank, "world_size": fabric.world_size, "timeout": timeout}
            dist.init_process_group(backend, store=_fresh_store(fabric.global_rank, timeout), **place)
            atexit.register(dist.destroy_process_group)
        fabric.launch()  # goes on with the group that is there
    return fabric


def _joined(timeout: timedelta) -> Strategy:
    """Processes that are joined, and modules that stay as they are.

    torch's DDP would reduce gradients in the backward pass of every sub-network, and wait for those of parameters that none has.
    """
    needs("lightning_fabric")
    from lightning_fabric.strategies import DDPStrategy

    class Joined(DDPStrategy):
        def setup_module(self, module: nn.Module) -> Any:
            return module

    return Joined(timeout=timeout)


def _fresh_store(rank: int, timeout: timedelta) -> dist.Store | None:
    """Where ranks find one another's addresses; None where torch's own does.

    torchrun's processes share a store of torchrun's. It keeps that one when it starts them again (torch 2.13), with the addresses of
    those that ended, and a rank that comes first waits for those. So rank 0 opens a new store, and all the old one is asked is where.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    host = os.environ["MASTER_ADDR"]  # of the machine of rank 0
    kept = dist.TCPStore(host, int(os.environ["MASTER_PORT"]), is_master=False, timeout=timeout)
    if rank == 0:
        store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=timeout)
        kept.set(_FIRST_IS_AT, str(store.port))
        return store
    deadline = time.monotonic() + timeout.total_seconds()
    while True:
        try:
            store = dist.TCPStore(host, int(kept.get(_FIRST_IS_AT)), is_master=False, timeout=_PATIENCE)
        except dist.DistError:  # of a process that ended: wait for the next one's
            if time.monotonic() > deadline:
                raise
        else:
            store.set_timeout(timeout)
            return store

"""A recipe that several processes train: ``snugnet train`` starts them, or is one of them."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import typer

from snugnet.cli.common import STOPPED
from snugnet.errors import SnugnetError, TrainingError

if TYPE_CHECKING:
    from snugnet.recipe import Recipe

_FIRST_SPEAKS = 3.0  # seconds


def train_with_others(recipe: Recipe, arguments: list[str], *, fresh: bool) -> bool:
    """Take part in a training by several processes.

    Args:
        recipe: of that training.
        arguments: of the command line that gave it.
        fresh: whether an earlier run is thrown away.

    Returns:
        Whether nothing is left to do here: this process has started the others and they are done, or it is one of those that only
        help the first.

    Raises:
        SnugnetError: the training cannot begin or go on.
        typer.Exit: the processes that were started ended otherwise; they have said why.
    """
    if recipe.ranks == 1:
        return False
    from snugnet.training import joining

    if joining.started_by_torchrun() is None and recipe.num_nodes == 1:
        joining.check_devices(recipe)
        _start(recipe.devices, arguments)
        return True
    if joining.join_ranks(recipe).is_global_zero:
        return False
    from snugnet import pipeline

    try:
        pipeline.train(recipe, fresh=fresh, progress=False)
    except KeyboardInterrupt:
        raise typer.Exit(STOPPED) from None
    except SnugnetError:  # where the first one has the same to say, torchrun ends this one meanwhile
        time.sleep(_FIRST_SPEAKS)
        raise
    return True


def _start(count: int, arguments: list[str]) -> None:
    """What ``torchrun --standalone --nproc-per-node COUNT -m snugnet ARGUMENTS`` does, but for its words."""
    import logging
    import uuid

    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.CRITICAL)  # the processes say themselves what went wrong
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "snugnet", *arguments)
    except SignalException:
        raise typer.Exit(STOPPED) from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:  # it has said why
            raise typer.Exit(failure.exitcode) from None
        raise TrainingError(
            f"rank {rank} was ended by {failure.signal_name()}; run the same command to go on from the last checkpoint"
        ) from None

"""The loop that every training shares: seeding, progress, log, checkpoints, and the watch for a loss that is not finite."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, Self

import numpy as np
import torch
from torch import Tensor

from snugnet.errors import TrainingError
from snugnet.extras import needs
from snugnet.progress import progress_bar
from snugnet.training.ranks import ALONE, Metrics, Ranks


def seed_step(seed: int, phase: int, step: int) -> np.random.Generator:
    """Make everything that a step draws a function of (seed, phase, step), so that nothing else has to be saved.

    Seeds torch's global generators (augmentation, dropout masks and gate noise draw from them) and returns a NumPy
    generator for the architectures.
    """
    rng, own = _draws(seed, phase, step)
    torch.manual_seed(own)
    return rng


def step_rng(seed: int, phase: int, step: int) -> np.random.Generator:
    """The generator that :func:`seed_step` returns, by itself: for draws that are made ahead."""
    return _draws(seed, phase, step)[0]


def _draws(seed: int, phase: int, step: int) -> tuple[np.random.Generator, int]:
    rng = np.random.default_rng((seed, phase, step))
    return rng, int(rng.integers(2**63 - 1))


def cosine(step: int, total: int, warmup: int = 0, floor: float = 0.0) -> float:
    """Factor on the learning rate: a linear rise over ``warmup`` steps, then half a cosine down to ``floor`` (at ``total``)."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def linear(step: int, total: int, warmup: int = 0, floor: float = 0.0) -> float:
    """Factor on the learning rate: a linear rise over ``warmup`` steps, then a straight line down to ``floor`` (at ``total``)."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return floor + (1 - floor) * (1 - (step - warmup) / max(1, total - warmup))


SCHEDULES = {"cosine": cosine, "linear": linear}
"""By the names of :data:`snugnet.retraining_config.Schedule`."""


class RunLog:
    """Scalars of a run, as JSON lines (``log.jsonl``) and for TensorBoard (``tensorboard/``).

    A run that goes on from a checkpoint repeats the steps that came after it. So a checkpoint keeps how long the log's files were
    (:meth:`mark`), and before the run writes again what lies past that is cut off (:meth:`go_on_from`).

    Attributes:
        folder: both are written into it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None
        self._file: IO[str] | None = None
        self._cut: Mapping[str, int] | None = None
        self._start = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def scalars(self, phase: str, step: int, values: dict[str, float]) -> None:
        """Write the scalars of one step of one phase."""
        self._write({"phase": phase, "step": step, **values})
        for name, value in values.items():
            self._writer.add_scalar(f"{phase}/{name}", value, step)

    def note(self, phase: str, text: str) -> None:
        """Write something about a phase in words."""
        self._write({"phase": phase, "note": text})

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is None:
            self._file, self._writer = self._open()
        line = {**line, "seconds": round(time.monotonic() - self._start, 3)}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def mark(self) -> dict[str, int]:
        """How long each file of the log is now, in bytes; what is still under way to one is written first."""
        if self._writer is not None:
            self._writer.flush()
        if self._file is None and self._cut is not None:
            return dict(self._cut)
        return {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in self._files()}

    def go_on_from(self, mark: Mapping[str, int]) -> None:
        """Before the next scalars are written, cut off what was written after a mark; all of it where the mark is empty."""
        self._close()
        self._cut = dict(mark)

    def _files(self) -> list[Path]:
        return [
            path
            for path in (self.folder / "log.jsonl", *(self.folder / "tensorboard").glob("events.*"))
            if path.is_file()
        ]

    def _open(self) -> tuple[IO[str], Any]:
        needs("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        for path in self._files() if self._cut is not None else ():
            length = (self._cut or {}).get(path.relative_to(self.folder).as_posix())
            if length is None:
                path.unlink()
            elif length < path.stat().st_size:
                os.truncate(path, length)
        self._cut = None
        self.folder.mkdir(parents=True, exist_ok=True)
        return (self.folder / "log.jsonl").open("a", encoding="utf-8"), SummaryWriter(str(self.folder / "tensorboard"))

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._writer.close()
            self._file = self._writer = None


class Stop:
    """Whether somebody asked for an end.

    Attributes:
        asked: by Ctrl-C or SIGTERM.
    """

    asked = False


@contextmanager
def stopping_after_a_step() -> Iterator[Stop]:
    """Ctrl-C and SIGTERM set :attr:`Stop.asked` instead of tearing a step apart; a second one ends all at once.

    Signals that are ignored, as in a shell's background, stay ignored; in another thread than the main one nothing is changed.
    """
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)


def run_phase(
    name: str,
    step_of: Callable[[int, np.random.Generator], Metrics],
    save: Callable[[int], None],
    *,
    phase: int,
    start: int,
    total: int,
    seed: int,
    log: RunLog,
    log_every: int,
    checkpoint_seconds: float,
    progress: bool = True,
    inputs: Callable[[int], str] | None = None,
    ranks: Ranks = ALONE,
) -> None:
    """Run steps ``start`` to ``total`` of one phase.

    Args:
        name: of the phase, for the log and the bar.
        step_of: does one step (forward, backward, update) given its number and a seeded generator.
        save: writes a checkpoint that says so many steps of this phase are done.
        phase: number of the phase; with ``seed`` and the step it determines every draw.
        start: steps already done.
        total: steps in all.
        seed: of the run.
        log: where scalars go.
        log_every: steps between two lines.
        checkpoint_seconds: time between two checkpoints; one is also written at the end.
        progress: whether to show a bar.
        inputs: what is wrong with the images of a step, in words, or "" (see :func:`snugnet.training.inputs.faults`); asked when the
            loss is not finite, before the learning rate is blamed.
        ranks: that run this phase together. Metrics are the same on all of them, so that all of them stop at one step; the first
            one writes the log, and shows the bar.

    Raises:
        TrainingError: the loss is not finite; the last checkpoint is as it was.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the step under way is done and a checkpoint of it is written; of several
            ranks, the next step with a line in the log.
    """
    saved = time.monotonic()
    bad: Tensor | None = (
        None  # first step whose loss was not finite, or -1; on the device, so that no step waits for it
    )
    note = ""
    bar = progress_bar(name, total, done=start, shown=progress and ranks.first)
    with stopping_after_a_step() as stop, bar as advance:
        for step in range(start, total):
            metrics = step_of(step, seed_step(seed, phase, step))
            loss = metrics["loss"].detach()
            if bad is None:
                bad = torch.full_like(loss, -1, dtype=torch.int64)
            bad = torch.where((bad < 0) & ~torch.isfinite(loss), torch.full_like(bad, step), bad)
            last = step + 1 == total
            logged = last or (step + 1) % log_every == 0
            # asked once: what comes later stops the next step; several ranks must agree, and do so where they wait anyway
            stopped = (logged or ranks.count == 1) and ranks.any(stop.asked)
            due = last or stopped or time.monotonic() - saved > checkpoint_seconds
            if (logged or due or loss.device.type == "cpu") and bad.item() >= 0:
                found = inputs(int(bad.item())) if inputs is not None else ""
                advice = (
                    f"Look at the images: {found}"
                    if found
                    else f"{'Its images are in order: lower' if inputs is not None else 'Lower'} the learning rate and start "
                    "anew with --fresh"
                )
                raise TrainingError(
                    f"{name}: the loss is not finite at step {bad.item()}; the last checkpoint is as it was. {advice}"
                )
            if logged:
                values = {key: float(value) for key, value in metrics.items()}
                if ranks.first:
                    log.scalars(name, step + 1, values)
                note = " ".join(f"{key} {value:.3f}" for key, value in values.items())
            if due:
                save(step + 1)
                saved = time.monotonic()
            advance(note)
            if stopped:
                raise KeyboardInterrupt
        if ranks.any(stop.asked):  # while the last step was being saved
            raise KeyboardInterrupt

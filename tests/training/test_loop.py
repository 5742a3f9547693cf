"""The loop: seeds, schedule, log, checkpoints, and the stop at a loss that is not finite."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from snugnet.errors import TrainingError
from snugnet.training.inputs import faults
from snugnet.training.loop import (
    SCHEDULES,
    Metrics,
    RunLog,
    cosine,
    linear,
    progress_bar,
    run_phase,
    seed_step,
    stopping_after_a_step,
)


class Lines:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int, dict[str, float]]] = []

    def scalars(self, phase: str, step: int, values: dict[str, float]) -> None:
        self.lines.append((phase, step, values))


def run(losses: list[float], start: int = 0, **changes: Any) -> tuple[list[int], list[int], Lines]:
    """Steps that were run, what was saved after how many steps, and the log."""
    steps: list[int] = []
    saved: list[int] = []
    log = Lines()

    def step_of(step: int, rng: np.random.Generator) -> Metrics:
        steps.append(step)
        return {"loss": torch.tensor(losses[step]), "other": torch.tensor(float(step))}

    options: dict[str, Any] = {
        "phase": 0, "start": start, "total": len(losses), "seed": 0, "log": log, "log_every": 3,
        "checkpoint_seconds": 1e9, "progress": False, **changes,
    }  # fmt: skip
    try:
        run_phase("phase", step_of, saved.append, **options)
    except TrainingError as error:
        error.args = (*error.args, steps, saved, log)
        raise
    return steps, saved, log


def test_every_step_once_and_a_checkpoint_at_the_end() -> None:
    steps, saved, log = run([1.0] * 7)
    assert steps == list(range(7))
    assert saved == [7]
    assert [line[1] for line in log.lines] == [3, 6, 7]
    assert log.lines[-1] == ("phase", 7, {"loss": 1.0, "other": 6.0})


def test_resuming() -> None:
    steps, saved, log = run([1.0] * 7, start=5)
    assert steps == [5, 6]
    assert saved == [7]
    assert [line[1] for line in log.lines] == [6, 7]
    assert run([1.0] * 7, start=7)[0] == []


def test_checkpoints_by_time() -> None:
    assert run([1.0] * 4, checkpoint_seconds=-1.0)[1] == [1, 2, 3, 4]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step", [0, 3, 5])
def test_a_loss_that_is_not_finite_stops_at_once(loss: float, step: int) -> None:
    losses = [1.0] * 6
    losses[step] = loss
    with pytest.raises(TrainingError, match=f"phase: the loss is not finite at step {step};") as caught:
        run(losses, checkpoint_seconds=-1.0)
    _, steps, saved, log = caught.value.args
    assert steps == list(range(step + 1))
    assert saved == list(range(1, step + 1))  # never after the bad step
    assert all(math.isfinite(line[2]["loss"]) for line in log.lines)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ("", "Its images are in order: lower the learning rate"),
        ("they are black", "Look at the images: they are black"),
    ],
)
def test_the_images_are_looked_at_before_the_learning_rate_is_blamed(found: str, says: str) -> None:
    asked: list[int] = []

    def inputs(step: int) -> str:
        asked.append(step)
        return found

    with pytest.raises(TrainingError, match=says):
        run([1.0, 1.0, math.nan], inputs=inputs)
    assert asked == [2]


def test_what_is_wrong_with_images() -> None:
    noise = torch.randint(0, 256, (8, 3, 4, 4), dtype=torch.uint8)
    mean, std = (0.5, 0.5, 0.5), (0.3, 0.3, 0.3)
    assert faults(noise, mean, std) == ""
    black = torch.zeros_like(noise)
    assert faults(torch.cat([black, noise[:1]]), mean, std).startswith("8 of the 9 of that step are of one colour each")
    assert "finite numbers" in faults(noise, (math.nan,) * 3, std)
    assert "standard deviations from the mean" in faults(noise, mean, (0.001,) * 3)


def test_the_step_is_named_to_the_unit_whatever_the_type_of_the_loss() -> None:

    def step_of(step: int, rng: np.random.Generator) -> Metrics:
        return {"loss": torch.tensor(math.nan if step == 301 else 1.0, dtype=torch.bfloat16)}

    saved: list[int] = []
    with pytest.raises(TrainingError, match="at step 301;"):  # a number that bfloat16 would round
        run_phase(
            "phase", step_of, saved.append, phase=0, start=290, total=310, seed=0, log=Lines(),  # type: ignore[arg-type]
            log_every=1000, checkpoint_seconds=1e9, progress=False,
        )  # fmt: skip
    assert saved == []


def test_a_step_that_breaks_saves_nothing() -> None:
    def step_of(step: int, rng: np.random.Generator) -> Metrics:
        if step == 2:
            raise KeyboardInterrupt
        return {"loss": torch.tensor(1.0)}

    saved: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        run_phase(
            "phase", step_of, saved.append, phase=0, start=0, total=5, seed=0, log=Lines(),  # type: ignore[arg-type]
            log_every=1, checkpoint_seconds=1e9, progress=False,
        )  # fmt: skip
    assert saved == []


def draws(seed: int, phase: int, step: int) -> tuple[float, float]:
    return float(seed_step(seed, phase, step).random()), float(torch.rand(()))


def test_seeds_are_a_function_of_seed_phase_and_step() -> None:
    places = [(s, p, t) for s in range(3) for p in (0, 1, 1000) for t in range(4)]
    found = {place: draws(*place) for place in places}
    assert len({value[0] for value in found.values()}) == len(places)
    assert len({value[1] for value in found.values()}) == len(places)
    for place in reversed(places):
        torch.rand(7)
        assert draws(*place) == found[place]


def test_steps_see_the_same_draws_whether_resumed_or_not() -> None:
    def record(start: int) -> dict[int, tuple[float, float]]:
        seen = {}

        def step_of(step: int, rng: np.random.Generator) -> Metrics:
            seen[step] = (float(rng.random()), float(torch.rand(())))
            return {"loss": torch.tensor(0.0)}

        run_phase(
            "phase", step_of, lambda done: None, phase=2, start=start, total=6, seed=4, log=Lines(),  # type: ignore[arg-type]
            log_every=1, checkpoint_seconds=1e9, progress=False,
        )  # fmt: skip
        return seen

    whole, part = record(0), record(4)
    assert part == {step: whole[step] for step in (4, 5)}


def test_cosine() -> None:
    assert cosine(0, 10) == 1.0
    assert cosine(5, 10) == pytest.approx(0.5)
    assert cosine(10, 10) == pytest.approx(0.0)
    values = [cosine(step, 100) for step in range(101)]
    assert all(a > b for a, b in pairwise(values))
    for step, value in enumerate(values):
        assert value == pytest.approx((1 + math.cos(math.pi * step / 100)) / 2)


def test_warmup_rises_evenly_to_the_start_of_the_cosine() -> None:
    values = [cosine(step, 20, warmup=4) for step in range(21)]
    assert values[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert values[12] == pytest.approx(0.5)
    assert values[20] == pytest.approx(0.0)
    assert [cosine(step, 3, warmup=3) for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert cosine(0, 0) == 1.0


def test_linear() -> None:
    assert [linear(step, 10) for step in range(11)] == pytest.approx([1 - step / 10 for step in range(11)])
    values = [linear(step, 20, warmup=4) for step in range(21)]
    assert values[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert values[4:] == pytest.approx([1 - step / 16 for step in range(17)])
    assert linear(0, 0) == 1.0


@pytest.mark.parametrize("schedule", [cosine, linear])
def test_a_floor_is_where_the_fall_ends(schedule: Callable[..., float]) -> None:
    for step in range(11):
        plain, floored = schedule(step, 10, 3), schedule(step, 10, 3, 0.2)
        assert floored == pytest.approx(plain if step < 3 else 0.2 + 0.8 * plain)
    assert schedule(10, 10, 3, 0.2) == pytest.approx(0.2)
    assert schedule(5, 10, 3, 1.0) == 1


def test_run_log_appends_json_lines(tmp_path: Path) -> None:
    for start in (0, 2):
        with RunLog(tmp_path / "run") as log:
            log.scalars("a", start + 1, {"loss": 0.5})
            log.scalars("a", start + 2, {"loss": 0.25})
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [(line["phase"], line["step"], line["loss"]) for line in lines] == [
        ("a", 1, 0.5), ("a", 2, 0.25), ("a", 3, 0.5), ("a", 4, 0.25),
    ]  # fmt: skip
    assert all(line["seconds"] >= 0 for line in lines)
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def read_log(folder: Path) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Phase and step of every scalar, in the JSON lines and in TensorBoard's files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    steps = [(tag.removesuffix("/loss"), e.step) for tag in events.Tags()["scalars"] for e in events.Scalars(tag)]
    return [(line["phase"], line["step"]) for line in lines], sorted(steps)


def test_what_lies_past_the_checkpoint_is_cut_off(tmp_path: Path) -> None:
    """Of every phase, in both files: after a crash no step stands there twice."""

    def write(log: RunLog, phase: str, steps: range) -> None:
        for step in steps:
            log.scalars(phase, step, {"loss": float(step)})

    with RunLog(tmp_path) as log:
        log.go_on_from({})
        write(log, "first", range(1, 21))
        kept = log.mark()
        write(log, "first", range(21, 24))  # lost with the crash
    with RunLog(tmp_path) as log:
        log.go_on_from(kept)
        assert log.mark() == kept  # nothing has been written yet
        write(log, "first", range(21, 31))
        write(log, "second", range(1, 4))
        kept = log.mark()
        write(log, "second", range(4, 6))
    with RunLog(tmp_path) as log:  # a phase that has ended says where it ended, then the one that is gone on with
        log.go_on_from({})
        log.go_on_from(kept)
        write(log, "second", range(4, 7))
    wanted = [*(("first", step) for step in range(1, 31)), *(("second", step) for step in range(1, 7))]
    assert read_log(tmp_path) == (wanted, sorted(wanted))


def test_without_a_checkpoint_all_of_the_log_goes(tmp_path: Path) -> None:
    for _ in range(2):
        with RunLog(tmp_path) as log:
            log.go_on_from({})
            log.scalars("a", 1, {"loss": 0.5})
    assert read_log(tmp_path) == ([("a", 1)], [("a", 1)])


def test_the_bar_is_on_standard_error_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("work", 2) as advance:
        advance("loss 1.0")
        advance()
    captured = capsys.readouterr()
    assert captured.out == ""
    with progress_bar("work", 2, shown=False) as advance:
        advance()
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_line_rises_and_falls() -> None:
    """The rate of SPOS: a straight line to 0."""
    assert [linear(step, 4) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert [linear(step, 6, warmup=2) for step in range(7)] == pytest.approx([1 / 3, 2 / 3, 1.0, 0.75, 0.5, 0.25, 0.0])
    assert {"cosine": cosine, "linear": linear} == SCHEDULES


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_the_step_and_saves_it(number: signal.Signals) -> None:
    """The step under way is whole in the checkpoint, and the handlers are as they were."""
    steps: list[int] = []
    saved: list[int] = []

    def step_of(step: int, rng: np.random.Generator) -> Metrics:
        if step == 4:
            os.kill(os.getpid(), number)
        steps.append(step)
        return {"loss": torch.tensor(1.0)}

    before = signal.signal(number, signal.default_int_handler)  # SIGINT is ignored where pytest runs in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            run_phase(
                "phase", step_of, saved.append, phase=0, start=0, total=9, seed=0, log=Lines(), log_every=3,  # type: ignore[arg-type]
                checkpoint_seconds=1e9, progress=False,
            )  # fmt: skip
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert steps == [0, 1, 2, 3, 4]
    assert saved == [5]


@pytest.mark.parametrize("at", [3, 9])
def test_a_stop_while_a_step_is_being_saved_is_not_lost(at: int) -> None:
    """Not even the last one's, after which no step would ask."""
    steps: list[int] = []

    def step_of(step: int, rng: np.random.Generator) -> Metrics:
        steps.append(step)
        return {"loss": torch.tensor(1.0)}

    def save(done: int) -> None:
        if done == at:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_phase(
                "phase", step_of, save, phase=0, start=0, total=9, seed=0, log=Lines(), log_every=3,  # type: ignore[arg-type]
                checkpoint_seconds=0, progress=False,
            )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(steps) == min(at + 1, 9)


def test_a_second_stop_does_not_wait() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with stopping_after_a_step() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.asked
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping_after_a_step() as stop:
            os.kill(os.getpid(), signal.SIGINT)
        assert not stop.asked
    finally:
        signal.signal(signal.SIGINT, before)

"""Times ONNX files with ONNX Runtime, one after the other in random order, again and again; needs numpy and onnxruntime, nothing else.

    python runner.py                       # times the files of its own folder, writes measured.csv there
    python runner.py --help

Each round visits every file once, in an order of its own: a fresh session, runs to warm up, then short repeats. Between them another file
is run, always the same one, the yardstick. What slows the machine down for a while (another program, heat, a lower frequency) slows both
down, so a visit gives their ratio, the median over its repeats, and the least time of a repeat. A file's time is either the median ratio
of its visits, times what the yardstick takes where the machine is quiet, or the least time of all its repeats: whichever odd and even
rounds agree on better. (Short runs fit between two disturbances, long ones do not.) Rounds end when they agree, or after --rounds of
them. With one thread times are processor times, in which the turns of other programs are not counted; with more they are those of the
clock on the wall.

Every visit is appended to readings.csv at once: run the same command again to go on after a kill.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MANIFEST = "manifest.json"
FORMAT = "snugnet-profile-bundle"
VERSION = 1
READINGS = "readings.csv"
MEASURED = "measured.csv"
COLUMNS = ("round", "file", "ratio", "least_ms", "ms", "yardstick_ms", "mJ")
WARM_UP = 3
LEAST_REPEATS = 5
LEAST_ROUNDS = 6
AGREED = 0.005
"""Rounds end when odd and even ones differ by this share at the median over files."""
QUIET = 0.05
"""The yardstick's time is that of its quickest visits: this share of them is quicker still."""
_TRIES = 100
_ENERGY_SECONDS = 0.5
NOISY = 0.1
"""The machine is said to be noisy where the yardstick takes this share more at the median, or odd and even rounds differ by a quarter of it."""


class RunnerError(ValueError):
    """What cannot be measured; the message says why and what to do."""


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        threads: of each run.
        rounds: at most so many.
        seconds: of repeats in one visit of a block; a whole network has five times that.
        provider: ONNX Runtime's execution provider.
        meter: of energy: ``none``, ``rapl`` (a CPU's packages, on Linux) or ``nvml`` (an NVIDIA GPU).
        pin: whether a visit stays on some cores, others each time, where the system can do that.
    """

    threads: int = 1
    rounds: int = 60
    seconds: float = 0.02
    provider: str = "CPUExecutionProvider"
    meter: str = "none"
    pin: bool = True

    def __post_init__(self) -> None:
        if self.threads < 1 or self.rounds < 1 or not 0 < self.seconds <= 60:
            raise RunnerError("at least one thread and one round, and more than 0 and at most 60 seconds a visit")


# -- the bundle --------------------------------------------------------------------------------------------------------


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle, every file checked against its checksum.

    Raises:
        RunnerError: a file is missing or altered, or the bundle is of another version.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunnerError(f"cannot read {path}: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise RunnerError(f"{path} is not the manifest of a bundle")
    if manifest.get("version") != VERSION:
        raise RunnerError(
            f"{folder} is a bundle of version {manifest.get('version')}, this runner takes {VERSION}; write the bundle anew"
        )
    for name, each in manifest["files"].items():
        file = folder / f"{name}.onnx"
        if not file.is_file():
            raise RunnerError(f"{folder} lacks {file.name}; copy the whole folder, or write the bundle anew")
        if hashlib.sha256(file.read_bytes()).hexdigest() != each["sha256"]:
            raise RunnerError(f"{file} is truncated or altered (its checksum differs); copy the folder again")
    return manifest


# -- energy ------------------------------------------------------------------------------------------------------------


def energy_meter(name: str) -> Callable[[], float] | None:
    """A counter of millijoules; ``None`` for ``none``.

    Raises:
        RunnerError: there is none here.
    """
    if name == "none":
        return None
    return {"rapl": _rapl, "nvml": _nvml}[name]()


def _rapl(root: Path = Path("/sys/class/powercap")) -> Callable[[], float]:
    """Energy of all packages of a CPU, from Linux's powercap files."""
    packages = sorted(each for each in root.glob("intel-rapl:*") if each.name.count(":") == 1)
    if not packages:
        raise RunnerError(
            f"no RAPL here: {root} lists no intel-rapl package (a virtual machine has none); leave out --meter"
        )
    try:
        wraps = [int((each / "max_energy_range_uj").read_text()) for each in packages]
        last = [int((each / "energy_uj").read_text()) for each in packages]
    except OSError as error:
        raise RunnerError(
            f"cannot read {error.filename}: {error.strerror}; RAPL's counters want root's rights"
        ) from error
    total = 0.0

    def read() -> float:
        nonlocal total
        for i, package in enumerate(packages):
            now = int((package / "energy_uj").read_text())
            total += (now - last[i] if now >= last[i] else now + wraps[i] - last[i]) / 1e3
            last[i] = now
        return total

    return read


def _nvml() -> Callable[[], float]:
    """Energy of the first NVIDIA GPU, from the driver's own library."""
    try:
        library = ctypes.CDLL("nvml.dll" if platform.system() == "Windows" else "libnvidia-ml.so.1")
    except OSError as error:
        raise RunnerError("no NVML here: the NVIDIA driver's library is not found; leave out --meter") from error
    handle, value = ctypes.c_void_p(), ctypes.c_ulonglong()

    def call(function: str, *arguments: Any) -> None:
        if code := getattr(library, function)(*arguments):
            raise RunnerError(
                f"NVML cannot say the GPU's energy ({function} gives error {code}; Volta and later count it)"
            )

    call("nvmlInit_v2")
    call("nvmlDeviceGetHandleByIndex_v2", 0, ctypes.byref(handle))

    def read() -> float:
        call("nvmlDeviceGetTotalEnergyConsumption", handle, ctypes.byref(value))
        return float(value.value)

    read()
    return read


# -- one visit ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """One visit of a file.

    Attributes:
        round: its number.
        file: its name, without ``.onnx``.
        ratio: of a run's time to the yardstick's beside it, the median over repeats.
        least_ms: a run's time, the least over repeats.
        ms: a run's time, the median over repeats.
        yardstick_ms: the yardstick's, the median over repeats.
        mj: energy of a run; NaN where none is measured.
    """

    round: int
    file: str
    ratio: float
    least_ms: float
    ms: float
    yardstick_ms: float
    mj: float = float("nan")


class Timed:
    """A file that is loaded and can be run."""

    def __init__(self, path: Path, settings: Settings) -> None:
        """Load it, and run it until it is warm.

        Raises:
            RunnerError: ONNX Runtime cannot.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=[settings.provider])
        except Exception as error:  # ONNX Runtime's own classes are no part of its interface
            said = " ".join(str(error).split())[:200]
            raise RunnerError(f"ONNX Runtime {onnxruntime.__version__} cannot load {path.name}: {said}") from error
        if settings.provider not in self.session.get_providers():  # it takes another one without a word
            there = ", ".join(onnxruntime.get_available_providers())
            raise RunnerError(f"ONNX Runtime cannot use {settings.provider} here; --provider is one of {there}")
        entry = self.session.get_inputs()[0]
        self.feed = {entry.name: np.random.default_rng(0).standard_normal(entry.shape, dtype=np.float32)}
        self.clock = time.thread_time_ns if _counts_processor_time(settings) else time.perf_counter_ns
        self.ms = min(self.run(1) for _ in range(WARM_UP))

    def run(self, times: int) -> float:
        """Milliseconds of one run, of so many in a row."""
        for _ in range(_TRIES):
            began = self.clock()
            for _ in range(times):
                self.session.run(None, self.feed)
            if (taken := self.clock() - began) > 0:  # a clock that was set back says nothing
                return taken / times / 1e6
        raise RunnerError("the clock stands still, or goes back, while a file runs; nothing can be timed here")


def visit(
    path: Path, number: int, yardstick: Timed, settings: Settings, meter: Callable[[], float] | None = None
) -> Reading:
    """Time one file once more; repeats of it and of the yardstick take turns, about as long.

    Raises:
        RunnerError: ONNX Runtime cannot run it, or the clock stands.
    """
    subject = Timed(path, settings)
    runs = max(1, round(yardstick.ms / subject.ms))
    beats = max(1, round(subject.ms / yardstick.ms / 4))
    seconds = settings.seconds * (5 if path.name.startswith("network") else 1)
    times: list[float] = []
    beside = [yardstick.run(beats)]
    end = time.perf_counter() + seconds
    while len(times) < LEAST_REPEATS or time.perf_counter() < end:
        times.append(subject.run(runs))
        beside.append(yardstick.run(beats))
    ratios = np.array(times) / ((np.array(beside[1:]) + np.array(beside[:-1])) / 2)
    energy = float("nan") if meter is None else _energy(subject, meter)
    return Reading(
        number, path.stem, float(np.median(ratios)), least(times), float(np.median(times)), float(np.median(beside)), energy
    )  # fmt: skip


def least(times: Sequence[float]) -> float:
    """The least of some times, without what a jump of the clock has made shorter: less than half of the median.

    A jump forward needs no care: neither the least nor the median sees it.
    """
    half = float(np.median(times)) / 2
    return min(each for each in times if each >= half)


def _energy(subject: Timed, meter: Callable[[], float]) -> float:
    """Millijoules of one run; counters move every few milliseconds, so of very many."""
    before, runs, end = meter(), 0, time.perf_counter() + _ENERGY_SECONDS
    while time.perf_counter() < end or not runs:
        subject.run(1)
        runs += 1
    return (meter() - before) / runs


def _counts_processor_time(settings: Settings) -> bool:
    """One thread's processor time is that of the run, where the system's counter is fine enough."""
    fine = time.get_clock_info("thread_time").resolution <= 1e-6 if hasattr(time, "thread_time") else False
    return fine and settings.threads == 1 and settings.provider == "CPUExecutionProvider"


# -- all of them -------------------------------------------------------------------------------------------------------


def measure(
    folder: Path,
    settings: Settings,
    out: Path | None = None,
    *,
    fresh: bool = False,
    on_visit: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Time all files of a bundle, or go on where the readings stand.

    Args:
        folder: the bundle.
        settings: how to measure.
        out: folder for the readings and ``measured.csv``; the bundle's own without it.
        fresh: throw the readings away that are there.
        on_visit: told after each visit how many there were, and how many there are at most.

    Returns:
        The path of ``measured.csv``.

    Raises:
        RunnerError: the bundle is damaged, or readings with other settings are there.
    """
    manifest = read_manifest(folder)
    meter = energy_meter(settings.meter)
    out = folder if out is None else out
    out.mkdir(parents=True, exist_ok=True)
    log = out / READINGS
    if fresh:
        log.unlink(missing_ok=True)
    head = _head(manifest, settings)
    yardstick = Timed(folder / f"{manifest['yardstick']}.onnx", settings)
    readings = read_readings(log, head)
    names = sorted(manifest["files"])
    cores = sorted(os.sched_getaffinity(0)) if settings.pin and hasattr(os, "sched_getaffinity") else []
    total = settings.rounds * len(names)
    try:
        with log.open("a", encoding="utf-8") as file:
            if not readings:
                file.write("".join(f"# {key}: {value}\n" for key, value in head.items()) + ",".join(COLUMNS) + "\n")
            while (number := _next_round(readings, names, settings.rounds)) is not None:
                have = {each.file for each in readings if each.round == number}
                order = np.random.default_rng(number).permutation(len(names))
                for place, i in enumerate(order):
                    if names[i] in have:
                        continue
                    if cores:  # other cores every time: on a busy machine one of them may be busier than the others
                        first = number + place
                        chosen = {cores[(first + k) % len(cores)] for k in range(settings.threads)}
                        os.sched_setaffinity(0, chosen)
                    reading = visit(folder / f"{names[i]}.onnx", number, yardstick, settings, meter)
                    readings.append(reading)
                    file.write(_line(reading) + "\n")
                    file.flush()
                    on_visit(len(readings), total)
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
    return _summarise(out / MEASURED, readings, names, head, settings)


def _next_round(readings: list[Reading], names: list[str], most: int) -> int | None:
    """The first round that is not whole; ``None`` where there are enough."""
    counts: dict[int, int] = {}
    for each in readings:
        counts[each.round] = counts.get(each.round, 0) + 1
    whole = next((i for i in range(most) if counts.get(i, 0) < len(names)), most)
    if whole >= most or (whole >= LEAST_ROUNDS and not counts.get(whole) and disagreement(readings)[0] <= AGREED):
        return None
    return whole


ESTIMATES: dict[str, Callable[[list[Reading]], float]] = {
    "ratio": lambda own: float(np.median([each.ratio for each in own])),
    "least": lambda own: min(each.least_ms for each in own),
}
"""What a file's time is taken from, of its visits."""


def disagreement(readings: list[Reading]) -> tuple[float, str]:
    """By what share odd and even rounds differ, at the median over files, and by which of :data:`ESTIMATES` they differ least.

    Infinite before there are two rounds.
    """
    halves: tuple[dict[str, list[Reading]], dict[str, list[Reading]]] = ({}, {})
    for each in readings:
        halves[each.round % 2].setdefault(each.file, []).append(each)
    both = halves[0].keys() & halves[1].keys()
    if not both:
        return float("inf"), "ratio"
    return min(
        (float(np.median([abs(of(halves[0][name]) / of(halves[1][name]) - 1) for name in both])), how)
        for how, of in ESTIMATES.items()
    )


def _head(manifest: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """What the readings depend on; readings of anything else are not gone on with."""
    import onnxruntime

    return {
        "bundle": manifest["id"],
        "version": manifest["version"],
        **manifest["about"],
        "machine": f"{platform.node()} {platform.system()} {platform.machine()} {_processor()}",
        "runtime": f"onnxruntime {onnxruntime.__version__} {settings.provider}",
        "threads": settings.threads,
        "clock": "processor time" if _counts_processor_time(settings) else "wall clock",
        "meter": settings.meter,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = {line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Hardware"))}
    return ", ".join(sorted(names)) or platform.processor()


def _line(reading: Reading) -> str:
    numbers = (reading.ratio, reading.least_ms, reading.ms, reading.yardstick_ms, reading.mj)
    return ",".join([str(reading.round), reading.file, *(f"{value:.6g}" for value in numbers)])


def read_readings(path: Path, head: dict[str, Any]) -> list[Reading]:
    """What was read so far; a line that a kill has cut off is cut out of the file.

    Raises:
        RunnerError: it was read from another bundle, on another machine, or with other settings.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    there = dict(line[2:].partition(": ")[::2] for line in lines if line.startswith("# "))
    body = [
        line for line in lines[:-1] if line and not line.startswith("#")
    ]  # what ends without a line break was cut off
    if not body:
        path.unlink()
        return []
    for key, value in head.items():
        if there.get(key) != str(value):
            raise RunnerError(
                f"{path} was read with {key} {there.get(key)!r}, now it is {str(value)!r}; --fresh throws it away"
            )
    readings = [reading for line in body[1:] if (reading := _parsed(line)) is not None]
    if lines[-1]:
        with path.open("r+", encoding="utf-8") as file:
            file.truncate(len("\n".join(lines[:-1]).encode()) + 1)
    return readings


def _parsed(line: str) -> Reading | None:
    try:
        number, name, *values = line.split(",")
        ratio, least, ms, yardstick, mj = map(float, values)
        return Reading(int(number), name, ratio, least, ms, yardstick, mj)
    except ValueError:
        return None


def _summarise(path: Path, readings: list[Reading], names: list[str], head: dict[str, Any], settings: Settings) -> Path:
    """Write ``measured.csv``: a row a file, under lines that say what it was measured on."""
    by: dict[str, list[Reading]] = {name: [] for name in names}
    for each in readings:
        by[each.file].append(each)
    beats = np.array([each.yardstick_ms for each in readings])
    beat = float(np.quantile(beats, QUIET))
    energy = settings.meter != "none"
    differ, how = disagreement(readings)
    rows = []
    for name, own in by.items():
        first, ratio, third = np.quantile([each.ratio for each in own], [0.25, 0.5, 0.75])
        value = ESTIMATES[how](own) * (beat if how == "ratio" else 1)
        seen = np.median([each.ms for each in own])
        cells = [name, f"{value:.6g}", f"{(third - first) / ratio:.4f}", f"{seen:.6g}", str(len(own))]
        rows.append(",".join([*cells, f"{np.median([each.mj for each in own]):.6g}"] if energy else cells))
    said = {
        **head,
        "rounds": max(each.round for each in readings) + 1,
        "date": time.strftime("%Y-%m-%d"),
        "estimate": how,
        "disagreement": f"{differ:.4f}",
        "slowed": f"{np.median(beats) / beat - 1:.3f}",
        **({"load": f"{os.getloadavg()[0]:.2f}"} if hasattr(os, "getloadavg") else {}),
    }
    columns = "file,ms,spread,seen_ms,visits" + (",mJ" if energy else "")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    text = "\n".join([*(f"# {key}: {value}" for key, value in said.items()), columns, *rows, ""])
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
    return path


def noise(path: Path) -> str:
    """What ``measured.csv`` says of the machine's noise, in a line; empty where it was quiet."""
    lines = path.read_text(encoding="utf-8").splitlines()
    said = dict(line[2:].partition(": ")[::2] for line in lines if line.startswith("# "))
    differ, slowed = float(said["disagreement"]), float(said["slowed"])
    if differ <= NOISY / 4 and slowed <= NOISY:
        return ""
    return (
        f"the machine is noisy: runs took {slowed:.0%} more than where it was quiet, and odd and even rounds differ by {differ:.1%}; "
        "files beside one another still compare, their milliseconds are less sure: measure again when less runs there"
    )


# -- the command -------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 2 wrong input, 130 interrupted."""
    default = Settings()
    parser = argparse.ArgumentParser(
        description="Times the ONNX files of a bundle; run it again to go on after a kill."
    )
    parser.add_argument(
        "bundle", nargs="?", type=Path, default=Path(__file__).resolve().parent, help="this file's folder without it"
    )
    parser.add_argument("--out", type=Path, help=f"folder for {MEASURED} and {READINGS}; the bundle's own without it")
    parser.add_argument("--threads", type=int, default=default.threads)
    parser.add_argument("--rounds", type=int, default=default.rounds, help="at most so many")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="of repeats in one visit of a block")
    parser.add_argument("--provider", default=default.provider, help="ONNX Runtime's execution provider")
    parser.add_argument("--meter", choices=["none", "rapl", "nvml"], default=default.meter, help="measure energy too")
    parser.add_argument("--no-pin", dest="pin", action="store_false", help="let the system choose the cores")
    parser.add_argument("--fresh", action="store_true", help="throw earlier readings away")
    given = parser.parse_args(arguments)
    try:
        settings = Settings(given.threads, given.rounds, given.seconds, given.provider, given.meter, given.pin)
        path = measure(given.bundle, settings, given.out, fresh=given.fresh, on_visit=_show)
    except (RunnerError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130
    print(noise(path) or "the machine was quiet enough", file=sys.stderr)
    print(path)
    return 0


def _show(done: int, total: int) -> None:
    if done % 10 == 0 or done == total:
        print(f"\r{done} of at most {total} visits", end="\n" if done == total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

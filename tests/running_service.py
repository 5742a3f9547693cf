"""``snugnet serve`` as a process, for tests of the service and of its page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

SOURCE = Path(__file__).resolve().parents[1] / "src"


@contextmanager
def process(
    *arguments: str | Path, start: tuple[str, ...] = ("-m", "snugnet"), workers: int = 1, **limits: Any
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A service by itself with all its processes, and its address; killed if it has not ended."""
    running = subprocess.Popen(
        [sys.executable, *start, "serve", *map(str, arguments), "--workers", str(workers)],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}, **limits,
    )  # fmt: skip
    assert running.stderr is not None
    log: list[str] = []
    reading = threading.Thread(target=log.extend, args=(running.stderr,), daemon=True)
    reading.start()
    try:
        wait(lambda: "".join(log).count("Application startup complete") == workers or running.poll() is not None)
        found = re.search(r"^serving .* at (http://127.0.0.1:\d+) ", "".join(log), re.MULTILINE)
        assert found, log
        yield running, found[1]
    finally:
        running.kill()
        running.wait()
        reading.join(10)
        assert not reading.is_alive(), "processes of the service are left"
        assert "Traceback" not in "".join(log), log


def wait(until: Callable[[], bool]) -> None:
    """Until something is so; two minutes at most, for machines that are busy."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            if until():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("it has not come about")

"""The service as it is run: ``snugnet serve``, its processes and signals; and who asks it from Python or the command line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest

from snugnet.client import Client
from snugnet.errors import RemoteError
from snugnet.family import load_family

SOURCE = Path(__file__).resolve().parents[2] / "src"
# a network that takes forever to make, in a process whose number is told
SLOW = """
import os, time
from pathlib import Path
from snugnet.serve import hosted
def file(self, network, suffix):
    Path(os.environ["NOTE"]).write_text(str(os.getpid()))
    time.sleep(100)
hosted.Hosted.file = file
from snugnet.cli.main import main
main()
"""


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
    """Until something is so; half a minute at most."""
    for _ in range(600):
        try:
            if until():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("it has not come about")


def test_workers_reload_end_and_survive_one_another(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "digits"
    changed = load_family(folder)
    changed.save(own)
    (tmp_path / "broken").mkdir()
    options = ("--port", "0", "--cache", tmp_path / "cache")
    with process(own, tmp_path / "broken", *options, workers=2) as (running, url):
        service = Client(url)
        before = service.specialize("digits", "round", madds="50%")
        assert [each["available"] for each in service.families()] == [True, False]
        assert onnx.load_from_string(service.download(before))

        workers = _children(running.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)  # the other one answers, and another comes
        wait(lambda: len(set(_children(running.pid)) - {workers[0]}) == 2)
        assert service.specialize("digits", "round", madds="50%") == before

        changed.mean = (0.4, 0.4, 0.4)
        changed.save(own)
        running.send_signal(signal.SIGHUP)
        wait(
            lambda: {service.specialize("digits", "round", madds="50%")["id"] for _ in range(20)}.isdisjoint(
                {before["id"]}
            )
        )
        text = httpx.get(f"{url}/v1/metrics", trust_env=False).text  # of both
        assert 'route="/v1/families/{family}/networks",status="200"' in text

        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0
    with pytest.raises(RemoteError, match="does not answer"):
        service.families()


def _children(process_id: int) -> list[int]:
    """Processes that answer requests: those that a process began, but for what multiprocessing keeps for itself."""
    found = []
    for each in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split():
        try:
            if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes():
                found.append(int(each))
        except OSError:
            continue
    return found


def test_killed_while_it_builds_and_a_full_disk(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = tmp_path / "note"
    monkeypatch.setenv("NOTE", str(note))
    options = ("--port", "0", "--cache", tmp_path / "cache")
    with process(folder, *options, start=("-c", SLOW)) as (running, url):
        network = Client(url).specialize("digits", "round", madds="0%")
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(httpx.get, f"{url}/v1/families/digits/networks/{network['id']}.onnx", trust_env=False)
            wait(note.exists)
            running.kill()
            assert isinstance(asking.exception(), httpx.TransportError)

    def no_room() -> None:  # a disk on which no file can grow: the stand-in for one that is full
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    with process(folder, *options, preexec_fn=no_room) as (_, url):
        service = Client(url)
        content = service.download(network)
        assert onnx.load_from_string(content)
        assert service.download(network) == content
    assert not list((tmp_path / "cache").glob("*.bin"))
    assert not list((tmp_path / "cache").glob("*.tmp"))

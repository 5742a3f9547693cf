"""The service as it is run: ``snugnet serve``, its processes and signals; and who asks it from Python or the command line."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import onnx
import pytest
from running_service import process, wait

from snugnet.client import Client
from snugnet.errors import RemoteError
from snugnet.family import load_family

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

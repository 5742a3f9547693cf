"""Files that are made once, kept within bounds, and never wrong."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from snugnet.serve import store as module
from snugnet.serve.store import Store

SOURCE = Path(__file__).resolve().parents[2] / "src"


def store(folder: Path, disk: int = 10_000, memory: int = 10_000) -> tuple[Store, Counter[str]]:
    """A store, and where it found what it was asked for."""
    hits: Counter[str] = Counter()
    return Store(folder, disk, memory, lambda place: hits.update([place])), hits


def files(folder: Path) -> list[Path]:
    """What lies on the disk."""
    return sorted(path for path in folder.glob("*") if path.is_file())


def test_made_once_however_many_ask(tmp_path: Path) -> None:
    stores = [store(tmp_path), store(tmp_path)]  # two processes, as far as a lock goes
    made = Counter[str]()

    def make() -> bytes:
        made["made"] += 1
        time.sleep(0.05)
        return b"content"

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: stores[i % 2][0].make("a key / .. \0", make), range(16)))
    assert {each.data for each in found} == {b"content"}
    assert made["made"] == 1
    assert stores[0][1]["made"] + stores[1][1]["made"] == 1
    fresh, hits = store(tmp_path)
    assert fresh.recent("a key / .. \0") is None
    assert fresh.stored("a key / .. \0") == found[0]
    assert hits == {"disk": 1}
    assert fresh.recent("a key / .. \0") == found[0]
    assert all(path.name.endswith(".bin") and len(path.stem) == 64 for path in files(tmp_path))


def test_bounds_on_the_disk_and_in_memory(tmp_path: Path) -> None:
    own, _ = store(tmp_path, disk=40_000, memory=20_000)
    for i in range(10):
        own.make(f"{i}", lambda i=i: bytes([i]) * 8000)
        os.utime(files(tmp_path)[0])
        time.sleep(0.01)
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 40_000
    assert own.recent("9") is not None
    assert own.recent("5") is None
    assert own.stored("9") is not None
    assert (
        own.make("large", lambda: b"x" * 50_000).data == b"x" * 50_000
    )  # larger than both: it is handed out all the same
    assert own.recent("large") is None
    assert own.stored("large") is None


def test_what_was_asked_for_stays(tmp_path: Path) -> None:
    own, _ = store(tmp_path, disk=40_000, memory=1)
    for name in "abcd":
        own.make(name, lambda: b"x" * 8000)
        time.sleep(0.01)
    assert own.stored("a") is not None
    own.make("e", lambda: b"x" * 8000)
    assert own.stored("a") is not None
    assert own.stored("b") is None


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    store(tmp_path)[0].make("a", lambda: b"right")
    (path,) = files(tmp_path)
    for damaged in (path.read_bytes()[:-1], b"", path.read_bytes() + b"x"):
        path.write_bytes(damaged)
        own, _ = store(tmp_path)
        assert own.stored("a") is None
        assert own.make("a", lambda: b"right").data == b"right"
        assert store(tmp_path)[0].stored("a") is not None


def test_a_full_disk_costs_time_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "write_atomically", full)
    own, _ = store(tmp_path)
    assert own.make("a", lambda: b"content").data == b"content"
    assert own.recent("a") is not None
    assert own.stored("a") is None


def test_a_folder_that_cannot_be_written_costs_time_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    own, _ = store(tmp_path / "file" / "below")  # below a file there is no folder, whoever runs this
    assert own.make("a", lambda: b"content").data == b"content"
    assert own.stored("a") is None


def test_a_build_that_fails_is_tried_again(tmp_path: Path) -> None:
    own, _ = store(tmp_path)

    def fail() -> bytes:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        own.make("a", fail)
    assert own.make("a", lambda: b"content").data == b"content"


def test_a_process_killed_while_it_makes_holds_up_nobody(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from snugnet.serve.store import Store
def make():
    print("making", flush=True)
    time.sleep(100)
Store(Path(sys.argv[1]), 10000, 10000).make("a", make)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"making\n"
    own, _ = store(tmp_path)
    found: list[bytes] = []
    waiting = threading.Thread(target=lambda: found.append(own.make("a", lambda: b"content").data))
    waiting.start()
    time.sleep(0.2)
    assert not found  # the other one is at it
    process.send_signal(signal.SIGKILL)
    process.wait()
    waiting.join(20)
    assert found == [b"content"]


def test_what_killed_writers_left_goes(tmp_path: Path) -> None:
    old, new = (tmp_path / f".{'0' * 64}.bin.{i}.tmp" for i in (1, 2))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    store(tmp_path)[0].make("a", lambda: b"content")
    assert not old.exists()
    assert new.exists()  # somebody may be at it


def test_what_is_not_of_the_store_stays(tmp_path: Path) -> None:
    """A folder that somebody keeps other things in, however old and large they are."""
    others = [tmp_path / name for name in ("thesis.txt", "weights.bin", ".thesis.txt.1.tmp")]
    for path in others:
        path.write_bytes(b"x" * 50_000)
        os.utime(path, (0, 0))
    own, _ = store(tmp_path, disk=10_000)
    for i in range(5):
        own.make(f"{i}", lambda: b"content")
    assert all(path.stat().st_size == 50_000 for path in others)
    assert len(files(tmp_path)) == len(others) + 2  # the smallest entry counts what a disk takes for it


def test_small_entries_are_bounded_in_memory(tmp_path: Path) -> None:
    own, _ = store(tmp_path, memory=10_000)
    for i in range(5):
        own.make(f"{i}", lambda: b"x")
    assert [own.recent(f"{i}") is not None for i in range(5)] == [False, False, False, True, True]

"""Files whole or not at all; folders for one process at a time."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from snugnet.errors import BusyError
from snugnet.files import LOCK, locked, remove_temporaries, write_atomically

HOLD = """
import sys, time
from pathlib import Path
from snugnet.files import locked
with locked(Path(sys.argv[1])):
    print("has it", flush=True)
    time.sleep(60)
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """A process that has the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "has it\n"
    return process


def test_writers_of_one_path_do_not_share_a_temporary_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even writers on two machines with the same process and thread numbers."""
    names: list[str] = []
    opened = Path.open

    def spy(self: Path, *arguments: object, **others: object) -> object:
        names.append(self.name)
        return opened(self, *arguments, **others)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", spy)
    for _ in range(3):
        write_atomically(tmp_path / "a", b"x")
    assert len(set(names)) == 3
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: write_atomically(tmp_path / "a", bytes([i]) * 1000), range(64)))
    assert len(set((tmp_path / "a").read_bytes())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".a.0123.tmp").write_bytes(b"half")
    (tmp_path / ".b.0123.tmp").write_bytes(b"another's")
    remove_temporaries(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == [".b.0123.tmp"]
    (tmp_path / ".b-1.x.0123.tmp").write_bytes(b"half")
    remove_temporaries(tmp_path / "b-*.x")
    assert [path.name for path in tmp_path.iterdir()] == [".b.0123.tmp"]


def test_another_process_is_named(tmp_path: Path) -> None:
    process = holder(tmp_path / "run")
    try:
        with (
            pytest.raises(BusyError, match=rf"run is in use by process {process.pid} on .* since 2.*; wait"),
            locked(tmp_path / "run"),
        ):
            pytest.fail("both have it")
        with locked(tmp_path / "other"):
            pass
    finally:
        process.kill()
        process.wait()
    with locked(tmp_path / "run"):  # a killed process has nothing locked
        assert (tmp_path / "run" / LOCK).exists()
    assert list((tmp_path / "run").iterdir()) == []


def test_the_same_process_may_take_it_again(tmp_path: Path) -> None:
    with locked(tmp_path):
        with locked(tmp_path / "." / ".." / tmp_path.name):
            pass
        probe = "import sys\nfrom pathlib import Path\nfrom snugnet.files import locked\nwith locked(Path(sys.argv[1])): pass"
        still = subprocess.run(
            [sys.executable, "-c", probe, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert "BusyError" in still.stderr
    process = holder(tmp_path)
    process.kill()
    process.wait()


def test_another_thread_is_kept_out_as_well(tmp_path: Path) -> None:
    def take() -> None:
        with locked(tmp_path):
            pass

    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path), pytest.raises(BusyError, match="in use by another thread of this process"):
            pool.submit(take).result()
        pool.submit(take).result()


@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_locks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Some network file systems: work goes on there, and nobody is said to be in the way."""
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(code, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path), locked(tmp_path):
        assert list(tmp_path.iterdir()) == []
    with locked(tmp_path):
        pass


def test_of_many_processes_one_has_it_at_a_time(tmp_path: Path) -> None:
    """The file of the lock is removed and made again all the time, and still nobody shares it."""
    race = """
import sys, time
from pathlib import Path
from snugnet.errors import BusyError
from snugnet.files import locked
folder, inside, taken = Path(sys.argv[1]), Path(sys.argv[2]), 0
end = time.monotonic() + 1.5
while time.monotonic() < end:
    try:
        with locked(folder):
            inside.mkdir()  # fails where another is inside
            inside.rmdir()
            taken += 1
    except BusyError:
        pass
print(taken)
"""
    run = [sys.executable, "-c", race, str(tmp_path / "run"), str(tmp_path / "inside")]
    processes = [subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    started = time.monotonic()
    results = [process.communicate(timeout=60) for process in processes]
    assert [error for _, error in results] == [""] * 3, time.monotonic() - started
    assert sum(int(taken) for taken, _ in results) > 3

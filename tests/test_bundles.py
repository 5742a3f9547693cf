"""A save that is ended at any point leaves the old thing or the new one, whole."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from snugnet.bundles import FAMILY, index_checksum
from snugnet.errors import BusyError, FamilyError
from snugnet.files import LOCK

OLD = {"a.bin": b"old a" * 50, "b.npz": b"the same in both", "c.bin": b"old c"}
NEW = {"a.bin": b"new a" * 70, "b.npz": b"the same in both", "c.bin": b"new c"}
CALLS = ("open", "fsync", "replace", "unlink")
"""Where a save touches the disk."""


def save(folder: Path, contents: dict[str, bytes], what: str) -> None:
    FAMILY.write(folder, {"is": what}, contents)


def check_whole(folder: Path) -> str:
    """Which of the two is there; every file of it is."""
    index, contents = FAMILY.read(folder, list(OLD))
    assert contents == {"old": OLD, "new": NEW}[index["is"]]
    return str(index["is"])


class Killed(BaseException):
    """What a kill is like for the code that it ends: nothing catches it. (Clean-up in ``finally`` is stopped as well, below.)"""


def failing(monkeypatch: pytest.MonkeyPatch, at: int, error: Callable[[], BaseException], *, once: bool) -> list[int]:
    """Let the ``at``-th call that touches the disk fail, and (not once) all that come after it; returns a counter."""
    count = [0]

    def wrap(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(*arguments: Any, **others: Any) -> Any:
            count[0] += 1
            if count[0] == at or (count[0] > at and not once):
                raise error()
            return real(*arguments, **others)

        monkeypatch.setattr(owner, name, call)

    for name in ("fsync", "replace"):
        wrap(os, name)
    for name in ("unlink", "open"):
        wrap(Path, name)
    return count


def runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Callable[[], BaseException], *, once: bool
) -> Iterator[Path]:
    """Folders in which a save over an old thing has failed at the first call, the second, ... until it went through."""
    for at in range(1, 100):
        folder = tmp_path / str(at)
        save(folder, OLD, "old")
        with monkeypatch.context() as patch:
            count = failing(patch, at, error, once=once)
            with suppress(Killed, OSError):
                save(folder, NEW, "new")
        if count[0] < at:
            assert at > 10
            assert check_whole(folder) == "new"
            return
        yield folder
    pytest.fail("it never went through")


@pytest.mark.parametrize("once", [True, False])
def test_a_save_that_fails_at_any_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, once: bool) -> None:
    """A full disk, or a process that is ended: from the n-th call on, or that one alone."""
    found = []
    for folder in runs(tmp_path, monkeypatch, lambda: OSError(errno.ENOSPC, "No space left on device"), once=once):
        found.append(check_whole(folder))
        save(folder, NEW, "new")  # and the next save clears what was left
        assert check_whole(folder) == "new"
        assert len(list(folder.iterdir())) == 4, sorted(path.name for path in folder.iterdir())
    assert {"old", "new"} <= set(found)


def test_a_save_that_is_killed_at_any_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [check_whole(folder) for folder in runs(tmp_path, monkeypatch, Killed, once=False)]
    assert {"old", "new"} <= set(found)


def test_a_process_that_is_really_killed(tmp_path: Path) -> None:
    """SIGKILL at the n-th call: no clean-up at all."""
    script = """
import os, signal, sys
from pathlib import Path
from snugnet.bundles import FAMILY
at, count = int(sys.argv[2]), 0
def wrap(owner, name):
    real = getattr(owner, name)
    def call(*arguments, **others):
        global count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **others)
    setattr(owner, name, call)
for owner, name in ((os, "fsync"), (os, "replace"), (Path, "unlink"), (Path, "open")):
    wrap(owner, name)
FAMILY.write(Path(sys.argv[1]), {"is": "new"}, {"a.bin": b"new a" * 70, "b.npz": b"the same in both", "c.bin": b"new c"})
"""
    found = []
    for at in range(1, 100):
        folder = tmp_path / str(at)
        save(folder, OLD, "old")
        ended = subprocess.run([sys.executable, "-c", script, str(folder), str(at)], check=False).returncode
        found.append(check_whole(folder))
        save(
            folder, {name: content[::-1] for name, content in OLD.items()}, "other"
        )  # clears what was left, of any content
        assert len([path for path in folder.iterdir() if path.name != LOCK]) == 4
        if ended == 0:
            break
    assert found[0] == "old"
    assert found[-1] == "new"
    assert len(found) > 10


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_disk_that_is_full_in_the_middle_of_a_file(tmp_path: Path) -> None:
    """No file may grow past a limit: the write that passes it really fails, with half of the file written."""
    script = """
import resource, signal, sys
from pathlib import Path
from snugnet.bundles import FAMILY
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
FAMILY.write(Path(sys.argv[1]), {"is": "new"}, {"a.bin": b"new a" * 70, "b.npz": b"the same in both", "c.bin": b"new c"})
"""
    found = []
    for limit in (0, 200, 349, 350, 400, 10_000):  # nothing, half of the first file, all of it but not the index, all
        folder = tmp_path / str(limit)
        save(folder, OLD, "old")
        ended = subprocess.run(
            [sys.executable, "-c", script, str(folder), str(limit)], capture_output=True, text=True, check=False
        )
        found.append(check_whole(folder))
        assert ended.returncode == 0 or "File too large" in ended.stderr
        assert not [path for path in folder.iterdir() if path.suffix == ".tmp"]
    assert found == ["old"] * 5 + ["new"]


def test_two_threads_do_not_save_over_one_another(tmp_path: Path) -> None:
    """The one that comes second is refused; it would remove files that the first has written and not yet listed."""

    def write(i: int) -> int:
        try:
            save(tmp_path, NEW if i % 2 else OLD, "new" if i % 2 else "old")
        except BusyError:
            return 0
        return 1

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(write, range(200))) > 0
    assert check_whole(tmp_path) in ("old", "new")
    assert len(list(tmp_path.iterdir())) == 4


def test_two_writers_and_a_reader(tmp_path: Path) -> None:
    """Writers exclude each other, and whoever reads meanwhile gets one of the two, whole."""
    script = """
import sys, time
from pathlib import Path
from snugnet.bundles import FAMILY
from snugnet.errors import BusyError
contents, end, done = eval(sys.argv[3]), time.monotonic() + 2, 0
while time.monotonic() < end:
    try:
        FAMILY.write(Path(sys.argv[1]), {"is": sys.argv[2]}, contents)
        done += 1
    except BusyError:
        pass
print(done)
"""
    folder = tmp_path / "family"
    save(folder, OLD, "old")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(folder), what, repr(contents)], stdout=subprocess.PIPE, text=True
        )
        for what, contents in (("old", OLD), ("new", NEW))
    ]
    read = []
    while any(writer.poll() is None for writer in writers):
        read.append(check_whole(folder))
    assert all(int(writer.communicate()[0]) > 0 for writer in writers)
    assert all(writer.returncode == 0 for writer in writers)
    assert read
    check_whole(folder)


def test_a_second_writer_is_refused_while_one_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys\nfrom pathlib import Path\nfrom snugnet.bundles import FAMILY\nFAMILY.write(Path(sys.argv[1]), {}, {'a.bin': b'x'})"
    answers = []
    replace = os.replace

    def slow(*arguments: Any) -> None:
        if not answers:
            answers.append(
                subprocess.run(
                    [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
                )
            )
        replace(*arguments)

    monkeypatch.setattr(os, "replace", slow)
    save(tmp_path, NEW, "new")
    assert BusyError.__name__ in answers[0].stderr
    assert f"process {os.getpid()}" in answers[0].stderr
    assert check_whole(tmp_path) == "new"


def test_the_first_format_is_read_and_saved_over(tmp_path: Path) -> None:
    """Files under their plain names, as version 1 wrote them."""
    import hashlib
    import json

    files = {name: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in OLD.items()}
    index = {"format": "snugnet-family", "version": 1, "snugnet": "0.1.0", "is": "old", "files": files}
    (tmp_path / "family.json").write_text(json.dumps({**index, "sha256": index_checksum(index)}))
    for name, content in OLD.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "results.md").write_text("not ours")
    assert check_whole(tmp_path) == "old"
    save(tmp_path, NEW, "new")
    assert check_whole(tmp_path) == "new"
    assert not any((tmp_path / name).exists() for name in OLD)
    assert (tmp_path / "results.md").exists()


@pytest.mark.parametrize("stored", ["../secret", "/etc/hostname", "", 3, None])
def test_an_index_leads_nowhere_else(tmp_path: Path, stored: Any) -> None:
    import json

    save(tmp_path / "family", NEW, "new")
    path = tmp_path / "family" / "family.json"
    index = json.loads(path.read_text())
    index.pop("sha256")
    index["files"]["a.bin"]["file"] = stored
    (tmp_path / "secret").write_text("keep")
    path.write_text(json.dumps({**index, "sha256": index_checksum(index)}))
    with pytest.raises(FamilyError, match=r"does not list a\.bin|lacks"):
        FAMILY.read(tmp_path / "family", list(NEW))
    save(tmp_path / "family", OLD, "old")
    assert (tmp_path / "secret").read_text() == "keep"

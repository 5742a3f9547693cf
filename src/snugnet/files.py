"""Files that are written whole or not at all, and folders that one process works in at a time."""

from __future__ import annotations

import gzip
import json
import math
import os
import platform
import sys
import threading
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from snugnet.errors import BusyError, SnugnetError

LOCK = ".snugnet.lock"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_text(path: Path, wrong: type[SnugnetError], what: str = "") -> str:
    """The text of a file in UTF-8; a name that ends in ``.gz`` is unpacked, a byte-order mark is left out.

    Args:
        path: of the file.
        wrong: what to raise.
        what: it is, for the message, such as ``"the latency table "``.

    Raises:
        SnugnetError: ``wrong``, with the file's name: it cannot be read, or is not UTF-8.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
    except (OSError, EOFError, ValueError, zlib.error) as error:  # a path with a zero byte is a ValueError
        raise wrong(f"cannot read {what}{path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = f"byte {error.start} is 0x{content[error.start]:02x}"
        raise wrong(f"{path} is not UTF-8 text ({place}); save it as UTF-8") from error


def file_stamp(path: Path, beside: Path | None = None) -> list[Any]:
    """What tells whether a file has changed: its name (below ``beside``, if given), size and time; the name alone if there is none."""
    name = str(path) if beside is None else path.relative_to(beside).as_posix()
    try:
        found = path.stat()
    except OSError:
        return [name]
    return [name, found.st_size, found.st_mtime_ns]


def remove_temporaries(path: Path) -> None:
    """Remove what writers of a file left when they were killed; nobody else may be writing it now.

    Args:
        path: of the file; its name may be a pattern for several (``supernet-*.safetensors``).
    """
    for temporary in path.parent.glob(f".{path.name}.*.tmp"):
        temporary.unlink(missing_ok=True)


class _Held(NamedTuple):
    """A lock that this process has: the open file (None where the system has no such lock), the thread, how often it was taken."""

    file: IO[str] | None
    thread: int
    times: int


_held: dict[Path, _Held] = {}
_guard = threading.Lock()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes, and other threads of this one, out of a folder; the same thread may take it again inside.

    The lock is one that the system lets go of when its process ends, however it ends (``flock``), so a killed run locks nothing. The
    file :data:`LOCK` says meanwhile who has it. Where there is no such lock (Windows, some network file systems), other processes are
    not kept out.

    Args:
        folder: is made if needed.

    Raises:
        BusyError: somebody else works in it; the message names the process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own, thread = folder.resolve(), threading.get_ident()
    with _guard:
        held = _held.get(own) or _Held(_take(own), thread, 0)
        if held.thread != thread:
            raise _busy(own, "another thread of this process")
        _held[own] = held._replace(times=held.times + 1)
    try:
        yield
    finally:
        with _guard:
            held = _held.pop(own)
            if held.times > 1:
                _held[own] = held._replace(times=held.times - 1)
            elif held.file is not None:
                with held.file:
                    if _is_at(held.file, own / LOCK):  # else the folder was removed, and may be somebody else's by now
                        (own / LOCK).unlink(missing_ok=True)


def _take(folder: Path) -> IO[str] | None:
    try:
        import fcntl
    except ImportError:
        return None
    path = folder / LOCK
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                file.seek(0)
                raise _busy(folder, " ".join(file.read(1000).split()) or "another process") from None
        except OSError:  # a file system without such locks
            file.close()
            path.unlink(missing_ok=True)
            return None
        if _is_at(file, path):
            break
        file.close()  # the one who had it has just removed it: it locks nothing any more
    file.truncate(0)
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:120]
    file.write(f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')} ({command})\n")
    file.flush()
    return file


def _busy(folder: Path, holder: str) -> BusyError:
    return BusyError(f"{folder} is in use by {holder}; wait for its end, stop it, or give another folder")


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether an open file is the one that a path names."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can do that."""
    with suppress(OSError, AttributeError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def json_text(document: Any) -> str:
    """Standard JSON, indented: what is no number (NaN, infinity) is null."""
    return json.dumps(_finite(document), indent=1, allow_nan=False)


def plain_number(value: float) -> float:
    """A number as JSON shows it best: an integer where it is whole."""
    return int(value) if float(value).is_integer() else float(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

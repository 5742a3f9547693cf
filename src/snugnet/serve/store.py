"""Files that were made, in memory and on a disk that several processes share; each is made once, however many ask."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from snugnet.files import write_atomically

_LOCKS = 64  # files that stand for all keys: none is ever removed, so nobody waits at one that is gone
_STALE = 3600.0  # seconds after which what a killed writer left is removed
_SUM = 32  # bytes of a checksum, before the content
_BLOCK = 4096  # bytes that the smallest file takes, on a disk and, with its key, in memory
_OURS = re.compile(
    r"[0-9a-f]{64}\.bin|(?P<left>\.[0-9a-f]{64}\.bin\.[0-9a-f]+\.tmp)"
)  # whatever else lies there is not touched

log = logging.getLogger(__name__)


class Content(NamedTuple):
    """A file's bytes, and their checksum in hexadecimal."""

    data: bytes
    checksum: str


class Store:
    """A bounded cache. That a disk is full, read-only or gone makes it slower, and never fails a request.

    Attributes:
        folder: on the disk.
        disk_bytes: that may lie there.
        memory_bytes: that are kept in memory as well.
        hits: told of each look-up: ``"memory"``, ``"disk"`` or ``"made"``.
    """

    def __init__(
        self, folder: Path, disk_bytes: int, memory_bytes: int, hits: Callable[[str], None] = lambda place: None
    ) -> None:
        self.folder, self.disk_bytes, self.memory_bytes, self.hits = folder, disk_bytes, memory_bytes, hits
        self._memory: OrderedDict[str, Content] = OrderedDict()
        self._held = 0
        self._guard = threading.Lock()

    def recent(self, key: str) -> Content | None:
        """What is in memory; takes no time."""
        with self._guard:
            content = self._memory.get(key)
            if content is not None:
                self._memory.move_to_end(key)
                self.hits("memory")
            return content

    def stored(self, key: str) -> Content | None:
        """What is on the disk, if it is whole."""
        path = self._path(key)
        try:
            whole = path.read_bytes()
        except OSError:
            return None
        data = whole[_SUM:]
        checksum = hashlib.sha256(data)
        if checksum.digest() != whole[:_SUM]:
            log.warning("damaged file removed", extra={"file": path.name})
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)  # it was asked for
        self.hits("disk")
        return self._remember(key, Content(data, checksum.hexdigest()))

    def make(self, key: str, made: Callable[[], bytes]) -> Content:
        """What is there by now, or else what ``made`` gives; other processes that ask for the same wait for it."""
        with self._alone(key):
            content = self.recent(key) or self.stored(key)
            if content is None:
                self.hits("made")
                data = made()
                content = self._remember(key, Content(data, hashlib.sha256(data).hexdigest()))
                self._write(key, content)
        return content

    def _remember(self, key: str, content: Content) -> Content:
        with self._guard:
            if key not in self._memory and _size(content.data) <= self.memory_bytes:
                self._memory[key] = content
                self._held += _size(content.data)
            while self._held > self.memory_bytes:
                self._held -= _size(self._memory.popitem(last=False)[1].data)
        return content

    def _write(self, key: str, content: Content) -> None:
        try:
            self._clear(_size(content.data))
            if _size(content.data) <= self.disk_bytes:
                write_atomically(self._path(key), bytes.fromhex(content.checksum) + content.data)
        except OSError as error:
            log.warning("cannot keep a file", extra={"reason": error.strerror or str(error)})

    def _clear(self, room: int) -> None:
        """Remove what was not asked for the longest until there is room, and what killed writers left."""
        self.folder.mkdir(parents=True, exist_ok=True)
        found = []
        for entry in os.scandir(self.folder):
            own = _OURS.fullmatch(entry.name)
            if own is None:
                continue
            with suppress(OSError):  # another process has removed it
                stat = entry.stat()
                if own["left"] and time.time() - stat.st_mtime > _STALE:
                    os.unlink(entry.path)
                else:
                    found.append((stat.st_mtime_ns, max(stat.st_size, _BLOCK), entry.path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total + room <= self.disk_bytes:
                break
            with suppress(OSError):
                os.unlink(path)
            total -= size

    def _path(self, key: str) -> Path:
        """What a key is called on the disk: no letter of it comes from outside."""
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.bin"

    @contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        """Keep others from making the same. The system lets go of the lock when its process ends, however it ends."""
        place = int(hashlib.sha256(key.encode()).hexdigest(), 16) % _LOCKS
        folder = self.folder / "locks"
        lock = FileLock(folder / f"{place}.lock", thread_local=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except (OSError, NotImplementedError):  # a disk without room or without locks: it may be made twice
            yield
            return
        try:
            yield
        finally:
            lock.release()


def _size(data: bytes) -> int:
    """What an entry counts."""
    return max(len(data), _BLOCK)

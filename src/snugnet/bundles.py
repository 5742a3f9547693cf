"""Families, networks and predictors on disk: a folder of files, and a JSON index with their checksums.

A save never stands in its own way: files are named after their content and so never replaced, the index that lists them is replaced
last and at once, and only then do the files go that the old index listed. Whatever ends a save in between (a kill, a full disk,
another writer), the folder holds the old thing or the new one, whole.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from snugnet._version import __version__
from snugnet.errors import FamilyError, NetworkError, PredictorError, SnugnetError
from snugnet.files import locked, remove_temporaries, sync_folder, write_atomically

_NAMED = 12  # hexadecimal digits of the content's checksum in its file's name
_CHECKSUM = re.compile(f"-[0-9a-f]{{{_NAMED}}}(?=[^-]*$)")
_READS = 50  # a reader that a save has overtaken begins again so many times


@dataclass(frozen=True)
class Bundle:
    """How things of one kind are stored.

    Attributes:
        kind: what the folder holds, as messages say it.
        version: of the format; older ones are read as well. Before version 2 files were not named after their content.
        maker: the command that makes one.
        error: raised for what is missing, truncated, altered, or of a newer version.
        checkpoint: name of the file that a training which has not ended keeps in the folder.
    """

    kind: str
    version: int
    maker: str
    error: type[SnugnetError]
    checkpoint: str = ""

    @property
    def index(self) -> str:
        """Name of the index."""
        return f"{self.kind}.json"

    def patterns(self, names: Sequence[str]) -> list[str]:
        """Which files may belong to such a thing, in any save of any version."""
        return [self.index, *names, *(_stored_name(name, "*") for name in names)]

    # -- writing -------------------------------------------------------------------------------------------------------

    def write(self, folder: Path, index: Mapping[str, Any], contents: Mapping[str, bytes]) -> Path:
        """Write the files, then the index, and at last remove what it no longer lists.

        Args:
            folder: is made if needed; files in it that are not of such a thing are left alone.
            index: what it says besides format, version and checksums, as plain JSON.
            contents: of the files, by name; on disk a checksum stands in the name.

        Returns:
            The folder.

        Raises:
            BusyError: another process is writing there.
        """
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        stored = {name: _stored_name(name, each[:_NAMED]) for name, each in sums.items()}
        files = {
            name: {"file": stored[name], "bytes": len(content), "sha256": sums[name]}
            for name, content in contents.items()
        }
        head = {"format": f"snugnet-{self.kind}", "version": self.version, "snugnet": __version__}
        whole = {**head, **index, "files": files}
        text = json.dumps({**whole, "sha256": index_checksum(whole)}, indent=1)
        with locked(folder):
            before = self._listed(folder)
            for pattern in self.patterns(list(contents)):
                remove_temporaries(folder / pattern)
            for name, content in contents.items():
                if not _holds(folder / stored[name], sums[name]):
                    write_atomically(folder / stored[name], content)
            sync_folder(folder)
            write_atomically(folder / self.index, text.encode())
            sync_folder(folder)
            self._clear(folder, before, contents, keep=set(stored.values()))
        return folder

    def _listed(self, folder: Path) -> list[str]:
        """Files of the thing that is there now; of an index that was altered none, as it may list what is not ours."""
        try:
            files = self.read_index(folder)["files"]
            return [str(each.get("file", name)) for name, each in files.items()]
        except (self.error, OSError, KeyError, TypeError, AttributeError):  # none, or a damaged one
            return []

    def _clear(self, folder: Path, before: list[str], contents: Mapping[str, bytes], keep: set[str]) -> None:
        """Remove the files of the old thing, and those that a save left which came to no end."""
        ours = {_stored_name(name, "*") for name in contents}
        left = [path.name for path in folder.iterdir() if _CHECKSUM.sub("-*", path.name) in ours]
        for name in {*before, *left} - keep:
            # an index can be altered; nothing outside of the folder is touched
            if PurePath(name).name == name and (folder / name).is_file():
                (folder / name).unlink(missing_ok=True)

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(self, folder: Path, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The index and the files, all of one save, every checksum checked.

        Raises:
            SnugnetError: of the kind's class.
        """
        for left in reversed(range(_READS)):
            before = self._save_of(folder)
            index = self.read_index(folder)
            try:
                return index, {name: self.read_file(folder, name, index) for name in names}
            except self.error:
                if self._save_of(folder) == before or not left:  # no save has come in between: it is damaged
                    raise
        raise AssertionError

    def _save_of(self, folder: Path) -> tuple[int, int] | None:
        """What tells one save's index from another's, also where both say the same."""
        try:
            stat = (folder / self.index).stat()
        except (OSError, ValueError):  # a path with a zero byte is a ValueError
            return None
        return stat.st_ino, stat.st_mtime_ns

    def read_index(self, folder: Path) -> dict[str, Any]:
        """The index, its checksum checked and taken out.

        Raises:
            SnugnetError: of the kind's class.
        """
        path = folder / self.index
        if not folder.is_dir():
            raise self.error(
                f"there is no folder {folder}; a {self.kind} is a folder with {self.index}, made by '{self.maker}'"
            )
        if not path.is_file():
            raise self.error(f"{folder} has no {self.index}; is it the right folder?")
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise self.error(f"{path} is damaged ({error})") from error
        if not isinstance(index, dict) or index.get("format") != f"snugnet-{self.kind}":
            raise self.error(f"{path} is not the index of a snugnet {self.kind}")
        version = index.get("version")
        if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= self.version:
            raise self.error(
                f"{folder} is of {self.kind} version {version}, this snugnet reads up to {self.version}; update snugnet"
            )
        if index.pop("sha256", None) != index_checksum(index):
            raise self.error(f"{path} was altered after the {self.kind} was saved (its checksum differs)")
        return index

    def path(self, folder: Path, name: str, index: Mapping[str, Any]) -> Path:
        """Where a file that the index lists lies.

        Raises:
            SnugnetError: of the kind's class: it lists none of that name.
        """
        try:
            stored = str(index["files"][name].get("file", name))
        except (KeyError, TypeError, AttributeError):
            stored = ""
        if PurePath(stored).name != stored or not stored:
            raise self.error(f"{folder / self.index} does not list {name}; the {self.kind} is damaged")
        return folder / stored

    def read_file(self, folder: Path, name: str, index: Mapping[str, Any]) -> bytes:
        """A file that the index lists, checked against its checksum.

        Raises:
            SnugnetError: of the kind's class.
        """
        path, expected = self.path(folder, name, index), index["files"][name]
        try:
            content = path.read_bytes()
        except OSError:
            raise self.error(
                f"{folder} lacks {path.name}; copy the whole folder, or run '{self.maker}' again"
            ) from None
        if len(content) != expected.get("bytes"):
            raise self.error(f"{path} is truncated or replaced: {len(content)} bytes, expected {expected.get('bytes')}")
        if hashlib.sha256(content).hexdigest() != expected.get("sha256"):
            raise self.error(f"{path} was altered after the {self.kind} was saved (its checksum differs)")
        return content


FAMILY = Bundle("family", 2, "snugnet train", FamilyError, "supernet.ckpt.safetensors")
NETWORK = Bundle("network", 1, "snugnet retrain", NetworkError, "network.ckpt.safetensors")
ROUTER = Bundle("router", 1, "snugnet router", NetworkError)
PREDICTOR = Bundle("predictor", 2, "snugnet predictor fit", PredictorError)


def index_checksum(index: Mapping[str, Any]) -> str:
    """Checksum of an index (without its own checksum), however it is laid out."""
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def _stored_name(name: str, checksum: str) -> str:
    """``supernet.safetensors`` with a checksum in it: ``supernet-1a2b3c4d5e6f.safetensors``."""
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}-{checksum}{dot}{suffix}"


def _holds(path: Path, checksum: str) -> bool:
    """Whether a file is there with just this content."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == checksum

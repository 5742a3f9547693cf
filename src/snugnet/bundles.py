"""Families and predictors on disk: a folder of files, and a JSON index with their checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snugnet._version import __version__
from snugnet.errors import FamilyError, PredictorError, SnugnetError
from snugnet.files import write_atomically


@dataclass(frozen=True)
class Bundle:
    """How things of one kind are stored.

    Attributes:
        kind: what the folder holds, as messages say it.
        version: of the format; older ones are read as well.
        maker: the command that makes one.
        error: raised for what is missing, truncated, altered, or of a newer version.
    """

    kind: str
    version: int
    maker: str
    error: type[SnugnetError]

    @property
    def index(self) -> str:
        """Name of the index."""
        return f"{self.kind}.json"

    def write(self, folder: Path, index: Mapping[str, Any], contents: Mapping[str, bytes]) -> Path:
        """Write the files, and at last the index, so that what was only half written is seen to be.

        Args:
            folder: is made if needed; other files in it are left alone.
            index: what it says besides format, version and checksums, as plain JSON.
            contents: of the files, by name.

        Returns:
            The folder.
        """
        files = {
            name: {"bytes": len(each), "sha256": hashlib.sha256(each).hexdigest()} for name, each in contents.items()
        }
        head = {"format": f"snugnet-{self.kind}", "version": self.version, "snugnet": __version__}
        whole = {**head, **index, "files": files}
        text = json.dumps({**whole, "sha256": index_checksum(whole)}, indent=1)
        for name, content in contents.items():
            write_atomically(folder / name, content)
        write_atomically(folder / self.index, text.encode())
        return folder

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

    def read_file(self, folder: Path, name: str, index: Mapping[str, Any]) -> bytes:
        """A file that the index lists, checked against its checksum.

        Raises:
            SnugnetError: of the kind's class.
        """
        path = folder / name
        expected = index.get("files", {}).get(name)
        if not isinstance(expected, dict):
            raise self.error(f"{folder / self.index} does not list {name}; the {self.kind} is damaged")
        if not path.is_file():
            raise self.error(f"{folder} lacks {name}; copy the whole folder, or run '{self.maker}' again")
        content = path.read_bytes()
        if len(content) != expected.get("bytes"):
            raise self.error(f"{path} is truncated or replaced: {len(content)} bytes, expected {expected.get('bytes')}")
        if hashlib.sha256(content).hexdigest() != expected.get("sha256"):
            raise self.error(f"{path} was altered after the {self.kind} was saved (its checksum differs)")
        return content


FAMILY = Bundle("family", 1, "snugnet train", FamilyError)
PREDICTOR = Bundle("predictor", 1, "snugnet predictor fit", PredictorError)


def index_checksum(index: Mapping[str, Any]) -> str:
    """Checksum of an index (without its own checksum), however it is laid out."""
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()

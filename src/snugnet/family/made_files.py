"""Files that are made one after the other in a folder, and the journal of them: a run that was killed goes on with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from snugnet.errors import ConfigError
from snugnet.files import remove_temporaries, write_atomically
from snugnet.fingerprint import Fingerprint, describe_differences

JOURNAL = "made.jsonl"
Entry = dict[str, Any]
"""Of a file: ``file`` (its name), ``asked`` (what it was made for), ``bytes`` and ``sha256``, and what else is to be known of it."""


@dataclass(frozen=True)
class MadeFiles:
    """Files of a folder, each with what it was made for. One process may use it at a time.

    Attributes:
        folder: that they lie in, with :data:`JOURNAL`: a line that says what all were made with, and a line a file.
        entries: by the file's name.
    """

    folder: Path
    entries: dict[str, Entry]

    @classmethod
    def open(cls, folder: Path, made_with: Fingerprint, names: Sequence[str], *, fresh: bool) -> Self:
        """Read the journal, or begin one.

        Args:
            folder: that the files lie in.
            made_with: what they depend on, all of them.
            names: of the files that are to be made.
            fresh: write over whatever there is.

        Raises:
            ConfigError: the folder holds files that were made with something else, or of which nothing is known.
        """
        path, entries = folder / JOURNAL, dict[str, Entry]()
        if not fresh and path.exists():
            head, *lines = _lines(path)
            if differs := describe_differences(head, made_with):
                raise ConfigError(
                    f"{folder} holds files that were made with something else ({differs}); give another --out, or --fresh to write over them"
                )
            entries = {line["file"]: line for line in lines if isinstance(line, dict) and "file" in line}
        elif not fresh and (strange := [name for name in names if (folder / name).exists()]):
            raise ConfigError(
                f"{folder} holds {strange[0]} but no {JOURNAL} that says what it is; give another --out, or --fresh to write over it"
            )
        for pattern in {JOURNAL, *(f"*{Path(name).suffix}" for name in names)}:  # what a run left that was killed
            remove_temporaries(folder / pattern)
        text = "".join(f"{json.dumps(line)}\n" for line in (made_with, *entries.values()))
        write_atomically(path, text.encode())
        return cls(folder, entries)

    def take(self, name: str, asked: Fingerprint) -> Entry | None:
        """What is known of a file, if it was made for this and is as it was then."""
        entry = self.entries.get(name)
        if entry is None or entry.get("asked") != asked:
            return None
        try:
            content = (self.folder / name).read_bytes()
        except OSError:
            return None
        return entry if entry.get("sha256") == hashlib.sha256(content).hexdigest() else None

    def add(self, name: str, asked: Fingerprint, content: bytes, **known: Any) -> Entry:
        """Note a file that is there now."""
        sizes = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        self.entries[name] = {"file": name, "asked": asked, **sizes, **known}
        with (self.folder / JOURNAL).open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(self.entries[name])}\n")
        return self.entries[name]


def _lines(path: Path) -> list[Any]:
    """Each line's JSON; the last one can be cut off, and is then none."""
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            found.append(json.loads(line))
        except ValueError:
            found.append(None)
    return found

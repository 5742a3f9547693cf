"""What a thing was made with, so that nothing else goes on with it.

A fingerprint is a mapping that people can read: names to plain JSON, and a digest where the value is arrays, tensors or a file's
bytes. It is kept in the checkpoint, and a checkpoint of something else is refused with the names of what differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Fingerprint = dict[str, Any]

_NAMES_SHOWN = 4  # names in a refusal
_ABSENT = object()


def fingerprint(**parts: Any) -> Fingerprint:
    """A fingerprint of plain JSON, as a file gives it back."""
    found: Fingerprint = json.loads(json.dumps(parts))
    return found


def digest(*parts: Any) -> str:
    """16 hexadecimal digits of some parts: bytes, NumPy arrays, torch tensors, and anything that is plain JSON.

    An array that is too large for the memory has ``dtype``, ``shape`` and ``chunks()``, and the digest of the array it stands for.
    """
    total = hashlib.sha256()
    for part in parts:
        if hasattr(part, "detach"):
            part = part.detach().cpu().contiguous().numpy()
        if hasattr(part, "chunks") or hasattr(part, "tobytes"):
            total.update(f"{part.dtype}{part.shape}".encode())
            for chunk in part.chunks() if hasattr(part, "chunks") else (part,):
                total.update(
                    np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data
                )  # not its bytes, which would be a copy of all of it
            total.update(b"\0")
            continue
        total.update(part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode())
        total.update(b"\0")
    return total.hexdigest()[:16]


def file_digest(path: Path) -> str:
    """That of a file's bytes; of a folder, that of the names and bytes of its files.

    Raises:
        OSError: the file cannot be read.
    """
    if path.is_dir():
        return digest(
            *(part for each in sorted(path.iterdir()) if each.is_file() for part in (each.name, each.read_bytes()))
        )
    return digest(path.read_bytes())


def differences(made: Any, own: Fingerprint) -> list[str]:
    """Dotted names of what is not the same in two fingerprints; none where they are equal."""
    return list(_differences(made, own, ""))


def describe_differences(made: Any, own: Fingerprint) -> str:
    """The names of what differs, for a message; empty where nothing does."""
    names = differences(made, own)
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def _differences(made: Any, own: Any, where: str) -> Iterator[str]:
    pairs: Mapping[Any, tuple[Any, Any]]
    if isinstance(made, dict) and isinstance(own, dict):
        pairs = {key: (made.get(key, _ABSENT), own.get(key, _ABSENT)) for key in {**own, **made}}
    elif isinstance(made, list) and isinstance(own, list) and len(made) == len(own):
        pairs = dict(enumerate(zip(made, own, strict=True)))
    else:
        if made != own or type(made) is not type(own):
            yield where or "format of the checkpoint"
        return
    for key, (there, here) in pairs.items():
        yield from _differences(there, here, f"{where}.{key}" if where else str(key))

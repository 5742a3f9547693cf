"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import math
import os
import threading
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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

"""Results on disk, each with a hash of what it was made with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from snugnet.files import json_text, write_atomically


def kept(path: Path, made_with: str) -> Any:
    """What :func:`keep` wrote, if it was made with the same; None where there is no such file, or what it holds is damaged."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stored.get("result") if isinstance(stored, dict) and stored.get("made_with") == made_with else None


def keep(path: Path, made_with: str, result: Any) -> None:
    """Write a result, as plain JSON, and what it was made with."""
    write_atomically(path, json_text({"made_with": made_with, "result": result}).encode())

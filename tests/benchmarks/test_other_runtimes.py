"""Exported files in other runtimes: what was right in docs/results/runtimes.json is right now."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.runtimes
ROOT = Path(__file__).parents[2]
Key = tuple[str, str, str, int]


def right(report: dict[str, Any]) -> dict[Key, bool]:
    """Of each run whether the runtime says what torch says, but for a point of accuracy."""
    return {
        (row["runtime"], row["file"], row["numbers"], row["batch"]): row["outcome"] == "ran"
        and row["top1"] >= row["torch_top1"] - 1
        for row in report["rows"]
    }


def test_no_runtime_has_become_wrong(tmp_path: Path) -> None:
    out = tmp_path / "runtimes.json"
    subprocess.run([sys.executable, "benchmarks/runtimes.py", "--out", str(out)], cwd=ROOT, check=True)
    before = right(json.loads((ROOT / "docs" / "results" / "runtimes.json").read_text()))
    now = right(json.loads(out.read_text()))
    assert before.keys() & now.keys()
    assert [key for key, was in before.items() if was and not now.get(key, True)] == []

"""Imports point one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "snugnet"
ORDER = [
    "errors",
    "config",
    "files",
    "bundles",
    "spaces",
    "plots",
    "costs",
    "nn",
    "supernets",
    "data",
    "recipe",
    "training",
    "search",
    "deploy",
]
TOP = ["family", "family_io", "family_search", "evaluation", "pipeline", "study"]  # of one level, above all but cli


def level(room: str) -> int:
    return ORDER.index(room) if room in ORDER else len(ORDER) + (room == "cli")


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_downwards_only(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if room.startswith("__"):
        return
    assert room in ORDER or room in TOP or room == "cli", f"{room} has no place in the order"
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "snugnet" else [f"snugnet.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "snugnet" and len(parts) > 1 and parts[1] != "__version__":
                assert level(parts[1]) <= level(room), f"{room} imports {parts[1]}"
            assert parts[0] not in ("pickle", "torchvision", "timm"), name


@pytest.mark.parametrize(
    "module", ["snugnet", "snugnet.spaces", "snugnet.costs", "snugnet.data", "snugnet.recipe", "snugnet.cli.main"]
)
def test_no_torch_at_import(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Imports point one way: from room to room as listed, and from file to file without a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "snugnet"
ORDER = [
    "_version",
    "errors",
    "extras",
    "texts",
    "registry",
    "config",
    "files",
    "client",
    "yaml_content",
    "commented",
    "fingerprint",
    "bundles",
    "progress",
    "spaces",
    "plots",
    "costs",
    "nn",
    "supernets",
    "data",
    "retraining_config",
    "recipe",
    "predictors",
    "training",
    "cluster",
    "differentiable",
    "search",
    "generator",
    "deploy",
    "profiling",
    "family",
    "routing",
    "pipeline",
    "retraining",
    "cell_search",
    "study",
    "serve",
    "testing",
    "cli",
]
"""The rooms; each may import from those above it and from itself. The package's own face stands outside: it names homes as text."""
FILES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT or not path.stem.startswith("__"))


def module(path: Path) -> str:
    """The dotted name of a file."""
    return ".".join(("snugnet", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module(path): path for path in FILES}


def imported(path: Path) -> set[str]:
    """Files of the package that a file imports: anywhere in it, for types alone too; a package's face stands for its file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            assert name.split(".")[0] not in ("pickle", "torchvision", "timm"), name
            while name and name not in MODULES:
                name = name.rpartition(".")[0]
            if name:
                found.add(name)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_in_order(path: Path) -> None:
    room = module(path).split(".")[1]
    assert room in ORDER, f"{room} has no place in the order"
    for name in imported(path):
        other = name.split(".")[1]
        assert ORDER.index(other) <= ORDER.index(room), f"{module(path)} imports {name}"


def test_files_in_order() -> None:
    # what imports a file of a package runs the package's face first, but waits for it only where that holds what is wanted
    graph = {module(path): imported(path) - {module(path)} for path in FILES}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")
    assert set(order) == set(MODULES)


def test_a_file_is_of_readable_length() -> None:
    alone = {ROOT / "profiling" / "runner.py"}  # goes to a device by itself, so it is one file whatever it holds
    long = {
        str(p.relative_to(ROOT)): n for p in FILES if p not in alone and (n := len(p.read_text().splitlines())) >= 450
    }
    assert not long, f"files of 450 lines and more: {long}"


@pytest.mark.parametrize(
    "module",
    [
        "snugnet",
        "snugnet.spaces",
        "snugnet.costs",
        "snugnet.data",
        "snugnet.recipe",
        "snugnet.predictors",
        "snugnet.search.method",
        "snugnet.search.optimisers.optimiser",
        "snugnet.cli.main",
        "snugnet.client",
    ],
)
def test_no_torch_at_import(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

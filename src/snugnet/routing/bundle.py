"""A route as a folder: the router and every specialised network as ONNX, an index with checksums, and what runs it anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snugnet.bundles import ROUTER
from snugnet.deploy.export import checked_bytes
from snugnet.errors import ConfigError
from snugnet.files import locked, write_atomically
from snugnet.routing import run
from snugnet.routing.making import Made
from snugnet.texts import slug

RUNNER = "run.py"
_OURS = re.compile(r"\..*|.+-[0-9a-f]{12}\.onnx")  # what a writer leaves that was killed before its index
_LONGEST_NAME = 150  # bytes of a superclass's name in a file's, of the 255 that systems allow


def check_place(folder: Path) -> None:
    """Refuse a folder that holds something else than a router.

    Raises:
        ConfigError: names what it holds.
    """
    if not folder.is_dir() or _is_router(folder / ROUTER.index):
        return
    for path in sorted(folder.iterdir()):
        ours = _has_head(path) if path.name == RUNNER else _OURS.fullmatch(path.name)
        if not ours:
            raise ConfigError(f"{folder} holds {path.name}, which is not of a router; give another --out")


def _is_router(index: Path) -> bool:
    try:
        found = json.loads(index.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("format") == run.FORMAT


def _has_head(path: Path) -> bool:
    """Whether a file begins as the runner does, of whichever version."""
    head = (run.__doc__ or "").splitlines()[0].encode()
    try:
        return head in path.read_bytes()[: 2 * len(head)]
    except OSError:
        return False


def write_route(made: Made, folder: Path, measured: Mapping[str, Any]) -> Path:
    """Write a route, or write over the one that a folder holds; whatever ends it before its end, the folder holds the old one whole, or none.

    Args:
        made: the route; every file is run against torch before anything is written.
        folder: is made if needed.
        measured: figures by split, for the index.

    Returns:
        The folder: ``router.json``, ``run.py``, an ONNX file of the router and one of each superclass of two classes or more.

    Raises:
        ConfigError: the folder holds something else.
        ExportError: a file does not agree with its network.
        BusyError: another process is writing there.
    """
    check_place(folder)
    route, about = made.route, made.to_json()
    contents = {"router.onnx": checked_bytes(route.router.module, ".onnx", route.router.metadata())}
    about["router"]["file"] = "router.onnx"
    for place, (name, own) in enumerate(about["superclasses"].items(), start=1):
        own["file"] = None
        if name in route.networks:
            own["file"] = f"{place}-{slug(name).encode()[:_LONGEST_NAME].decode(errors='ignore')}.onnx"
            network = route.networks[name]
            contents[own["file"]] = checked_bytes(network.module, ".onnx", network.metadata())
    family = route.family
    index = {
        **about, "measured": dict(measured), "image_resolution": family.space.resolution, "mean": list(family.mean),
        "std": list(family.std),
    }  # fmt: skip
    with locked(folder):
        check_place(folder)
        write_atomically(folder / RUNNER, Path(run.__file__).read_bytes())
        return ROUTER.write(folder, index, contents)

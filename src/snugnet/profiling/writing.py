"""A bundle: each distinct block of a space and some whole networks as ONNX files, and what times them anywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from snugnet.costs.units import VERSION, distinct_blocks, network_name
from snugnet.deploy.int8 import FEWEST, quantised
from snugnet.deploy.onnx import onnx_model
from snugnet.errors import ConfigError
from snugnet.files import locked, write_atomically
from snugnet.fingerprint import digest
from snugnet.nn.network import build
from snugnet.profiling import runner
from snugnet.progress import progress_bar
from snugnet.spaces import Blueprint, Population, SearchSpace

SUFFIXES = {"float32": "", "int8": "-int8"}
"""Of the files' names, by precision."""
NETWORKS = 50
"""Whole networks beside the blocks, unless another number is asked for."""


def drawn_networks(space: SearchSpace, count: int) -> Population:
    """The architectures that are measured as a whole, shape ``(n, d)``: every choice uniform, the same ones every time, no two equal.

    Fewer than ``count`` where the space is small.
    """
    drawn = space.sample(4 * count, np.random.default_rng(VERSION))
    _, first = np.unique(drawn, axis=0, return_index=True)
    return drawn[np.sort(first)][:count]


def write_bundle(
    space: SearchSpace,
    widths: Sequence[int],
    folder: Path,
    *,
    batch: int = 1,
    networks: int = NETWORKS,
    precision: str = "float32",
    about: dict[str, Any] | None = None,
    fresh: bool = False,
    progress: bool = True,
) -> Path:
    """Write a bundle; files that are there already are left as they are, so a writer that was killed goes on.

    Args:
        space: whose blocks are measured.
        widths: of the classifier, beside the space's own.
        folder: is made if needed.
        batch: images at once, fixed in every file.
        networks: whole ones beside the blocks.
        precision: ``float32`` or ``int8``: of every file; in int8 all layers are.
        about: more that the manifest says, such as the family's name.
        fresh: empty the folder first, whatever bundle it holds.
        progress: whether to show a bar.

    Returns:
        The folder: ONNX files, ``runner.py``, and ``manifest.json``, which is written last.

    Raises:
        ConfigError: the folder holds something else.
        BusyError: another process writes there.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; a bundle is a folder")
    blueprints = {f"{name}{SUFFIXES[precision]}": made for name, made in _blueprints(space, widths, batch, networks)}
    with locked(folder), progress_bar("writing", len(blueprints), shown=progress) as advance:
        for old in [p for p in folder.iterdir() if not p.name.startswith(".")] if fresh else []:
            old.unlink()
        known = {f"{name}.onnx" for name in blueprints} | {
            runner.MANIFEST,
            "runner.py",
            runner.READINGS,
            runner.MEASURED,
        }
        if strange := [p.name for p in folder.iterdir() if p.name not in known and not p.name.startswith(".")]:
            raise ConfigError(
                f"{folder} holds {sorted(strange)[0]}, which is not of this bundle; give another --out, or --fresh where this machine is measured"
            )
        files = {}
        for name, blueprint in blueprints.items():
            path = folder / f"{name}.onnx"
            if not path.is_file():  # written whole or not at all, and named after what is in it
                write_atomically(path, file_content(blueprint, batch, precision))
            content = path.read_bytes()
            files[name] = {
                "sha256": hashlib.sha256(content).hexdigest(),
                "bytes": len(content),
                "layers": _said(blueprint),
            }
            advance()
        whole = sum(name.startswith("network") for name in files)
        write_atomically(folder / "runner.py", Path(runner.__file__).read_bytes())
        manifest = {
            "format": runner.FORMAT,
            "version": VERSION,
            "id": digest(sorted(files)),
            "yardstick": _yardstick(blueprints),
            "about": {
                "space": space.name,
                "resolution": space.resolution,
                "batch": batch,
                "precision": precision,
                "networks": whole,
                **(about or {}),
            },
            "files": files,
        }
        write_atomically(folder / runner.MANIFEST, json.dumps(manifest, indent=1).encode())
    return folder


def _blueprints(
    space: SearchSpace, widths: Sequence[int], batch: int, networks: int
) -> Iterator[tuple[str, Blueprint]]:
    """What there is to measure, by the names of the files."""
    for name, block in distinct_blocks(space, widths, batch).items():
        yield name, Blueprint((block,), block.in_channels, block.layers[0].resolution)
    for row in drawn_networks(space, networks):
        yield network_name(space, row[None], batch), space.blueprint(row)


def _yardstick(blueprints: Mapping[str, Blueprint]) -> str:
    """The name of the block with the middle number of multiply-adds."""
    blocks = sorted((each.madds, name) for name, each in blueprints.items() if name.startswith("block"))
    return blocks[len(blocks) // 2][1]


def file_content(blueprint: Blueprint, batch: int, precision: str) -> bytes:
    """An ONNX file with weights that were drawn: no time depends on them."""
    network = build(blueprint).eval()
    state = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
    if precision == "float32":
        made = onnx_model(blueprint, state, {}, batch=batch)
    else:
        size = (FEWEST, blueprint.in_channels, blueprint.resolution, blueprint.resolution)
        images = np.random.default_rng(VERSION).standard_normal(size).astype(np.float32)
        made = onnx.load_from_string(quantised(onnx_model(blueprint, state, {}).SerializeToString(), images, None))
        del made.graph.value_info[:]  # sizes of what lies between, for any number of images
        for each in (*made.graph.input, *made.graph.output):
            each.type.tensor_type.shape.dim[0].dim_value = batch
    content: bytes = made.SerializeToString()
    return content


def _said(blueprint: Blueprint) -> list[str]:
    return (
        [str(layer) for layer in blueprint.layers()] if len(blueprint.blocks) == 1 else [f"{blueprint.madds:,} MAdds"]
    )

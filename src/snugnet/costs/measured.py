"""Cost tables that were measured on a device, and tables in files."""

from __future__ import annotations

import io
import json
import warnings
import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from snugnet.costs.blocks import block_table
from snugnet.costs.layer_tables import Latencies, is_layer_table, read_latencies
from snugnet.costs.table import CostTable
from snugnet.errors import DataError, SpaceError
from snugnet.files import write_atomically
from snugnet.fingerprint import differences
from snugnet.spaces import Block, Layer, SearchSpace

_OFA = "ofa-mobilenet-v3"


def save_cost_table(table: CostTable, path: str | Path) -> Path:
    """Write any table as ``.npz``, with the space that it is of; no pickle.

    Returns:
        The path.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **table.arrays(), space=np.array(json.dumps(table.space.to_json())))  # type: ignore[arg-type]
    write_atomically(Path(path), buffer.getvalue())
    return Path(path)


def load_cost_table(path: str | Path, space: SearchSpace) -> CostTable:
    """Read a table: ``.npz`` as :func:`save_cost_table` wrote it, or one of once-for-all's (:func:`load_ofa_latency`) in CSV, YAML, JSON or a folder.

    Raises:
        DataError: the file cannot be read.
        SpaceError: it is of another space.
    """
    path = Path(path)
    if is_layer_table(path):
        return load_ofa_latency(path, space)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        there, here = json.loads(str(arrays.pop("space"))), json.loads(json.dumps(space.to_json()))
    except OSError as error:
        raise DataError(f"cannot read the cost table {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, EOFError, BadZipFile, AttributeError, NotImplementedError, zlib.error) as error:
        why = "it is no .npz" if "pickle" in str(error) else error  # numpy's words are a way to run what is in a file
        raise DataError(
            f"{path} is no cost table ({why}); one is .npz of snugnet.costs.save_cost_table, or .csv, .yaml or .json of "
            "once-for-all"
        ) from error
    if differ := differences(there, here):
        raise SpaceError(f"{path} is of another space (not the same {', '.join(differ)})")
    return CostTable.from_arrays(space, arrays)


def load_ofa_latency(path: str | Path, space: SearchSpace) -> CostTable:
    """A latency table of once-for-all (Cai et al., ICLR 2020), such as the published one of the Samsung Note 10.

    A network's latency is the sum over its first convolution, its blocks, and each of its last layers. The same layer was
    measured anew at every resolution of the image. Published tables were measured with 1,000 classes: for another number the
    classifier's latency is taken to be proportional to its outputs, and a warning says so.

    Args:
        path: ``.csv`` or ``.csv.gz`` with columns ``resolution`` (of the image, in pixels), ``layer`` (a key that names the
            layer's sizes) and ``mean_ms``; or a look-up table as it is published, such as ``160_lookup_table.yaml`` (or
            ``.json``): ``{layer: {count, mean, std}}``; or a folder of those.
        space: ``ofa-mobilenet-v3`` at the width that was measured (1.2 for the published tables), at measured resolutions.

    Returns:
        The cost ``latency_ms``, in milliseconds for one image.

    Raises:
        DataError: the file cannot be read, or lacks a layer of the space.
        SpaceError: the space is another than the table's.
    """
    path = Path(path)
    if space.name != _OFA:
        raise SpaceError(f"latency tables of once-for-all are of the space {_OFA}, got {space.name}")
    measured = read_latencies(path)
    resolutions = sorted({resolution for resolution, _ in measured})
    scaled: set[tuple[int, int]] = set()

    def latency(block: Block, resolution: int) -> float:
        total = 0.0
        for key in _keys(block):
            if (resolution, key) in measured:
                total += measured[resolution, key]
            elif found := _other_classes(measured, resolution, key):
                there, here, milliseconds = found
                scaled.add((there, here))
                total += milliseconds * here / there
            else:
                raise DataError(
                    f"{path} has no layer {key!r} at resolution {resolution}, which {block.name} of {space.name} (width_mult "
                    f"{space.options['width_mult']}) can have; its resolutions: {', '.join(map(str, resolutions))}"
                )
        return total

    table = block_table(space, "latency_ms", "ms", latency)
    for there, here in sorted(scaled):
        warnings.warn(
            f"{path} was measured with {there:,} classes; for {here:,} its classifier counts {here:,}/{there:,} of that latency",
            stacklevel=2,
        )
    return table


def _other_classes(measured: Latencies, resolution: int, key: str) -> tuple[int, int, float] | None:
    """For a classifier that was not measured, the one of most nearly as many classes: its classes, the wanted, milliseconds."""
    start, _, wanted = key.rpartition(":")
    if not start.startswith("Logits-"):
        return None
    others = [
        (int(text), milliseconds)
        for (at, other), milliseconds in measured.items()
        if at == resolution and other.startswith(f"{start}:") and (text := other[len(start) + 1 :]).isdecimal()
    ]
    others = [each for each in others if each[0] > 0]
    if not others:
        return None
    there, milliseconds = min(others, key=lambda each: (abs(each[0] - int(wanted)), each[0]))
    return there, int(wanted), milliseconds


def _keys(block: Block) -> list[str]:
    """The rows of the table that make up a block."""
    layers = {layer.name: layer for layer in block.layers}
    if "depthwise" in layers:
        first, middle, last = block.layers[0], layers["depthwise"], block.layers[-1]
        return [
            f"expanded_conv-{_ends(first, last)}-expand:{middle.out_channels}-kernel:{middle.kernel}-stride:{middle.stride}"
            f"-idskip:{int(block.shortcut is not None)}-se:{int('se' in layers)}-hs:{int(middle.activation == 'h_swish')}"
        ]
    if "classifier" not in layers:
        return [f"Conv-{_ends(block.layers[0], block.layers[-1])}"]
    classifier = layers["classifier"]
    return [
        f"Conv_1-{_ends(layers['expand'], layers['expand'])}",
        f"AvgPool2D-{_ends(layers['pool'], layers['pool'])}",
        f"Conv_2-{_ends(layers['features'], layers['features'])}",
        f"Logits-input:1x1x{classifier.in_channels}-output:{classifier.out_channels}",
    ]


def _ends(first: Layer, last: Layer) -> str:
    before, after = first.resolution, last.out_resolution
    return f"input:{before}x{before}x{first.in_channels}-output:{after}x{after}x{last.out_channels}"

"""Latencies of layers in files: CSV, and once-for-all's look-up tables as they are published (YAML or JSON, a file a resolution)."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from snugnet.errors import DataError
from snugnet.files import read_text
from snugnet.texts import cut, shown
from snugnet.yaml_content import parse_json, parse_yaml

COLUMNS = ("resolution", "layer", "mean_ms")
SUFFIXES = (".yaml", ".yml", ".json")
"""Of look-up tables as once-for-all publishes them."""

Latencies = Mapping[tuple[int, str], float]
"""Milliseconds by the image's resolution and the layer's key."""

_IMAGE = re.compile(r"Conv-input:(\d{1,5})x\1x\d{1,5}-")
"""A first convolution takes the image itself, so its key tells the resolution."""


class _Row(NamedTuple):
    """One measurement, and where it stands (``line 3``)."""

    resolution: int
    layer: str
    mean: object
    where: str


def read_latencies(path: Path) -> Latencies:
    """Latencies of layers: a ``.csv`` (``.csv.gz``), a look-up table of one resolution, or a folder of such tables.

    Args:
        path: CSV has the columns of :data:`COLUMNS`. A look-up table is ``{layer: {count, mean, std}}`` in YAML or JSON, such as
            ``160_lookup_table.yaml``; the resolution is that of its first convolution, or the number that its name begins with.

    Raises:
        DataError: it cannot be read, or a row is none; the message names file and line.
    """
    if path.is_dir():
        return _folder(path)
    suffixes = path.name.removesuffix(".gz")
    return _checked(path, _lookup_rows(path) if suffixes.endswith(SUFFIXES) else _csv_rows(path))


def is_layer_table(path: Path) -> bool:
    """Whether a path can only be a table of layers: by its suffix, or because it is a folder."""
    return path.name.removesuffix(".gz").endswith((".csv", *SUFFIXES)) or path.is_dir()


def _folder(path: Path) -> Latencies:
    files = sorted(each for each in path.iterdir() if re.fullmatch(r"\d+_lookup_table\.(ya?ml|json)", each.name))
    if not files:
        raise DataError(f"{path} holds no latency tables; they are named as 160_lookup_table.yaml (or .json) is")
    whole: dict[tuple[int, str], float] = {}
    by: dict[int, Path] = {}
    for file in files:
        found = _checked(file, _lookup_rows(file))
        resolution = next(iter(found))[0]
        own = {key: value for key, value in whole.items() if key[0] == resolution}
        if own and own != found:
            raise DataError(f"{by[resolution]} and {file} have other latencies at resolution {resolution}; remove one")
        by[resolution] = file
        whole |= found
    return whole


def _checked(path: Path, rows: Iterator[_Row]) -> dict[tuple[int, str], float]:
    measured: dict[tuple[int, str], float] = {}
    for resolution, layer, given, where in rows:
        if (mean := _number(given)) is None or mean < 0:
            raise DataError(
                f"{path}, {where}: the mean is a number of milliseconds, got {shown(given)} for {cut(layer)}"
            )
        if (resolution, layer) in measured:
            raise DataError(f"{path}, {where}: {cut(layer)} at resolution {resolution} stands there twice")
        measured[resolution, layer] = mean
    if not measured:
        raise DataError(f"{path} is empty; a latency table has a row for each layer")
    return measured


def _number(value: object) -> float | None:
    """A finite number, also as text (YAML takes ``1e-05`` for text); None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)) or (isinstance(value, str) and "_" in value):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _csv_rows(path: Path) -> Iterator[_Row]:
    text = read_text(path, DataError, "the latency table ")
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [name.strip() for name in next(reader, [])]
        for name in COLUMNS:
            if (count := header.count(name)) != 1:
                found = f"{count} columns" if count else "no column"
                raise DataError(
                    f"{path} has {found} {name!r}; a latency table has {', '.join(COLUMNS)} with commas between them, and "
                    f"this one begins with {shown(text.partition(chr(10))[0])}"
                )
        places = [header.index(name) for name in COLUMNS]
        for cells in reader:
            if len(cells) > 1 or any(map(str.strip, cells)):
                yield _csv_row(path, f"line {reader.line_num}", cells, places, len(header))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: this is no CSV ({error})") from error


def _csv_row(path: Path, where: str, cells: Sequence[str], places: Sequence[int], columns: int) -> _Row:
    if len(cells) != columns:
        raise DataError(f"{path}, {where}: {len(cells)} entries for {columns} columns")
    resolution, layer, mean = (cells[place].strip() for place in places)
    if not re.fullmatch(r"[0-9]{1,5}", resolution) or int(resolution) < 1 or not layer or _number(layer) is not None:
        raise DataError(
            f"{path}, {where}: a layer's key at a resolution in pixels, got {cut(layer)!r} at {cut(resolution)!r}"
        )
    return _Row(int(resolution), layer, mean, where)


def _lookup_rows(path: Path) -> Iterator[_Row]:
    text = read_text(path, DataError, "the latency table ")
    content = _parsed(path, text)
    if content == {}:
        return
    if not isinstance(content, dict) or not all(isinstance(layer, str) for layer in content) or not _measures(content):
        raise DataError(f"{path} is no latency table of once-for-all, which is {{layer: {{count, mean, std}}}}")
    resolution = _resolution(path, content)
    for layer, value in content.items():
        where = f"line {_line(text, layer)}"
        mean = value.get("mean") if isinstance(value, dict) else value
        if isinstance(value, dict) and "mean" not in value:
            raise DataError(f"{path}, {where}: {cut(layer)} has no 'mean'; an entry is {{count, mean, std}}")
        yield _Row(resolution, layer, mean, where)


def _line(text: str, layer: str) -> int:
    """Of a layer's key, which may be the beginning of another's."""
    found = re.search(rf"(?<![\w.:-]){re.escape(layer)}(?![\w.-])", text)
    return text.count("\n", 0, found.start() if found else 0) + 1


def _measures(content: Mapping[str, Any]) -> bool:
    """Whether a mapping has entries of measurements at all, and is not about something else."""
    values = content.values()
    measured = any(isinstance(value, dict) and {"count", "mean", "std"} & value.keys() for value in values)
    return measured or not any(isinstance(value, (dict, list)) for value in values)


def _parsed(path: Path, text: str) -> Any:
    try:
        if path.name.removesuffix(".gz").endswith(".json"):
            return parse_json(text)
        return parse_yaml(text)
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.name.removesuffix(".gz").endswith(".json") else "YAML"
        raise DataError(f"{path} is not {kind}: {' '.join(str(error).split())}") from error


def _resolution(path: Path, layers: Mapping[str, Any]) -> int:
    """Of the image that a look-up table's layers were measured under."""
    images = {int(found[1]) for found in map(_IMAGE.match, layers) if found}
    named = re.match(r"(\d{1,5})_", path.name)
    name = int(named[1]) if named else None
    if len(images) == 1:
        image = images.pop()
        if name not in (None, image):
            raise DataError(f"{path} is named after resolution {name}, and its first convolution takes {image} pixels")
        return image
    if name is None:
        raise DataError(
            f"{path} does not say its resolution; name it as 160_lookup_table.yaml is, after the pixels of the image"
        )
    return name

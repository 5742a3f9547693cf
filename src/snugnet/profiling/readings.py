"""``measured.csv``: a row a file of a bundle, as the runner writes it or as people do who time with other programs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from snugnet.errors import DataError
from snugnet.files import read_text
from snugnet.texts import cut, shown

FILE = "file"


@dataclass(frozen=True)
class Measured:
    """What a file says.

    Attributes:
        path: of the file.
        unit: of the values, ``"ms"`` or ``"mJ"``.
        values: by the names of the measured files, without their suffix; positive and finite.
        lines: where in the file each stands.
        about: what the lines above the columns say (``# batch: 1``); empty where there are none.
    """

    path: Path
    unit: str
    values: Mapping[str, float]
    lines: Mapping[str, int]
    about: Mapping[str, str]


def read_measured(path: Path, unit: str) -> Measured:
    """Read a table of measurements.

    Args:
        path: CSV with a column ``file`` (such as ``block-0123456789ab``, ``.onnx`` behind it or not) and one that is named after the unit;
            other columns are left alone. Lines ``# key: value`` above them say what it was measured on.
        unit: ``"ms"`` or ``"mJ"``: which column to read.

    Raises:
        DataError: it cannot be read, a column is missing, or a row is doubled or is no positive, finite number; the message names the line.
    """
    text = read_text(path, DataError, "the measurements ")
    lines = text.splitlines()
    above = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    about = {key.strip("# "): value.strip() for key, _, value in (line.partition(":") for line in lines[:above])}
    reader = csv.reader(io.StringIO("\n".join(lines[above:])))
    values: dict[str, float] = {}
    places: dict[str, int] = {}
    try:
        header = [each.strip() for each in next(reader, [])]
        for column in (FILE, unit):
            if header.count(column) != 1:
                found = f"{header.count(column)} columns" if column in header else "no column"
                raise DataError(
                    f"{path} has {found} {column!r}; needed: {FILE},{unit}; its columns: {cut(','.join(header)) or 'none'}"
                )
        at_file, at_value = header.index(FILE), header.index(unit)
        for cells in reader:
            if not any(map(str.strip, cells)):
                continue
            line = above + reader.line_num
            if len(cells) != len(header):
                raise DataError(f"{path}, line {line}: {len(cells)} entries for {len(header)} columns")
            name = Path(cells[at_file].strip()).name.removesuffix(".onnx")
            if name in values:
                raise DataError(
                    f"{path}, line {line}: {cut(name)} stands there twice (line {places[name]} too); keep one"
                )
            values[name] = _positive(path, line, name, cells[at_value])
            places[name] = line
    except csv.Error as error:
        raise DataError(f"{path}, line {above + reader.line_num}: this is no CSV ({error})") from error
    if not values:
        raise DataError(f"{path} has no rows; needed: one for each file of the bundle")
    return Measured(path, unit, values, places, about)


def _positive(path: Path, line: int, name: str, text: str) -> float:
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise DataError(
            f"{path}, line {line}: {cut(name)} has {shown(text.strip())}; needed: a positive, finite number"
        )
    return value

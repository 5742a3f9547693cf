"""Tables of measured architectures: CSV in, rows of a space and numbers out."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snugnet.errors import DataError, SpaceError
from snugnet.files import read_text, write_atomically
from snugnet.spaces import Population, SearchSpace, read_architecture
from snugnet.spaces.reading import parse_object

_LISTS = {"depth": "depth", "kernel": "kernel_size", "expand": "expand_ratio", "width": "width"}
"""Beginnings of numbered columns (``kernel_0``, ``kernel_1``, ...), and the list in the JSON form that they make up."""
_SCALARS = ("resolution", "width_mult")
ARCH = "arch"
_ARCH_COLUMNS = (ARCH, "Sub-network")
"""Columns that hold a whole architecture: ours, and DyNAS-T's."""


@dataclass(frozen=True)
class ArchitectureTable:
    """Measured architectures.

    Attributes:
        path: where they come from.
        rows: architectures in canonical form, shape ``(n, d)``.
        texts: the columns that are no part of the architecture, as they stand in the file.
    """

    path: Path
    rows: Population
    texts: Mapping[str, Sequence[str]]

    def values(self, targets: Sequence[str]) -> NDArray[np.float64]:
        """Columns of numbers, shape ``(n, len(targets))``.

        Raises:
            DataError: a column does not exist, or an entry is no finite number.
        """
        return np.stack([self._column(target) for target in targets], axis=1)

    def _column(self, name: str) -> NDArray[np.float64]:
        if name not in self.texts:
            raise DataError(f"{self.path} has no column {name!r} to predict; it has: {', '.join(self.texts) or 'none'}")
        numbers = np.empty(len(self.rows))
        for i, text in enumerate(self.texts[name]):
            try:
                numbers[i] = float(text)
            except ValueError:
                numbers[i] = math.nan
            if not math.isfinite(numbers[i]):
                raise DataError(f"{self.path}, row {i + 1}: {name} is {text!r}, not a finite number")
        return numbers


def read_table(path: str | Path, space: SearchSpace) -> ArchitectureTable:
    """Read a table of architectures of a space.

    Args:
        path: ``.csv`` or ``.csv.gz``, with a header. Architectures stand in one column ``arch`` (JSON, the space's form;
            DyNAS-T's ``Sub-network`` is such a column),
            or in a column for each number: ``depth_0``, ``kernel_0``, ``expand_0``, ... counted from 0 (slots past a
            stage's depth are not read), or in a column for each of the space's choices, named as the choice (entries of
            choices that do not matter may be empty); with ``resolution`` and ``width_mult`` if they are there.
        space: whose architectures they are.

    Raises:
        DataError: the file cannot be read, is empty, or holds something that is no architecture of the space.
    """
    path = Path(path)
    header, lines = _read_lines(path)
    reader = _architecture(path, header, space)
    rows = []
    for i, line in enumerate(lines):
        try:
            if len(line) != len(header):
                raise SpaceError(f"{len(line)} entries for {len(header)} columns")
            rows.append(reader.row(line))
        except SpaceError as error:
            raise DataError(f"{path}, row {i + 1}: {error}") from error
    texts = {name: [line[k] for line in lines] for k, name in enumerate(header) if k not in reader.columns}
    return ArchitectureTable(path, np.concatenate(rows), texts)


def write_table(path: str | Path, space: SearchSpace, rows: Population, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write a table that :func:`read_table` reads for every space: a column ``arch`` with JSON, then the given ones."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([ARCH, *columns])
    for row, *values in zip(rows, *columns.values(), strict=True):
        writer.writerow([json.dumps(space.to_dict(row)), *values])
    content = buffer.getvalue().encode()
    write_atomically(Path(path), gzip.compress(content, mtime=0) if str(path).endswith(".gz") else content)


@dataclass(frozen=True)
class _Reader:
    """Where in a line the architecture stands.

    Attributes:
        space: whose architecture it is.
        keys: columns by key, one for a number, several for a list.
        by_choice: whether the keys are names of choices.
    """

    space: SearchSpace
    keys: Mapping[str, int | list[int]]
    by_choice: bool = False

    @property
    def columns(self) -> set[int]:
        return {k for where in self.keys.values() for k in ([where] if isinstance(where, int) else where)}

    def row(self, line: Sequence[str]) -> Population:
        form = self._form(line)
        return self.space.from_choices(form) if self.by_choice else read_architecture(self.space, form)

    def _form(self, line: Sequence[str]) -> dict[str, Any]:
        where = self.keys.get(ARCH)
        if isinstance(where, int):
            return _json_object(line[where])
        return {
            key: _value(line[where]) if isinstance(where, int) else [_value(line[k]) for k in where]
            for key, where in self.keys.items()
            if isinstance(where, list) or line[where].strip()
        }


def _architecture(path: Path, header: Sequence[str], space: SearchSpace) -> _Reader:
    place = {name: k for k, name in enumerate(header)}
    for name in _ARCH_COLUMNS:
        if name in place:
            return _Reader(space, {ARCH: place[name]})
    scalars = {name: place[name] for name in _SCALARS if name in place}
    named = {choice.name: place[choice.name] for choice in space.choices if choice.name in place}
    if named.keys() - scalars.keys():
        return _Reader(space, named | scalars, by_choice=True)
    keys: dict[str, int | list[int]] = {**scalars}
    for start, key in _LISTS.items():
        count = 0
        while f"{start}_{count}" in place:
            count += 1
        if count:
            keys[key] = [place[f"{start}_{i}"] for i in range(count)]
    if not keys:
        raise DataError(
            f"{path} has no architectures of {space.name}; they stand in columns {ARCH} (JSON), depth_0, kernel_0, "
            f"expand_0, ..., or named as its choices, and it has: {', '.join(header)}"
        )
    return _Reader(space, keys)


def _read_lines(path: Path) -> tuple[list[str], list[list[str]]]:
    text = read_text(path, DataError)
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline="")) if line]
    except csv.Error as error:
        raise DataError(f"{path} is no CSV table ({error})") from error
    header = [name.strip() for name in lines[0]] if lines else []
    if len(lines) < 2:
        raise DataError(f"{path} is empty; a table has a header and a row for each architecture")
    if len(set(header)) != len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DataError(f"{path} has two columns {twice!r}; rename one")
    return header, lines[1:]


_INTEGER = re.compile(r"[+-]?\d{1,18}(\.0*)?")


def _value(text: str) -> Any:
    """A number where the text is one, else the text."""
    text = text.strip()
    if _INTEGER.fullmatch(text):
        return int(text.partition(".")[0])
    try:
        return float(text)
    except ValueError:
        return text


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = parse_object(text)
    except ValueError as error:
        raise SpaceError(f"{ARCH} is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise SpaceError(f"{ARCH} is no JSON object: {text[:60]}")
    return value

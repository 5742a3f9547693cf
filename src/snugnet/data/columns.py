"""Label columns of Arrow tables as integer codes with names."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from snugnet.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class LabelColumn:
    """A name for each row.

    Attributes:
        codes: int64 ``(n,)``, positions in ``names``.
        names: unique; in the order of the ClassLabel where the source has one, else sorted.
    """

    codes: NDArray[np.int64]
    names: tuple[str, ...]

    def recode(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Codes as positions in another list of names; -1 where that has not got the name."""
        position = {name: index for index, name in enumerate(names)}
        table = np.array([position.get(name, -1) for name in self.names], dtype=np.int64)
        return table[self.codes] if len(self.codes) else self.codes


def merge_names(columns: Sequence[LabelColumn]) -> tuple[str, ...]:
    """All names of several columns: as they are when the columns agree, else sorted (numbers by value)."""
    if len({column.names for column in columns}) == 1:
        return columns[0].names
    return tuple(sort_names({name for column in columns for name in column.names}))


def sort_names(names: set[str]) -> list[str]:
    """By value when all are whole numbers, else by text."""
    if all(name.lstrip("-").isdecimal() for name in names):
        return sorted(names, key=int)
    return sorted(names)


def label_column(
    values: "pa.ChunkedArray", class_names: Sequence[str] | None, column: str, where: str, first_row: int = 0
) -> LabelColumn:
    """Read a column of strings or whole numbers.

    Args:
        values: the column.
        class_names: what the numbers stand for (a ClassLabel), if known; without it a number is its own name.
        column: its name, for messages.
        where: the file or data set, for messages.
        first_row: row of ``values[0]``, for messages.

    Raises:
        DataError: missing values, numbers without a name, or another type.
    """
    import pyarrow as pa

    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if values.null_count:
        row = first_row + int(np.flatnonzero(values.is_null().to_numpy())[0])
        raise DataError(f"{where} has no {column} in row {row}; every row needs one: fill it in or remove the row")
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        unique, codes = np.unique(values.to_numpy().astype(str), return_inverse=True)
        column_as_text = LabelColumn(codes.astype(np.int64), tuple(map(str, unique)))
        names = tuple(sort_names(set(column_as_text.names)))
        return LabelColumn(column_as_text.recode(names), names)
    if not pa.types.is_integer(values.type):
        raise DataError(
            f"column {column!r} of {where} has type {values.type}; strings and whole numbers are allowed: "
            "convert it, or name another column"
        )
    numbers = values.to_numpy().astype(np.int64)
    if class_names is None:
        unique, codes = np.unique(numbers, return_inverse=True)
        return LabelColumn(codes.astype(np.int64), tuple(str(number) for number in unique))
    bad = np.flatnonzero((numbers < 0) | (numbers >= len(class_names)))
    if len(bad):
        raise DataError(
            f"{where} has {column} {numbers[bad[0]]} in row {first_row + int(bad[0])}; "
            f"its class names allow 0 to {len(class_names) - 1}: correct or remove the row"
        )
    return LabelColumn(numbers, tuple(class_names))


def class_label_names(schema: "pa.Schema", column: str) -> list[str] | None:
    """Class names that Hugging Face ``datasets`` keeps in the metadata of an Arrow or parquet schema."""
    metadata = schema.metadata or {}
    try:
        features: Any = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def check_columns(have: Sequence[str], wanted: Sequence[str], where: str) -> None:
    """Raise a DataError that lists the columns there are, if one of ``wanted`` is missing."""
    for column in wanted:
        if column not in have:
            raise DataError(
                f"{where} has no column {column!r}; it has: {', '.join(have)}; "
                "set image_column, label_column or group_column to one of these"
            )

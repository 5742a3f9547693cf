"""Label columns of Arrow tables as integer codes with names."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from snugnet.errors import DataError
from snugnet.extras import needs
from snugnet.texts import cut, listed, look, one_form, shown

if TYPE_CHECKING:
    import pyarrow as pa


class UnlabelledError(DataError):
    """A column without any label: of a test set whose labels are kept secret, for one."""


class MissingColumnError(DataError):
    """A column that is not there.

    Attributes:
        column: its name.
        where: the file or data set.
    """

    def __init__(self, message: str, column: str, where: str) -> None:
        super().__init__(message)
        self.column = column
        self.where = where


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

    Names are compared, and kept, in one Unicode form (NFC).

    Raises:
        UnlabelledError: all values are missing, or -1, or empty.
        DataError: missing values, numbers without a name, two equal class names, text that is not UTF-8, or another type.
    """
    needs("pyarrow")
    import pyarrow as pa

    names = None if class_names is None else _distinct([one_form(name) for name in class_names], column, where)
    if not len(values):
        return LabelColumn(np.zeros(0, dtype=np.int64), names or ())
    values = _plain(values)
    if values.null_count == len(values):
        raise UnlabelledError(f"{where} has no labels: its column {column!r} is empty")
    if values.null_count:
        row = first_row + int(np.flatnonzero(values.is_null().to_numpy())[0])
        raise DataError(f"{where} has no {column} in row {row}; every row needs one: fill it in or remove the row")
    if _is_text(values.type):
        return _of_text(values, column, where, first_row)
    if not pa.types.is_integer(values.type):
        raise DataError(
            f"column {column!r} of {where} has type {cut(str(values.type))}; strings and whole numbers are "
            "allowed: convert it, or name another column"
        )
    numbers = values.to_numpy()
    if (numbers == -1).all() if numbers.dtype.kind == "i" else False:
        raise UnlabelledError(f"{where} has no labels: all {len(numbers)} values of {column!r} are -1")
    if names is None:
        unique, codes = np.unique(numbers, return_inverse=True)
        return LabelColumn(codes.astype(np.int64), tuple(str(number) for number in unique))
    bad = np.flatnonzero((numbers < 0) | (numbers >= len(names)))
    if len(bad):
        raise DataError(
            f"{where} has {column} {numbers[bad[0]]} in row {first_row + int(bad[0])}; "
            f"its class names allow 0 to {len(names) - 1}: correct or remove the row"
        )
    return LabelColumn(numbers.astype(np.int64), names)


def _distinct(names: list[str], column: str, where: str) -> tuple[str, ...]:
    first: dict[str, int] = {}
    for number, name in enumerate(names):
        if (known := first.setdefault(name, number)) != number:
            raise DataError(
                f"{where}: the class name {shown(name)} of column {column!r} stands twice, for {known} and {number}; "
                "rename one, or correct the labels if the two are one class"
            )
    return tuple(names)


def _plain(values: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """Without what Arrow wraps around values: extension types, runs and dictionaries."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(values.type, pa.BaseExtensionType):
        values = pa.chunked_array([chunk.storage for chunk in values.chunks], values.type.storage_type)
    if pa.types.is_run_end_encoded(values.type):
        values = pa.chunked_array([pc.run_end_decode(chunk) for chunk in values.chunks], values.type.value_type)
    if pa.types.is_dictionary(values.type):
        own = values.type.value_type
        # Arrow has no way to take views by their numbers
        own = pa.large_string() if own == pa.string_view() else pa.large_binary() if own == pa.binary_view() else own
        parts = [(chunk.indices, chunk.dictionary.cast(own)) for chunk in values.chunks]
        values = pa.chunked_array([words.take(indices) for indices, words in parts], own)
    return values


def _is_text(kind: "pa.DataType") -> bool:
    """Whether values are text or bytes, in any of Arrow's layouts."""
    import pyarrow as pa

    tests = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "fixed_size_binary")
    return any(getattr(pa.types, f"is_{name}")(kind) for name in tests)


def _of_text(values: "pa.ChunkedArray", column: str, where: str, first_row: int) -> LabelColumn:
    encoded = values.dictionary_encode().combine_chunks()
    chunks = encoded.chunks if hasattr(encoded, "chunks") else [encoded]
    raw = [value for chunk in chunks for value in chunk.dictionary.to_pylist()]
    starts = np.cumsum([0, *(len(chunk.dictionary) for chunk in chunks)])
    codes = np.concatenate([chunk.indices.to_numpy() + start for chunk, start in zip(chunks, starts, strict=False)])
    texts = []
    for code, value in enumerate(raw):
        try:
            texts.append(one_form(value if isinstance(value, str) else value.decode("utf-8")))
        except UnicodeDecodeError:
            row = first_row + int(np.flatnonzero(codes == code)[0])
            raise DataError(
                f"column {column!r} of {where} has {shown(value)} in row {row}, which is no UTF-8 text; convert it to text"
            ) from None
    names = tuple(sort_names(set(texts)))
    if names == ("",):
        raise UnlabelledError(f"{where} has no labels: all {len(values)} values of {column!r} are empty")
    if "" in names:
        row = first_row + int(np.flatnonzero(np.isin(codes, [code for code, text in enumerate(texts) if not text]))[0])
        raise DataError(f"{where} has no {column} in row {row} (an empty text); fill it in or remove the row")
    position = {name: index for index, name in enumerate(names)}
    return LabelColumn(np.array([position[text] for text in texts], dtype=np.int64)[codes], names)


def doubtful_names(classes: Sequence[str], counts: NDArray[np.int64]) -> list[str]:
    """Notes on names that may be none, or the same: -1 among other numbers, and names that look alike."""
    notes = []
    if "-1" in classes and "1" in classes and "0" in classes:
        rows = counts[classes.index("-1")]
        notes.append(
            f"{rows} training rows have the class -1, which is a class like the others; remove them if it means no label"
        )
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(look(name), []).append(name)
    same = [names for names in alike.values() if len(names) > 1]
    if same:
        notes.append(
            f"{' and '.join(map(shown, same[0]))} are two classes, and look alike"
            + (f" (so do {len(same) - 1} more)" if len(same) > 1 else "")
            + "; correct the labels if they are one"
        )
    return notes


def class_label_names(schema: "pa.Schema", column: str) -> list[str] | None:
    """Class names that Hugging Face ``datasets`` keeps in the metadata of an Arrow or parquet schema."""
    metadata = schema.metadata or {}
    try:
        features: Any = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) and names else None


def check_columns(have: Sequence[str], wanted: Sequence[str], where: str) -> None:
    """Raise a MissingColumnError that lists the columns there are, if one of ``wanted`` is missing."""
    for column in wanted:
        if column not in have:
            raise MissingColumnError(
                f"{where} has no column {column!r}; it has: {listed(have)}; "
                "set image_column, label_column or group_column to one of these",
                column,
                where,
            )

"""Parquet files with an image and a label column, as Hugging Face ``datasets`` writes them or simpler."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from snugnet.data.columns import LabelColumn, check_columns, class_label_names, label_column, merge_names
from snugnet.data.config import DataConfig
from snugnet.data.images import EncodedImage
from snugnet.data.looks import looks_like
from snugnet.data.source import Source, SourceSplit
from snugnet.data.usable import open_usable, split_names
from snugnet.errors import DataError
from snugnet.extras import needs
from snugnet.files import file_stamp
from snugnet.texts import cut, listed

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_BATCH = 256  # rows of images that are in memory, encoded, at a time


def open_parquet_folder(path: Path, config: DataConfig) -> Source:
    """A folder with ``train.parquet`` or shards ``train-*.parquet``, likewise test and validation.

    Parquet files that belong to no split are noted.

    Raises:
        DataError: no training file, a shard that is missing, or a file that cannot be used.
    """
    splits = {}
    notes: list[str] = []
    have = {file: _split_of(file) for folder in (path, path / "data") for file in sorted(folder.glob("*.parquet"))}
    unused = set(have)
    for split, name in split_names(config).items():
        files = [file for folder in (path, path / "data") for file in _shards(folder, name)]
        if files:
            _check_shards(files)
            others = list(dict.fromkeys(have.values()))
            opened = open_usable(split, name, partial(open_split, files, config), config, others, notes)
            if opened is not None:
                splits[split] = opened
            unused -= set(files)
    if "train" not in splits:
        found = listed(sorted(file.name for file in path.glob("**/*.parquet")), 8)
        raise DataError(f"folder {path} has no {config.train_split}.parquet; it has: {found}; set train_split")
    if unused:
        notes.append(f"parquet files that are not used: {listed(sorted(file.name for file in unused))}")
    return Source(splits, notes=notes)


def open_parquet_files(pattern: str, config: DataConfig) -> Source:
    """A parquet file or a glob of several, all of it training rows.

    Raises:
        DataError: no file matches, or one cannot be used.
    """
    expanded = str(Path(pattern).expanduser())
    files = [Path(expanded)] if Path(expanded).is_file() else [Path(name) for name in sorted(glob.glob(expanded))]
    if not files:
        raise DataError(f"no file matches {pattern!r}; give the path of a parquet file, or a glob of several")
    opened = open_usable("train", config.train_split, lambda: open_split(files, config), config, (), [])
    return Source({"train": opened} if opened else {})


def open_split(files: Sequence[Path], config: DataConfig) -> SourceSplit:
    """Read the labels of ``files``, one after the other, and keep the images for later."""
    wanted = [config.image_column, config.label_column] + ([config.group_column] if config.group_column else [])
    opened = [_open(file, wanted) for file in files]
    counts = [parquet.metadata.num_rows for parquet in opened]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def column(name: str) -> LabelColumn:
        parts = [_read_labels(file, parquet, name) for file, parquet in zip(files, opened, strict=True)]
        names = merge_names(parts)
        return LabelColumn(np.concatenate([part.recode(names) for part in parts]), names)

    def read(rows: NDArray[np.int64]) -> Iterator[EncodedImage]:
        for file, start, end in zip(files, starts[:-1], starts[1:], strict=True):
            of_file = rows[(rows >= start) & (rows < end)] - start
            for item in _read_images(file, of_file, config.image_column):
                yield EncodedImage(item.row + int(start), item.data, item.name)

    groups = column(config.group_column) if config.group_column else None
    where = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"

    def content() -> Any:
        return [config.image_column, *(file_stamp(file, file.parent) for file in files)]

    return SourceSplit(where, column(config.label_column), groups, read, content, at_random=False)


def image_value(value: Any, folder: Path | None) -> tuple[Any, str]:
    """What to decode and the stored path as a message shows it (or ""), from a cell: {bytes, path}, bytes, a path, or nested lists."""
    if isinstance(value, dict):
        path = value.get("path") or ""
        if value.get("bytes") is not None:
            return value["bytes"], f" ({cut(str(path))})" if path else ""
        if not path and any(each is not None for each in value.values()):
            return value, ""  # fields of other names: an error that shows them
        value = path or None
    if isinstance(value, str):
        stored = f" ({cut(value)})"
        if looks_like(value) and not (folder and os.path.isfile(folder / value)):
            return value, stored
        return (folder / value if folder is not None else Path(value)), stored
    return value, ""


def _read_images(file: Path, rows: NDArray[np.int64], column: str) -> Iterator[EncodedImage]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file)
    start = 0
    try:
        for group in range(parquet.num_row_groups):
            end = start + parquet.metadata.row_group(group).num_rows
            if not ((rows >= start) & (rows < end)).any():
                start = end
                continue
            for batch in parquet.iter_batches(_BATCH, row_groups=[group], columns=[column]):
                here = rows[(rows >= start) & (rows < start + batch.num_rows)]
                values = batch.column(0)  # one by one: Arrow cannot take rows of views
                for row in here:
                    data, stored = image_value(values[int(row) - start].as_py(), file.parent)
                    yield EncodedImage(int(row), data, f"{file}, row {row}{stored}")
                start += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from None


def _read_labels(file: Path, parquet: pq.ParquetFile, column: str) -> LabelColumn:
    import pyarrow as pa

    try:
        values = parquet.read(columns=[column]).column(0)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from None
    return label_column(values, class_label_names(parquet.schema_arrow, column), column, str(file))


def _open(file: Path, wanted: Sequence[str]) -> pq.ParquetFile:
    needs("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from None
    check_columns(parquet.schema_arrow.names, wanted, str(file))
    return parquet


def _shards(folder: Path, name: str) -> list[Path]:
    return sorted([*folder.glob(f"{name}.parquet"), *folder.glob(f"{name}-*.parquet")])


def _split_of(file: Path) -> str:
    """The name of the split that a file belongs to by its own: ``train`` of ``train-00000-of-00002.parquet``."""
    return re.sub(r"-\d+-of-\d+$", "", file.stem)


def _check_shards(files: Sequence[Path]) -> None:
    """``train-00000-of-00002.parquet`` says that there is another."""
    for file in files:
        if (numbered := re.fullmatch(r"(.*-)(\d+)(-of-)(\d+)(\.parquet)", file.name)) is None:
            continue
        stem, number, of, total, suffix = numbered.groups()
        wanted = (f"{stem}{shard:0{len(number)}}{of}{total}{suffix}" for shard in range(int(total)))
        missing = next((name for name in wanted if not (file.parent / name).is_file()), None)
        if missing is not None:
            raise DataError(
                f"{file.parent} has {file.name} but not {missing}; fetch it, or give a glob of what there is"
            )


def _unreadable(file: Path, error: Exception) -> DataError:
    reason = str(error).split("\n")[0]
    return DataError(f"{file} cannot be read as parquet ({reason}); it may be truncated: fetch or write it again")

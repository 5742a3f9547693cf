"""Hugging Face data sets, from the hub or the disk, through ``datasets``.

Its builder ``imagefolder`` (5.2, ``data_files.py``) takes a file for every split of which a word (train, val, dev, test,
eval, ...) stands in a folder's or file's name, set off by a space, dash, underscore, dot or digit: ``train/test_tube/1.jpg``
is in train and in test, and ``train-yard/1.jpg`` beside ``car/1.jpg`` leaves the cars out. So what it gives is checked.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snugnet.data.columns import LabelColumn, check_columns, label_column
from snugnet.data.config import DataConfig
from snugnet.data.folder import is_image
from snugnet.data.images import EncodedImage
from snugnet.data.parquet import image_value
from snugnet.data.source import Source, SourceSplit
from snugnet.data.usable import open_usable, split_names
from snugnet.errors import DataError
from snugnet.extras import needs
from snugnet.files import file_stamp
from snugnet.texts import listed


def open_hub(name: str, config: DataConfig) -> Source:
    """Load by ``datasets.load_dataset``: a name on the hub, or a local folder that it understands.

    Raises:
        DataError: it cannot be loaded, lacks a split or column, or has an image of a folder in two places or in none.
    """
    needs("datasets")
    import datasets

    try:
        loaded = datasets.load_dataset(name, config.config_name)
    except Exception as error:  # every kind of failure of the network, the hub and the builders
        raise DataError(
            f"{name!r} is no file or folder here, and datasets.load_dataset cannot load it "
            f"({type(error).__name__}: {_first_line(error)}); check the name, config_name and network, or give a path"
        ) from None
    _check_image_folder(loaded, name)
    return _open_splits(loaded, name, config)


def open_saved(path: Path, config: DataConfig) -> Source:
    """Load a folder that ``Dataset.save_to_disk`` wrote.

    Raises:
        DataError: it cannot be loaded, or lacks a split or column.
    """
    needs("datasets")
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # truncated Arrow files, missing JSON, ...
        raise DataError(f"{path} cannot be loaded ({_first_line(error)}); write it again by save_to_disk") from None
    if isinstance(loaded, datasets.Dataset):
        loaded = {config.train_split: loaded}
    return _open_splits(loaded, str(path), config)


def _check_image_folder(loaded: Mapping[str, Any], name: str) -> None:
    """Where ``datasets`` made splits and labels out of folders, each image is in one split, once, and none is left out."""
    folders = {split: data for split, data in loaded.items() if data.builder_name == "imagefolder"}
    if not folders:
        return
    homes: dict[str, list[str]] = {}
    for split, data in folders.items():
        cells = data.select_columns(["image"]).with_format("arrow")[:].column(0).to_pylist()
        for path in (cell["path"] for cell in cells if cell["path"]):
            homes.setdefault(path, []).append(split)
    advice = "arrange images in train/<superclass>/<class>/ and test/<superclass>/<class>/ and give that folder's path"
    for path, splits in homes.items():
        if len(splits) > 1:
            where = " and ".join(dict.fromkeys(splits)) if len(set(splits)) > 1 else f"{splits[0]} twice"
            raise DataError(f"datasets reads splits out of names: {path} is in {where}; {advice}")
    missing = next((str(file) for file in _images_below(Path(name).absolute()) if str(file) not in homes), None)
    if missing is not None:
        raise DataError(f"datasets reads splits out of names: {missing} is in none ({listed(loaded)}); {advice}")


def _images_below(folder: Path) -> list[Path]:
    """Images of a local folder, without what ``datasets`` passes over: names that begin with a dot or two underscores."""
    return [
        file
        for file in sorted(folder.rglob("*"))
        if is_image(file) and not any(part.startswith((".", "__")) for part in file.relative_to(folder).parts)
    ]


def _open_splits(loaded: Mapping[str, Any], name: str, config: DataConfig) -> Source:
    names = split_names(config, own_validation=None)
    if config.train_split not in loaded:
        raise DataError(f"{name} has no split {config.train_split!r}; it has: {listed(loaded)}; set train_split")
    notes = []
    unused = sorted(set(loaded) - set(names.values()))
    if unused:
        notes.append(f"splits that are not used: {listed(unused)}")
    splits = {}
    for split, own in names.items():
        if own in loaded:
            opener = partial(_open_split, loaded[own], f"{name}[{own}]", config)
            opened = open_usable(split, own, opener, config, loaded, notes)
            if opened is not None:
                splits[split] = opened
    return Source(splits, notes=notes)


def _open_split(data: Any, where: str, config: DataConfig) -> SourceSplit:
    import datasets

    wanted = [config.image_column, config.label_column] + ([config.group_column] if config.group_column else [])
    check_columns(data.column_names, wanted, where)
    fingerprint = data._fingerprint
    if isinstance(data.features[config.image_column], datasets.Image):
        data = data.cast_column(config.image_column, datasets.Image(decode=False))  # decoded by us, in threads
    images = data.select_columns([config.image_column])

    def column(name: str) -> LabelColumn:
        feature = data.features[name]
        names = feature.names if isinstance(feature, datasets.ClassLabel) else None
        values = data.select_columns([name]).with_format("arrow")[:].column(0)
        return label_column(values, names, name, where)

    def read(rows: NDArray[np.int64]) -> Iterator[EncodedImage]:
        for row, cell in zip(rows, images.select(rows), strict=True):
            value, stored = image_value(cell[config.image_column], None)
            yield EncodedImage(int(row), value, f"{where}, row {row}{stored}")

    groups = column(config.group_column) if config.group_column else None

    def content() -> Any:
        files = [Path(each["filename"]) for each in data.cache_files]
        return [config.image_column, fingerprint, *(file_stamp(file, file.parent) for file in files)]

    return SourceSplit(where, column(config.label_column), groups, read, content)


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0][:300]

"""A source of images: its splits with labels, and a reader of encoded images for chosen rows."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snugnet.data.columns import LabelColumn
from snugnet.data.config import DataConfig
from snugnet.data.images import EncodedImage
from snugnet.errors import DataError


@dataclass(frozen=True)
class SourceSplit:
    """One split of a source.

    Attributes:
        where: the file, folder or data set, for messages.
        labels: the class of each row.
        groups: the superclass of each row, where the source says it.
        read: yields the encoded image of each of the given rows (int64, ascending) once.
    """

    where: str
    labels: LabelColumn
    groups: LabelColumn | None
    read: Callable[[NDArray[np.int64]], Iterator[EncodedImage]]


@dataclass(frozen=True)
class Source:
    """The splits ``train`` and, where there are any, ``validation`` and ``test``; and how the source is described.

    ``members`` is a grouping that belongs to the source itself; ``default_test`` is the fraction of the rows that is
    the test set by convention, for a source without a test split.
    """

    splits: Mapping[str, SourceSplit]
    members: Mapping[str, list[str]] | None = None
    default_test: float | None = None
    notes: list[str] = field(default_factory=list)


def open_source(config: DataConfig) -> Source:
    """Find out what ``config.source`` is and open it; labels are read, images are not.

    Raises:
        DataError: there is no such source, or it cannot be read or is not laid out as it should.
    """
    from snugnet.data.digits import open_digits
    from snugnet.data.folder import open_folder
    from snugnet.data.hub import open_hub, open_saved
    from snugnet.data.parquet import open_parquet_files, open_parquet_folder

    if config.source == "digits":
        return open_digits()
    if config.source.startswith("hf:"):
        return open_hub(config.source.removeprefix("hf:"), config)
    path = Path(config.source).expanduser()
    if path.is_dir():
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            return open_saved(path, config)
        if any(path.glob("*.parquet")) or any(path.glob("data/*.parquet")):
            return open_parquet_folder(path, config)
        if (path / config.train_split).is_dir():
            return open_folder(path, config)
        raise DataError(
            f"folder {path} holds neither {config.train_split}.parquet nor {config.train_split}/<superclass>/<class>/ "
            f"with images; it holds: {_content(path)}; give the folder that does"
        )
    if any(character in config.source for character in "*?[") or path.suffix == ".parquet":
        return open_parquet_files(config.source, config)
    if path.exists():
        raise DataError(f"source {path} is a file but not parquet; give a parquet file, a folder or a data set's name")
    if config.source.startswith((".", "/", "~")) or config.source.count("/") > 1:
        raise DataError(f"source {path} does not exist; give the path of a parquet file or folder, or 'digits'")
    return open_hub(config.source, config)


def _content(path: Path) -> str:
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in path.iterdir())
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"

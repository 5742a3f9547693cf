"""From the name of a source to the source: which kind it is, and who reads it."""

from pathlib import Path

from snugnet.data.config import DataConfig
from snugnet.data.digits import open_digits
from snugnet.data.folder import is_image, open_folder
from snugnet.data.hub import open_hub, open_saved
from snugnet.data.parquet import open_parquet_files, open_parquet_folder
from snugnet.data.source import Source
from snugnet.errors import DataError


def open_source(config: DataConfig) -> Source:
    """Find out what ``config.source`` is and open it; labels are read, images are not.

    Raises:
        DataError: there is no such source, or it cannot be read or is not laid out as it should.
    """
    if config.source == "digits":
        return open_digits()
    if config.source.startswith("hf:"):
        return _open_hf(config.source.removeprefix("hf:"), config)
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


def _open_hf(name: str, config: DataConfig) -> Source:
    """By ``datasets``, except for a folder of images, which our own reader reads: each image once, in its own split."""
    path = Path(name).expanduser()
    if not path.is_dir():
        return open_hub(name, config)
    if config.config_name is None and _is_image_folder(path, path / config.train_split):
        return open_folder(path, config)
    return open_hub(str(path), config)


def _is_image_folder(path: Path, train: Path) -> bool:
    """Whether there are images below ``train`` and no metadata file, imagefolder's other way to give them labels."""
    metadata = any(True for depth in ("", "*/") for _ in path.glob(f"{depth}metadata.*"))
    return train.is_dir() and not metadata and any(is_image(entry) for entry in train.rglob("*"))


def _content(path: Path) -> str:
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in path.iterdir())
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"

"""A folder of images: ``train/<superclass>/<class>/*.jpg``, or ``train/<class>/*.jpg`` with groups given elsewhere."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snugnet.data.columns import LabelColumn
from snugnet.data.config import DataConfig
from snugnet.data.images import EncodedImage
from snugnet.data.source import Source, SourceSplit
from snugnet.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})


def open_folder(path: Path, config: DataConfig) -> Source:
    """List the images of the train, validation and test folders, sorted by name; links to folders are followed.

    Files that are no images by their suffix, folders beside the splits, and names that begin with a dot are passed
    over; all but the last are noted.

    Raises:
        DataError: a level of folders is missing or too much, a superclass or class without anything in it, no images,
            or a class name in two superclasses.
    """
    notes: list[str] = []
    depth = _depth(path / config.train_split, grouped=config.groups is not None)
    names = {"train": config.train_split, "validation": config.validation_split or "validation"}
    names["test"] = config.test_split
    splits: dict[str, SourceSplit] = {}
    members: dict[str, list[str]] = {}
    for split, name in names.items():
        taken = split == "validation" and config.validation_split is None and name in (names["train"], names["test"])
        if taken or not (path / name).is_dir():
            continue
        files, of_split, passed_over = _list_images(path / name, depth)
        if passed_over:
            notes.append(f"{passed_over} files of {name}/ are no images by their suffix and were passed over")
        for group, classes in of_split.items():
            known = members.setdefault(group, [])
            known.extend(sorted(set(classes) - set(known)))
        splits[split] = _split(path / name, files)
    _check_names(members)
    unused = [folder.name for folder in _folders(path) if folder.name not in names.values()]
    if unused:
        notes.append(
            f"folders that are not used: {', '.join(f'{name}/' for name in unused)} "
            "(train_split, validation_split and test_split say which are)"
        )
    return Source(splits, members=members if depth == 2 else None, notes=notes)


def _check_names(members: dict[str, list[str]]) -> None:
    """A class is known by its name alone, so a name in two superclasses would be one class of both."""
    home: dict[str, str] = {}
    for group, classes in members.items():
        for name in classes:
            if (other := home.setdefault(name, group)) != group:
                raise DataError(
                    f"class folder {name!r} is in groups {other!r} and {group!r}; a class is in one group and known by its "
                    f"name: rename {other}/{name} or {group}/{name} in every split, or move one into the other"
                )


def _split(root: Path, files: list[Path]) -> SourceSplit:
    names = tuple(sorted({file.parent.name for file in files}))
    position = {name: index for index, name in enumerate(names)}
    codes = np.array([position[file.parent.name] for file in files], dtype=np.int64)

    def read(rows: NDArray[np.int64]) -> Iterator[EncodedImage]:
        for row in rows:
            yield EncodedImage(int(row), files[row], f"{files[row]} (row {row} of {root.name}/)")

    return SourceSplit(str(root), LabelColumn(codes, names), None, read)


def _depth(train: Path, *, grouped: bool) -> int:
    """Levels of folders above the images: 2 (superclass, class) or, if groups are given elsewhere, 1 (class)."""
    if not (first := _folders(train)):
        raise DataError(
            f"{train} has no folders in it; images belong in {train}/<superclass>/<class>/: arrange them so"
        )
    if any(_folders(folder) for folder in first):
        return 2
    if grouped:
        return 1
    raise DataError(
        f"{first[0]} holds no class folders; images belong in {train}/<superclass>/<class>/: arrange them so, "
        "or give groups as a JSON file {superclass: [classes]}"
    )


def _list_images(root: Path, depth: int) -> tuple[list[Path], dict[str, list[str]], int]:
    """Images, ``{superclass: [classes]}`` (empty for depth 1), and the number of files that were passed over."""
    files: list[Path] = []
    members: dict[str, list[str]] = {}
    passed_over = 0
    parents = _folders(root) if depth == 2 else [root]
    for folder in {root: None, **dict.fromkeys(parents)}:
        stray = next((entry for entry in _entries(folder) if is_image(entry)), None)
        if stray is not None:
            place = folder / "<superclass>" / "<class>" if depth == 2 and folder == root else folder / "<class>"
            raise DataError(f"image {stray} is not in a class folder; move it into {place}/")
    for parent in parents:
        folders = _folders(parent)
        if not folders:
            raise DataError(f"superclass folder {parent} holds no class folders; add <class>/ folders, or remove it")
        if depth == 2:
            members[parent.name] = [folder.name for folder in folders]
        for folder in folders:
            entries = _entries(folder)
            deeper = [entry for entry in entries if entry.is_dir()]
            if deeper:
                raise DataError(f"{deeper[0]} is a level too deep; images belong directly in {folder}: move them up")
            images = [entry for entry in entries if is_image(entry)]
            if not images:
                raise DataError(f"class folder {folder} holds no images; add some, or remove the folder")
            passed_over += len(entries) - len(images)
            files.extend(images)
    return files, members, passed_over


def _entries(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in _entries(folder) if entry.is_dir()]


def is_image(entry: Path) -> bool:
    """Whether a file is an image by its suffix; so is a link that leads nowhere, which then cannot be decoded."""
    return entry.suffix.lower() in IMAGE_SUFFIXES and not entry.is_dir()

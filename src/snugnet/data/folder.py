"""A folder of images: ``train/<superclass>/<class>/*.jpg``, or ``train/<class>/*.jpg`` with groups given elsewhere."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snugnet.data.columns import LabelColumn, UnlabelledError
from snugnet.data.config import DataConfig
from snugnet.data.images import EncodedImage
from snugnet.data.source import Source, SourceSplit
from snugnet.data.usable import open_usable, split_names
from snugnet.errors import DataError
from snugnet.extras import needs
from snugnet.files import file_stamp
from snugnet.fingerprint import digest
from snugnet.texts import listed, one_form, quoted, shown

# Formats that Pillow hands to another program, knows by their headers alone, or that are no pictures.
_NO_IMAGES = frozenset({"EPS", "WMF", "PDF", "MPEG", "HDF5", "GRIB", "BUFR", "IPTC"})


@cache
def image_suffixes() -> frozenset[str]:
    """Suffixes of the image formats that Pillow reads here, in small letters."""
    needs("PIL")
    from PIL import Image

    known = Image.registered_extensions()
    return frozenset(suffix for suffix, form in known.items() if form in Image.OPEN and form not in _NO_IMAGES)


@dataclass(frozen=True)
class _Listing:
    """What is in the folder of a split: images, ``{superclass: [classes]}``, and files of other suffixes."""

    files: list[Path]
    members: dict[str, list[str]]
    passed_over: list[Path]


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
    names = split_names(config)
    splits: dict[str, SourceSplit] = {}
    members: dict[str, list[str]] = {}
    have = [folder.name for folder in _folders(path)]
    for split, name in names.items():
        if not (path / name).is_dir():
            continue
        listing = partial(_list_images, path / name, depth)
        opened = open_usable(
            split, name, partial(_open_split, path / name, listing, members, notes), config, have, notes
        )
        if opened is not None:
            splits[split] = opened
    _check_names(members)
    unused = [name for name in have if name not in names.values()]
    if unused:
        notes.append(
            f"folders that are not used: {listed(f'{name}/' for name in unused)} "
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


def _open_split(
    root: Path, listing: Callable[[], _Listing], members: dict[str, list[str]], notes: list[str]
) -> SourceSplit:
    """A split, whose superclasses are added to ``members``; what is passed over is noted."""
    found = listing()
    if found.passed_over:
        notes.append(_note_passed_over(root, found))
    for group, classes in found.members.items():
        known = members.setdefault(group, [])
        known.extend(sorted(set(classes) - set(known)))
    files = found.files
    own = [one_form(file.parent.name) for file in files]
    names = tuple(sorted(set(own)))
    position = {name: index for index, name in enumerate(names)}
    codes = np.array([position[name] for name in own], dtype=np.int64)

    def read(rows: NDArray[np.int64]) -> Iterator[EncodedImage]:
        for row in rows:
            yield EncodedImage(int(row), files[row], f"{files[row]} (row {row} of {root.name}/)", own_file=True)

    def content() -> str:
        return digest([file_stamp(file, root) for file in files])

    return SourceSplit(str(root), LabelColumn(codes, names), None, read, content)


def _note_passed_over(root: Path, found: _Listing) -> str:
    """How many files are no images by their suffix: of which suffixes, and from where most of them."""
    counts = Counter(file.suffix.lower() or "no suffix" for file in found.passed_over)
    kinds = listed([f"{count} {suffix}" for suffix, count in counts.most_common()], 5)
    folder, most = Counter(file.parent for file in found.passed_over).most_common(1)[0]
    kept = sum(file.parent == folder for file in found.files)
    return (
        f"{len(found.passed_over)} files of {root.name}/ are no images by their suffix and were passed over ({kinds}); most of "
        f"{quoted(folder.relative_to(root).as_posix())}, {most} of {most + kept}"
    )


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


def _list_images(root: Path, depth: int) -> _Listing:
    """Images, superclasses (none for depth 1), and what was passed over."""
    found = _Listing([], {}, [])
    parents = _folders(root) if depth == 2 else [root]
    for folder in {root: None, **dict.fromkeys(parents)}:
        stray = next((entry for entry in _entries(folder) if is_image(entry)), None)
        if stray is not None:
            if folder == root and not _folders(root):
                raise UnlabelledError(f"{root} has no labels: its images are in no class folders")
            place = folder / "<superclass>" / "<class>" if depth == 2 and folder == root else folder / "<class>"
            raise DataError(f"image {stray} is not in a class folder; move it into {place}/")
    for parent in parents:
        folders = _folders(parent)
        if not folders and parent != root:
            raise DataError(f"superclass folder {parent} holds no class folders; add <class>/ folders, or remove it")
        if depth == 2:
            found.members.setdefault(one_form(parent.name), []).extend(one_form(folder.name) for folder in folders)
        for folder in folders:
            _list_class(folder, found)
    return found


def _list_class(folder: Path, found: _Listing) -> None:
    entries = _entries(folder)
    deeper = [entry for entry in entries if entry.is_dir()]
    if deeper:
        raise DataError(f"{deeper[0]} is a level too deep; images belong directly in {folder}: move them up")
    images = [entry for entry in entries if is_image(entry)]
    if not images:
        suffixes = listed(sorted({entry.suffix.lower() for entry in entries if entry.suffix}), 5)
        advice = f"its {len(entries)} files are {suffixes}: convert them" if suffixes else "add some"
        raise DataError(f"class folder {folder} holds no images; {advice}, or remove the folder")
    found.files.extend(images)
    found.passed_over.extend(entry for entry in entries if not is_image(entry))


def _entries(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _folders(folder: Path) -> list[Path]:
    """Folders in a folder.

    Raises:
        DataError: the name of one, which is that of a class, is not UTF-8.
    """
    folders = [entry for entry in _entries(folder) if entry.is_dir()]
    for entry in folders:
        if not entry.name.isprintable() and any("\ud800" <= each <= "\udfff" for each in entry.name):
            raise DataError(
                f"the name of the folder {shown(os.fsencode(entry.name))} in {folder} is not UTF-8; rename it"
            )
    return folders


def is_image(entry: Path) -> bool:
    """Whether a file is an image by its suffix; so is a link that leads nowhere, which then cannot be decoded."""
    return entry.suffix.lower() in image_suffixes() and not entry.is_dir()

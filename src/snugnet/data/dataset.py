"""Labelled, grouped images: train, validation and test, which never mix."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from snugnet.data.columns import doubtful_names
from snugnet.data.depth import Depth, check_depths
from snugnet.data.duplicates import report_duplicates
from snugnet.data.groups import Groups, read_grouping, select_groups
from snugnet.data.image_set import ImageSet, StoredImages
from snugnet.data.images import closed_up, decode_images
from snugnet.data.measures import histograms, mean_std_of, measure
from snugnet.data.opening import open_source
from snugnet.data.pixels import SAMPLE, check_pixels
from snugnet.data.source import Source, SourceSplit
from snugnet.data.splits import split_off, stratified_rows
from snugnet.data.storage import Kind, Storage, cached_bytes, decode_to_cache, known_depths
from snugnet.errors import ConfigError, DataError
from snugnet.texts import listed, shown

if TYPE_CHECKING:
    from torch import Tensor

    from snugnet.data.config import DataConfig

Index = NDArray[np.int64]
_IN_WORDS = {"train": "training", "validation": "validation", "test": "test"}
_SPLITS = tuple(_IN_WORDS)
_AT_ONCE = 64  # images that are looked at
# Each choice has its own random stream, so that, say, the validation set does not depend on train_rows.
_STREAM = {"split test": 1, "split validation": 2, "train": 3, "validation": 4, "test": 5}


@dataclass(frozen=True)
class GroupedImages:
    """What `load_data` gives.

    Attributes:
        train: images to learn from.
        validation: for choices; disjoint from the rest.
        test: for reported results only.
        classes: names in label order, which is the order of the source (ClassLabel, else sorted).
        groups: superclasses of the classes.
        mean: of the training pixels, red, green, blue, in 0..1.
        std: likewise; 1 for a channel that is constant.
        report: JSON-ready account: ``rows`` (per split), ``skipped_images`` (count and first names, per split),
            ``duplicates`` (see `report_duplicates`), ``dropped_ungrouped`` (classes, and rows per split),
            ``one_class_groups``, ``notes``.
    """

    train: ImageSet
    validation: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    groups: Groups
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    report: dict[str, Any]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @cached_property
    def class_to_group(self) -> Tensor:
        """int64 ``(num_classes,)``: the position of each class's superclass in ``groups``."""
        import torch

        return torch.from_numpy(self.groups.class_to_group.copy())


def load_data(config: DataConfig, *, progress: bool = True) -> GroupedImages:
    """Read, split and decode the images that ``config`` describes.

    Labels are read first and the rows of every split chosen from them alone; only the chosen images are decoded.

    Args:
        config: what to load.
        progress: show a bar, on a terminal, once decoding takes over two seconds.

    Warns:
        UserWarning: a test image is, pixel by pixel, a training image.

    Raises:
        DataError: see `DataConfig` for what can be wrong; the message says what and where.
        ConfigError: settings that do not go with this source.
    """
    chosen = _Chosen.by_labels(config)
    source, groups, notes, labels = chosen.source, chosen.groups, chosen.notes, chosen.labels
    sets, skipped, rows = _decode_splits(source, labels, chosen.rows, config, notes, progress)
    for name in _SPLITS:
        notes += _check_pixels(sets[name], config, name)

    counts = np.bincount(sets["train"].labels.numpy(), minlength=len(groups.classes))
    for name, count in zip(groups.classes, counts, strict=True):
        if not count:
            lost = skipped["train"]
            why = (
                f"mend its images ({lost['count']} were skipped; first: {lost['first'][0]})"
                if lost["count"]
                else "raise train_rows"
            )
            raise DataError(f"class {shown(name)} has no training image left; {why}")
    if not len(sets["test"]):
        raise DataError(
            "no test image is left: all were skipped, or are of classes in no group; mend them, or set test_split or test=0.2"
        )
    for name in ("validation", "test"):
        absent = len(groups.classes) - len(np.unique(sets[name].labels.numpy()))
        if absent:
            notes.append(f"{absent} of {len(groups.classes)} classes have no {name} image")
    if groups.one_class:
        notes.append(f"groups of one class cannot be specialised to: {listed(groups.one_class)}")
    mean, std = mean_std(sets["train"])
    report = {
        "source": config.source,
        "rows": {name: len(sets[name]) for name in _SPLITS},
        "skipped_images": skipped,
        "duplicates": _duplicates(source, sets, rows, config),
        "dropped_ungrouped": {
            "classes": list(chosen.dropped),
            "rows": {name: int((of_split < 0).sum()) for name, of_split in labels.items()},
        },
        "one_class_groups": list(groups.one_class),
        "notes": notes,
    }
    return GroupedImages(sets["train"], sets["validation"], sets["test"], groups.classes, groups, mean, std, report)


def load_split(config: DataConfig, name: str, *, progress: bool = True) -> tuple[ImageSet, tuple[str, ...]]:
    """The images of one split, the same that `load_data` gives; those of the others are not decoded.

    So nothing is said about images that stand in two splits.

    Args:
        config: what to load.
        name: ``train``, ``validation`` or ``test``.
        progress: as in `load_data`.

    Returns:
        The images, and the classes that their labels are places in.

    Raises:
        DataError: as in `load_data`.
        ConfigError: as in `load_data`.
    """
    chosen = _Chosen.by_labels(config)
    rows = {name: chosen.rows[name]}
    sets, _, _ = _decode_splits(chosen.source, chosen.labels, rows, config, chosen.notes, progress)
    if name == "train":
        _check_pixels(sets[name], config, name)
    return sets[name], chosen.groups.classes


@dataclass(frozen=True)
class _Chosen:
    """What is decided by labels alone, before any image is decoded.

    Attributes:
        source: that is read.
        groups: superclasses, and the classes in label order.
        dropped: classes in no group.
        labels: of every row of every split of the source; negative for dropped classes.
        rows: for train, validation and test the split of the source, and rows of that.
        notes: for the report.
    """

    source: Source
    groups: Groups
    dropped: tuple[str, ...]
    labels: dict[str, Index]
    rows: dict[str, tuple[str, Index]]
    notes: list[str]

    @classmethod
    def by_labels(cls, config: DataConfig) -> Self:
        """Read the labels, and choose."""
        source = open_source(config)
        notes = list(source.notes)
        if config.validation_split is not None and config.validation_split == config.test_split:
            notes.append(
                f"validation and test are the same split, {config.test_split}: what is chosen by its images is judged on them"
            )
        classes = _classes(source, notes)
        groups, dropped = select_groups(
            _members(source, classes, config, notes), classes, drop_ungrouped=config.ungrouped == "drop"
        )
        labels = {name: split.labels.recode(groups.classes) for name, split in source.splits.items()}
        return cls(source, groups, tuple(dropped), labels, _choose_rows(source, labels, config, groups), notes)


def _classes(source: Source, notes: list[str]) -> tuple[str, ...]:
    """Classes with training rows, in the order of the source."""
    labels = source.splits["train"].labels
    if not len(labels.codes):
        raise DataError(f"{source.splits['train'].where} has no rows; give a source with images")
    counts = np.bincount(labels.codes, minlength=len(labels.names))
    classes = tuple(name for name, count in zip(labels.names, counts, strict=True) if count)
    if len(classes) < len(labels.names):
        notes.append(f"{len(labels.names) - len(classes)} class names of the source have no training row; left out")
    notes += doubtful_names(classes, counts[counts > 0])
    for split in source.splits.values():
        unseen = np.flatnonzero(split.labels.recode(classes) < 0)
        if len(unseen):
            name = split.labels.names[split.labels.codes[unseen[0]]]
            hint = (
                ", or set test_split to one with labels, if these are none"
                if len(unseen) == len(split.labels.codes)
                else ""
            )
            raise DataError(
                f"{split.where} has the class {shown(name)}, which the training rows have not; "
                f"add training rows of it, or remove it{hint}"
            )
    return classes


def _members(source: Source, classes: tuple[str, ...], config: DataConfig, notes: list[str]) -> Mapping[str, list[str]]:
    """The grouping: of the configuration, else of a column, else of the source; without any, one group of all."""
    if config.groups is not None:
        return read_grouping(config.groups)
    if config.group_column is not None:
        members: dict[str, list[str]] = {}
        for split in source.splits.values():
            _add_pairs(members, split, classes)
        return members
    if source.members is not None:
        return source.members
    notes.append("no groups were given: all classes are in one group 'all'; set groups or group_column")
    return {"all": list(classes)}


def _add_pairs(members: dict[str, list[str]], split: SourceSplit, classes: tuple[str, ...]) -> None:
    if split.groups is None:
        raise ConfigError("group_column is set, but this source has no columns; remove it, or give groups")
    labels = split.labels.recode(classes)
    pairs = np.unique(np.stack([split.groups.codes, labels]), axis=1).T
    for group_code, class_code in pairs:
        of_group = members.setdefault(split.groups.names[group_code], [])
        if classes[class_code] not in of_group:
            of_group.append(classes[class_code])


def _choose_rows(
    source: Source, labels: dict[str, Index], config: DataConfig, groups: Groups
) -> dict[str, tuple[str, Index]]:
    """For train, validation and test: the split of the source it comes from, and rows of that, ascending."""
    grouped = {name: np.flatnonzero(of_split >= 0) for name, of_split in labels.items()}
    chosen = {name: (name, grouped[name]) for name in _SPLITS if name in grouped}

    def take_from_train(name: str, count: int, setting: str) -> None:
        rows = chosen["train"][1]
        if len(rows) - count < len(groups.classes):
            raise DataError(
                f"{setting} takes {count} of {len(rows)} training rows, and one for each of "
                f"{len(groups.classes)} classes must stay; lower it"
            )
        stays, taken = split_off(labels["train"][rows], count, (config.seed, _STREAM[f"split {name}"]))
        chosen["train"], chosen[name] = ("train", rows[stays]), ("train", rows[taken])

    if "test" in chosen and config.test is not None:
        raise ConfigError(f"test={config.test} is set, but the source has its own test split; remove test")
    if "test" not in chosen:
        fraction = config.test if config.test is not None else source.default_test
        if fraction is None:
            raise DataError(
                f"{config.source} has no test split {config.test_split!r}; set test_split to the name of one, "
                "or test=0.2 to split a fifth off the training rows"
            )
        take_from_train("test", max(1, round(fraction * len(chosen["train"][1]))), f"test={fraction}")
    if "validation" not in chosen:
        if config.validation_split is not None:
            raise DataError(
                f"{config.source} has no validation split {config.validation_split!r}; correct validation_split, or "
                "remove it to split validation rows off the training rows"
            )
        size = config.validation
        count = size if isinstance(size, int) else (max(1, round(size * len(chosen["train"][1]))) if size else 0)
        take_from_train("validation", count, f"validation={size}")

    for name in _SPLITS:
        wanted = getattr(config, f"{name}_rows")
        split, rows = chosen[name]
        if wanted is not None and wanted > len(rows):
            raise DataError(f"{name}_rows={wanted}, but there are {len(rows)} {name} rows; lower it, or leave it out")
        if wanted is not None:
            taken = stratified_rows(labels[split][rows], wanted, (config.seed, _STREAM[name]))
            chosen[name] = (split, rows[taken])
    return chosen


def _decode_splits(
    source: Source,
    labels: dict[str, Index],
    rows: dict[str, tuple[str, Index]],
    config: DataConfig,
    notes: list[str],
    progress: bool,
) -> tuple[dict[str, ImageSet], dict[str, Any], dict[str, tuple[str, Index]]]:
    """Decode each split of the source once, as far as ``rows`` ask for it; report what was skipped, and which rows were not.

    What there is to say on where images are kept, and on the depth of the training images, is added to ``notes``.
    """
    import torch

    storage = Storage.of(
        config, sum(len(own) for _, own in rows.values()), lambda: cached_bytes(source.splits.values(), config)
    )
    notes += [storage.note] if storage.note else []
    sets: dict[str, ImageSet] = {}
    skipped: dict[str, Any] = {}
    decoded_rows: dict[str, tuple[str, Index]] = {}
    for origin, split in source.splits.items():
        own = {name: rows[name][1] for name in _SPLITS if name in rows and rows[name][0] == origin}
        if not own:
            continue
        title = f"decoding {' + '.join(own)}" if progress else None
        decoded = _in_memory(split, own, config, title) if storage.kind == "memory" else None
        for name, found in (decoded or _on_disk(split, own, config, storage.kind, title)).items():
            decoded_rows[name] = (origin, own[name][found.kept])
            sets[name] = ImageSet(found.images, torch.from_numpy(labels[origin][decoded_rows[name][1]]))
            skipped[name] = {"count": len(found.skipped), "first": found.skipped[:5]}
            if config.value_range is None:
                notes += check_depths(found.depths, len(sets[name]), _IN_WORDS[name])
    return sets, skipped, decoded_rows


@dataclass(frozen=True)
class _Found:
    """What decoding has given of the rows of train, validation or test.

    Attributes:
        images: of the rows that are kept.
        kept: for each row that was asked for, whether it could be decoded.
        skipped: the others, by name and reason.
        depths: of images of more than 8 bits.
    """

    images: Tensor | StoredImages
    kept: NDArray[np.bool_]
    skipped: list[str]
    depths: list[Depth]


def _in_memory(
    split: SourceSplit, rows: dict[str, Index], config: DataConfig, progress: str | None
) -> dict[str, _Found]:
    import torch

    wanted = np.concatenate(list(rows.values()))
    decoded = decode_images(
        split.read(np.sort(wanted)),
        wanted,
        config.resolution,
        value_range=config.value_range,
        skip_bad=config.on_bad_image == "skip",
        progress=progress,
    )
    found, start = {}, 0
    for name, own in rows.items():
        part = slice(start, start + len(own))
        start = part.stop
        kept = decoded.kept[part]
        images = torch.from_numpy(closed_up(decoded.images[part], kept))  # views of one array
        places = range(part.start, part.stop)
        skipped = [decoded.skipped[place] for place in places if place in decoded.skipped]
        depths = [decoded.depths[place] for place in places if place in decoded.depths]
        found[name] = _Found(images, kept, skipped, depths)
    return found


def _on_disk(
    split: SourceSplit, rows: dict[str, Index], config: DataConfig, kind: Kind, progress: str | None
) -> dict[str, _Found]:
    stores, cache = decode_to_cache(split, rows, config, kind, progress)
    found = {}
    for name, own in rows.items():
        kept = ~cache.bad(own)
        skipped = [cache.problems[row] for row in own[~kept].tolist()]
        found[name] = _Found(StoredImages(stores[name], own[kept]), kept, skipped, known_depths(cache, own[kept]))
    return found


def _duplicates(
    source: Source, sets: dict[str, ImageSet], rows: dict[str, tuple[str, Index]], config: DataConfig
) -> dict[str, Any]:
    """Report images that stand in two places; between train and test, warn or raise."""

    def names(split: str, positions: Index) -> list[str]:
        origin, of_split = rows[split]
        wanted = of_split[positions]
        name_of = {item.row: item.name for item in source.splits[origin].read(np.unique(wanted))} if len(wanted) else {}
        return [name_of[row] for row in wanted.tolist()]

    report = report_duplicates(
        {name: sets[name].measures["hash"] for name in _SPLITS},
        {name: sets[name].labels.numpy() for name in _SPLITS},
        names,
    )
    leak = report["train and test"]
    if leak["count"]:
        known, found = leak["first"][0]
        others = f", {leak['other_class']} of them of another class" if leak["other_class"] else ""
        text = (
            f"{leak['count']} of {len(sets['test'])} test images are, pixel by pixel, among the training images{others} "
            f"(first: {found} is {known}); results on them are no test: "
            + (
                "the test split is the training rows again, so set test_split to another, or remove it and set test=0.2"
                if leak["count"] + (report["validation and test"]["count"] if config.validation else 0)
                >= len(sets["test"])
                else "remove them from one of the two"
            )
        )
        if config.on_leak == "error":
            raise DataError(f"{text}, or set on_leak=warn")
        warnings.warn(text, stacklevel=3)
    return report


def _check_pixels(images: ImageSet, config: DataConfig, name: str) -> list[str]:
    if not len(images):
        return []
    step, counts = -(-len(images) // SAMPLE), np.zeros(256, dtype=np.int64)
    for start in range(0, len(images), _AT_ONCE * step):
        part = images.pixels(slice(start, start + _AT_ONCE * step, step))
        counts += histograms(part.numpy()).sum(axis=(0, 1))
    low, high = images.measures["low"], images.measures["high"]
    return check_pixels(low, high, counts, config.value_range, _IN_WORDS[name])


def mean_std(images: Tensor | ImageSet) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Exact mean and standard deviation of each channel, in 0..1; of uint8 images ``(n, 3, h, w)``, or those of a set."""
    measures = images.measures if isinstance(images, ImageSet) else measure(images.cpu().numpy())
    _, _, height, width = (images.images if isinstance(images, ImageSet) else images).shape
    return mean_std_of(measures, height * width)

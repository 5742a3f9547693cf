"""Splits of a source that have nothing to judge by: without labels, or without rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from snugnet.data.columns import MissingColumnError, UnlabelledError
from snugnet.data.config import DataConfig
from snugnet.data.source import SourceSplit
from snugnet.errors import ConfigError, DataError
from snugnet.texts import listed


def split_names(config: DataConfig, *, own_validation: str | None = "validation") -> dict[str, str]:
    """What the splits train, validation and test are called in the source; without those that it is not to be asked for.

    Args:
        config: names them.
        own_validation: the split that is the validation split where the configuration names none, if the source has it.

    Raises:
        ConfigError: the test or the validation split is the training split.
    """
    if config.test_split == config.train_split and config.test is None:
        raise ConfigError(
            f"test_split and train_split are both {config.train_split!r}, so the network would be tested on what it learned; "
            "set test_split to another split, or test=0.2 to split a fifth off the training rows"
        )
    if config.validation_split == config.train_split:
        raise ConfigError(
            f"validation_split and train_split are both {config.train_split!r}; set validation_split to another split, "
            "or remove it to split validation rows off the training rows"
        )
    names = {"train": config.train_split, "validation": config.validation_split, "test": config.test_split}
    if config.validation_split is None and own_validation not in (config.train_split, config.test_split):
        names["validation"] = own_validation
    if config.test_split == config.train_split:
        del names["test"]
    return {split: name for split, name in names.items() if name is not None}


def open_usable(
    split: str, name: str, opener: Callable[[], SourceSplit], config: DataConfig, have: Iterable[str], notes: list[str]
) -> SourceSplit | None:
    """Open a split, or say that it cannot be judged by.

    Args:
        split: train, validation or test.
        name: of that split in the source.
        opener: opens it.
        config: says whether another will do: ``test=`` a share of the training rows, or a validation split that it does not ask for.
        have: names of all splits of the source.
        notes: gets a line about a split that is left out.

    Returns:
        The split; None where it has no labels or no rows, and others do instead.

    Raises:
        DataError: it has none, and is needed.
    """
    try:
        opened = opener()
    except UnlabelledError as error:
        if split == "train":
            raise DataError(
                f"{error}; set label_column to another column, or train_split to a split with labels"
            ) from None
        problem = str(error)
    except MissingColumnError as error:
        if split == "train" or error.column != config.label_column:
            raise
        problem = f"{error.where} has no labels: it has no column {error.column!r}"
    else:
        if split == "train" or len(opened.labels.codes):
            return opened
        problem = f"{opened.where} has no rows"
    spare = {"validation": config.validation_split is None, "test": config.test is not None}
    if spare[split]:
        notes.append(f"the {split} split is not used: {problem}; {split} rows are split off the training rows")
        return None
    others = [other for other in have if other not in (name, config.train_split)]
    which = f" ({listed(others)})" if others else ""
    key = f"{split}_split={others[0]}" if others else f"{split}_split=NAME of a split that has"
    advice = "test=0.2 to split a fifth off the training rows"
    if split == "validation":
        advice = "remove validation_split to split rows off the training rows"
    raise DataError(
        f"{problem}; set {key}{which if len(others) > 1 else ''}, or {'' if split == 'validation' else 'set '}{advice}"
    )

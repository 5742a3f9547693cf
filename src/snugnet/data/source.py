"""A source of images: its splits with labels, and a reader of encoded images for chosen rows."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snugnet.data.columns import LabelColumn
from snugnet.data.images import EncodedImage


@dataclass(frozen=True)
class SourceSplit:
    """One split of a source.

    Attributes:
        where: the file, folder or data set, for messages.
        labels: the class of each row.
        groups: the superclass of each row, where the source says it.
        read: yields the encoded image of each of the given rows (int64, ascending) once.
        content: plain JSON, or a digest, of what the images are: another when one of them changes, the same where the source lies
            elsewhere. Nothing is decoded for it.
        at_random: whether a few rows are read as fast from anywhere as many in order.
    """

    where: str
    labels: LabelColumn
    groups: LabelColumn | None
    read: Callable[[NDArray[np.int64]], Iterator[EncodedImage]]
    content: Callable[[], Any]
    at_random: bool = True


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

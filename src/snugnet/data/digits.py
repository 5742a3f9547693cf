"""scikit-learn's handwritten digits: 1,797 grey images of 8 x 8 pixels, built in."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from snugnet.data.columns import LabelColumn
from snugnet.data.groups import read_grouping
from snugnet.data.images import EncodedImage
from snugnet.data.source import Source, SourceSplit
from snugnet.extras import needs


def open_digits() -> Source:
    """The digits with their groups round, straight and curvy; a fifth of the rows is the test set unless told."""
    needs("sklearn")
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)  # 0..16 in the file

    def read(rows: NDArray[np.int64]) -> Iterator[EncodedImage]:
        for row in rows:
            yield EncodedImage(int(row), pixels[row], f"digits, row {row}")

    labels = LabelColumn(data.target.astype(np.int64), tuple(str(digit) for digit in range(10)))
    split = SourceSplit("digits", labels, None, read, lambda: "digits")
    return Source({"train": split}, members=read_grouping("digits"), default_test=0.2)

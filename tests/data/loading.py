"""What tests of data do again and again."""

from __future__ import annotations

import pytest

from snugnet.data import DataConfig, GroupedImages, load_data
from snugnet.errors import DataError


def load(source: object = "digits", **settings: object) -> GroupedImages:
    """Images of a source, at 8 pixels unless they are asked for at others."""
    return load_data(DataConfig(source=str(source), **{"resolution": 8, **settings}), progress=False)


def says(match: str, source: object, kind: type[Exception] = DataError, **settings: object) -> None:
    """It is refused, in one line that matches."""
    with pytest.raises(kind, match=match) as error:
        load(source, **settings)
    assert "\n" not in str(error.value)

"""How a predictor is a folder: a JSON index with checksums, and its arrays as safetensors. No pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from snugnet.bundles import PREDICTOR

ARRAYS = "predictor.safetensors"


def write_folder(folder: Path, index: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Path:
    """Write a folder; it is made if needed.

    Returns:
        The folder.
    """
    content = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    return PREDICTOR.write(folder, index, {ARRAYS: content})


def read_folder(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The index, and the arrays as they lie there, both checked against their checksums.

    Raises:
        PredictorError: the folder is missing, truncated, altered, or of a newer version.
    """
    index, contents = PREDICTOR.read(folder, [ARRAYS])
    return index, contents[ARRAYS]


def read_arrays(content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays by name."""
    return safetensors.numpy.load(content)

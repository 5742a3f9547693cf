"""A predictor as a folder: a JSON index with checksums, and safetensors. No pickle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.numpy

from snugnet.bundles import PREDICTOR
from snugnet.errors import PredictorError
from snugnet.predictors.predictor import Predictor, predictor_class
from snugnet.spaces import get_space

ARRAYS = "predictor.safetensors"


def save_predictor(predictor: Predictor, folder: Path) -> Path:
    """Write a predictor.

    Returns:
        The folder; it is made if needed.
    """
    content = safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in predictor.arrays().items()})
    index = {
        "kind": predictor.kind,
        "space": predictor.space.to_json(),
        "targets": list(predictor.targets),
        "provenance": predictor.provenance,
    }
    return PREDICTOR.write(folder, index, {ARRAYS: content})


def load_predictor(folder: str | Path) -> Predictor:
    """Read a predictor, checksums first.

    Raises:
        PredictorError: it is missing, truncated, altered, or of a newer version.
    """
    folder = Path(folder)
    index, contents = PREDICTOR.read(folder, [ARRAYS])
    try:
        space = get_space(index["space"]["name"], **index["space"]["options"])
        targets = tuple(str(target) for target in index["targets"])
        predictor = predictor_class(index["kind"]).restore(space, targets, safetensors.numpy.load(contents[ARRAYS]))
        predictor.provenance = dict(index["provenance"])
    except Exception as error:  # whatever a damaged or foreign file breaks, it is the file that is named
        reason = " ".join(str(error).split())[:200]
        raise PredictorError(f"{folder} holds no whole predictor ({reason})") from error
    return predictor

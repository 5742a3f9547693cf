"""A predictor as a folder: a JSON index with checksums, and safetensors. No pickle."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

import snugnet
from snugnet.errors import PredictorError
from snugnet.files import write_atomically
from snugnet.search.predictors.predictor import Predictor, predictor_class
from snugnet.spaces import get_space

FORMAT = "snugnet-predictor"
VERSION = 1
INDEX = "predictor.json"
ARRAYS = "predictor.safetensors"


def save_predictor(predictor: Predictor, folder: Path) -> Path:
    """Write a predictor; the index with the checksums comes last, so one half written is seen to be.

    Returns:
        The folder; it is made if needed.
    """
    content = safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in predictor.arrays().items()})
    index = {
        "format": FORMAT,
        "version": VERSION,
        "snugnet": snugnet.__version__,
        "kind": predictor.kind,
        "space": predictor.space.to_json(),
        "targets": list(predictor.targets),
        "provenance": predictor.provenance,
        "files": {ARRAYS: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}},
    }
    write_atomically(folder / ARRAYS, content)
    write_atomically(folder / INDEX, json.dumps({**index, "sha256": _checksum(index)}, indent=1).encode())
    return folder


def load_predictor(folder: str | Path) -> Predictor:
    """Read a predictor, checksums first.

    Raises:
        PredictorError: it is missing, truncated, altered, or of a newer version.
    """
    folder = Path(folder)
    index = _read_index(folder)
    content = _read_arrays(folder, index)
    try:
        space = get_space(index["space"]["name"], **index["space"]["options"])
        targets = tuple(str(target) for target in index["targets"])
        predictor = predictor_class(index["kind"]).restore(space, targets, safetensors.numpy.load(content))
        predictor.provenance = dict(index["provenance"])
    except Exception as error:  # whatever a damaged or foreign file breaks, it is the file that is named
        reason = " ".join(str(error).split())[:200]
        raise PredictorError(f"{folder} holds no whole predictor ({reason})") from error
    return predictor


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    if not folder.is_dir():
        raise PredictorError(
            f"there is no folder {folder}; a predictor is a folder with {INDEX}, made by 'snugnet predictor fit'"
        )
    if not path.is_file():
        raise PredictorError(f"{folder} has no {INDEX}; is it the right folder?")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise PredictorError(f"{path} is damaged ({error})") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise PredictorError(f"{path} is not the index of a snugnet predictor")
    version = index.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= VERSION:
        raise PredictorError(
            f"{folder} is of predictor version {version}, this snugnet reads up to {VERSION}; update snugnet"
        )
    if index.pop("sha256", None) != _checksum(index):
        raise PredictorError(f"{path} was altered after the predictor was saved (its checksum differs)")
    return index


def _read_arrays(folder: Path, index: dict[str, Any]) -> bytes:
    path = folder / ARRAYS
    expected = index.get("files", {}).get(ARRAYS)
    if not isinstance(expected, dict):
        raise PredictorError(f"{folder / INDEX} does not list {ARRAYS}; the predictor is damaged")
    if not path.is_file():
        raise PredictorError(f"{folder} lacks {ARRAYS}; copy the whole folder, or fit again")
    content = path.read_bytes()
    if len(content) != expected.get("bytes"):
        raise PredictorError(f"{path} is truncated or replaced: {len(content)} bytes, expected {expected['bytes']}")
    if hashlib.sha256(content).hexdigest() != expected.get("sha256"):
        raise PredictorError(f"{path} was altered after the predictor was saved (its checksum differs)")
    return content


def _checksum(index: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()

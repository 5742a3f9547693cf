"""Accuracy predictors: what an architecture will reach, without running it.

Three kinds under one roof: ``mlp`` (OFA's), ``forest`` (AttentiveNAS's) and ``best`` (a Gaussian process, the most exact
here); installed packages may bring more. Each is fitted to rows of a space and measured values, predicts whole populations, and is a folder on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snugnet.predictors.agreement import score
from snugnet.predictors.predictor import (
    MINIMUM_ROWS,
    PREDICTORS,
    Predictor,
    fit_predictor,
    list_predictors,
    load_predictor,
)
from snugnet.predictors.tables import ArchitectureTable, read_table, write_table

if TYPE_CHECKING:
    from snugnet.predictors.forest import ForestPredictor
    from snugnet.predictors.gaussian import GaussianProcessPredictor
    from snugnet.predictors.mlp import MLPPredictor

__all__ = [
    "MINIMUM_ROWS",
    "PREDICTORS",
    "ArchitectureTable",
    "ForestPredictor",
    "GaussianProcessPredictor",
    "MLPPredictor",
    "Predictor",
    "fit_predictor",
    "list_predictors",
    "load_predictor",
    "read_table",
    "score",
    "write_table",
]

_KINDS = {"ForestPredictor": "forest", "GaussianProcessPredictor": "best", "MLPPredictor": "mlp"}


def __getattr__(name: str) -> Any:
    """Import on first use: two of the kinds need torch."""
    if name not in _KINDS:
        raise AttributeError(f"module 'snugnet.predictors' has no attribute {name!r}")
    return PREDICTORS[_KINDS[name]]

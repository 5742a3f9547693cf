"""Accuracy predictors: what an architecture will reach, without running it.

Three kinds under one roof: ``mlp`` (OFA's), ``forest`` (AttentiveNAS's) and ``best`` (a Gaussian process, the most exact
here). Each is fitted to rows of a space and measured values, predicts whole populations, and is a folder on disk.
"""

from snugnet.predictors.agreement import score
from snugnet.predictors.disk import load_predictor
from snugnet.predictors.forest import ForestPredictor
from snugnet.predictors.gaussian import GaussianProcessPredictor
from snugnet.predictors.mlp import MLPPredictor
from snugnet.predictors.predictor import MINIMUM_ROWS, Predictor, fit_predictor, list_predictors
from snugnet.predictors.tables import ArchitectureTable, read_table, write_table

__all__ = [
    "MINIMUM_ROWS",
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

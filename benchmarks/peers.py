"""The `ofa` package of once-for-all, as the benchmarks use it: pip install --no-deps ofa

It is run as it is published. It imports torchvision, gdown and torch._six, which not every environment has (and no torch of
today has the last); only its data sets and downloads use them, and nothing here does. Where one is missing, an empty stand-in
lets the import go through.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import os
import random
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

SHARED = Path(os.environ.get("SNUGNET_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"
OFA_DATA = SHARED / "ofa-mobilenet-v3"

_UNUSED = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional", "torchvision.datasets",
           "gdown", "torch._six")  # fmt: skip


class _Missing(types.ModuleType):
    """A module whose every public name is an empty class: enough for imports and base classes."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def import_ofa(module: str) -> Any:
    """A module of the `ofa` package, such as ``ofa.tutorial``; ends the program where the package is not installed."""
    for name in _UNUSED:
        try:
            importlib.import_module(name)
        except (ImportError, RuntimeError):
            sys.modules[name] = stand_in = _Missing(name)
            parent, _, child = name.rpartition(".")
            if isinstance(sys.modules.get(parent), _Missing):
                setattr(sys.modules[parent], child, stand_in)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise SystemExit(f"{error}: the package of once-for-all is missing; pip install --no-deps ofa tqdm") from error


class OFASearch:
    """EvolutionFinder of the `ofa` package on the published accuracy predictor and Note 10 latency table.

    Attributes:
        accuracy: its AccuracyPredictor.
        latency: its LatencyTable.
    """

    def __init__(self, folder: Path = OFA_DATA) -> None:
        tutorial = import_ofa("ofa.tutorial")
        estimator = import_ofa("ofa.tutorial.latency_table").LatencyEstimator
        self._finder = tutorial.EvolutionFinder
        self.accuracy = tutorial.AccuracyPredictor(pretrained=False, device="cpu")
        self.accuracy.model.load_state_dict(load_file(folder / "accuracy_predictor_w1.2.safetensors"))
        self.latency = tutorial.LatencyTable(resolutions=())  # it would download them; these are the same numbers
        with gzip.open(folder / "note10_latency.csv.gz", "rt", newline="") as file:
            for line in csv.DictReader(file):
                table = self.latency.latency_tables.setdefault(int(line["resolution"]), object.__new__(estimator))
                vars(table).setdefault("lut", {})[line["layer"]] = {"mean": float(line["mean_ms"])}

    def run(self, milliseconds: float, seed: int, rounds: int = 500) -> tuple[float, float, dict[str, Any]]:
        """One search with the package's defaults: predicted accuracy in per cent, latency in ms, and its architecture."""
        random.seed(seed)
        np.random.seed(seed)
        finder = self._finder(
            constraint_type="note10",
            efficiency_constraint=milliseconds,
            efficiency_predictor=self.latency,
            accuracy_predictor=self.accuracy,
            max_time_budget=rounds,
        )
        _, (accuracy, arch, latency) = finder.run_evolution_search()
        return 100 * accuracy, latency, arch

    def judge(self, arch: dict[str, Any]) -> tuple[float, float]:
        """Predicted accuracy in per cent and latency in ms of an architecture in snugnet's JSON form, by the package's code."""
        spec = self.form(arch)
        latency = self.latency.predict_efficiency(spec)
        return 100 * self.accuracy.predict_accuracy([spec]).item(), latency

    @staticmethod
    def form(arch: dict[str, Any]) -> dict[str, Any]:
        """The package's own form: one list of 20 slots each."""
        kernels, expands = (
            [value for stage in arch[kind] for value in [*stage, *[3] * (4 - len(stage))]]
            for kind in ("kernel_size", "expand_ratio")
        )
        return {"wid": None, "ks": kernels, "e": expands, "d": list(arch["depth"]), "r": [arch["resolution"]]}

"""What every accuracy predictor can do, and the registry of kinds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from snugnet.errors import ConfigError, PredictorError
from snugnet.predictors.disk import read_arrays, read_folder, write_folder
from snugnet.registry import Registry
from snugnet.spaces import Population, SearchSpace, get_space

MINIMUM_ROWS = 20
"""Fewer measured architectures than this say nothing about a space."""


class Predictor(ABC):
    """Predicts measured values, such as accuracy, from architectures.

    Attributes:
        space: whose architectures it knows.
        targets: names of what is predicted, one an output.
        provenance: how it came to be, as plain JSON.
    """

    kind: ClassVar[str]
    minimum_rows: ClassVar[int] = MINIMUM_ROWS
    """So many measured architectures are needed."""
    differentiable: ClassVar[bool] = False
    """Whether there are :meth:`gradients`."""

    def __init__(
        self, space: SearchSpace, targets: Sequence[str] = ("accuracy",), provenance: Mapping[str, Any] | None = None
    ) -> None:
        self.space = space
        self.targets = tuple(targets)
        self.provenance = dict(provenance or {})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.space.name}, {', '.join(self.targets)})"

    @classmethod
    @abstractmethod
    def fit(
        cls,
        space: SearchSpace,
        rows: Population,
        values: ArrayLike,
        *,
        targets: Sequence[str] = ("accuracy",),
        seed: int = 0,
        progress: bool = False,
        **settings: Any,
    ) -> Self:
        """Fit to measured architectures.

        Args:
            space: the space.
            rows: measured architectures, shape ``(n, d)``.
            values: what was measured, shape ``(n,)`` or ``(n, outputs)``, in any unit.
            targets: a name for each output.
            seed: of all randomness.
            progress: whether to show a bar.
            **settings: of the kind; see its class.

        Raises:
            PredictorError: too few rows, or values that are not finite or do not fit the rows and targets.
            SpaceError: the rows are not of the space.
        """

    @abstractmethod
    def outputs(self, rows: Population) -> NDArray[np.float64]:
        """Predictions of canonical rows, shape ``(n, d)``: always shape ``(n, outputs)``."""

    def predict(self, rows: Population) -> NDArray[np.float64]:
        """Predict a population.

        Args:
            rows: canonical rows, shape ``(n, d)``.

        Returns:
            In the targets' own units: shape ``(n,)`` where there is one target, else ``(n, outputs)``.

        Raises:
            PredictorError: the rows have another shape.
        """
        if rows.ndim != 2 or rows.shape[1] != self.space.d:
            raise PredictorError(f"architectures of {self.space.name} have shape (n, {self.space.d}), got {rows.shape}")
        values = self.outputs(rows)
        return values[:, 0] if len(self.targets) == 1 else values

    def gradients(self, rows: Population, output: int = 0) -> NDArray[np.float32]:
        """How an output rises with each entry of the one-hot code, at given architectures.

        Args:
            rows: canonical, shape ``(n, d)``.
            output: position of the target.

        Returns:
            Shape ``(n, sum of options)``.

        Raises:
            PredictorError: the kind is not :attr:`differentiable`.
        """
        raise PredictorError(f"a predictor of kind {self.kind} has no gradients; one of kind mlp has")

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What :meth:`restore` needs, as plain arrays."""

    @classmethod
    @abstractmethod
    def restore(cls, space: SearchSpace, targets: Sequence[str], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The predictor that :meth:`arrays` took apart.

        Raises:
            PredictorError: the arrays do not fit each other or the space.
        """

    def save(self, folder: str | Path) -> Path:
        """Write the predictor into a folder (JSON and safetensors); :func:`load_predictor` reads it.

        Returns:
            The folder.
        """
        index = {
            "kind": self.kind,
            "space": self.space.to_json(),
            "targets": list(self.targets),
            "provenance": self.provenance,
        }
        return write_folder(Path(folder), index, self.arrays())


PREDICTORS: Registry[type[Predictor]] = Registry(
    "snugnet.predictors",
    "kind of predictor",
    ConfigError,
    lambda thing: isinstance(thing, type) and issubclass(thing, Predictor),
    key="kind",
    homes={
        "best": "snugnet.predictors.gaussian:GaussianProcessPredictor",
        "forest": "snugnet.predictors.forest:ForestPredictor",
        "mlp": "snugnet.predictors.mlp:MLPPredictor",
    },
)
"""Predictors by kind, imported when they are asked for; installed packages bring theirs through entry points."""


def list_predictors() -> list[str]:
    """The kinds of predictors."""
    return PREDICTORS.names()


def fit_predictor(
    kind: str,
    space: SearchSpace,
    rows: Population,
    values: ArrayLike,
    *,
    targets: Sequence[str] = ("accuracy",),
    seed: int = 0,
    progress: bool = False,
    **settings: Any,
) -> Predictor:
    """Fit a predictor of the given kind; arguments as in :meth:`Predictor.fit`.

    Raises:
        ConfigError: there is no such kind.
        PredictorError: the samples cannot be used.
    """
    return PREDICTORS[kind].fit(space, rows, values, targets=targets, seed=seed, progress=progress, **settings)


def load_predictor(folder: str | Path) -> Predictor:
    """Read a predictor, checksums first.

    Raises:
        PredictorError: it is missing, truncated, altered, or of a newer version.
    """
    index, content = read_folder(Path(folder))
    try:
        space = get_space(index["space"]["name"], **index["space"]["options"])
        targets = tuple(str(target) for target in index["targets"])
        predictor = PREDICTORS[index["kind"]].restore(space, targets, read_arrays(content))
        predictor.provenance = dict(index["provenance"])
    except Exception as error:  # whatever a damaged or foreign file breaks, it is the file that is named
        reason = " ".join(str(error).split())[:200]
        raise PredictorError(f"{folder} holds no whole predictor ({reason})") from error
    return predictor


def check_values(
    space: SearchSpace, rows: Population, values: ArrayLike, targets: Sequence[str], least: int
) -> tuple[Population, NDArray[np.float64]]:
    """Canonical rows, and values of shape ``(n, outputs)``.

    Raises:
        PredictorError: fewer than ``least`` rows, or values that are not finite or do not fit the rows and targets.
        SpaceError: the rows are not of the space.
    """
    rows = space.rows(rows)
    matrix = np.asarray(values, dtype=np.float64)
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    if matrix.shape != (len(rows), len(targets)):
        raise PredictorError(
            f"{len(rows)} architectures and {len(targets)} targets need values of shape "
            f"({len(rows)}, {len(targets)}), got {np.shape(values)}"
        )
    if len(rows) < least:
        raise PredictorError(f"{len(rows)} measured architectures are too few; at least {least} are needed")
    if not np.isfinite(matrix).all():
        row, column = np.argwhere(~np.isfinite(matrix))[0]
        raise PredictorError(f"row {row}: {targets[column]} is {matrix[row, column]}, not a finite number")
    return rows, matrix


def standardise(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Values with mean 0 and standard deviation 1 (0 where they are all equal), the mean and the deviation."""
    mean, std = values.mean(0), values.std(0)
    std = np.where(std > 1e-12 * np.maximum(1, np.abs(mean)), std, 1.0)
    return (values - mean) / std, mean, std


def levels(space: SearchSpace, rows: Population) -> NDArray[np.int64]:
    """Canonical rows with what does not matter told apart from the first option.

    Returns:
        Shape ``(n, d)``: 0 where a choice does not matter, else 1 + the option's index.
    """
    return np.where(space.active(rows), rows + np.int64(1), np.int64(0))

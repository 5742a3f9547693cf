"""What every accuracy predictor can do, and the registry of kinds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from snugnet.errors import ConfigError, PredictorError
from snugnet.spaces import Population, SearchSpace

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
        from snugnet.predictors.disk import save_predictor

        return save_predictor(self, Path(folder))


_REGISTRY: dict[str, type[Predictor]] = {}


def register(predictor: type[Predictor]) -> type[Predictor]:
    """Class decorator: make a predictor known by its ``kind``."""
    _REGISTRY[predictor.kind] = predictor
    return predictor


def list_predictors() -> list[str]:
    """The kinds of predictors."""
    return sorted(_REGISTRY)


def predictor_class(kind: str) -> type[Predictor]:
    """The class of a kind.

    Raises:
        ConfigError: there is none.
    """
    if kind not in _REGISTRY:
        raise ConfigError(f"unknown kind of predictor {kind!r}; known: {', '.join(list_predictors())}")
    return _REGISTRY[kind]


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
    return predictor_class(kind).fit(space, rows, values, targets=targets, seed=seed, progress=progress, **settings)


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

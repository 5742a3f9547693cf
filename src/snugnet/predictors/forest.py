"""A random forest: the accuracy predictor of AttentiveNAS (Wang et al., CVPR 2021, section 4.1): 100 trees of depth 15."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from snugnet.errors import PredictorError
from snugnet.extras import needs
from snugnet.predictors.predictor import MINIMUM_ROWS, Predictor, check_values, levels
from snugnet.predictors.trees import LevelWalk, Trees
from snugnet.spaces import Population, SearchSpace


class ForestPredictor(Predictor):
    """A random forest on one number a choice.

    Settings of :meth:`fit`: ``trees`` and ``depth``.

    Attributes:
        trees: the nodes.
        columns: of each of the forest's inputs the column of its choice, shape ``(inputs,)``.
        values: of each input its value where the choice does not matter, then at each option, shape
            ``(inputs, 1 + most options)``.
    """

    kind = "forest"

    def __init__(
        self,
        space: SearchSpace,
        trees: Trees,
        columns: NDArray[np.intp],
        values: NDArray[np.float64],
        targets: Sequence[str] = ("accuracy",),
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(space, targets, provenance)
        self.trees, self.columns, self.values = trees, columns, values
        self._walk = LevelWalk(trees, columns, values)

    @classmethod
    def fit(
        cls,
        space: SearchSpace,
        rows: Population,
        values: ArrayLike,
        *,
        targets: Sequence[str] = ("accuracy",),
        seed: int = 0,
        progress: bool = False,
        trees: int = 100,
        depth: int = 15,
        **settings: Any,
    ) -> Self:
        """Fit with scikit-learn; see :meth:`Predictor.fit`. It takes about a second, so there is no bar."""
        needs("sklearn")
        from sklearn.ensemble import RandomForestRegressor

        if settings:
            raise PredictorError(f"unknown setting {min(settings)!r} of the predictor {cls.kind}")
        rows, matrix = check_values(space, rows, values, targets, MINIMUM_ROWS)
        forest = RandomForestRegressor(trees, max_depth=depth, random_state=seed)
        forest.fit(levels(space, rows).astype(np.float32), matrix if matrix.shape[1] > 1 else matrix[:, 0])
        each = [estimator.tree_ for estimator in forest.estimators_]
        arrays = {
            "tree_offset": np.cumsum([0, *(tree.node_count for tree in each)]),
            **{name: np.concatenate([getattr(t, name) for t in each]) for name in
               ("children_left", "children_right", "feature", "threshold")},
            "value": np.concatenate([tree.value[:, :, 0] for tree in each]),
        }  # fmt: skip
        inputs = np.tile(np.arange(1.0 + space.num_options.max()), (space.d, 1))
        nodes = Trees(arrays, space.d)
        return cls(space, nodes, np.arange(space.d), inputs, targets, {"rows": len(rows), "seed": seed})

    @classmethod
    def from_arrays(
        cls,
        space: SearchSpace,
        arrays: Mapping[str, NDArray[Any]],
        features: Sequence[int | str | float],
        *,
        targets: Sequence[str] = ("accuracy",),
    ) -> Self:
        """A forest on raw numbers, such as the published one of AttentiveNAS (``accuracy_forest.npz``).

        Args:
            space: the space.
            arrays: as :class:`Trees` takes them.
            features: for each input of the forest a choice, whose options are numbers, by column (an ``int``) or by name
                (a ``str``), or a constant (a ``float``). A choice that does not matter is 0.
            targets: names of the outputs.

        Raises:
            PredictorError: the arrays make no forest, or a feature is no choice of numbers.
        """
        width = 1 + int(space.num_options.max())
        columns, values = np.zeros(len(features), dtype=np.intp), np.zeros((len(features), width))
        for i, feature in enumerate(features):
            if isinstance(feature, float):
                values[i] = feature
                continue
            column = space.column.get(feature, -1) if isinstance(feature, str) else feature
            if not 0 <= column < space.d:
                raise PredictorError(f"feature {i} of the forest is {feature!r}, which is no choice of {space.name}")
            options = space.choices[column].options
            if not all(isinstance(option, (int, float)) for option in options):
                raise PredictorError(f"feature {i} of the forest is {space.choices[column].name}: no numbers {options}")
            columns[i] = column
            values[i, 1 : 1 + len(options)] = options
        return cls(space, _nodes(arrays, len(features), len(targets)), columns, values, targets)

    def outputs(self, rows: Population) -> NDArray[np.float64]:
        return self._walk(levels(self.space, rows))

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {**self.trees.stored, "columns": self.columns.astype(np.int64), "values": self.values}

    @classmethod
    def restore(cls, space: SearchSpace, targets: Sequence[str], arrays: Mapping[str, NDArray[Any]]) -> Self:
        columns, values = arrays["columns"].astype(np.intp), arrays["values"].astype(np.float64)
        width = 1 + int(space.num_options.max())
        if values.shape != (len(columns), width) or ((columns < 0) | (columns >= space.d)).any():
            raise PredictorError(f"the forest's inputs do not fit the space {space.name}")
        return cls(space, _nodes(arrays, len(columns), len(targets)), columns, values, targets)


def _nodes(arrays: Mapping[str, NDArray[Any]], inputs: int, outputs: int) -> Trees:
    trees = Trees(arrays, inputs)
    if trees.value.shape[1] != outputs:
        raise PredictorError(f"the forest has {trees.value.shape[1]} outputs, and {outputs} targets are named")
    return trees

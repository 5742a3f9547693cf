"""Regression trees as flat arrays, walked by many rows and many trees at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snugnet.errors import PredictorError

NAMES = ("tree_offset", "children_left", "children_right", "feature", "threshold", "value")
_WALKED_ROWS = 2048  # rows at a time
_WALKERS = 8192  # rows x trees at a time: what they read of nodes and rows stays in cache


class Trees:
    """The nodes of a forest, trees one after the other.

    Attributes:
        roots: of each tree, shape ``(trees,)``.
        left, right: the next node, shape ``(nodes,)``; a leaf leads to itself.
        feature, threshold: go left where ``float32(x[feature]) <= threshold``; of a leaf without meaning.
        value: shape ``(nodes, outputs)``.
        depth: steps to the deepest leaf of each tree, shape ``(trees,)``.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], inputs: int) -> None:
        """Check the arrays.

        Args:
            arrays: ``tree_offset`` (tree t owns nodes ``tree_offset[t]:tree_offset[t + 1]``), ``children_left`` and
                ``children_right`` (positions inside the tree, -1 at a leaf), ``feature``, ``threshold``, ``value``.
            inputs: number of features.

        Raises:
            PredictorError: an array is missing, or they make no trees.
        """
        missing = [name for name in NAMES if name not in arrays]
        if missing:
            raise PredictorError(f"a forest lacks its array {missing[0]!r}; needed: {', '.join(NAMES)}")
        self.stored = {name: np.asarray(arrays[name]) for name in NAMES}
        offset = self.stored["tree_offset"].astype(np.intp)
        left, right = (self.stored[f"children_{side}"].astype(np.intp) for side in ("left", "right"))
        nodes = np.arange(len(left))
        sizes = np.diff(offset)
        shapes = {len(self.stored[name]) for name in NAMES[1:]}
        if len(sizes) == 0 or shapes != {len(left)} or offset[0] != 0 or offset[-1] != len(left) or (sizes < 1).any():
            raise PredictorError("the arrays of a forest do not fit each other")
        base = np.repeat(offset[:-1], sizes)
        leaf = left < 0
        feature = np.where(leaf, 0, self.stored["feature"].astype(np.intp))
        end = base + np.repeat(sizes, sizes)
        left, right = np.where(leaf, nodes, left + base), np.where(leaf, nodes, right + base)
        # Children stand behind their parent, so every walk ends.
        onward = leaf | ((left > nodes) & (right > nodes) & (left < end) & (right < end))
        if not onward.all() or (feature < 0).any() or (feature >= inputs).any():
            raise PredictorError("the nodes of a forest lead outside of their tree or to inputs that do not exist")
        self.roots, self.left, self.right, self.feature = offset[:-1], left, right, feature
        self.threshold = self.stored["threshold"].astype(np.float64)
        self.value = self.stored["value"].astype(np.float64).reshape(len(left), -1)
        self.depth = self._depths(leaf, offset)

    def _depths(self, leaf: NDArray[np.bool_], offset: NDArray[np.intp]) -> NDArray[np.intp]:
        steps = np.zeros(len(leaf), dtype=np.intp)
        level = self.roots
        while len(level := level[~leaf[level]]):
            children = np.concatenate([self.left[level], self.right[level]])
            steps[children] = np.tile(steps[level] + 1, 2)
            level = children
        return np.maximum.reduceat(steps, offset[:-1])

    def __call__(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """Predict from plain features, shape ``(n, inputs)``; the mean over the trees, shape ``(n, outputs)``."""
        features = np.asarray(features, dtype=np.float32)
        node = np.repeat(self.roots[:, None], len(features), axis=1)
        rows = np.arange(len(features))
        for _ in range(int(self.depth.max())):
            small = features[rows, self.feature[node]] <= self.threshold[node]
            node = np.where(small, self.left[node], self.right[node])
        found: NDArray[np.float64] = self.value[node].mean(0)
        return found


class LevelWalk:
    """Trees over features of few known values: where a node leads is looked up by (node, level), not compared."""

    def __init__(self, trees: Trees, columns: NDArray[np.intp], values: NDArray[np.float64]) -> None:
        """Work out where every node leads.

        Args:
            trees: the forest.
            columns: of each input the column of its level, shape ``(inputs,)``.
            values: the value of each input at each level, shape ``(inputs, levels)``.
        """
        self._trees, self._width = trees, values.shape[1]
        small = values.astype(np.float32)[trees.feature] <= trees.threshold[:, None]
        onward = np.where(small, trees.left[:, None], trees.right[:, None])
        self._next = (onward * self._width).ravel()  # nodes are counted in steps of a node's width from here on
        self._column = np.repeat(columns[trees.feature], self._width)
        self._value = np.repeat(trees.value, self._width, axis=0)

    def __call__(self, levels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Predict from levels, shape ``(n, columns)``; the mean over the trees, shape ``(n, outputs)``."""
        return np.concatenate(
            [np.zeros((0, self._value.shape[1])), *(self._chunk(levels[i : i + _WALKED_ROWS]) for i in range(0, len(levels), _WALKED_ROWS))]
        )  # fmt: skip

    def _chunk(self, levels: NDArray[np.int64]) -> NDArray[np.float64]:
        n, trees = len(levels), self._trees
        flat, rows = np.ascontiguousarray(levels.T).ravel(), np.arange(n)
        total = np.zeros((n, self._value.shape[1]))
        many = max(1, _WALKERS // n)
        column = self._column * n
        for t in range(0, len(trees.roots), many):
            node = np.repeat(trees.roots[t : t + many, None] * self._width, n, axis=1)
            for _ in range(int(trees.depth[t : t + many].max())):
                where = column.take(node)
                where += rows
                node += flat.take(where)
                node = self._next.take(node)
            for values in self._value.take(node, axis=0):  # tree by tree: the last bit never depends on the batch
                total += values
        return total / len(trees.roots)

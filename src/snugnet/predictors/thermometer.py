"""Architectures as steps from option to option: the code of the Gaussian process."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from snugnet.spaces import SearchSpace


class Thermometer:
    """A thermometer code: one entry for each step up, so that neighbouring options are near each other.

    A choice whose options are numbers, smallest first, has an entry "at least this option" for each option (for the first
    one only where the choice may not matter: then it says that it does). Other choices are one-hot.

    Attributes:
        choice: the choice of each entry, shape ``(steps,)``.
        group: of each entry: entries of the same kind of choice and the same step are one group, shape ``(steps,)``.
        groups: number of groups.
    """

    def __init__(self, space: SearchSpace) -> None:
        entries, names = [], []
        for i, choice in enumerate(space.choices):
            ordered = all(isinstance(option, (int, float)) for option in choice.options)
            for step in range(len(choice.options)):
                if step > 0 or choice.parent is not None or not ordered:
                    entries.append((i, step + 1, ordered))
                    names.append((choice.kind, step, ordered))
        self.choice, self._level, self._ordered = (np.array([entry[k] for entry in entries]) for k in range(3))
        kinds = {name: i for i, name in enumerate(dict.fromkeys(names))}
        self.group, self.groups = np.array([kinds[name] for name in names]), len(kinds)

    def __call__(self, levels: NDArray[np.int64]) -> NDArray[np.float64]:
        """The code of levels (see :func:`levels`), shape ``(n, d)``: shape ``(n, steps)``."""
        own = levels[:, self.choice]
        return np.where(self._ordered, own >= self._level, own == self._level).astype(np.float64)

"""Which images a study trains, searches and judges on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from snugnet.data import GroupedImages, ImageSet, load_data
from snugnet.recipe import Recipe


@dataclass
class StudyImages:
    """Images by how they are loaded: most supernets of a study share them.

    Half of the validation images are searched on. A search fits them, a predictor's the most, so while something is still
    being chosen what it finds is judged on others: the other half, and the training images that ``train_rows`` leaves out.
    """

    progress: bool
    known: dict[str, tuple[GroupedImages, ImageSet]] = field(default_factory=dict)
    judges: dict[str, ImageSet] = field(default_factory=dict)

    def of(self, recipe: Recipe) -> GroupedImages:
        """Images whose validation split is the half to search on."""
        return self._halved(recipe)[0]

    def judge(self, recipe: Recipe) -> ImageSet:
        """Images that nothing was trained or searched on, the test images aside."""
        key = recipe.data.model_dump_json()
        if key not in self.judges:
            data, judge = self._halved(recipe)
            if recipe.data.train_rows is not None:
                # judged again and again: nothing is decoded anew each time
                kept = {"storage": "disk"} if recipe.data.storage == "stream" else {}
                every = load_data(recipe.data.model_copy(update={"train_rows": None, **kept}), progress=self.progress)
                left = unseen(every.train, data.train)
                judge = judge.joined(left)
            self.judges[key] = judge
        return self.judges[key]

    def _halved(self, recipe: Recipe) -> tuple[GroupedImages, ImageSet]:
        key = recipe.data.model_dump_json()
        if key not in self.known:
            data = load_data(recipe.data, progress=self.progress)
            search, judge = halves(data.validation)
            self.known[key] = replace(data, validation=search), judge
        return self.known[key]


def unseen(images: ImageSet, seen: ImageSet) -> ImageSet:
    """The images that are not, pixel by pixel, among those seen."""
    hashes, known = (each.measures["hash"] for each in (images, seen))
    return images.take(np.flatnonzero(~np.isin(hashes, known)))


def halves(images: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Two sets, each with every other image of each class."""
    labels = images.labels.cpu().numpy()
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        own = labels == label
        rank[own] = np.arange(own.sum())
    first, second = (torch.from_numpy(np.flatnonzero(rank % 2 == side)) for side in (0, 1))
    return images.take(first), images.take(second)

"""One supernet of a study under one seed: what all steps on it are given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from snugnet.data import GroupedImages, ImageSet
from snugnet.recipe import Recipe
from snugnet.study.config import Entry, StudyConfig
from snugnet.study.images import StudyImages
from snugnet.training.device import make_fabric

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Job:
    """One supernet under one seed.

    Attributes:
        config: the study.
        name: of the supernet.
        seed: of training and search.
        recipe: the supernet's, with all its stages.
        images: of the study.
        data: the supernet's images, with the half of the validation split that is searched on.
        fabric: device and precision.
        progress: whether to show bars.
    """

    config: StudyConfig
    name: str
    seed: int
    recipe: Recipe
    images: StudyImages
    data: GroupedImages
    fabric: Fabric
    progress: bool

    @classmethod
    def make(cls, config: StudyConfig, name: str, seed: int, images: StudyImages, *, progress: bool) -> Self:
        """The job of a supernet, its images loaded."""
        recipe = config.recipe_of(name, seed)
        return cls(config, name, seed, recipe, images, images.of(recipe), make_fabric(recipe), progress)

    @property
    def shared(self) -> Path:
        """The folder of the seed: what all its supernets share."""
        return Path(self.config.output) / f"seed-{self.seed}"

    @property
    def own(self) -> Path:
        """The supernet's folder."""
        return self.shared / self.name

    @property
    def entries(self) -> list[Entry]:
        """What is searched on this supernet."""
        return [entry for entry in self.config.methods if entry.supernet == self.name]

    def judged_on(self) -> ImageSet:
        """The images that accuracies are reported of, loaded for it."""
        judged = self.data.test if self.config.report == "test" else self.images.judge(self.recipe)
        return judged.to(self.fabric.device)

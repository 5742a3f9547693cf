"""What data to load and how to augment it, as checked, printable configurations. No torch in here."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, StrictFloat, StrictInt, model_validator

from snugnet.config import Config
from snugnet.config import read_config as read_config
from snugnet.texts import shown

Rows = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


def not_a_name(groups: Mapping[Any, Any], yaml: bool = True) -> str:
    """The first name in ``{superclass: [classes]}`` that is none but what YAML makes of one: where, and what to do; else "".

    Args:
        groups: as they were read.
        yaml: whether YAML has read them; then it is said what it reads so.
    """
    for group, classes in groups.items():
        places = [("as a superclass", group)]
        if isinstance(classes, list):
            places += [(f"as class {number} of {shown(group)}", name) for number, name in enumerate(classes, 1)]
        for place, name in places:
            if isinstance(name, str):
                continue
            if isinstance(name, (list, dict, tuple)):
                return f"{shown(name)} {place}, where a name is needed"
            reads = ""
            if not yaml:
                pass
            elif isinstance(name, bool):
                reads = f"; YAML reads {'yes, on' if name else 'no, off'} and {str(name).lower()} so"
            elif name is None:
                reads = "; YAML reads null, ~ and nothing at all so"
            elif isinstance(name, (int, float)):
                reads = "; YAML reads numbers so, and 007 as 7"
            elif isinstance(name, date):
                name, reads = str(name), "; YAML reads days and times so"
            return f"the name {shown(name)} {place}{reads}; names are strings: put it in quotes"
    return ""


class DataConfig(Config):
    """Labelled images whose classes fall into groups, and how they are split.

    Paths are relative to the working directory; ``~`` is expanded.
    """

    source: Annotated[str, Field(min_length=1)]
    """``digits``, a parquet file or glob, a folder with ``train.parquet`` / ``test.parquet`` (or ``train-*.parquet``
    shards), a folder ``train/<superclass>/<class>/*.jpg``, a folder written by ``Dataset.save_to_disk``, or the name of
    a Hugging Face data set. The prefix ``hf:`` forces ``datasets.load_dataset``, for local folders too; not for folders of images
    (``train/...``), of which it reads splits out of class names."""

    resolution: Annotated[int, Field(ge=8)]
    """Images become ``resolution`` x ``resolution`` pixels: the centre square, resized."""

    value_range: tuple[float, float] | None = None
    """The values that become black and white, such as [0, 4095] for 12 bits or [0, 1] for floating-point pixels; for images of
    every depth. Without it, 8 and 16 bits are taken as their type says, and what has no known range is refused."""

    image_column: str = "image"
    """Column of the images, of a source with columns."""

    label_column: str = "label"
    """Column of the classes: names, or numbers from 0."""

    group_column: str | None = None
    """Column of the superclass of each row."""

    groups: str | dict[str, list[str]] | None = None
    """``{superclass: [classes]}``, the path of a JSON or YAML file with that, or a built-in grouping: cifar-100, imagenet-10,
    imagenet-12, car-20, digits. Without it the folders or ``group_column`` give the groups."""

    config_name: str | None = None
    """Configuration of a Hugging Face data set."""

    train_split: str = "train"
    """Split to train on."""

    test_split: str = "test"
    """Split to test on."""

    validation_split: str | None = None
    """Split to use as it is for validation. Without it, a folder's own ``validation`` is used where there is one;
    otherwise ``validation`` says how much of the training rows is split off."""

    validation: Annotated[StrictInt, Field(ge=0)] | Annotated[StrictFloat, Field(ge=0, lt=1)] = 0.1
    """Fraction (a float below 1) or number (an int) of the training rows that is split off, stratified by class."""

    test: Fraction | None = None
    """Fraction of the training rows that is split off as the test set, for a source without one of its own."""

    train_rows: Rows | None = None
    """Keep a stratified subset of so many training rows, taken after the split."""

    validation_rows: Rows | None = None
    """The same of the validation rows."""

    test_rows: Rows | None = None
    """The same of the test rows."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Of what is split off and of what is kept."""

    on_bad_image: Literal["error", "skip"] = "error"
    """What becomes of a file that is no whole image: it stops the run, or is left out and counted."""

    on_leak: Literal["warn", "error"] = "warn"
    """What becomes of test images that are, pixel by pixel, training images. They are counted either way."""

    ungrouped: Literal["error", "drop"] = "error"
    """What becomes of a class that is in no group."""

    storage: Literal["auto", "memory", "disk", "stream"] = "auto"
    """Where decoded images are kept: in ``memory``; on a ``disk``, in a cache that is written once and mapped; or, with ``stream``,
    training images nowhere: they are decoded for each step, and ``augment.random_resized_crop`` cuts parts out of the original
    images. ``auto`` takes memory if the images take no more than half of what is free, else the disk if it has the space, else
    stream; and says so."""

    cache: str | None = None
    """Folder of the caches on the disk; without it ``$SNUGNET_CACHE``, else ``~/.cache/snugnet``."""

    workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that decode training images for ``stream``; without it one for each CPU, up to 8. 0: none but the one that trains."""

    @model_validator(mode="before")
    @classmethod
    def _names_are_strings(cls, values: Any) -> Any:
        groups = values.get("groups") if isinstance(values, dict) else None
        if isinstance(groups, dict) and (problem := not_a_name(groups)):
            raise ValueError(f"groups has {problem}")
        return values

    @model_validator(mode="after")
    def _range_rises(self) -> "DataConfig":
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError(f"value_range is {list(self.value_range)}; two numbers low < high are needed")
        return self

    @model_validator(mode="after")
    def _one_source_of_groups(self) -> "DataConfig":
        if self.groups is not None and self.group_column is not None:
            raise ValueError("groups and group_column are both given, and one is allowed; remove one of them")
        return self


class AugmentConfig(Config):
    """Random changes to training images; all off by default.

    They are applied in the order of the fields, to each image on its own.
    """

    crop_padding: Annotated[int, Field(ge=0)] = 0
    """Pad by so many black pixels on every side and crop back at a random place."""

    random_resized_crop: tuple[float, float] | None = None
    """Range of the cropped area as a fraction of the image; aspect ratio between 3/4 and 4/3; resized back."""

    flip: bool = False
    """Mirror left to right with probability 1/2."""

    auto_augment: Literal["imagenet", "cifar10", "svhn"] | None = None
    """One of the 25 sub-policies that AutoAugment found on that data set, drawn for each image (Cubuk et al., arXiv 1805.09501; with
    kornia's operations, whose ranges are not Pillow's to the bit). Slow on a CPU: about 1 ms an image of 32 x 32."""

    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Rotate by up to so many degrees either way; what comes into view from beyond the image is black."""

    color_jitter: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Scale brightness, contrast and saturation by factors in ``1 - x`` to ``1 + x``."""

    erase: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a random rectangle (2% to 33% of the area) becomes black."""

    cutout: Annotated[int, Field(ge=0)] = 0
    """Side, in pixels, of a square that takes the mean colour of the images; its centre is anywhere in the image, and it is
    clipped at the edges (DeVries and Taylor, arXiv 1708.04552). DARTS uses 16 for images of 32 pixels."""

    @model_validator(mode="after")
    def _one_crop(self) -> "AugmentConfig":
        area = self.random_resized_crop
        if area is not None and not 0 < area[0] <= area[1] <= 1:
            raise ValueError(f"random_resized_crop is {list(area)}; two fractions 0 < low <= high <= 1 are needed")
        if area is not None and self.crop_padding:
            raise ValueError("crop_padding and random_resized_crop are both given, and one is allowed; remove one")
        return self

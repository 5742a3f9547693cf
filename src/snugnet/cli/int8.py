"""What ``--int8`` says of a file: what int8 did to accuracy and time, beside float."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snugnet.cli.common import say
from snugnet.errors import ConfigError

if TYPE_CHECKING:
    from snugnet.data import ImageSet
    from snugnet.family import Classifier, Family
    from snugnet.family.int8 import BesideFloat

Int8 = Annotated[
    bool,
    typer.Option(
        "--int8",
        help="Make the file int8: ranges measured on the family's images, accuracy and time beside float said.",
    ),
]
BUILT_IN = ("digits",)
"""Sources of images that are always here."""


def check_int8(out_file: Path | None, option: str = "--out") -> None:
    """Refuse ``--int8`` where no ONNX file is written by an option.

    Raises:
        ConfigError: none is.
    """
    if out_file is None or out_file.suffix != ".onnx":
        raise ConfigError(f"--int8 is of the .onnx file that {option} names, got {out_file or f'no {option}'}")


def images_to_judge_on(family: Family, data: list[str] | None) -> tuple[ImageSet, str]:
    """Test images where they are at hand (``-d`` says where, or the recipe does and they lie here), else the family's own.

    Returns:
        The images, labels in the order of the family's classes; and what they are called.

    Raises:
        ConfigError: what ``-d`` says is wrong.
        DataError: the test images cannot be read.
    """
    from snugnet.cli.evaluate import read_changes, test_images

    recipe = family.provenance.get("recipe")
    source = str(recipe["data"]["source"]) if isinstance(recipe, dict) else ""
    if data is not None or source in BUILT_IN or (source and Path(source).exists()):
        return test_images(family, family.provenance, read_changes(data)), "test images"
    return family.validation, "validation images of the family (-d source=... measures on test images)"


def say_precisions(network: Classifier, family: Family, precision: str) -> None:
    """Say it where a budget was measured of files of another precision than the network's file."""
    for name in network.budgets:
        profile = family.profiles.get(name)
        if profile is not None and profile.precision != precision:
            say(f"{name} was measured of {profile.precision} files; the file is {precision}, and takes other times")


def compare(network: Classifier, file: Path, images: ImageSet) -> BesideFloat:
    """An int8 file beside the float file of its network, on images of its classes."""
    from snugnet.family.int8 import beside_float

    return beside_float(network.module, file.read_bytes(), network.pictures(images))


def as_json(beside: BesideFloat, images: str) -> dict[str, Any]:
    """For ``--json``."""
    return {**beside.to_json(), "on": images.partition(" of ")[0]}


def show(beside: BesideFloat, images: str) -> None:
    """For people."""
    for line in beside.lines(images):
        say(line)

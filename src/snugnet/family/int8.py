"""int8 files of a family's networks: the images for them, what they do to accuracy and time, and candidates that are judged by theirs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snugnet.data import ImageSet
from snugnet.deploy import FileOptions, Int8, compared_ms, int8_facts, onnx_bytes, onnx_session, run_batches
from snugnet.deploy.int8 import FEWEST, MOST, Images
from snugnet.errors import DataError
from snugnet.nn.network import Network
from snugnet.search.image_scorer import Colours, ImageScorer
from snugnet.training.calibration import network_batches

INT8 = FileOptions(precision="int8")
JUDGES = ("float", "int8")
"""What candidates can be judged by: the network, or the int8 file that would be handed out."""
JUDGED = 512
"""Images that an int8 file is compared with the float one on, at most."""
REPEATS = 60
"""Of one image through each file, where the two are timed."""


@dataclass(frozen=True)
class Pictures:
    """Labelled images as networks of one resolution take them.

    Attributes:
        images: uint8, with labels.
        mean, std: of the images, 0 to 1, a channel each.
        resolution: of the network.
    """

    images: ImageSet
    mean: Colours
    std: Colours
    resolution: int

    def arrays(self, most: int | None = None) -> tuple[Images, NDArray[np.int64]]:
        """Normalised images, (n, 3, h, w), and labels; at most so many, spread over all."""
        images = self.images
        if most is not None and len(images) > most:
            images = images.take(np.arange(len(images))[:: -(-len(images) // most)])
        parts = list(network_batches(images, self.mean, self.std, self.resolution))
        if not parts:
            return np.zeros((0, 3, self.resolution, self.resolution), np.float32), np.zeros(0, np.int64)
        pixels, labels = (torch.cat(each).cpu() for each in zip(*parts, strict=True))
        return pixels.contiguous().numpy(), labels.numpy()


def int8_images(ranges: Pictures, compared: Pictures) -> tuple[Images, Images]:
    """What :func:`snugnet.deploy.onnx_bytes` takes for int8.

    Args:
        ranges: of all classes, as for batch norm: ranges of tensors are measured on these.
        compared: of the network's classes: the int8 file is compared with the float one on these.

    Raises:
        DataError: ranges would be of too few images, or of one class; or there are none to compare on.
    """
    labels = ranges.images.labels
    if len(labels) < FEWEST:
        raise DataError(f"int8 ranges need at least {FEWEST} calibration images, there are {len(labels)}")
    if len(labels.unique()) < 2:
        raise DataError(
            f"int8 ranges need calibration images of several classes; all {len(labels)} are of class {int(labels[0])}"
        )
    if not len(compared.images):
        raise DataError("there are no images of the network's classes to compare its int8 file with the float one on")
    return ranges.arrays(MOST)[0], compared.arrays(JUDGED)[0]


@dataclass(frozen=True)
class BesideFloat:
    """An int8 file beside the float32 file of the same network.

    Attributes:
        facts: what the int8 file says of itself.
        images: how many both were run on.
        accuracy, float_accuracy: on these, fractions; NaN where there are none.
        milliseconds, float_milliseconds: one image through ONNX Runtime, one thread, on this CPU; the two take turns.
        bytes, float_bytes: of the files.
    """

    facts: Int8
    images: int
    accuracy: float
    float_accuracy: float
    milliseconds: float
    float_milliseconds: float
    bytes: int
    float_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, what the file says of itself among the rest."""
        own = asdict(self)
        return {**own.pop("facts"), **own}

    def lines(self, images: str) -> list[str]:
        """For people; ``images`` says which these were."""
        slower = "; int8 is slower than float here" if self.milliseconds > self.float_milliseconds else ""
        floats = ", ".join(f"{name} x{count}" for name, count in self.facts.float_operators.items()) or "nothing"
        kept = ", ".join(self.facts.kept_float) or "none"
        told = (
            f"int8: {self.accuracy:.2%} of {self.images} {images}, float32 {self.float_accuracy:.2%}"
            if self.images
            else f"int8: there are no {images} of these classes to measure accuracy on"
        )
        return [
            told,
            f"int8: {self.milliseconds:.3f} ms an image, float32 {self.float_milliseconds:.3f} ms (ONNX Runtime, one thread, this CPU){slower}",
            f"int8: {self.bytes:,} bytes, float32 {self.float_bytes:,}; ranges by {self.facts.ranges}; says what float32 says of "
            f"{self.facts.agreement:.1%} of {self.facts.judged_on} stored images",
            f"int8: computed in float: {floats}; layers kept in float, for the network would not agree otherwise: {kept}",
        ]


def beside_float(network: Network, content: bytes, test: Pictures) -> BesideFloat:
    """Compare an int8 file with the float32 file of its network.

    Args:
        network: that it was made of, in eval mode.
        content: the int8 file.
        test: images of the network's classes; labels are places among its outputs.
    """
    plain, facts = onnx_bytes(network, {}), int8_facts(content)
    assert facts is not None
    images, labels = test.arrays()
    ms, float_ms = compared_ms(content, plain, repeats=REPEATS)
    return BesideFloat(
        facts,
        images=len(labels),
        accuracy=accuracy_of(content, images, labels),
        float_accuracy=accuracy_of(plain, images, labels),
        milliseconds=ms,
        float_milliseconds=float_ms,
        bytes=len(content),
        float_bytes=len(plain),
    )


def accuracy_of(content: bytes, images: Images, labels: NDArray[np.int64]) -> float:
    """Share of images that an ONNX file tells right in ONNX Runtime; NaN if there are none."""
    if not len(labels):
        return float("nan")
    return float((run_batches(onnx_session(content), images).argmax(1) == labels).mean())


@dataclass(eq=False)
class Int8Scorer(ImageScorer):
    """Candidates judged by the int8 file that would be handed out.

    Attributes:
        stored: images that ranges are measured on, labels in the order of the family's classes.
    """

    stored: ImageSet = field(kw_only=True)

    def __post_init__(self) -> None:
        """Also check the images for ranges.

        Raises:
            DataError: they are too few, or of one class.
        """
        super().__post_init__()
        self._compared = self.stored.joined(self.validation.to(self.stored.device)).of_classes(self._classes)
        self._images: dict[int, tuple[Images, Images]] = {}
        self._validation: dict[int, Images] = {}
        self._prepare(self.supernet.space.resolution)

    def _prepare(self, resolution: int) -> None:
        """Images at a resolution; the same for all candidates of it."""
        if resolution not in self._images:
            at = (self.mean, self.std, resolution)
            self._images[resolution] = int8_images(Pictures(self.stored, *at), Pictures(self._compared, *at))
            self._validation[resolution] = Pictures(self.validation, *at).arrays()[0]

    def _logits(self, network: Network) -> Tensor:
        """Of the validation images, by the int8 file."""
        resolution = network.blueprint.resolution
        self._prepare(resolution)
        self._measure(network)
        content = onnx_bytes(network, {}, INT8, self._images[resolution])
        got = run_batches(onnx_session(content), self._validation[resolution])
        return torch.from_numpy(got).to(self.validation.device)

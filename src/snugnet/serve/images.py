"""Images from outside: what is read, how large it may be, and how a network is run on them."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from io import BytesIO
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from snugnet.data import normalise
from snugnet.data.images import decode
from snugnet.deploy.sessions import onnx_session
from snugnet.errors import DataError
from snugnet.family import Classifier
from snugnet.nn.network import resized
from snugnet.serve.problems import TooLarge

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""That are read; some others that Pillow knows run programs."""
_AT_ONCE = 64  # images that a network is run on: what lies between its layers is bounded, however many come


def read_images(files: Sequence[bytes], resolution: int, pixels: int, together: int) -> NDArray[np.uint8]:
    """Decode image files, each as :func:`snugnet.data.decode_image` does.

    Args:
        files: encoded.
        resolution: side of what is wanted.
        pixels: that one of them may have; it is looked at before it is decoded.
        together: that all of them may have.

    Returns:
        uint8 ``(n, 3, resolution, resolution)``.

    Raises:
        DataError: one is no image, is broken, or has more pixels.
        TooLarge: all of them have more.
    """
    images = np.empty((len(files), 3, resolution, resolution), dtype=np.uint8)
    left = together
    for i, content in enumerate(files):
        where = f"image {i + 1}: " if len(files) > 1 else ""
        try:
            image = _opened(content, pixels)
            left -= image.width * image.height
            if left < 0:
                raise TooLarge(f"the images of a call have at most {together:,} pixels together; send them in several")
            images[i] = decode(image, resolution, None)[0]
        except DataError as error:
            raise DataError(f"{where}{error}") from None
    return images


def _opened(content: bytes, pixels: int) -> Image.Image:
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
        width, height = image.size
    except Image.DecompressionBombError:
        raise DataError(f"the image is larger than the {pixels:,} pixels that are read; shrink it") from None
    except Exception:  # broken files make Pillow raise OSError, SyntaxError, ValueError, EOFError, ...
        raise DataError(
            f"image cannot be decoded: not an image ({', '.join(FORMATS)}), or a broken one; send another"
        ) from None
    if width * height > pixels:
        raise DataError(f"the image has {width} x {height} pixels, and at most {pixels:,} are read; shrink it")
    return image


def read_pixels(content: bytes, resolution: int) -> NDArray[np.uint8]:
    """Decoded images, one after the other: bytes of ``(n, 3, resolution, resolution)``.

    Raises:
        DataError: they are no whole number of images, or none.
    """
    size = 3 * resolution**2
    if not content or len(content) % size:
        raise DataError(
            f"pixels are n x 3 x {resolution} x {resolution} bytes, RGB, {size:,} an image; got {len(content):,} bytes"
        )
    return np.frombuffer(bytearray(content), np.uint8).reshape(-1, 3, resolution, resolution)  # torch wants to write


class Runner:
    """Networks that are ready to run: ONNX Runtime's sessions, the last ones used."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._sessions: OrderedDict[str, Any] = OrderedDict()
        self._guard = Lock()

    def run(
        self, name: str, content: Callable[[], bytes], network: Classifier, images: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], float]:
        """Run a network.

        Args:
            name: of the network.
            content: its ONNX file.
            network: what it is.
            images: uint8 ``(n, 3, r, r)`` at the family's resolution.

        Returns:
            Probabilities, ``(n, classes)``, and milliseconds that the network took.
        """
        session = self._session(name, content)
        parts, seconds = [], 0.0
        for some in torch.from_numpy(images).split(_AT_ONCE):
            with torch.no_grad():
                batch = normalise(some, network.family.mean, network.family.std)
                batch = resized(batch, network.blueprint.resolution)
            started = time.perf_counter()
            parts += session.run(["logits"], {"image": batch.numpy()})
            seconds += time.perf_counter() - started
        logits, milliseconds = np.concatenate(parts), 1e3 * seconds
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True), milliseconds

    def _session(self, name: str, content: Callable[[], bytes]) -> Any:
        with self._guard:
            session = self._sessions.get(name)
            if session is not None:
                self._sessions.move_to_end(name)
                return session
        session = onnx_session(content())
        with self._guard:
            self._sessions[name] = session
            while len(self._sessions) > self.most:
                self._sessions.popitem(last=False)
        return session

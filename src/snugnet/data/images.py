"""From encoded images to uint8 arrays of one size.

Every image becomes RGB (grey is repeated, transparency is laid over white, 16-bit is scaled to 8), is turned as its EXIF
orientation says, cut to its centre square (the shorter side stays whole), and resized bilinearly with antialiasing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from snugnet.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

ImageLike: TypeAlias = "bytes | str | Path | NDArray[Any] | Image"

_IN_FLIGHT = 256  # images in flight: bounds the memory that encoded images take
_PROGRESS_AFTER = 2.0  # seconds


@dataclass(frozen=True)
class EncodedImage:
    """One row of a source: its position, what to decode, and the name that messages give it."""

    row: int
    data: ImageLike | None
    name: str


@dataclass(frozen=True)
class Decoded:
    """Decoded images in the order of the rows asked for.

    Attributes:
        images: uint8 ``(n, 3, r, r)``; the content of a skipped row is undefined.
        kept: bool ``(n,)``; False where the image could not be decoded.
        skipped: for those places, the name of the image and the reason.
    """

    images: NDArray[np.uint8]
    kept: NDArray[np.bool_]
    skipped: dict[int, str]


def decode_image(data: ImageLike, resolution: int) -> NDArray[np.uint8]:
    """Decode one image.

    Args:
        data: encoded bytes, a path, a PIL image, or an array ``(h, w)``, ``(h, w, 1 | 3 | 4)`` or ``(3, h, w)`` of
            uint8 or uint16.
        resolution: side of the result in pixels.

    Returns:
        uint8 ``(3, resolution, resolution)``.

    Raises:
        DataError: the data is no image, is truncated, or is of a kind that has no defined 8-bit form.
    """
    from PIL import Image, ImageOps

    try:
        if isinstance(data, Image.Image):
            image = data
        elif isinstance(data, np.ndarray):
            image = Image.fromarray(_to_8_bit_hwc(data))
        else:
            image = Image.open(BytesIO(data) if isinstance(data, bytes) else data)
        image = _to_rgb(ImageOps.exif_transpose(image))
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        if image.size != (resolution, resolution):
            image = image.resize((resolution, resolution), Image.Resampling.BILINEAR, box=box)
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
    except DataError:
        raise
    except Exception as error:  # broken files make Pillow raise OSError, SyntaxError, ValueError, EOFError, ...
        reason = "not an image" if type(error).__name__ == "UnidentifiedImageError" else str(error).split("\n")[0]
        raise DataError(f"image cannot be decoded: {reason or type(error).__name__}; replace or remove it") from None


def decode_images(
    encoded: Iterable[EncodedImage],
    rows: NDArray[np.int64],
    resolution: int,
    *,
    skip_bad: bool = False,
    progress: str | None = None,
) -> Decoded:
    """Decode many images in a thread pool (Pillow works outside Python's lock).

    Args:
        encoded: yields each of ``rows`` once, in any order.
        rows: which source row goes to which place of the result.
        resolution: side of the results in pixels.
        skip_bad: leave out what cannot be decoded, instead of raising.
        progress: description of the bar that a terminal shows once this takes over two seconds; None for no bar.

    Raises:
        DataError: a bad image, naming it, unless ``skip_bad``.
    """
    images = np.empty((len(rows), 3, resolution, resolution), dtype=np.uint8)
    kept = np.ones(len(rows), dtype=bool)
    place = {int(row): index for index, row in enumerate(rows)}
    skipped: dict[int, str] = {}

    def work(item: EncodedImage) -> str | None:
        try:
            if item.data is None:
                raise DataError("there is no image (the value is null); add it or remove the row")
            images[place[item.row]] = decode_image(item.data, resolution)
        except DataError as error:
            return f"{item.name}: {error}"
        return None

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool, _progress_bar(progress, len(rows)) as advance:
        for chunk in _chunks(encoded, _IN_FLIGHT):
            for item, problem in zip(chunk, pool.map(work, chunk), strict=True):
                if problem is not None and not skip_bad:
                    raise DataError(f"{problem}, or set on_bad_image=skip")
                if problem is not None:
                    kept[place[item.row]] = False
                    skipped[place[item.row]] = problem
            advance(len(chunk))
    return Decoded(images, kept, skipped)


def _to_rgb(image: Image) -> Image:
    """RGB of any mode: transparency over white, 16-bit greys scaled to 8."""
    from PIL import Image

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # "I" and "I;16...": Pillow's own conversion clips at 255 instead of scaling
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray(_to_8_bit_hwc(np.clip(values, 0, 65535).astype(np.uint16)))
    if image.mode == "F":
        raise DataError("image cannot be decoded: it has floating-point pixels, whose range is unknown; save 8-bit")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _to_8_bit_hwc(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    if array.dtype != np.uint8:
        raise DataError(f"image array has type {array.dtype}; uint8 and uint16 are allowed: convert it")
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] == 3:
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or 0 in array.shape:
        raise DataError(f"image array has shape {array.shape}; (h, w), (h, w, 1 | 3 | 4) and (3, h, w) are allowed")
    return np.ascontiguousarray(array)


def _chunks(items: Iterable[EncodedImage], size: int) -> Iterator[list[EncodedImage]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


@contextmanager
def _progress_bar(description: str | None, total: int) -> Iterator[Callable[[int], None]]:
    """A function that advances the bar; the bar appears on stderr's terminal after two seconds."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    console = Console(stderr=True)
    bar = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console, transient=True)
    task = bar.add_task(description or "", total=total)
    wanted = description is not None and console.is_terminal
    start = time.monotonic()

    def advance(count: int) -> None:
        bar.update(task, advance=count)
        if wanted and not bar.live.is_started and time.monotonic() - start > _PROGRESS_AFTER:
            bar.start()

    try:
        yield advance
    finally:
        bar.stop()

"""From encoded images to uint8 arrays of one size.

Every image becomes RGB (grey is repeated, transparency is laid over white, more than 8 bits are scaled as `snugnet.data.depth`
says), is turned as its EXIF orientation says, cut to its centre square (the shorter side stays whole), and resized bilinearly
with antialiasing.
"""

from __future__ import annotations

import math
import os
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from snugnet.data.depth import COLOUR, Depth, Range, of_colours, scaling_table, to_8_bit
from snugnet.data.looks import looks_like
from snugnet.errors import DataError
from snugnet.extras import needs
from snugnet.texts import cut, shown

if TYPE_CHECKING:
    from PIL.Image import Image

ImageLike: TypeAlias = "bytes | str | Path | NDArray[Any] | list[Any] | Image"

_IN_FLIGHT = 256  # images in flight: bounds the memory that encoded images take
_CHUNK = 64 * 2**20  # bytes of decoded images that are on their way to where they are kept, about
_PROGRESS_AFTER = 2.0  # seconds
_LONGEST_REASON = 160  # characters that are taken over from Pillow or the system, which repeat what they were given


@dataclass(frozen=True)
class EncodedImage:
    """One row of a source: its position, what to decode, and the name that messages give it.

    ``own_file`` says that ``data`` is a file whose size and time the `content` of its split tells.
    """

    row: int
    data: ImageLike | None
    name: str
    own_file: bool = False


@dataclass(frozen=True)
class Decoded:
    """Decoded images in the order of the rows asked for.

    Attributes:
        images: uint8 ``(n, 3, r, r)``; the content of a skipped row is undefined.
        kept: bool ``(n,)``; False where the image could not be decoded.
        skipped: for those places, the name of the image and the reason.
        depths: for the places of images of more than 8 bits, what their values were.
    """

    images: NDArray[np.uint8]
    kept: NDArray[np.bool_]
    skipped: dict[int, str]
    depths: dict[int, Depth] = field(default_factory=dict)


Box: TypeAlias = tuple[float, float, float, float]
"""Left, upper, right and lower edge in an image, in its pixels."""


def centre_square(width: int, height: int) -> Box:
    """The largest square in the middle, in whole pixels."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def decode_image(data: ImageLike, resolution: int, value_range: Range | None = None) -> NDArray[np.uint8]:
    """Decode one image.

    Args:
        data: encoded bytes, a path, a PIL image, or an array or nested lists ``(h, w)``, ``(h, w, 1 | 3 | 4)`` or
            ``(3, h, w)``: of uint8, uint16 or bool, whole numbers below 256, or any numbers with a ``value_range``.
        resolution: side of the result in pixels.
        value_range: the values that become 0 and 255; without it, see `snugnet.data.depth`.

    Returns:
        uint8 ``(3, resolution, resolution)``.

    Raises:
        DataError: the data is no image, is truncated or too large, or is of a kind that has no defined 8-bit form.
    """
    with no_warnings():
        return decode(data, resolution, value_range)[0]


def decode(
    data: ImageLike,
    resolution: int,
    value_range: Range | None,
    box_of: Callable[[int, int], Box] = centre_square,
    *,
    draft: bool = False,
) -> tuple[NDArray[np.uint8], Depth | None]:
    """`decode_image`, and what the values of an image of more than 8 bits were.

    Args:
        data: as for `decode_image`.
        resolution: as for `decode_image`.
        value_range: as for `decode_image`.
        box_of: what is cut out of an upright image of some width and height.
        draft: let a JPEG be decoded at a half, a quarter or an eighth of its size where what is cut out still has
            ``resolution`` pixels on each side. Its decoder averages then, so that pixels differ a little.
    """
    needs("PIL")
    from PIL import Image, ImageOps

    try:
        depth = None
        if isinstance(data, (np.ndarray, list)):
            pixels, depth = _pixels(data, value_range)
            image, raw, full = Image.fromarray(pixels), "", 255
        else:
            image = data if isinstance(data, Image.Image) else _open(data)
            raw, full = _raw_mode(image), _full(image)
        drafted = _draft(image, resolution, box_of) if draft else None
        image, of_image = _to_rgb(ImageOps.exif_transpose(image), raw, full, None if depth else value_range)
        box = box_of(*image.size) if drafted is None else _at_size(image, *drafted)
        if image.size != (resolution, resolution):
            image = image.resize((resolution, resolution), Image.Resampling.BILINEAR, box=box)
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)), depth or of_image
    except DataError:
        raise
    except Exception as error:  # broken files make Pillow raise OSError, SyntaxError, ValueError, EOFError, ...
        reason = _reason(error, data)
        raise DataError(f"image cannot be decoded: {reason}") from None


def _draft(image: Image, resolution: int, box_of: Callable[[int, int], Box]) -> tuple[Box, int, int] | None:
    """Have a JPEG that is not yet read decoded as small as will do; what is cut out of it, at its full upright width and height."""
    from PIL import ExifTags

    if image.format not in ("JPEG", "MPO"):
        return None
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    width, height = (image.height, image.width) if turned else image.size
    box = box_of(width, height)
    scale = resolution / min(box[2] - box[0], box[3] - box[1])
    image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
    return box, width, height


def _at_size(image: Image, box: Box, width: int, height: int) -> Box:
    """A box of an image of some width and height in one that may have been made smaller."""
    across, down = image.width / width, image.height / height
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down


def _open(data: bytes | str | Path) -> Image:
    from PIL import Image

    if isinstance(data, (bytes, bytearray, memoryview)):
        return Image.open(BytesIO(data))
    if not isinstance(data, (str, Path)):
        raise DataError(f"there is no image but {shown(data)}; images are bytes of a file, paths, or pixels")
    return Image.open(data)


def _reason(error: Exception, data: ImageLike) -> str:
    """Why Pillow gave up, and what to do."""
    kind = type(error).__name__
    if kind == "DecompressionBombError":
        from PIL import Image

        size = re.search(r"\((\d+) pixels\)", str(error))
        has = f"{int(size[1]) / 1e6:,.0f}" if size else "too many"
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        return f"it has {has} million pixels, and at most {most:,.0f} million are read: shrink it, or cut it into tiles"
    if isinstance(data, (bytes, str)) and (guess := looks_like(data)):
        return f"not an image; {guess}"
    if kind == "UnidentifiedImageError":
        return "not an image; replace or remove it"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).split("\n")[0]
    return f"{cut(reason, _LONGEST_REASON) or kind}; replace or remove it"


def decode_images(
    encoded: Iterable[EncodedImage],
    rows: NDArray[np.int64],
    resolution: int,
    *,
    value_range: Range | None = None,
    skip_bad: bool = False,
    progress: str | None = None,
) -> Decoded:
    """Decode many images in a thread pool (Pillow works outside Python's lock).

    Args:
        encoded: yields each of ``rows`` once, in any order.
        rows: which source row goes to which place of the result.
        resolution: side of the results in pixels.
        value_range: as in `decode_image`.
        skip_bad: leave out what cannot be decoded, instead of raising.
        progress: description of the bar that a terminal shows once this takes over two seconds; None for no bar.

    Raises:
        DataError: a bad image, naming it, unless ``skip_bad``.
    """
    images = np.empty((len(rows), 3, resolution, resolution), dtype=np.uint8)
    kept = np.ones(len(rows), dtype=bool)
    place = {int(row): index for index, row in enumerate(rows)}
    skipped: dict[int, str] = {}
    depths: dict[int, Depth] = {}
    chunks = decode_chunks(
        encoded, len(rows), resolution, value_range=value_range, skip_bad=skip_bad, progress=progress
    )
    for chunk in chunks:
        places = [place[item.row] for item in chunk.items]
        images[places] = chunk.images
        for index, problem in chunk.problems.items():
            kept[places[index]] = False
            skipped[places[index]] = problem
        depths |= {places[index]: depth for index, depth in chunk.depths.items()}
    return Decoded(images, kept, skipped, depths)


def closed_up(images: NDArray[np.uint8], kept: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The images that are kept, moved up in the array that they are in: a copy would take as much memory again."""
    places = np.flatnonzero(kept)
    if len(places) < len(images):
        for start in range(0, len(places), _IN_FLIGHT):
            part = places[start : start + _IN_FLIGHT]
            images[start : start + len(part)] = images[part]
    return images[: len(places)]


@dataclass(frozen=True)
class Chunk:
    """Some images of a source, decoded.

    Attributes:
        items: as they were read.
        images: uint8 ``(n, 3, r, r)``, of the items in their order; what a bad one has there is undefined. Overwritten by the next
            chunk.
        problems: of bad images, their number among the items, and their name with the reason.
        depths: of images of more than 8 bits, likewise.
    """

    items: list[EncodedImage]
    images: NDArray[np.uint8]
    problems: dict[int, str]
    depths: dict[int, Depth]


def decode_chunks(
    encoded: Iterable[EncodedImage],
    total: int,
    resolution: int,
    *,
    value_range: Range | None = None,
    skip_bad: bool = False,
    progress: str | None = None,
) -> Iterator[Chunk]:
    """Decode many images, some hundred at a time; see `decode_images`."""
    at_once = max(8, min(_IN_FLIGHT, total, _CHUNK // (3 * resolution**2)))
    images = np.empty((at_once, 3, resolution, resolution), dtype=np.uint8)

    def work(place: int, item: EncodedImage) -> tuple[str | None, Depth | None]:
        try:
            if item.data is None:
                raise DataError("there is no image (the value is null); add it or remove the row")
            images[place], depth = decode(item.data, resolution, value_range)
        except DataError as error:
            return f"{item.name}: {error}", None
        return None, depth

    threads = min(8, os.cpu_count() or 1)
    with no_warnings(), ThreadPoolExecutor(threads) as pool, _progress_bar(progress, total) as advance:
        for items in _chunks(encoded, at_once):
            chunk = Chunk(items, images[: len(items)], {}, {})
            for place, (problem, depth) in enumerate(pool.map(work, range(len(items)), items)):
                if problem is not None and not skip_bad:
                    raise DataError(f"{problem}, or set on_bad_image=skip")
                if problem is not None:
                    chunk.problems[place] = problem
                if depth is not None:
                    chunk.depths[place] = depth
            yield chunk
            advance(len(items))


def _raw_mode(image: Image) -> str:
    """How a file that is not yet read stores its pixels ("I;16S", "RGB;16B"), as Pillow's decoders call it; else ""."""
    tile = next(iter(getattr(image, "tile", None) or ()), None)
    arguments = tile[3] if tile is not None else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _full(image: Image) -> int:
    """The value that a file that is not yet read has where Pillow gives its greatest level."""
    tile = next(iter(getattr(image, "tile", None) or ()), None)
    if image.format == "PPM" and tile is not None and isinstance(tile[3], tuple) and isinstance(tile[3][-1], int):
        return int(tile[3][-1])  # its maxval, which Pillow scales by
    return 65535 if ";16" in _raw_mode(image) else 255


def _to_rgb(image: Image, raw: str, full: int, value_range: Range | None) -> tuple[Image, Depth | None]:
    """RGB of any mode: transparency over white, more than 8 bits scaled to 8."""
    from PIL import Image

    depth = None
    if image.mode == "RGB" and "transparency" not in image.info and value_range is None and full <= 255:
        return image, None
    if image.mode == "F" or image.mode.startswith("I"):  # Pillow's own conversion clips at 255 instead of scaling
        values, kind, most = np.asarray(image), "16-bit", 65535
        if image.mode == "F":
            kind, most = "floating-point", 0
        elif image.mode == "I" and (full == 255 or ";16" in raw):
            kind = "32-bit or signed"
        elif image.mode == "I" and value_range is not None:  # it is of a PPM's own values, and Pillow has scaled them
            values = values * (full / 65535)
        elif raw.startswith("I;12"):
            kind, most = "12-bit", 4095
        pixels, depth = to_8_bit(values, kind, most, value_range)
        image = Image.fromarray(pixels)
    elif full > 255 and image.mode in ("L", "LA", "RGB", "RGBA"):
        bands = [image.getchannel(band) for band in image.getbands() if band != "A"]
        depth = of_colours(np.stack([np.asarray(band) for band in bands]), full, value_range)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    if value_range is not None and (depth is None or depth.kind == COLOUR):
        image = image.point(scaling_table(value_range, full) * 3)
    return image, depth


def _pixels(data: NDArray[Any] | list[Any], value_range: Range | None) -> tuple[NDArray[np.uint8], Depth | None]:
    """An array or nested lists as uint8 ``(h, w)`` or ``(h, w, 3 | 4)``."""
    array, depth = (_array(data) if isinstance(data, list) else data), None
    kind = array.dtype.kind
    if kind not in "biuf":
        raise DataError(f"image array has type {array.dtype}; numbers are allowed: convert it")
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] == 3:
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or 0 in array.shape:
        raise DataError(f"image array has shape {array.shape}; (h, w), (h, w, 1 | 3 | 4) and (3, h, w) are allowed")
    if kind == "b":
        array = array.astype(np.uint8) * np.uint8(255)
    elif isinstance(data, list) and kind in "iu" and value_range is None and array.min() >= 0 and array.max() < 256:
        # Pixels as nested lists carry no type of their own, so 8 bits is the only reading that is not a guess.
        array = array.astype(np.uint8)
    elif array.dtype == np.uint16:
        array, depth = to_8_bit(array, "16-bit", 65535, value_range)
    elif array.dtype != np.uint8:
        array, depth = to_8_bit(array, f"type {array.dtype}", 0, value_range)
    return np.ascontiguousarray(array), depth


def _array(rows: list[Any]) -> NDArray[Any]:
    """Nested lists as an array; a row that is shorter or longer than the first is named."""
    try:
        array = np.asarray(rows)
    except (ValueError, OverflowError, TypeError):
        array = np.empty(0, dtype=object)
    if array.dtype.kind in "biuf":
        return array
    raise DataError(
        f"its pixels are no even rows of numbers: {_uneven(rows) or 'a value is no number'}; mend or remove it"
    )


def _uneven(rows: list[Any], where: str = "") -> str:
    """The first place where nested lists differ in length; "" if there is none."""
    if not any(isinstance(row, list) for row in rows):
        return ""
    lengths = [len(row) if isinstance(row, list) else None for row in rows]
    odd = next((index for index, length in enumerate(lengths) if length != lengths[0]), None)
    if odd is not None:
        first, other = ("no list" if each is None else f"{each} values" for each in (lengths[0], lengths[odd]))
        return f"row {where}{odd} has {other}, row {where}0 has {first}"
    found = (_uneven(row, f"{where}{index}, ") for index, row in enumerate(rows))
    return next((text for text in found if text), "")


@contextmanager
def no_warnings() -> Iterator[None]:
    """Keep what Pillow says about large images and odd metadata off the terminal: what matters is an error of ours."""
    needs("PIL")
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"PIL\b")
        yield


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

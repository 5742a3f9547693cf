"""What random numbers mean for the images of a batch: boxes, places to read, colours. Small tensors, on the host alone.

Distributions are those of kornia 0.9, which are torchvision's (tests compare the two).
"""

import torch
from torch import Tensor

__all__ = [
    "box_pixels",
    "colour_matrices",
    "erased_boxes",
    "mirror_indices",
    "resized_crops",
    "sampling_lines",
    "shift_indices",
    "uniform",
]

TRIES = 10
COLUMNS = {
    "areas": TRIES,
    "aspects": TRIES,
    "place": 2,
    "flip": 1,
    "angle": 1,
    "factors": 3,
    "erase": 4,
    "erased_place": 2,
    "cutout": 2,
}
"""How many random numbers an image has for each purpose, whatever is switched on."""

ASPECTS = (3 / 4, 4 / 3)
ERASED_AREA = (0.02, 0.33)
ERASED_ASPECTS = (0.3, 3.3)
GREY = (0.299, 0.587, 0.114)
"""Grey of red, green and blue (ITU-R BT.601)."""


def uniform(n: int) -> dict[str, Tensor]:
    """Draw the numbers of ``n`` images in 0..1, from torch's global CPU generator, in one go.

    An image's numbers depend on its place in the batch alone, not on the size of the batch nor on what is switched on.

    Returns:
        By the names in `COLUMNS`, float64 ``(numbers, n)``.
    """
    # 53 random bits, so that u * k rounded down is never k; of float32's 24 bits it sometimes would be.
    numbers = torch.rand(n, sum(COLUMNS.values()), dtype=torch.float64).T
    return dict(zip(COLUMNS, numbers.split(list(COLUMNS.values())), strict=True))


def _between(low: float, high: float, u: Tensor) -> Tensor:
    return low + (high - low) * u


def _placed(box_height: Tensor, box_width: Tensor, place: Tensor, height: int, width: int) -> Tensor:
    """``(4, n)`` top, left, height and width of boxes, each at one of the places where it is whole."""
    top = (place[0] * (height - box_height + 1)).floor()
    left = (place[1] * (width - box_width + 1)).floor()
    return torch.stack([top, left, box_height, box_width])


def resized_crops(u: dict[str, Tensor], area: tuple[float, float], height: int, width: int) -> Tensor:
    """Crops of a uniform share of the area, of log-uniform aspect ratio (`ASPECTS`), in whole pixels.

    The first of ten that is not larger than the image, else the whole image.

    Args:
        u: what `uniform` gave.
        area: range of the share.
        height: of the image, in pixels; images are squares, or nearly.
        width: likewise.

    Returns:
        float64 ``(4, n)``: top, left, height, width.
    """
    pixels = _between(*area, u["areas"]) * (height * width)
    low, high = torch.tensor(ASPECTS, dtype=torch.float64).log().tolist()
    aspect = _between(low, high, u["aspects"]).exp()
    heights, widths = (pixels / aspect).sqrt().round(), (pixels * aspect).sqrt().round()
    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    first, found = fits.int().argmax(0, keepdim=True), fits.any(0)  # of equal ones argmax gives the first
    box_height = torch.where(found, heights.gather(0, first)[0], height)
    box_width = torch.where(found, widths.gather(0, first)[0], width)
    return _placed(box_height, box_width, u["place"], height, width)


def erased_boxes(u: dict[str, Tensor], probability: float, height: int, width: int) -> Tensor:
    """Rectangles to erase: as `resized_crops` gives boxes; of height 0 where an image keeps everything.

    A coin says whether the box is tall or wide; its height over its width is then uniform (`ERASED_ASPECTS`, cut at 1).
    """
    chosen, area, coin, place_in_range = u["erase"]
    low, high = ERASED_ASPECTS
    aspect = torch.where(coin < 0.5, _between(1, high, place_in_range), _between(low, 1, place_in_range))
    pixels = _between(*ERASED_AREA, area) * (height * width)
    box_height = (pixels * aspect).sqrt().round().clamp(1, height)
    box_width = (pixels / aspect).sqrt().round().clamp(1, width)
    box = _placed(box_height, box_width, u["erased_place"], height, width)
    box[2] *= chosen < probability
    return box


def box_pixels(box: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Which rows ``(n, height)`` and columns ``(n, width)`` are in each box of ``(4, n)``; it may reach over the edges."""
    top, left, box_height, box_width = box[:, :, None]
    y, x = torch.arange(height), torch.arange(width)
    return (y >= top) & (y < top + box_height), (x >= left) & (x < left + box_width)


def mirror_indices(mirrored: Tensor, width: int) -> Tensor:
    """int64 ``(n, width)``: which column to read, where images are mirrored left to right as bool ``(n)`` says."""
    x = torch.arange(width)
    return torch.where(mirrored[:, None], width - 1 - x, x)


def shift_indices(corner: Tensor, mirrored: Tensor, height: int, width: int, stride: int) -> tuple[Tensor, Tensor]:
    """Where to read windows of ``height`` x ``width`` pixels, mirrored left to right or not.

    Args:
        corner: int64 ``(2, n)``, top and left.
        mirrored: bool ``(n)``.
        height: of the window.
        width: of the window.
        stride: pixels in a row of the picture that is read.

    Returns:
        int64 ``(n, height)`` and ``(n, width)``: the sum of a row's and a column's number is the pixel's.
    """
    top, left = corner[:, :, None]
    return (top + torch.arange(height)) * stride, left + mirror_indices(mirrored, width)


def sampling_lines(box: Tensor, mirrored: Tensor, angle: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where to read a box of each image, enlarged to the whole size, then mirrored, then rotated about the centre.

    Centres of corner pixels come to lie on centres of corner pixels (``align_corners=True``).

    Args:
        box: ``(4, n)``: top, left, height and width in pixels.
        mirrored: bool ``(n)``: left to right.
        angle: ``(n)``, in degrees, counter-clockwise.
        height: of the images and of the result.
        width: likewise.

    Returns:
        float32 ``(n, height, 2)`` and ``(n, width, 2)``: the sum of a row's and a column's pair (x, y) is the point for
        ``torch.nn.functional.grid_sample``, -1 and 1 at the centres of the first and last pixel.
    """
    top, left, box_height, box_width = box[:, :, None]
    last_y, last_x = max(height - 1, 1), max(width - 1, 1)
    y = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    cos, sin = angle.deg2rad().cos()[:, None], angle.deg2rad().sin()[:, None]
    scale_y = (box_height - 1) / last_y
    scale_x = (box_width - 1) / last_x * torch.where(mirrored, -1, 1)[:, None]
    rows_x = left + (box_width - 1) / 2 - scale_x * sin * y
    rows_y = top + (box_height - 1) / 2 + scale_y * cos * y
    rows = torch.stack([rows_x * (2 / last_x) - 1, rows_y * (2 / last_y) - 1], -1)
    columns = torch.stack([scale_x * cos * x * (2 / last_x), scale_y * sin * x * (2 / last_y)], -1)
    return rows.float(), columns.float()


def colour_matrices(factors: Tensor) -> tuple[Tensor, Tensor]:
    """Brightness b, contrast c and saturation s as one affine step: the new colour is ``own @ x + mean @ (mean colour of the image)``.

    Brightness multiplies by b; contrast is ``c x + (1 - c) m`` with m the mean grey of the image; saturation is ``s x + (1 - s) g``
    with g the grey of the pixel. Without rounding and clamping between them they commute, so there is no order: ``b (c (s x + (1 - s) g)
    + (1 - c) m)``.

    Args:
        factors: ``(3, n)``: b, c, s.

    Returns:
        float32 ``(n, 3, 3)`` twice: ``own`` and ``mean``.
    """
    brightness, contrast, saturation = factors[:, :, None, None]
    grey = torch.tensor(GREY, dtype=torch.float64).expand(3, 3)
    own = brightness * contrast * (saturation * torch.eye(3) + (1 - saturation) * grey)
    return own.float(), (brightness * (1 - contrast) * grey).float()

"""Decoding: modes, sizes, orientations, and files that are no images."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snugnet.data.images import EncodedImage, decode_image, decode_images
from snugnet.errors import DataError


def png(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def centre(data: bytes | np.ndarray | Image.Image) -> list[int]:
    return decode_image(data, 8)[:, 4, 4].tolist()


def test_same_size_is_left_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    for data in (pixels, pixels.transpose(2, 0, 1), Image.fromarray(pixels), png(Image.fromarray(pixels))):
        decoded = decode_image(data, 8)
        assert decoded.dtype == np.uint8
        assert np.array_equal(decoded, pixels.transpose(2, 0, 1))


def test_modes() -> None:
    assert centre(png(Image.new("L", (9, 9), 77))) == [77, 77, 77]
    assert centre(png(Image.new("1", (9, 9), 1))) == [255, 255, 255]
    assert centre(png(Image.new("RGBA", (9, 9), (255, 0, 0, 0)))) == [255, 255, 255]
    assert centre(png(Image.new("RGBA", (9, 9), (0, 0, 0, 128)))) == [127, 127, 127]
    assert centre(png(Image.new("LA", (9, 9), (50, 255)))) == [50, 50, 50]
    assert centre(png(Image.new("RGB", (9, 9), (1, 2, 3)).quantize())) == [1, 2, 3]
    assert centre(png(Image.new("P", (9, 9), 0), transparency=0)) == [255, 255, 255]
    assert centre(png(Image.new("RGB", (9, 9), (1, 2, 3)), transparency=(1, 2, 3))) == [255, 255, 255]
    assert centre(png(Image.fromarray(np.full((9, 9), 0x8033, np.uint16)))) == [128, 128, 128]
    assert centre(Image.new("I", (9, 9), 0x8033)) == [128, 128, 128]
    assert centre(np.full((9, 9, 1), 0x8033, np.uint16)) == [128, 128, 128]
    assert centre(Image.new("CMYK", (9, 9), (0, 255, 255, 0))) == [255, 0, 0]


def test_centre_square_of_odd_sizes() -> None:
    wide = np.zeros((10, 31, 3), np.uint8)
    wide[:, 10:20] = 200
    assert (decode_image(wide, 10) == 200).mean() > 0.9
    assert decode_image(wide.transpose(1, 0, 2), 17).shape == (3, 17, 17)
    assert decode_image(np.full((1, 1), 9, np.uint8), 8).tolist() == np.full((3, 8, 8), 9).tolist()


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 254
    inner = decode_image(stripes, 8)[:, 2:6, 2:6]
    assert abs(inner.astype(int) - 127).max() <= 4


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (8, 8))
    image.paste((255, 255, 255), (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    decoded = decode_image(png(image, exif=exif), 8)
    assert decoded[0, :, 0].tolist() == [0] * 4 + [255] * 4


def test_paths(tmp_path: Path, jpeg: Callable[..., bytes]) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(jpeg())
    assert np.array_equal(decode_image(path, 8), decode_image(str(path), 8))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"hello", "not an image"),
        (b"", "not an image"),
        (np.zeros((4, 4)), "floating-point"),
        (np.zeros((4, 4), complex), "type complex128"),
        ([[1, 2], [3]], "row 1 has 1 values, row 0 has 2 values"),
        ([[[1, 2, 3], [1, 2]], [[1, 2, 3], [1, 2, 3]]], "row 0, 1 has 2 values, row 0, 0 has 3 values"),
        ([[1, 2], 3], "row 1 has no list, row 0 has 2 values"),
        ([[1, None]], "a value is no number"),
        ([["a", "b"]], "a value is no number"),
        ([1, 2, 3], r"shape \(3,\)"),
        ({"data": b"x" * 500}, r"no image but \{'data': b'x+\.\.\."),
        (17, "no image but 17"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
        (np.zeros((0, 4), np.uint8), r"shape \(0, 4\)"),
        (Image.new("F", (4, 4)), "floating-point"),
        ("/nowhere/x.jpg", "No such file"),
    ],
)
def test_no_image(data: object, says: str) -> None:
    with pytest.raises(DataError, match=says) as error:
        decode_image(data, 8)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_truncated_at_any_length(jpeg: Callable[..., bytes], form: str) -> None:
    whole = jpeg(size=(40, 40), form=form)
    decode_image(whole, 8)
    for part in (0.1, 0.4, 0.6):
        with pytest.raises(DataError, match="cannot be decoded"):
            decode_image(whole[: int(part * len(whole))], 8)


def rows_of(images: list[bytes | None]) -> Iterator[EncodedImage]:
    for row, data in enumerate(images):
        yield EncodedImage(row, data, f"file, row {row}")


def test_many_go_to_their_places(jpeg: Callable[..., bytes]) -> None:
    images = [jpeg(shade % 200) for shade in range(600)]
    rows = np.random.default_rng(0).permutation(600)
    decoded = decode_images(rows_of(images), rows, 8, progress="decoding")
    assert decoded.kept.all()
    for place in (0, 17, 599):
        assert np.array_equal(decoded.images[place], decode_image(images[rows[place]], 8))


def test_bad_ones_stop_or_are_skipped(jpeg: Callable[..., bytes]) -> None:
    images = [jpeg(), b"no", jpeg(), None]
    rows = np.array([3, 2, 1, 0])
    with pytest.raises(DataError, match=r"file, row 1: .*not an image.*on_bad_image=skip"):
        decode_images(rows_of(images), rows, 8)
    decoded = decode_images(rows_of(images), rows, 8, skip_bad=True)
    assert decoded.kept.tolist() == [False, True, False, True]
    assert sorted(decoded.skipped) == [0, 2]
    assert "row 3" in decoded.skipped[0]
    assert "null" in decoded.skipped[0]

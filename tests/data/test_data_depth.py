"""Images of more than 8 bits, of few values, and of one colour: scaled by a rule, noted or refused, never black in silence."""

import base64
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snugnet.data import DataConfig, GroupedImages, decode_image, load_data, load_split
from snugnet.errors import DataError

Pixels = np.ndarray


def encoded(pixels: Pixels, form: str = "TIFF") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def ramp(low: float, high: float, dtype: str, size: int = 16) -> Pixels:
    return np.linspace(low, high, size * size).reshape(size, size).astype(dtype)


def noise(row: int, high: int, dtype: str = "uint8", size: int = 8) -> Pixels:
    pixels = np.random.default_rng(row).integers(0, high + 1, (size, size)).astype(dtype)
    pixels[0, 0] = high
    return pixels


def colours_of_sixteen_bits(grey: Pixels) -> bytes:
    """A PNG that Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.tobytes() for row in np.repeat(grey[:, :, None], 3, 2).astype(">u2"))
    header = struct.pack(">IIBBBBB", grey.shape[1], grey.shape[0], 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def load(path: Path, **settings: object) -> GroupedImages:
    return load_data(DataConfig(source=str(path), **{"resolution": 8, "test": 0.25, **settings}), progress=False)


@pytest.fixture
def of_pixels(tmp_path: Path, write_parquet: Callable[..., Path]) -> Callable[..., Path]:
    """A parquet file of 24 images in two classes, of the encoded bytes that a function of the row gives."""

    def write(make: Callable[[int], object]) -> Path:
        return write_parquet(tmp_path / "images.parquet", [make(row) for row in range(24)], [0, 1] * 12)

    return write


@pytest.mark.parametrize(
    ("pixels", "value_range"),
    [
        (ramp(0, 65535, "uint16"), None),
        (ramp(0, 65535, "int32"), None),
        (ramp(0, 4095, "uint16"), (0, 4095)),
        (ramp(0, 4095, "int32"), (0, 4095)),
        (ramp(-1000, 3000, "int32"), (-1000, 3000)),
        (ramp(0, 1, "float32"), (0, 1)),
        (ramp(-1, 1, "float32"), (-1, 1)),
        (ramp(0, 15, "uint8"), (0, 15)),
        (ramp(0, 2e9, "int32"), (0, 2e9)),
    ],
)
def test_every_depth_fills_the_range(pixels: Pixels, value_range: tuple[float, float] | None) -> None:
    wanted = ramp(0, 255, "float64")
    forms: list[object] = [encoded(pixels), Image.fromarray(pixels), pixels]
    if pixels.dtype in (np.uint8, np.uint16):
        forms.append(encoded(pixels, "PNG"))
    for form in forms if pixels.dtype != np.int32 or value_range else forms[:2]:
        got = decode_image(form, 16, value_range)  # type: ignore[arg-type]
        tolerance = 17 if value_range == (0, 15) else 1
        assert np.abs(got - wanted).max() <= tolerance, type(form)


def test_what_lies_beyond_the_range_is_cut_off() -> None:
    assert decode_image(np.array([[-5.0, 0.0, 0.5, 1.0, 9.0]] * 5), 8, (0, 1)).min() == 0
    assert decode_image(np.array([[300.0] * 3] * 3), 8, (0, 255)).max() == 255


def test_bits_of_lists_and_flags() -> None:
    assert decode_image([[0, 255], [255, 0]], 8).max() == 255
    assert decode_image([[True, False], [True, False]], 8).max() == 255
    assert decode_image([[0.0, 1.0], [0.25, 0.5]], 8, (0, 1)).max() == 255


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (encoded(ramp(0, 200, "uint16"), "PNG"), r"16-bit values are 0 to 200 of 0 to 65535.*black.*value_range=\[0, 255\]"),
        (ramp(0, 200, "uint16"), r"16-bit values are 0 to 200 of 0 to 65535.*black"),
        (encoded(ramp(0, 200, "int32")), r"32-bit or signed values are 0 to 200.*value_range=\[0, 255\]"),
        (encoded(ramp(-5, 200, "int32")), "32-bit or signed values are -5 to 200, and 0 to 65535 are read"),
        (encoded(ramp(0, 70000, "int32")), "0 to 70000, and 0 to 65535 are read"),
        (encoded(ramp(0, 1, "float32")), r"floating-point pixels \(0 to 1\), whose range is unknown.*value_range=\[0, 1\]"),
        (ramp(-1, 1, "float64"), r"value_range=\[-1, 1\]"),
        (ramp(0, 255, "int16"), r"int16 pixels \(0 to 255\), whose range is unknown"),
        ([[-1, 200], [3, 4]], r"int64 pixels \(-1 to 200\)"),
        ([[0, 300], [3, 4]], r"int64 pixels \(0 to 300\).*value_range=\[0, 1023\]"),
        ([[0.5, 0.25], [0.5, 0.5]], "floating-point pixels"),
        (np.array([[np.nan, 1.0]]), "not finite"),
    ],
)  # fmt: skip
def test_unknown_ranges_are_refused(data: object, says: str) -> None:
    with pytest.raises(DataError, match=says) as error:
        decode_image(data, 8)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250


@pytest.mark.parametrize("high", [255, 4095, 16383])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_few_bits_in_sixteen(of_pixels: Callable[..., Path], high: int, form: str) -> None:
    path = of_pixels(lambda row: encoded(noise(row, high, "uint16"), form))
    with pytest.raises(DataError, match=rf"value_range=\[0, {high}\]"):
        load(path)
    data = load(path, value_range=[0, high])
    assert data.train.images.max() == 255
    assert 100 < data.train.images.double().mean() < 155
    if high > 255:
        assert load(path, value_range=[0, 65535]).train.images.max() == round(high / 257)


def test_sixteen_bits_are_noted(of_pixels: Callable[..., Path]) -> None:
    notes = load(of_pixels(lambda row: encoded(noise(row, 65535, "uint16"), "PNG"))).report["notes"]
    assert any("16 of 16 training images are 16-bit: of their values (" in note for note in notes)
    notes = load(of_pixels(lambda row: encoded(noise(row, 40000 if row % 2 else 9000, "int32")))).report["notes"]
    assert any("training images are 32-bit or signed" in note and "below a quarter" in note for note in notes)


def test_colours_of_sixteen_bits_of_which_eight_are_used(of_pixels: Callable[..., Path]) -> None:
    """Pillow reads the upper half of each value alone, so nothing is left of these."""
    path = of_pixels(lambda row: colours_of_sixteen_bits(noise(row, 250, "uint16")))
    with pytest.raises(DataError, match=r"16 of 16 16-bit colour training images .*; store them with 8 bits"):
        load(path)
    with pytest.raises(DataError, match=r"value_range=\[0, 255\] leaves next to nothing; store it with 8 bits"):
        load(path, value_range=[0, 255])
    path = of_pixels(lambda row: colours_of_sixteen_bits(noise(row, 16383, "uint16")))
    with pytest.raises(DataError, match="below a quarter of their range"):
        load(path)
    assert load(path, value_range=[0, 16383]).train.images.max() >= 250


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("most", [1023, 4095, 65535])
def test_the_range_is_of_a_files_own_values(colours: int, most: int) -> None:
    """Pillow scales what a PPM holds by the greatest value that its header states."""
    values = np.repeat(ramp(0, most, ">u2")[:, :, None], colours, 2)
    data = b"P%d\n16 16\n%d\n" % (6 if colours == 3 else 5, most) + values.tobytes()
    expected = np.rint(values[:, :, 0] * (255 / most))
    for value_range in (None, (0, most)):
        found = decode_image(data, 16, value_range)[0].astype(float)
        assert np.abs(found - expected).max() <= 1


def test_images_that_are_not_trained_on_are_looked_at_as_well(
    tmp_path: Path, write_parquet: Callable[..., Path]
) -> None:
    def write(split: str, high: int, dtype: str) -> None:
        write_parquet(
            tmp_path / f"{split}.parquet", [encoded(noise(row, high, dtype), "PNG") for row in range(12)], [0, 1] * 6
        )

    write("train", 255, "uint8")
    for high, dtype, words in (
        (4095, "uint16", "12 of 12 16-bit test images stay below"),
        (1, "uint8", "all 12 test images"),
    ):
        write("test", high, dtype)
        assert any(words in note for note in load(tmp_path, test=None).report["notes"])


def test_few_values_of_eight_bits_are_noted(of_pixels: Callable[..., Path]) -> None:
    path = of_pixels(lambda row: encoded(noise(row, 9), "PNG"))
    assert any("use the values 0 to 9 of 0 to 255 alone" in note for note in load(path).report["notes"])
    data = load(path, value_range=[0, 9])
    assert data.train.images.max() == 255
    assert not any("use the values" in note for note in data.report["notes"])


@pytest.mark.parametrize("high", [0, 1, 2])
def test_constant_training_images_are_refused(of_pixels: Callable[..., Path], high: int) -> None:
    path = of_pixels(lambda row: encoded(noise(row, high), "PNG"))
    says = rf"all \d+ training images are of one and the same colour \(values 0 to {high} of 0 to 255\).*value_range"
    with pytest.raises(DataError, match=says):
        load(path)
    with pytest.raises(DataError, match=says):
        load_split(DataConfig(source=str(path), resolution=8, test=0.25), "train", progress=False)
    if high:
        assert load(path, value_range=[0, high]).train.images.max() == 255


def test_images_of_one_colour_each_are_noted(of_pixels: Callable[..., Path]) -> None:
    notes = load(of_pixels(lambda row: encoded(np.full((8, 8), 10 * row, np.uint8), "PNG"))).report["notes"]
    assert any("16 of 16 training images are of one colour each" in note for note in notes)


def test_very_large_scans(monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    decode_image(encoded(np.zeros((1200, 1200), np.uint8), "PNG"), 8)  # Pillow alone would warn
    assert not len(recwarn)
    with pytest.raises(
        DataError, match="it has 4 million pixels, and at most 2 million are read: shrink it, or cut it"
    ):
        decode_image(encoded(np.zeros((2000, 2000), np.uint8), "PNG"), 8)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("iVBORw0KGgo" + "A" * 4000, "it looks like base64 of a PNG"),
        (b"iVBORw0KGgo" + b"A" * 4000, "it looks like base64 of a PNG"),
        ("/9j/" + "4AAQSkZJRg" * 400, "it looks like base64 of a JPEG"),
        (base64.urlsafe_b64encode(b"\xff\xd8\xff\xe0" + b"\xfb" * 400).decode(), "it looks like base64 of a JPEG"),
        (base64.b64encode(b"\0\0\0\x20ftypavif" + b"\0" * 400), "it looks like base64 of an AVIF"),
        (base64.b64encode(b"\x93NUMPY" + b"\0" * 400).decode(), "it looks like base64 of a NumPy file"),
        ("data:image/png;base64,iVBOR", "it looks like a data URL"),
        ("89504e470d0a1a0a" * 50, "hexadecimal digits of a PNG"),
        ("\\x89504e470d0a1a0a", "hexadecimal digits of a PNG"),
        ("b'\\x89PNG'", "bytes as Python prints them"),
        ("https://example.org/a.png", "an address on the web"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 50, "a HEIC photo: convert it"),
        ("x" * 4000, "File name too long"),
    ],
)
def test_what_it_looks_like(data: str | bytes, says: str) -> None:
    with pytest.raises(DataError, match=says) as error:
        decode_image(data, 8)
    assert len(str(error.value)) < 200


def test_cases(cases: Path) -> None:
    with pytest.raises(DataError, match=r"16-bit values are 0 to 200 of 0 to 65535.*value_range=\[0, 255\]"):
        decode_image(cases / "16-bit-values-below-256.png", 24)
    assert decode_image(cases / "16-bit-values-below-256.png", 24, (0, 255)).max() == 200

    def says(match: str, case: str, **settings: object) -> None:
        config = DataConfig(source=str(cases / case), resolution=16, validation=0.2, **settings)
        with pytest.raises(DataError, match=match) as error:
            load_data(config, progress=False)
        assert len(str(error.value)) < 300 + len(str(cases))

    says(r"base64/train\.parquet, row 0 .*it looks like base64 of a PNG: decode it", "base64")
    says(r"ragged/train\.parquet, row 0.*row 1 has 2 values, row 0 has 3 values", "ragged")
    says("class '0' has no training image left", "ragged", on_bad_image="skip")


def test_a_short_row_is_skipped(tmp_path: Path, write_parquet: Callable[..., Path]) -> None:
    images = [noise(row, 255).tolist() for row in range(12)]
    images[3][5] = images[3][5][:-1]
    path = write_parquet(tmp_path / "a.parquet", images, [0, 1] * 6)
    with pytest.raises(DataError, match=r"a\.parquet, row 3: .*row 5 has 7 values, row 0 has 8"):
        load(path)
    skipped = load(path, on_bad_image="skip").report["skipped_images"]
    assert sum(each["count"] for each in skipped.values()) == 1

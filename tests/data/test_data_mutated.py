"""Readers of images and labels, given what was changed at random: a right answer, or one line of our own."""

import io
import unicodedata
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from snugnet.data import DataConfig, load_data
from snugnet.data.columns import label_column
from snugnet.data.images import EncodedImage, decode_image, decode_images
from snugnet.errors import DataError, SnugnetError

mutated = settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))


def file_of(form: str, mode: str) -> bytes:
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, bands)).astype(np.uint8)
    image = Image.fromarray(pixels if bands > 1 else pixels[:, :, 0]) if mode not in ("I;16", "I", "F") else None
    if image is None:
        image = Image.fromarray(
            (pixels[:, :, 0] * 257.0).astype({"I;16": "uint16", "I": "int32", "F": "float32"}[mode])
        )
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


FILES = [
    file_of(form, mode)
    for form, modes in {
        "PNG": ("L", "RGB", "RGBA", "I;16"), "TIFF": ("L", "RGB", "I;16", "I", "F"), "JPEG": ("RGB", "L"), "GIF": ("L",),
        "BMP": ("RGB",), "WEBP": ("RGB",), "PPM": ("RGB", "I"), "TGA": ("RGB",), "ICO": ("RGBA",), "AVIF": ("RGB",),
    }.items()
    for mode in modes
]  # fmt: skip

# a value of its own, a place that repeats, an end: what transfers and editors do to files
changes = st.lists(
    st.tuples(st.sampled_from(["set", "cut", "insert", "drop"]), st.floats(0, 1), st.integers(0, 255)), max_size=6
)


def change(data: bytes, steps: list[tuple[str, float, int]]) -> bytes:
    for kind, share, value in steps:
        place = int(share * len(data))
        tail = {"set": data[place + 1 :], "cut": b"", "insert": data[place:], "drop": data[place + value :]}[kind]
        data = data[:place] + (bytes([value]) if kind in ("set", "insert") else b"") + tail
    return data


def decodes(data: Any, value_range: tuple[float, float] | None = None) -> None:
    """A picture, or one line."""
    try:
        image = decode_image(data, 8, value_range)
    except DataError as error:
        line = str(error)
        assert "\n" not in line
        assert len(line) < 300
    else:
        assert image.shape == (3, 8, 8)
        assert image.dtype == np.uint8


@mutated
@given(st.sampled_from(FILES), changes)
def test_files(data: bytes, steps: list[tuple[str, float, int]]) -> None:
    decodes(change(data, steps))


ranges = st.none() | st.tuples(st.floats(-1e6, 1e6), st.floats(1, 1e6)).map(lambda pair: (pair[0], pair[0] + pair[1]))
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-300, 70000), st.integers(), st.floats(), st.text(max_size=3), st.binary(max_size=3)
)  # fmt: skip
cells = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3), max_leaves=10)
grids = st.builds(
    lambda height, width, depth, cut: [[[7 * x + y] * depth for x in range(width - (y == cut))] for y in range(height)],
    *[st.integers(0, 5)] * 2, st.integers(1, 4), st.integers(0, 30),
)  # fmt: skip


@mutated
@given(cells | grids, ranges)
def test_cells(cell: Any, value_range: tuple[float, float] | None) -> None:
    decodes(cell, value_range)


@settings(mutated, max_examples=200)
@given(
    st.sampled_from(["u1", "u2", "u4", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "?", ">u2", ">i4", "c8", "U3", "M8[s]"]),
    st.lists(st.integers(0, 5), max_size=4),
    st.binary(min_size=8, max_size=64),
    ranges,
)  # fmt: skip
def test_arrays(kind: str, shape: list[int], content: bytes, value_range: tuple[float, float] | None) -> None:
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    decodes(np.frombuffer((content * (size // 8 + 1))[:size], kind).reshape(shape), value_range)


@settings(mutated, max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(FILES), changes), max_size=3))
def test_of_many_files_the_whole_ones_are_kept(files: list[tuple[bytes, list[tuple[str, float, int]]]]) -> None:
    encoded = [EncodedImage(row, change(data, steps), f"row {row}") for row, (data, steps) in enumerate(files)]
    decoded = decode_images(encoded, np.arange(len(encoded)), 8, skip_bad=True)
    assert set(decoded.skipped) == set(np.flatnonzero(~decoded.kept))
    for item in encoded:
        if decoded.kept[item.row]:
            assert (decode_image(item.data, 8) == decoded.images[item.row]).all()


NAMES = ["cat", "dog", "caf\u00e9", "cafe\u0301", "a, b", "", "7", "-1", "x" * 400, "yes"]
words = st.one_of(st.none(), st.sampled_from([*NAMES, "\0", " cat", "\U0001f408", "\n"]))
numbers = st.one_of(st.none(), st.integers(-2, 4), st.integers(-(2**63), 2**64 - 1))
text_types = st.sampled_from(
    [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()]
)
other_types = st.sampled_from(
    [pa.int8(), pa.int64(), pa.uint64(), pa.float32(), pa.bool_(), pa.null(), pa.list_(pa.string()), pa.date32()]
)


@st.composite
def columns(draw: st.DrawFn) -> pa.ChunkedArray:
    """Chunks of text of any Arrow kind, of numbers, or of what is no label."""
    form = draw(st.sampled_from(["text", "bytes", "numbers", "other"]))
    kind = draw(text_types if form in ("text", "bytes") else other_types)
    if form == "bytes":
        kind, own = pa.binary(), st.one_of(st.none(), st.binary(max_size=3))
    else:
        own = words if form == "text" else numbers
    chunks = draw(st.lists(st.lists(own, max_size=4), min_size=1, max_size=2))
    arrays = []
    for chunk in chunks:
        if form == "text" and "binary" in str(kind):
            values = pa.array([None if each is None else each.encode() for each in chunk], kind)
        else:
            try:
                values = pa.array(chunk, kind)
            except (pa.ArrowException, OverflowError, TypeError):
                values = pa.nulls(len(chunk), kind)
        arrays.append(values)
    if draw(st.booleans()) and form in ("text", "bytes"):
        size = pa.int8() if draw(st.booleans()) else pa.int32()
        arrays = [
            pa.DictionaryArray.from_arrays(encoded.indices.cast(size), encoded.dictionary)
            for encoded in (array.dictionary_encode() for array in arrays)
        ]
    return pa.chunked_array(arrays)


def own_name(value: Any, names: list[str] | None) -> str:
    if names is not None and isinstance(value, int):
        return unicodedata.normalize("NFC", names[value])
    return unicodedata.normalize("NFC", value.decode() if isinstance(value, bytes) else str(value))


@mutated
@given(columns(), st.none() | st.lists(st.sampled_from(NAMES), max_size=5))
def test_labels(values: pa.ChunkedArray, names: list[str] | None) -> None:
    try:
        column = label_column(values, names, "label", "file")
    except DataError as error:
        line = str(error)
        assert "\n" not in line
        assert len(line) < 300
        return
    assert len(set(column.names)) == len(column.names)
    assert [column.names[code] for code in column.codes] == [own_name(value, names) for value in values.to_pylist()]


@settings(mutated, max_examples=100)
@given(columns(), columns(), st.sampled_from([{}, {"test": 0.5}, {"test_split": "train"}, {"on_bad_image": "skip"}]))
def test_tables(tmp_path_factory: pytest.TempPathFactory, train: Any, test: Any, values: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("tables")
    for name, labels in (("train", train), ("test", test)):
        table = pa.table({"image": [FILES[row % 2] for row in range(len(labels))], "label": labels})
        try:
            pq.write_table(table, folder / f"{name}.parquet")
        except pa.ArrowNotImplementedError:  # some layouts of text are no parquet
            assume(False)
    try:
        data = load_data(DataConfig(source=str(folder), resolution=8, on_leak="error", **values), progress=False)
    except SnugnetError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert min(data.report["rows"].values()) > 0

"""Images that stand in two places: found by their pixels, whatever the source, counted, and told between train and test."""

import io
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loading import load
from PIL import Image

from snugnet.data import GroupedImages
from snugnet.data.duplicates import equal_pairs, pixel_hashes, report_duplicates
from snugnet.errors import DataError

few = st.lists(st.integers(0, 5), max_size=12)


def counts(data: GroupedImages) -> dict[str, int]:
    return {pair: found["count"] for pair, found in data.report["duplicates"].items() if found["count"]}


def test_equal_pixels_have_equal_hashes_and_others_have_not() -> None:
    images = np.random.default_rng(0).integers(0, 256, (200, 3, 8, 8), dtype=np.uint8)
    hashes = pixel_hashes(images)
    assert len(set(hashes.tolist())) == 200
    assert np.array_equal(pixel_hashes(images[::-1].transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2))[::-1], hashes)
    for place in np.ndindex(3, 8, 8):  # one bit anywhere is another image
        other = images[:1].copy()
        other[0][place] ^= 1 << (sum(place) % 8)
        assert pixel_hashes(other)[0] != hashes[0]
    assert pixel_hashes(images[:0]).shape == (0,)


@given(first=few, second=few)
def test_pairs_are_those_of_brute_force(first: list[int], second: list[int]) -> None:
    one, two = np.array(first, np.uint64), np.array(second, np.uint64)
    expected = [(first.index(value), j) for j, value in enumerate(second) if value in first]
    assert list(zip(*(side.tolist() for side in equal_pairs(one, two)), strict=True)) == expected
    expected = [(first.index(value), j) for j, value in enumerate(first) if first.index(value) < j]
    assert list(zip(*(side.tolist() for side in equal_pairs(one)), strict=True)) == expected


def test_a_report_counts_other_classes_and_names_the_first_places() -> None:
    images = {"train": np.arange(9, dtype=np.uint8)[:, None] // 3, "test": np.array([[2], [7]], np.uint8)}
    labels = {"train": np.array([0, 0, 1, 0, 0, 0, 1, 1, 1]), "test": np.array([0, 0])}
    report = report_duplicates(
        {split: pixel_hashes(own) for split, own in images.items()},
        labels,
        lambda split, rows: [f"{split} {row}" for row in rows],
    )
    assert report == {
        "train": {
            "count": 6,
            "other_class": 1,
            "first": [[f"train {one}", f"train {other}"] for one, other in ((0, 1), (0, 2), (3, 4), (3, 5), (6, 7))],
        },
        "test": {"count": 0, "other_class": 0, "first": []},
        "train and test": {"count": 1, "other_class": 1, "first": [["train 6", "test 0"]]},
    }


def test_images_that_differ_are_no_duplicates(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load(folder, on_leak="error")
    assert counts(data) == {}
    pairs = ("train", "validation", "test", "train and validation", "train and test", "validation and test")
    assert tuple(data.report["duplicates"]) == pairs


def test_in_a_folder(folder: Path, jpeg: Callable[..., bytes]) -> None:
    cat, owl = folder / "train" / "animal" / "cat", folder / "test" / "animal" / "owl"
    shutil.copy(cat / "0.jpg", cat / "again.jpg")
    (owl / "link.jpg").symlink_to(cat / "1.jpg")
    Image.open(io.BytesIO(jpeg(20))).save(folder / "test" / "animal" / "cat" / "0.png")  # as cat/0.jpg, without loss
    with pytest.warns(
        UserWarning, match=r"2 of 12 test images .* 1 of them of another class \(first: .*cat/0\.png .* is .*cat/0\.jpg"
    ):
        data = load(folder, validation=0)
    assert counts(data) == {"train": 1, "train and test": 2}
    assert data.report["duplicates"]["train"]["first"][0][1].endswith("cat/again.jpg (row 4 of train/)")
    with pytest.raises(DataError, match=r"2 of 12 test images .*remove them.*set on_leak=warn") as error:
        load(folder, validation=0, on_leak="error")
    assert "\n" not in str(error.value)


def test_in_parquet_and_in_splits_that_are_made(
    tmp_path: Path, jpeg: Callable[..., bytes], write_parquet: Callable[..., Path]
) -> None:
    images = [jpeg(row // 2) for row in range(48)]  # each twice
    path = write_parquet(tmp_path / "twice.parquet", images, [row % 2 for row in range(48)])
    with pytest.warns(
        UserWarning, match=r"test images .*twice\.parquet, row \d+ \(\d+\.jpg\) is .*twice\.parquet, row"
    ):
        data = load(path, test=0.3, validation=0.2)
    assert sum(counts(data).values()) == 24
    assert all(found["other_class"] == found["count"] for found in data.report["duplicates"].values())


def test_only_rows_that_are_used_are_compared_and_skipped_ones_are_not(folder: Path) -> None:
    cat = folder / "train" / "animal" / "cat"
    for name in ("0.jpg", "1.jpg"):
        (cat / name).write_text("the same text")
    data = load(folder, validation=0, on_bad_image="skip", on_leak="error")
    assert counts(data) == {}


def test_small_enough_everything_is_equal(tmp_path: Path) -> None:
    for split, shade in (("train", 0), ("test", 1)):
        for name in ("a/x", "a/y"):
            (tmp_path / split / name).mkdir(parents=True)
            pixels = np.zeros((64, 64, 3), np.uint8)
            pixels[:32] = 200
            pixels[40, 40] = shade  # vanishes where 8 pixels become one
            Image.fromarray(pixels).save(tmp_path / split / name / "0.png")
    assert counts(load(tmp_path, resolution=64, validation=0)) == {"train": 1, "test": 1}
    with pytest.warns(UserWarning, match="2 of 2 test images"):
        load(tmp_path, validation=0)

"""Labels and splits: text of every kind, equal names, splits that cannot be judged by, names with commas and accents."""

import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loading import load, says

from snugnet.data import read_grouping, select_groups
from snugnet.data.columns import UnlabelledError, label_column
from snugnet.errors import ConfigError, DataError
from snugnet.texts import cut, joined, listed, one_form, quoted, shown

NAMES = ["ant", "bee", "cow, calf"]
COMPOSED = "caf\u00e9"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


@pytest.fixture
def splits(tmp_path: Path, jpeg: Callable[..., bytes], write_parquet: Callable[..., Path]) -> Callable[..., Path]:
    """A folder of parquet splits, 12 rows each unless there are other labels; ClassLabel names of all."""

    def write(features: dict | None = None, **labels: list) -> Path:
        for number, (split, of_split) in enumerate(labels.items()):
            images = [jpeg(40 * number + row) for row in range(len(of_split))]
            write_parquet(tmp_path / "splits" / f"{split}.parquet", images, of_split, features)
        return tmp_path / "splits"

    return write


# --- text


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "binary", "large_binary", "binary_view"])
@pytest.mark.parametrize("encoded", [False, True])
def test_text_of_every_kind(kind: str, encoded: bool) -> None:
    own = getattr(pa, kind)()
    words = ["nut", DECOMPOSED, "fig\0", "fig", COMPOSED, "nut"]
    parts = [pa.array([word.encode() if "binary" in kind else word for word in words], own)] * 2
    if encoded:
        parts = [
            pa.DictionaryArray.from_arrays(
                part.dictionary_encode().indices.cast(pa.int8()), part.dictionary_encode().dictionary
            )
            for part in parts
        ]
    column = label_column(pa.chunked_array(parts), None, "label", "file")
    assert column.names == (COMPOSED, "fig", "fig\0", "nut")
    assert [column.names[code] for code in column.codes] == [one_form(word) for word in words] * 2


def test_text_that_is_not_utf8() -> None:
    values = pa.chunked_array([pa.array([b"a", b"\xff" * 400, b"a"])])
    with pytest.raises(DataError, match=r"has b'\\xff.*\.\.\. in row 11, which is no UTF-8 text") as error:
        label_column(values, None, "label", "file", first_row=10)
    assert len(str(error.value)) < 200


def test_numbers_beyond_63_bits_are_names() -> None:
    values = pa.chunked_array([pa.array([2**64 - 1, 7], pa.uint64())])
    assert label_column(values, None, "label", "file").names == ("7", str(2**64 - 1))
    with pytest.raises(DataError, match=f"label {2**64 - 1} in row 0"):
        label_column(values, NAMES, "label", "file")


@pytest.mark.parametrize("names", [["ant", "bee", "ant"], [COMPOSED, "bee", DECOMPOSED]])
def test_equal_names(names: list[str], splits: Callable[..., Path]) -> None:
    path = splits({"label": names}, train=[0, 1, 2] * 4)
    says(
        f"class name '{names[0]}' of column 'label' stands twice, for 0 and 2; rename one",
        path / "train.parquet",
        test=0.3,
    )


# --- splits


@pytest.mark.parametrize("features", [None, {"label": NAMES}])
@pytest.mark.parametrize("labels", [[-1] * 4, [None] * 4])
def test_unlabelled_test_split(splits: Callable[..., Path], features: dict | None, labels: list) -> None:
    path = splits(features, train=[0, 1, 2] * 8, test=labels, validation=[0, 1, 2] * 2)
    says(r"test\.parquet has no labels: .*; set test_split=validation, or set test=0\.2", path)
    assert load(path, test_split="validation").report["rows"] == {"train": 22, "validation": 2, "test": 6}
    data = load(path, test=0.25)
    assert data.report["rows"] == {"train": 18, "validation": 6, "test": 6}
    assert any(note.startswith("the test split is not used: ") for note in data.report["notes"])


def test_test_split_without_the_column(splits: Callable[..., Path]) -> None:
    path = splits(train=[0, 1, 2] * 8, test=[0])
    pq.write_table(pq.read_table(path / "test.parquet").select(["image"]), path / "test.parquet")
    says("has no labels: it has no column 'label'; set test_split=NAME of a split", path)
    says("no column 'class'; it has: image, label", path, label_column="class")


def test_training_split_without_labels(splits: Callable[..., Path]) -> None:
    says(r"all 6 values of 'label' are -1; set label_column to another column, or train_split", splits(train=[-1] * 6))


def test_empty_splits(splits: Callable[..., Path]) -> None:
    path = splits(train=[0, 1, 2] * 8, test=[])
    says(r"test\.parquet has no rows; set test_split=NAME of a split that has, or set test=0\.2", path)
    path = splits(train=[0, 1, 2] * 8, test=[0, 1, 2], validation=[])
    data = load(path)
    assert data.report["rows"] == {"train": 22, "validation": 2, "test": 3}
    assert any(note.startswith("the validation split is not used: ") for note in data.report["notes"])
    says(r"has no rows; set validation_split=test, or remove validation_split", path, validation_split="validation")


def test_empty_after_skipping(folder: Path) -> None:
    for file in folder.glob("test/*/*/*.jpg"):
        file.write_text("x")
    says("no test image is left", folder, on_bad_image="skip")


def test_the_training_split_itself(splits: Callable[..., Path], folder: Path) -> None:
    path = splits(train=[0, 1, 2] * 8, validation=[0, 1, 2])
    for source in (path, folder):
        says("test_split and train_split are both 'train'.*test=0.2", source, ConfigError, test_split="train")
        says("validation_split and train_split are both", source, ConfigError, validation_split="train")
        assert load(source, test_split="train", test=0.25).report["rows"]["test"] > 0
    shutil.copy(path / "train.parquet", path / "test.parquet")
    with pytest.warns(UserWarning, match="the test split is the training rows again, so set test_split to another"):
        load(path, validation=0)
    same = load(path, validation_split="validation", test_split="validation")
    assert any("validation and test are the same split" in note for note in same.report["notes"])


def test_a_test_folder_without_classes(folder: Path) -> None:
    shutil.copytree(folder / "test", folder / "val")
    for file in folder.glob("test/*/*/*.jpg"):
        file.rename(folder / "test" / f"{file.parent.name}-{file.name}")
    for place in (*folder.glob("test/*/*/"), *folder.glob("test/*/")):
        place.rmdir()
    says("test has no labels: its images are in no class folders; set test_split=val, or set test=0.2", folder)
    assert load(folder, test_split="val").report["rows"]["test"] == 10
    (folder / "test" / "unknown" / "x").mkdir(parents=True)
    for file in folder.glob("test/*.jpg"):
        file.rename(folder / "test" / "unknown" / "x" / file.name)
    says("has the class 'x', which the training rows have not.*set test_split to one with labels", folder)


# --- names


def test_one_unicode_form(folder: Path) -> None:
    (folder / "train" / "thing" / "cup").rename(folder / "train" / "thing" / COMPOSED)
    (folder / "test" / "thing" / "cup").rename(folder / "test" / "thing" / DECOMPOSED)
    data = load(folder)
    assert COMPOSED in data.classes
    assert DECOMPOSED not in data.classes
    groups, _ = select_groups({DECOMPOSED: [DECOMPOSED]}, [COMPOSED])
    assert groups.class_indices(DECOMPOSED).tolist() == groups.class_indices(COMPOSED).tolist() == [0]
    with pytest.raises(DataError, match="stands twice, in two Unicode forms"):
        select_groups({DECOMPOSED: ["a"], COMPOSED: ["b"]}, ["a", "b"])


def test_names_in_json_have_a_place(tmp_path: Path) -> None:
    (tmp_path / "groups.json").write_text('{"x": ["a", 0]}')
    with pytest.raises(DataError, match="has the name 0 as class 2 of 'x'; names are strings: put it in quotes"):
        read_grouping(str(tmp_path / "groups.json"))


def test_texts() -> None:
    assert listed(["a", "b, c", 'd"e', ""]) == 'a, "b, c", "d""e", ""'
    assert listed(map(str, range(12)), 3) == "0, 1, 2 and 9 more"
    assert joined(["a", "b, c"]) == 'a,"b, c"'
    assert quoted("x" * 500) == "x" * 57 + "..."
    assert len(joined(["x" * 500])) == 500
    assert cut("a\nb " * 500) == "a b " * 14 + "a..."
    assert shown("x" * 500) == "'" + "x" * 56 + "..."
    assert shown(b"x") == "b'x'"


# --- folders


def test_suffixes_that_pillow_reads(folder: Path, jpeg: Callable[..., bytes]) -> None:
    cat = folder / "train" / "animal" / "cat"
    for number, (suffix, form) in enumerate(
        {"jfif": "JPEG", "AVIF": "AVIF", "jp2": "JPEG2000", "tga": "TGA", "pnm": "PPM", "qoi": "QOI"}.items()
    ):
        (cat / f"n{number}.{suffix}").write_bytes(jpeg(200 + number, form=form))
    assert load(folder, validation=0).report["rows"]["train"] == 26


def test_what_was_passed_over_is_counted(folder: Path, jpeg: Callable[..., bytes]) -> None:
    for name, count in {"cat": 2, "dog": 1}.items():
        for number in range(count):
            (folder / "train" / "animal" / name / f"{number}.HEIC").write_bytes(b"x")
    (folder / "train" / "thing" / "pen" / "README").write_text("x")
    assert load(folder, validation=5).report["notes"] == [
        "4 files of train/ are no images by their suffix and were passed over (3 .heic, 1 no suffix); most of animal/cat, 2 of 6"
    ]
    for file in folder.glob("train/thing/pen/*.jpg"):
        file.rename(file.with_suffix(".heic"))
    says(r"pen holds no images; its 5 files are \.heic: convert them", folder)


# --- the cases beside the project


def test_cases(cases: Path) -> None:
    values = {"resolution": 16, "validation": 0.2}
    with pytest.warns(UserWarning, match="the test split is the training rows again"):
        data = load(cases / "string-view", **values)
    assert data.classes == ("k0", "k1", "k2", "k3")
    assert np.bincount(data.test.labels.numpy()).tolist() == [10] * 4
    says("class name 'ant' of column 'label' stands twice, for 0 and 1", cases / "two-equal-names", **values)
    says(r"has no labels: all 40 values of 'label' are -1; set test_split=", cases / "unlabelled-test", **values)
    says(r"test\.parquet has no rows; set test_split=", cases / "empty-test", **values)
    with pytest.raises(UnlabelledError):
        label_column(pq.read_table(cases / "unlabelled-test" / "test.parquet").column("label"), None, "label", "file")


def test_a_label_that_is_empty_is_missing() -> None:
    with pytest.raises(DataError, match=r"has no label in row 12 \(an empty text\)"):
        label_column(pa.chunked_array([["cat", "dog", "", "cat"]]), None, "label", "file", 10)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["cat", "cat "], "'cat' and 'cat ' are two classes, and look alike"),
        (["fish", "\ufb01sh"], "look alike"),
        (
            ["cat", "cat\u200b", "a b", "a\u00a0b"],
            r"'a b' and 'a\xa0b' are two classes, and look alike (so do 1 more)",
        ),
        (["-1", "0", "1"], "4 training rows have the class -1"),
        (["-1", "1"], ""),
        (["A", "a"], ""),
    ],
)
def test_names_that_may_be_none_or_the_same_are_noted(
    splits: Callable[..., Path], classes: list[str], words: str
) -> None:
    notes = load(splits(train=classes * 4, test=classes), validation=len(classes)).report["notes"]
    assert any(words in note for note in notes) if words else not any("class" in note for note in notes[1:])


def test_a_folder_whose_name_is_no_text(folder: Path) -> None:
    os.mkdir(os.fsencode(folder / "train" / "animal") + b"/\xe9")
    says(r"the name of the folder b'\\xe9' in .* is not UTF-8; rename it", folder)

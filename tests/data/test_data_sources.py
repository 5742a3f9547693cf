"""Each kind of source through `load_data`: what it gives, and what it says when it is not as it should be."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from loading import load, says

from snugnet.errors import ConfigError

NAMES = ["pear", "apple", "nut"]
MEMBERS = {"fruit": ["apple", "pear"], "hard": ["nut"]}


# --- digits


def test_digits() -> None:
    data = load("digits", resolution=16)
    assert data.report["rows"] == {"train": 1294, "validation": 144, "test": 359}
    assert data.classes == tuple("0123456789")
    assert {group: "".join(names) for group, names in data.groups.items()} == {
        "round": "0689",
        "straight": "147",
        "curvy": "235",
    }
    assert data.class_to_group.tolist() == [0, 1, 2, 2, 1, 2, 0, 1, 0, 0]
    assert data.train.images.shape == (1294, 3, 16, 16)
    assert data.train.images.max() == 255
    assert np.bincount(data.test.labels.numpy()).min() >= 34
    assert data.num_classes == 10


def test_digits_with_another_grouping_and_test_share() -> None:
    data = load("digits", groups={"even": list("02468"), "odd": list("13579")}, test=0.5)
    assert data.groups.names == ("even", "odd")
    assert data.report["rows"]["test"] == 898


def test_digits_have_no_columns() -> None:
    says("no columns", "digits", kind=ConfigError, group_column="x")


# --- folders


def test_folder(folder: Path) -> None:
    data = load(folder, validation=0.25)
    assert data.classes == ("cat", "cup", "dog", "owl", "pen")
    assert data.groups.to_dict() == {"animal": ["cat", "dog", "owl"], "thing": ["cup", "pen"]}
    assert data.report["rows"] == {"train": 15, "validation": 5, "test": 10}
    assert data.report["notes"] == []


def test_folder_with_its_own_validation(folder: Path) -> None:
    shutil.copytree(folder / "test", folder / "validation")
    assert load(folder).report["rows"] == {"train": 20, "validation": 10, "test": 10}
    as_test = load(folder, test_split="validation", validation=5)
    assert as_test.report["rows"] == {"train": 15, "validation": 5, "test": 10}


def test_folder_of_classes_needs_groups(folder: Path) -> None:
    for split in ("train", "test"):
        for group in ("animal", "thing"):
            for place in (folder / split / group).iterdir():
                place.rename(folder / split / place.name)
            (folder / split / group).rmdir()
    says("holds no class folders; images belong in", folder)
    data = load(folder, groups={"animal": ["cat", "dog", "owl"], "thing": ["cup", "pen"]})
    assert data.groups.names == ("animal", "thing")


def test_json_groups_go_before_the_folders(folder: Path) -> None:
    data = load(folder, groups={"one": ["cat", "cup", "dog"], "two": ["owl", "pen"]})
    assert data.groups.names == ("one", "two")


def test_folder_layout_mistakes(folder: Path, jpeg: Callable[..., bytes]) -> None:
    stray = folder / "train" / "animal" / "stray.jpg"
    stray.write_bytes(jpeg())
    says("stray.jpg is not in a class folder", folder)
    stray.unlink()
    deep = folder / "train" / "animal" / "cat" / "deep"
    deep.mkdir()
    says("deep is a level too deep", folder)
    deep.rmdir()
    (folder / "train" / "empty").mkdir()
    says("superclass folder .*empty holds no class folders", folder)
    (folder / "train" / "empty").rmdir()
    (folder / "train" / "thing" / "new").mkdir()
    says("class folder .*new holds no images", folder)
    (folder / "train" / "thing" / "new").rmdir()
    shutil.copytree(folder / "train" / "animal" / "cat", folder / "train" / "thing" / "cat")
    says("'cat' is in groups 'animal' and 'thing'", folder)


def test_a_class_name_in_two_superclasses(folder: Path) -> None:
    """Whatever split the second is in, and with groups given, which would make one class of both."""
    groups = {"animal": ["cat", "dog", "owl"], "thing": ["cup", "pen"]}
    shutil.copytree(folder / "test" / "animal" / "cat", folder / "test" / "thing" / "cat")
    for settings in ({}, {"groups": groups}):
        says(r"'cat' is in groups 'animal' and 'thing'.*rename animal/cat or thing/cat", folder, **settings)


def test_links_and_folders_beside_the_splits(folder: Path) -> None:
    cat, real = folder / "train" / "animal" / "cat", folder.parent / "elsewhere"
    cat.rename(real)
    cat.symlink_to(real, target_is_directory=True)
    (folder / "val").mkdir()
    data = load(folder, validation=0.25)
    assert data.report["rows"]["train"] == 15
    assert data.report["notes"] == [
        "folders that are not used: val/ (train_split, validation_split and test_split say which are)"
    ]
    (real / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    says(r"cat/gone\.jpg .*No such file", folder)


def test_class_that_only_the_test_rows_have(folder: Path) -> None:
    shutil.rmtree(folder / "train" / "animal" / "owl")
    says("test has the class 'owl', which the training rows have not", folder)


def test_other_files_are_passed_over_and_noted(folder: Path) -> None:
    (folder / "train" / "animal" / "cat" / "notes.txt").write_text("x")
    (folder / "train" / ".DS_Store").write_text("x")
    assert load(folder, validation=5).report["notes"] == [
        "1 files of train/ are no images by their suffix and were passed over (1 .txt); most of animal/cat, 1 of 5"
    ]


def test_bad_image_in_a_folder(folder: Path) -> None:
    cut = folder / "train" / "animal" / "cat" / "1.jpg"
    cut.write_bytes(cut.read_bytes()[:300])
    says(r"cat/1\.jpg \(row 1 of train/\).*cannot be decoded", folder)
    text = folder / "test" / "thing" / "pen" / "0.jpg"
    text.write_text("this is text")
    cut.write_bytes((cut.parent / "0.jpg").read_bytes())
    says(r"pen/0\.jpg .*not an image", folder)


def test_skipping_bad_images_changes_no_split(folder: Path) -> None:
    whole = load(folder, validation=0.25)
    cut = folder / "train" / "animal" / "cat" / "1.jpg"
    cut.write_bytes(cut.read_bytes()[:300])
    (folder / "test" / "thing" / "pen" / "0.jpg").write_text("this is text")
    data = load(folder, validation=0.25, on_bad_image="skip")
    skipped = data.report["skipped_images"]
    assert skipped["train"]["count"] + skipped["validation"]["count"] == 1
    assert skipped["test"]["count"] == 1
    assert "pen/0.jpg" in skipped["test"]["first"][0]
    rows = data.report["rows"]
    assert (rows["train"] + rows["validation"], rows["test"]) == (19, 9)
    other = "train" if skipped["validation"]["count"] else "validation"
    assert (getattr(data, other).images == getattr(whole, other).images).all()


def test_the_first_reason_is_said_where_all_of_a_class_are_skipped(folder: Path) -> None:
    for path in (folder / "train" / "thing" / "cup").iterdir():
        path.write_bytes(b"no image")
    says(
        r"no training image left; mend its images \(4 were skipped; first: .*cup.*not an image",
        folder,
        on_bad_image="skip",
        validation=0,
    )


def test_class_without_a_readable_training_image(folder: Path) -> None:
    for file in (folder / "train" / "animal" / "cat").iterdir():
        file.write_text("x")
    says("class 'cat' has no training image left", folder, on_bad_image="skip")


# --- parquet


@pytest.fixture
def parquet(tmp_path: Path, jpeg: Callable[..., bytes], write_parquet: Callable[..., Path]) -> Path:
    """A folder with 30 training and 12 test rows of three classes, ClassLabels and superclasses."""
    for split, count in {"train": 30, "test": 12}.items():
        labels = [row % 3 for row in range(count)]
        write_parquet(
            tmp_path / "parquet" / f"{split}.parquet",
            [jpeg(3 * row + 20 + (split == "test")) for row in range(count)],
            labels,
            {"label": NAMES, "superclass": ["hard", "fruit"]},
            superclass=[0 if label == 2 else 1 for label in labels],
        )
    return tmp_path / "parquet"


def test_parquet_folder_with_a_group_column(parquet: Path) -> None:
    data = load(parquet, group_column="superclass")
    assert data.classes == tuple(NAMES)
    assert data.groups.names == ("hard", "fruit")
    assert dict(data.groups) == {"hard": ("nut",), "fruit": ("pear", "apple")}
    assert data.report["rows"] == {"train": 27, "validation": 3, "test": 12}
    assert data.report["one_class_groups"] == ["hard"]
    assert any("cannot be specialised" in note for note in data.report["notes"])


def test_parquet_without_groups_is_one_group(parquet: Path) -> None:
    data = load(parquet)
    assert data.groups.names == ("all",)
    assert "set groups or group_column" in data.report["notes"][0]


def test_parquet_file_and_glob(parquet: Path) -> None:
    one = load(parquet / "train.parquet", test=0.2, groups=MEMBERS)
    assert one.report["rows"] == {"train": 22, "validation": 2, "test": 6}
    both = load(parquet / "*.parquet", test=0.5, groups=MEMBERS)
    assert sum(both.report["rows"].values()) == 42
    says(r"no test split 'test'; set test_split.*test=0.2", parquet / "train.parquet")
    says("no file matches", parquet / "x*.parquet")
    says("has its own test split; remove test", parquet, kind=ConfigError, test=0.2)


def test_parquet_shards_as_on_the_hub(parquet: Path) -> None:
    (parquet / "data").mkdir()
    (parquet / "train.parquet").rename(parquet / "data" / "train-00000-of-00001.parquet")
    (parquet / "test.parquet").rename(parquet / "data" / "test-00000-of-00001.parquet")
    assert load(parquet).report["rows"]["test"] == 12
    says("has no x.parquet; it has: test-0.*set train_split", parquet, train_split="x")
    shutil.copy(parquet / "data" / "test-00000-of-00001.parquet", parquet / "val.parquet")
    assert "parquet files that are not used: val.parquet" in load(parquet).report["notes"]
    shard = parquet / "data" / "train-00000-of-00001.parquet"
    shard.rename(shard.with_name("train-00001-of-00003.parquet"))
    says("has train-00001-of-00003.parquet but not train-00000-of-00003.parquet; fetch it", parquet)


def test_labels_as_strings_and_plain_numbers(
    tmp_path: Path, jpeg: Callable[..., bytes], write_parquet: Callable[..., Path]
) -> None:
    images = [jpeg(row) for row in range(24)]
    words = write_parquet(tmp_path / "words.parquet", images, [["nut", "fig"][row % 2] for row in range(24)])
    assert load(words, test=0.25).classes == ("fig", "nut")
    numbers = write_parquet(tmp_path / "numbers.parquet", images, [[10, 9, -1][row % 3] for row in range(24)])
    assert load(numbers, test=0.25).classes == ("-1", "9", "10")
    text = write_parquet(tmp_path / "text.parquet", images, [["10", "9"][row % 2] for row in range(24)])
    assert load(text, test=0.25).classes == ("9", "10")


def test_class_names_without_rows_are_left_out(
    tmp_path: Path, jpeg: Callable[..., bytes], write_parquet: Callable[..., Path]
) -> None:
    path = write_parquet(tmp_path / "a.parquet", [jpeg(row) for row in range(12)], [0, 2] * 6, {"label": NAMES})
    data = load(path, test=0.25)
    assert data.classes == ("pear", "nut")
    assert "1 class names of the source have no training row; left out" in data.report["notes"]
    assert set(data.train.labels.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("labels", "features", "match"),
    [
        ([0, 1, None, 1], None, "no label in row 2"),
        ([0, 1, 3, 1], {"label": NAMES}, "label 3 in row 2; its class names allow 0 to 2"),
        ([0, 1, -1, 1], {"label": NAMES}, "label -1 in row 2"),
        ([0.5, 1.0, 0.0, 0.0], None, "type double"),
        ([], None, "has no rows|type null"),
    ],
)
def test_wrong_labels(
    tmp_path: Path,
    jpeg: Callable[..., bytes],
    write_parquet: Callable[..., Path],
    labels: list,
    features: dict | None,
    match: str,
) -> None:
    path = write_parquet(tmp_path / "a.parquet", [jpeg(row) for row in range(len(labels))], labels, features)
    says(match, path, test=0.5)


def test_missing_columns_list_what_there_is(parquet: Path) -> None:
    says("no column 'class'; it has: image, label, superclass", parquet, label_column="class")
    says("no column 'img'", parquet, image_column="img")
    says("no column 'kind'", parquet, group_column="kind")


def test_unreadable_parquet(parquet: Path) -> None:
    path = parquet / "test.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    says("test.parquet cannot be read as parquet", parquet)
    whole = (parquet / "train.parquet").read_bytes()
    damaged = bytearray(whole)
    damaged[4 : len(whole) // 2] = bytes(len(whole) // 2 - 4)
    path.write_bytes(damaged)
    says("test.parquet", parquet)


def test_class_in_two_groups_by_column(
    tmp_path: Path, jpeg: Callable[..., bytes], write_parquet: Callable[..., Path]
) -> None:
    path = write_parquet(tmp_path / "a.parquet", [jpeg()] * 8, ["x", "y"] * 4, kind=["a", "b"] * 3 + ["b", "b"])
    says("class 'x' is in groups 'a' and 'b'", path, test=0.5, group_column="kind")


def test_bad_image_in_parquet(parquet: Path, jpeg: Callable[..., bytes], write_parquet: Callable[..., Path]) -> None:
    images = [jpeg(row) for row in range(12)]
    images[9] = images[9][:200]
    images[4] = b"this is text"
    write_parquet(parquet / "test.parquet", images, [row % 3 for row in range(12)], {"label": NAMES})
    says(r"test\.parquet, row 4 \(4\.jpg\): .*not an image", parquet)
    data = load(parquet, on_bad_image="skip")
    assert data.report["skipped_images"]["test"]["count"] == 2
    assert "row 9 (9.jpg)" in data.report["skipped_images"]["test"]["first"][1]
    assert data.test.labels.tolist() == [row % 3 for row in range(12) if row not in (4, 9)]


def test_other_forms_of_image_columns(
    tmp_path: Path, jpeg: Callable[..., bytes], write_parquet: Callable[..., Path]
) -> None:
    for row in range(8):
        (tmp_path / f"{row}.png").write_bytes(jpeg(row, size=(8, 8), form="PNG"))
    want = load(
        write_parquet(tmp_path / "a.parquet", [jpeg(row, (8, 8), form="PNG") for row in range(8)], [0, 1] * 4), test=0.5
    )
    paths = [f"{row}.png" for row in range(8)]
    from PIL import Image

    arrays = [np.asarray(Image.open(tmp_path / path)).tolist() for path in paths]
    forms = (paths, [{"bytes": None, "path": path} for path in paths], arrays)
    for number, images in enumerate(forms):
        got = load(write_parquet(tmp_path / f"b{number}.parquet", images, [0, 1] * 4), test=0.5)
        assert (got.train.images == want.train.images).all()


# --- Hugging Face data sets (the hub cannot be reached in tests; the loading code is the same for local folders)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what ``datasets`` writes out of the home folder, and keep it off the network."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("cache")
def test_load_dataset_agrees_with_reading_parquet(parquet: Path) -> None:
    direct = load(parquet, group_column="superclass")
    loaded = load(f"hf:{parquet}", group_column="superclass")
    assert loaded.classes == direct.classes
    assert loaded.groups == direct.groups
    for split in ("train", "validation", "test"):
        assert (getattr(loaded, split).images == getattr(direct, split).images).all()
        assert (getattr(loaded, split).labels == getattr(direct, split).labels).all()
    says("no split 'training'; it has: train, test", f"hf:{parquet}", train_split="training")
    says("no column 'img'; it has", f"hf:{parquet}", image_column="img")


@pytest.mark.usefixtures("cache")
def test_load_dataset_of_an_image_folder_with_a_bad_image(folder: Path) -> None:
    for split in ("train", "test"):
        for group in ("animal", "thing"):
            for place in (folder / split / group).iterdir():
                place.rename(folder / split / place.name)
            (folder / split / group).rmdir()
    groups = {"animal": ["cat", "dog", "owl"], "thing": ["cup", "pen"]}
    assert load(f"hf:{folder}", groups=groups).report["rows"]["test"] == 10
    (folder / "test" / "pen" / "1.jpg").write_text("this is text")
    says(r"pen/1\.jpg \(row 9 of test/\)", f"hf:{folder}", groups=groups)


@pytest.mark.usefixtures("cache")
def test_split_words_in_names_of_a_folder(folder: Path) -> None:
    """`datasets` 5.2 would put test_tube's training images into test, and a bullet train's test images into train."""
    import datasets

    for split in ("train", "test"):
        (folder / split / "thing" / "cup").rename(folder / split / "thing" / "test_tube")
        (folder / split / "thing" / "pen").rename(folder / split / "thing" / "bullet train")
    theirs = datasets.load_dataset(str(folder))
    assert (len(theirs["train"]), len(theirs["test"])) == (26, 16)  # of 20 and 10
    direct, forced = load(folder), load(f"hf:{folder}")
    assert direct.report["rows"] == forced.report["rows"] == {"train": 18, "validation": 2, "test": 10}
    assert direct.classes == forced.classes == ("bullet train", "cat", "dog", "owl", "test_tube")
    assert (direct.train.images == forced.train.images).all()


@pytest.mark.usefixtures("cache")
def test_what_datasets_makes_of_other_folders_is_checked(folder: Path) -> None:
    (folder / "data").mkdir()
    for split in ("train", "test"):
        (folder / split).rename(folder / "data" / split)  # a layout of the hub's, which our own reader has not
    tube = folder / "data" / "test" / "thing" / "test_tube"
    (tube.parent / "cup").rename(tube)
    says("test_tube/0.jpg is in test twice; arrange images in", f"hf:{folder}")
    tube.rename(tube.parent / "bullet train")
    says("bullet train/0.jpg is in train and test", f"hf:{folder}")
    bare = folder.parent / "bare"
    shutil.copytree(folder / "data" / "train" / "animal", bare)
    groups = {"animal": ["cat", "dog", "owl"]}
    assert load(f"hf:{bare}", test=0.25, groups=groups).report["rows"]["test"] == 3
    (bare / "cat").rename(bare / "bullet train")
    says(r"bare/dog/0.jpg is in none \(train\)", f"hf:{bare}", test=0.25, groups=groups)


@pytest.mark.usefixtures("cache")
def test_one_class_and_a_stray_image_of_a_folder(folder: Path, jpeg: Callable[..., bytes]) -> None:
    """`datasets` 5.2 would drop the labels of all images for either."""
    stray = folder / "train" / "stray.jpg"
    stray.write_bytes(jpeg())
    says("stray.jpg is not in a class folder", f"hf:{folder}")
    stray.unlink()
    for split in ("train", "test"):
        for name in ("animal/dog", "animal/owl", "thing"):
            shutil.rmtree(folder / split / name)
    assert load(f"hf:{folder}").classes == ("cat",)


@pytest.mark.usefixtures("cache")
def test_saved_to_disk(tmp_path: Path, jpeg: Callable[..., bytes]) -> None:
    import datasets

    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=NAMES))
    rows = {"image": [{"bytes": jpeg(row), "path": None} for row in range(12)], "label": [row % 3 for row in range(12)]}
    one = datasets.Dataset.from_dict(rows, features=features)
    one.save_to_disk(str(tmp_path / "one"))
    assert load(tmp_path / "one", test=0.5, groups=MEMBERS).classes == tuple(NAMES)
    datasets.DatasetDict(train=one, val=one, other=one).save_to_disk(str(tmp_path / "both"))
    with pytest.warns(UserWarning, match="11 of 12 test images are, pixel by pixel, among the training images"):
        data = load(tmp_path / "both", test_split="val")
    assert data.report["rows"]["test"] == 12
    assert "splits that are not used: other" in data.report["notes"]
    (tmp_path / "one" / "state.json").write_text("{")
    says("cannot be loaded", tmp_path / "one")


@pytest.mark.usefixtures("cache")
def test_unknown_name() -> None:
    says("'nobody/nothing' is no file or folder here, and datasets.load_dataset cannot", "nobody/nothing")


# --- paths


def test_wrong_paths(tmp_path: Path) -> None:
    says("does not exist", tmp_path / "nowhere")
    says("no file matches", tmp_path / "nowhere.parquet")
    (tmp_path / "a.csv").write_text("x")
    says("is a file but not parquet", tmp_path / "a.csv")
    says(r"holds neither train.parquet nor train/.*it holds: a.csv", tmp_path)

"""Laws of `load_data`: splits never mix, subsets, dropped classes, mean and std, and the image set."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loading import load

from snugnet.data import DataConfig, ImageSet, load_data, load_split, mean_std
from snugnet.data.columns import LabelColumn
from snugnet.data.dataset import _choose_rows
from snugnet.data.groups import Groups
from snugnet.data.source import Source, SourceSplit
from snugnet.errors import DataError


@given(
    labels=st.lists(st.integers(0, 3), min_size=40, max_size=90),
    validation=st.one_of(st.integers(0, 9), st.floats(0, 0.3)),
    test=st.floats(0.01, 0.3),
    subset=st.one_of(st.none(), st.integers(4, 9)),
    seed=st.integers(0, 99),
)
@settings(suppress_health_check=[HealthCheck.filter_too_much])
def test_splits_are_disjoint_and_cover(
    labels: list[int], validation: float, test: float, subset: int | None, seed: int
) -> None:
    codes = np.array([0, 1, 2, 3, *labels])
    names = ("a", "b", "c", "d")
    source = Source({"train": SourceSplit("x", LabelColumn(codes, names), None, lambda rows: iter(()), lambda: "x")})
    config = DataConfig(source="x", resolution=8, validation=validation, test=test, seed=seed)
    groups = Groups({"all": names}, names)
    rows = _choose_rows(source, {"train": codes}, config, groups)
    together = np.concatenate([rows[name][1] for name in ("train", "validation", "test")])
    assert np.array_equal(np.sort(together), np.arange(len(codes)))
    assert set(codes[rows["train"][1]]) == {0, 1, 2, 3}
    # A subset is taken after the split: the other sets stay as they are, and it is a part of the training rows.
    fewer = _choose_rows(source, {"train": codes}, config.model_copy(update={"train_rows": subset}), groups)
    assert set(fewer["train"][1]) <= set(rows["train"][1])
    assert len(fewer["train"][1]) == (subset or len(rows["train"][1]))
    for name in ("validation", "test"):
        assert np.array_equal(fewer[name][1], rows[name][1])


def test_the_same_seed_gives_the_same_data_and_another_another() -> None:
    one, two, other = load(), load(), load(seed=1)
    assert (one.train.images == two.train.images).all()
    assert not torch.equal(one.validation.labels, other.validation.labels)


def test_subsets_and_sizes() -> None:
    data = load(validation=100, train_rows=50, validation_rows=20, test_rows=30)
    assert data.report["rows"] == {"train": 50, "validation": 20, "test": 30}
    assert set(data.train.labels.tolist()) == set(range(10))
    assert len(load(validation=0).validation) == 0
    assert load(validation=0).validation.images.shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"validation": 1435}, "validation=1435 takes 1435 of 1438 training rows"),
        ({"train_rows": 5000}, "train_rows=5000, but there are 1294 train rows"),
        ({"test_rows": 5000}, "there are 359 test rows"),
        ({"train_rows": 5}, "has no training image left; raise train_rows"),
        ({"validation_split": "val"}, "no validation split 'val'"),
        ({"groups": {"even": list("02468")}}, "'1', '3', '5', '7', '9' are in no group"),
        ({"groups": {"a": ["zero", *"0123456789"]}}, "'zero'"),
    ],
)
def test_settings_that_do_not_fit_the_data(values: dict, match: str) -> None:
    with pytest.raises(DataError, match=match):
        load(**values)


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_one_split_alone_is_the_same(folder: Path, name: str) -> None:
    for source, values in (("digits", {"test_rows": 30}), (str(folder), {"validation": 3})):
        config = DataConfig(source=source, resolution=8, **values)
        whole, (alone, classes) = load_data(config, progress=False), load_split(config, name, progress=False)
        expected = getattr(whole, name)
        assert classes == whole.classes
        assert torch.equal(alone.images, expected.images)
        assert torch.equal(alone.labels, expected.labels)


def test_the_other_splits_are_not_decoded(folder: Path) -> None:
    (folder / "train" / "thing" / "pen" / "0.jpg").write_bytes(b"no image")
    config = DataConfig(source=str(folder), resolution=8, validation=3)
    assert len(load_split(config, "test", progress=False)[0]) == 10
    with pytest.raises(DataError, match=r"0\.jpg"):
        load_data(config, progress=False)


def test_dropping_ungrouped_classes() -> None:
    data = load(groups={"even": list("8642"), "zero": ["0"]}, ungrouped="drop")
    assert data.classes == tuple("02468")
    assert data.class_to_group.tolist() == [1, 0, 0, 0, 0]
    assert data.report["dropped_ungrouped"]["classes"] == list("13579")
    dropped = data.report["dropped_ungrouped"]["rows"]["train"]
    assert dropped + sum(data.report["rows"].values()) == 1797
    assert set(data.train.labels.tolist()) == set(range(5))
    assert data.report["one_class_groups"] == ["zero"]


def test_mean_and_std() -> None:
    data = load()
    pixels = data.train.images.double().div(255)
    assert data.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-12)
    assert data.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=1e-9)


def test_constant_images_have_a_usable_std() -> None:
    images = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(4, 3, 8, 8)
    assert mean_std(images)[1] == (1.0, 1.0, 1.0)


def test_the_report_is_json() -> None:
    import json

    report = load().report
    assert json.loads(json.dumps(report)) == report


def test_image_set() -> None:
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 8, 8)
    image_set = ImageSet(images, torch.tensor([2, 0, 1, 2, 0]))
    assert len(image_set) == 5
    taken = image_set.take([3, 1])
    assert (taken.images[:, 0, 0, 0].tolist(), taken.labels.tolist()) == ([3, 1], [2, 0])
    of = image_set.of_classes(np.array([0, 2]))
    assert (of.images[:, 0, 0, 0].tolist(), of.labels.tolist()) == ([0, 1, 3, 4], [2, 0, 2, 0])
    assert len(image_set.of_classes([])) == 0
    among = image_set.among([2, 0])
    assert torch.equal(among.images, of.images)
    assert [(2, 0)[place] for place in among.labels.tolist()] == of.labels.tolist()
    assert image_set.to("cpu").labels.device.type == "cpu"

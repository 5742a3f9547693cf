"""int8 on a trained family: within a point of float, layers that break it in float, and searches judged by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snugnet.data import GroupedImages, ImageSet
from snugnet.deploy import int8_facts, onnx_bytes, onnx_session, run_batches
from snugnet.deploy.int8 import ENOUGH
from snugnet.errors import ConfigError, DataError
from snugnet.family import Family, search_family, specialize_all
from snugnet.family.int8 import INT8, Int8Scorer, accuracy_of, beside_float
from snugnet.nn.network import module_name


@pytest.fixture(scope="module")
def test_set(family: Family, digits: GroupedImages) -> ImageSet:
    index = torch.tensor([family.classes.index(name) for name in digits.classes])
    return ImageSet(digits.test.images, index[digits.test.labels])


def test_within_a_point_of_float_on_every_superclass(family: Family, test_set: ImageSet, tmp_path: Path) -> None:
    for group in family.groups:
        network = family.specialize(group, madds="50%")
        content = network.export(tmp_path / f"{group}.onnx", precision="int8").read_bytes()
        beside = beside_float(network.module, content, network.pictures(test_set))
        assert beside.images == len(test_set.of_classes(network.class_indices)) > 100
        assert beside.float_accuracy > 0.8  # it has learned something
        assert beside.accuracy >= beside.float_accuracy - 0.01
        assert beside.facts.agreement >= ENOUGH
        assert beside.bytes < 0.8 * beside.float_bytes  # of a network this small much is names and scales
        assert min(beside.milliseconds, beside.float_milliseconds) > 0
        assert "HardSigmoid" in beside.facts.float_operators
        assert beside.to_json()["agreement"] == beside.facts.agreement


@given(st.integers(0, 10_000))
def test_accuracies_differ_by_no_more_than_what_is_told_otherwise(family: Family, seed: int) -> None:
    """Whatever the labels: so agreement on 99% of the images bounds the loss of accuracy on them by a point."""
    if not hasattr(family, "_example"):
        network = family.specialize("round", madds="20%")
        ranges, compared = network.int8_images(None)
        files = onnx_bytes(network.module, {}), onnx_bytes(network.module, {}, INT8, (ranges, compared))
        family._example = [run_batches(onnx_session(each), compared) for each in files], int8_facts(files[1])  # type: ignore[attr-defined]
    (plain, whole), facts = family._example  # type: ignore[attr-defined]
    labels = np.random.default_rng(seed).integers(0, plain.shape[1], len(plain))
    right = [(logits.argmax(1) == labels).mean() for logits in (plain, whole)]
    assert abs(right[0] - right[1]) <= 1 - facts.agreement + 1e-12


def test_a_layer_that_breaks_the_network_stays_in_float(family: Family) -> None:
    """One channel a million times as large, and taken back behind it: the same function in float, nothing is left of the others in int8."""
    network = family.specialize("round", madds="60%")
    module = family.build(network.row, network.class_indices)
    images = torch.from_numpy(network.int8_images(None)[1])
    before = module(images)
    block = next(b for b in module.blueprint.blocks if [layer.name for layer in b.layers[:2]] == ["expand", "depthwise"] and b.layers[0].activation == "relu")  # fmt: skip
    state = module.state_dict()
    own = module_name(block)
    for key in ("weight", "bias"):
        state[f"{own}.expand.norm.{key}"][0] *= 1e6
    state[f"{own}.depthwise.conv.weight"][0] /= 1e6
    module.load_state_dict(state)
    after = module(images)
    assert (after.argmax(1) == before.argmax(1)).all()
    content = onnx_bytes(module, {}, INT8, network.int8_images(None))
    facts = int8_facts(content)
    assert facts is not None
    assert facts.agreement >= ENOUGH
    assert {f"{own}.expand", f"{own}.depthwise"} & set(facts.kept_float)
    assert len(facts.kept_float) < 8
    held = {each.name for each in onnx.load_from_string(content).graph.initializer}
    for layer in facts.kept_float:
        assert not any(name.startswith(f"{layer}.weight_quantized") for name in held)


def test_what_cannot_be_calibrated_is_refused_and_nothing_is_written(family: Family, tmp_path: Path) -> None:
    three = family.calibration.of_classes([3])
    one_class = three.joined(three)
    for images, words in (
        (one_class, f"all {len(one_class)} are of class 3"),
        (family.calibration.take(list(range(5))), "at least 16 calibration images, there are 5"),
        (family.calibration.take([]), "there are 0"),
        (family.calibration.of_classes([1, 4]), "no images of the network's classes"),
    ):
        with pytest.raises(DataError, match=words):
            family.specialize("round", madds="10%").export(tmp_path / "a.onnx", precision="int8", images=images)
    with pytest.raises(ConfigError, match=r"is of \.onnx files"):
        family.specialize("round").export(tmp_path / "a.pt2", precision="int8")
    assert not list(tmp_path.iterdir())


def test_a_search_is_judged_by_the_file_that_is_handed_out(family: Family, tmp_path: Path) -> None:
    searched = search_family(
        family, "random", group="round", budgets={"madds": "60%"}, judge="int8", evaluations=2, progress=False
    )
    assert searched.to_json()["judge"] == "int8"
    network = searched.network()
    content = network.export(tmp_path / "a.onnx", precision="int8").read_bytes()
    images, labels = network.pictures(family.validation).arrays()
    assert searched.winners()[0]["accuracy"] == pytest.approx(
        accuracy_of(content, images, labels), abs=1.001 / len(labels)
    )
    with pytest.raises(ConfigError, match="judged by float or int8, got 'int4'"):
        search_family(family, "random", judge="int4")


def test_a_scorer_without_images_for_ranges_is_refused(family: Family) -> None:
    six = family.calibration.of_classes([6])
    with pytest.raises(DataError, match="of several classes"):
        Int8Scorer(
            family.supernet, family.calibration_batches, family.validation, [(0, 6)], family.mean, family.std,
            stored=six.joined(six),
        )  # fmt: skip


def test_all_at_once(family: Family, test_set: ImageSet, tmp_path: Path) -> None:
    scenarios = [("round", {"madds": "20%"}), ("curvy", {"madds": "20%"})]
    files = specialize_all(family, scenarios, tmp_path, int8=True, test=test_set, progress=False)
    for each, (group, budgets) in zip(files.networks, scenarios, strict=True):
        content = (tmp_path / each.file).read_bytes()
        facts = int8_facts(content)
        assert facts is not None
        assert each.int8 is not None
        assert (each.int8["agreement"], each.int8["kept_float"]) == (facts.agreement, list(facts.kept_float))
        network = family.specialize(group, **budgets)
        assert each.accuracy == accuracy_of(content, *network.pictures(test_set).arrays())
        assert abs(each.accuracy - each.int8["float_accuracy"]) <= 0.01
    again = specialize_all(family, scenarios, tmp_path, int8=True, test=test_set, progress=False)
    assert (again.taken, again.csv(), again.to_json()) == (2, files.csv(), files.to_json())
    assert "float accuracy" in "\n".join(files.text_table().markdown())
    with pytest.raises(ConfigError, match="made with something else"):
        specialize_all(family, scenarios, tmp_path, test=test_set, progress=False)


def test_pictures_are_spread(family: Family) -> None:
    network = family.specialize("round", madds="10%")
    pictures = network.pictures(family.calibration)
    images, _ = pictures.arrays(7)
    every, all_labels = pictures.arrays()
    assert 0 < len(images) <= 7 < len(every)
    assert np.array_equal(images[1], every[-(-len(every) // 7)])
    assert set(all_labels.tolist()) == set(range(len(network.classes)))
    assert replace(pictures, images=family.validation.take([])).arrays()[0].shape == (0, *every.shape[1:])

"""A supernet at a few bits learns real digits, and its networks stay what they are in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from snugnet.deploy.export import FileOptions, onnx_bytes
from snugnet.deploy.sessions import onnx_session
from snugnet.family import Family
from snugnet.nn.layers import ConvLayer
from snugnet.nn.quantise import INITIAL_CLIP
from snugnet.pipeline import train
from snugnet.recipe import parse_recipe


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    output: Path = tmp_path_factory.mktemp("bits")
    content = {
        "name": "bits", "output": str(output), "device": "cpu", "threads": 1,
        "data": {"source": "digits", "resolution": 8, "groups": "digits", "validation": 0.2},
        "space": {
            "name": "resnet-mixed-precision", "widths": [8, 8, 16, 16],
            "stem_kernel": 3, "stem_stride": 1, "stem_pool": False, "stage_strides": [1, 2, 2, 1],
        },
        "training": {
            "batch_size": 64, "superclass_dropout": 0.0, "distillation": 0.0, "cost": "bitops",
            "stages": [{"name": "paths", "epochs": 10, "learning_rate": 0.1, "elastic": "all"}],
        },
        "generator": {"steps": 4, "pairs": 2, "images": 4, "budgets": 3, "budget": "bitops"},
        "evaluation": {"calibration_images": 256},
    }  # fmt: skip
    return train(parse_recipe(content), progress=False)


def test_it_learns_at_every_bit_width(family: Family) -> None:
    space = family.space
    found = {}
    for weight, activation in ((1, 2), (2, 2), (2, 4), (4, 4)):
        bits = {"weight_bits": [weight] * 8, "activation_bits": [activation] * 8, "channels": [1.0] * 8}
        network = family.network(family.classes, space.from_dict(bits)[0])
        found[weight, activation] = family.validation_accuracy(network)
    assert min(found.values()) > 0.6, found  # chance is 0.1
    assert found[4, 4] > 0.85, found


def test_clips_have_moved(family: Family) -> None:
    clips = [m.clip.item() for m in family.supernet.modules() if isinstance(m, ConvLayer) and m.clip is not None]
    assert len(clips) == 18  # the last stage keeps width and resolution, so its shortcut has no convolution
    assert all(0 < clip != INITIAL_CLIP for clip in clips)


def test_a_budget_of_bitops_is_never_exceeded(family: Family) -> None:
    low, high = family.cost_range("bitops")
    for share in (0.0, 0.1, 0.5):
        network = family.specialize("round", bitops=low + share * (high - low))
        spent = sum(layer.bitops for layer in network.blueprint.layers())
        assert network.costs["bitops"] == spent <= low + share * (high - low)


@pytest.mark.parametrize("opset", [17, 21])
def test_accuracy_of_the_file_on_real_images(family: Family, opset: int) -> None:
    network = family.specialize(family.classes, bitops="40%")
    session = onnx_session(onnx_bytes(network.module, {}, FileOptions(opset=opset)))
    right = {"torch": 0, "file": 0}
    images = 0
    for x, labels in family.batches(family.validation, network.class_indices, network.blueprint.resolution):
        (logits,) = session.run(["logits"], {"image": x.numpy()})
        right["file"] += int((logits.argmax(1) == labels.numpy()).sum())
        with torch.no_grad():
            right["torch"] += int((network.module(x).argmax(1) == labels).sum())
        images += len(labels)
    assert images == len(family.validation)
    assert np.abs(right["torch"] - right["file"]) <= 0.005 * images, right


def test_a_network_is_exported_with_four_bits_a_weight(family: Family, tmp_path: Path) -> None:
    network = family.specialize("straight", bitops="20%")
    eight, four = network.export(tmp_path / "eight.onnx"), network.export(tmp_path / "four.onnx", opset=21)
    assert four.stat().st_size < eight.stat().st_size

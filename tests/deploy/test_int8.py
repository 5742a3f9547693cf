"""int8 and float16 files: what onnxruntime's tools make is what the formulas say, and the versions that files are written with."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from snugnet.deploy import FileOptions, int8_facts, onnx_bytes, onnx_session, run_batches
from snugnet.deploy.int8 import FEWEST, quantised
from snugnet.deploy.onnx import IR_VERSIONS
from snugnet.errors import ConfigError, DataError, ExportError
from snugnet.nn import Network
from snugnet.spaces import SearchSpace
from snugnet.supernets import Supernet


def noise(n: int, size: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, channels, size, size)).astype(np.float32)


def one_layer(kernel: int, groups: int, relu: bool, seed: int) -> tuple[bytes, np.ndarray, np.ndarray]:
    """A file that is one convolution of six channels, its weights of very different sizes by channel, and its bias."""
    rng = np.random.default_rng(seed)
    sizes = 10.0 ** rng.uniform(-1, 1, (6, 1, 1, 1))
    weight = (rng.standard_normal((6, 6 // groups, kernel, kernel)) * sizes).astype(np.float32)
    bias = rng.standard_normal(6).astype(np.float32)
    nodes = [
        helper.make_node(
            "Conv", ["image", "w", "b"], ["made" if relu else "logits"], name="block.conv", group=groups,
            kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4,
        )
    ]  # fmt: skip
    if relu:
        nodes.append(helper.make_node("Relu", ["made"], ["logits"], name="block.conv.relu"))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 6, 5, 5]) for n in ("image", "logits")]
    held = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
    graph = helper.make_graph(nodes, "one", ends[:1], ends[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString(), weight, bias


@settings(max_examples=15)
@given(st.sampled_from([(1, 1), (3, 1), (3, 6), (5, 6), (1, 2)]), st.booleans(), st.integers(0, 99))
def test_a_single_layer_is_what_the_formulas_say(shape: tuple[int, int], relu: bool, seed: int) -> None:
    kernel, groups = shape
    content, weight, _ = one_layer(kernel, groups, relu, seed)
    images = noise(32, 5, 6, seed)
    made = quantised(content, images, None)
    model = onnx.load_from_string(made)
    held = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    codes, step, zero = held["w_quantized"], held["w_scale"], held["w_zero_point"]
    # weights: symmetric, a step a channel, seven bits, each off by half a step at most
    assert codes.dtype == np.int8
    assert np.abs(codes.astype(int)).max() <= 64
    assert step.shape == (6,)
    assert not zero.any()
    back = codes * step[:, None, None, None]
    assert (np.abs(back - weight) <= step[:, None, None, None] * 0.5001 + 1e-7).all()

    def as_codes(values: np.ndarray, name: str) -> np.ndarray:
        """In levels of a tensor, and back to floats."""
        scale, start = float(held[f"{name}_scale"]), int(held[f"{name}_zero_point"])
        return scale * (np.clip(np.rint(values / scale) + start, 0, 255) - start)

    bias = held["b_quantized"] * held["b_quantized_scale"]
    inside = torch.from_numpy(as_codes(images.astype(np.float64), "image"))
    exact = nn.functional.conv2d(
        inside, torch.from_numpy(back).double(), torch.from_numpy(bias).double(), padding=kernel // 2, groups=groups
    ).numpy()
    expected = as_codes(np.maximum(exact, 0) if relu else exact, "logits")
    got = run_batches(onnx_session(made), images)
    assert np.abs(got - expected).max() <= float(held["logits_scale"]) * 1.001  # a number at the border of two levels
    assert (np.abs(got - expected) < float(held["logits_scale"]) / 2).mean() > 0.999


@pytest.fixture
def networks(tiny_space: SearchSpace, randomise: Callable[[nn.Module, int], None]) -> list[Network]:
    supernet = Supernet(tiny_space, seed=0)
    randomise(supernet, 0)
    rows = tiny_space.sample(2, np.random.default_rng(3))
    return [supernet.extract(row).eval().requires_grad_(False) for row in rows]


def test_every_space_in_every_precision_at_every_opset(networks: list[Network]) -> None:
    for net, opset in zip(networks * 4, IR_VERSIONS, strict=True):
        images = noise(FEWEST, net.blueprint.resolution)
        expected = net(torch.from_numpy(images)).numpy()
        if net.blueprint.quantised:
            with pytest.raises(ConfigError, match="at a few bits as they were trained"):
                onnx_bytes(net, {}, FileOptions("int8", opset), (images, images))
        files = {
            precision: onnx_bytes(net, {"classes": ["a"]}, FileOptions(precision, opset))
            for precision in ("float32", "float16")[: 1 if net.blueprint.quantised else 2]
        }
        if opset in (14, 17, 21) and not net.blueprint.quantised:  # of drawn weights; trained ones are in tests/family
            files["int8"] = quantised(files["float32"], images, None)
        for precision, content in files.items():
            model = onnx.load_from_string(content)
            onnx.checker.check_model(model)
            assert [each.version for each in model.opset_import if not each.domain] == [opset]
            assert model.ir_version == IR_VERSIONS[opset]
            assert "classes" in {each.key for each in model.metadata_props}
            got = run_batches(onnx_session(content), images)
            assert got.shape == expected.shape
            facts = int8_facts(content)
            assert (facts is not None) == (precision == "int8")
            if facts is not None:
                assert facts.agreement == (got.argmax(1) == expected.argmax(1)).mean()
                assert facts.kept_float == ()
                assert any(each.data_type == TensorProto.INT8 for each in model.graph.initializer)
            else:
                limit = (0.1 if net.blueprint.quantised else 1e-3) if precision == "float32" else 0.03
                assert np.abs(got - expected).max() <= limit * np.abs(expected).max()


def test_versions_that_are_refused() -> None:
    for options, words in (
        ({"opset": 13}, "opset 14 to 21, got 13"),
        ({"opset": 21, "ir_version": 8}, "opset 21 is allowed in IR version 10 to"),
        ({"ir_version": 99}, "got 99"),
        ({"precision": "int4"}, "float32, float16, int8, got 'int4'"),
    ):
        with pytest.raises(ConfigError, match=words):
            FileOptions(**options)  # type: ignore[arg-type]


def test_an_ir_version_that_is_asked_for() -> None:
    from snugnet.spaces import get_space

    space = get_space("mobilenet-v2", width_mult=0.1, resolution=8, num_classes=3)
    net = Supernet(space, seed=0).extract(space.smallest).eval()
    for precision in ("float32", "float16"):
        assert onnx.load_from_string(onnx_bytes(net, {}, FileOptions(precision, ir_version=9))).ir_version == 9


def test_images_that_are_missing_or_too_few() -> None:
    content, _, _ = one_layer(3, 1, True, 0)
    with pytest.raises(DataError, match="at least 16 images, got 15"):
        quantised(content, noise(15, 5, 6), None)
    with pytest.raises(DataError, match="got none"):
        quantised(content, noise(16, 5, 6), noise(0, 5, 6))


def test_tools_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    content, _, _ = one_layer(3, 1, True, 0)
    found = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("onnxruntime.quantization") or (name == "onnxruntime" and rest[2] == ("quantization",)):
            raise ImportError("not there")
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ExportError, match="quantisation tools, and they are missing here: not there"):
        quantised(content, noise(16, 5, 6), None)


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The tool prints while it reads histograms; standard output is for results."""
    content, _, _ = one_layer(3, 1, False, 1)
    apart = (
        noise(32, 5, 6),
        noise(64, 5, 6, seed=1) * 50,
    )  # far beyond the ranges, so that every way to read them is tried
    with pytest.raises(ExportError, match="no layer can be int8: the file agrees with the float one on"):
        quantised(content, *apart)
    assert capsys.readouterr().out == ""

"""The ONNX writer, layer by layer and space by space; files and formats are in test_export.py."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_spaces import TINY_SPACES
from torch import nn

from snugnet.deploy import check_format, export, measured_ms, onnx_bytes, onnx_difference, torch_export_bytes
from snugnet.deploy.export import QUANTISED_TOLERANCE, torch_export_difference
from snugnet.deploy.onnx import BATCH_NORM_EPS, folded
from snugnet.deploy.sessions import onnx_session
from snugnet.errors import ConfigError, ExportError
from snugnet.nn import Network
from snugnet.spaces import SearchSpace, get_space
from snugnet.spaces.graph import steps
from snugnet.supernets import Supernet


def space_of(**options: Any) -> SearchSpace:
    return get_space("ofa-mobilenet-v3", **{"width_mult": 0.1, "num_classes": 5, "stem_stride": 1, **options})


SPACES = {
    "odd": space_of(resolution=17, stage_strides=(2, 1, 2, 1, 2)),
    "even": space_of(resolution=16, stem_stride=2, stage_strides=(1, 2, 1, 1, 2)),
    "grey": space_of(resolution=9, in_channels=1, kernel_sizes=(1, 3), depths=(1, 2), num_classes=1),
    "pixel": space_of(resolution=1, kernel_sizes=(3, 7), depths=(1, 3)),
    **{name: get_space(name, **options) for name, options in TINY_SPACES.items()},
}


@pytest.fixture(scope="module")
def supernets(randomise: Callable[[nn.Module, int], None]) -> dict[str, Supernet]:
    made = {}
    for name, space in SPACES.items():
        made[name] = Supernet(space, seed=4).eval().requires_grad_(False)
        randomise(made[name], 5)
    return made


@pytest.fixture
def network(supernets: dict[str, Supernet]) -> Network:
    return supernets["odd"].extract(SPACES["odd"].centroid).requires_grad_(False)


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=4)
@given(seed=st.integers(0, 10_000))
def test_onnx_runtime_gives_torchs_logits(supernets: dict[str, Supernet], name: str, seed: int) -> None:
    supernet, space = supernets[name], SPACES[name]
    rng = np.random.default_rng(seed)
    arch = [space.smallest, space.largest, space.sample(1, rng), space.sample(1, rng)][seed % 4]
    cut = supernet.extract(arch).requires_grad_(False)
    content = onnx_bytes(cut, {})
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)  # with shape inference
    assert [node.op_type for node in model.graph.node if node.op_type in ("Conv", "BatchNormalization")] == [
        op
        for block, *_ in steps(cut.blueprint)
        for layer in block.all_layers
        for op in {"conv": ["Conv"], "se": ["Conv"] * 2, "norm": ["BatchNormalization"]}.get(layer.op, [])
        + (["BatchNormalization"] if layer.weight_bits else [])  # the weight itself is at a few levels
    ]
    rounding = QUANTISED_TOLERANCE if cut.blueprint.quantised else 1e-4
    session = onnx_session(content)
    size = cut.blueprint.resolution  # the architecture's own
    for batch in (1, 3, 8):
        x = rng.standard_normal((batch, space.in_channels, size, size)).astype(np.float32)
        (got,) = session.run(["logits"], {"image": x})
        expected = cut(torch.from_numpy(x)).numpy()
        assert got.shape == expected.shape == (batch, space.options["num_classes"])
        np.testing.assert_allclose(got, expected, rtol=0, atol=rounding * np.abs(expected).max())


@pytest.mark.parametrize("name", SPACES)
def test_opset_and_ir_are_those_that_older_runtimes_read(supernets: dict[str, Supernet], name: str) -> None:
    """onnx 1.23 would write a newer IR version, whatever the opset; test_runtimes.py asks an onnxruntime of 2024."""
    for arch in (SPACES[name].smallest, SPACES[name].largest):
        content = onnx_bytes(supernets[name].extract(arch), {})
        model = onnx.load_from_string(content)
        assert model.ir_version == 8
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
        assert {node.domain for node in model.graph.node} == {""}


def test_batch_norm_is_folded_as_it_is_computed() -> None:
    """Against float64, with a variance so small that epsilon decides."""
    layer = SPACES["odd"].blueprint(SPACES["odd"].smallest).blocks[0].layers[0]
    assert nn.BatchNorm2d(1).eps == BATCH_NORM_EPS
    rng = np.random.default_rng(0)
    shape = (layer.out_channels, layer.in_channels, 3, 3)
    state = {
        "x.conv.weight": rng.standard_normal(shape).astype(np.float32),
        "x.norm.weight": rng.standard_normal(layer.out_channels).astype(np.float32),
        "x.norm.bias": rng.standard_normal(layer.out_channels).astype(np.float32),
        "x.norm.running_mean": rng.standard_normal(layer.out_channels).astype(np.float32),
        "x.norm.running_var": np.geomspace(1e-8, 10, layer.out_channels).astype(np.float32),
    }
    weight, bias = folded(state, layer, "x")
    t = {key: torch.from_numpy(value).double() for key, value in state.items()}
    x = torch.randn(2, layer.in_channels, 5, 5, dtype=torch.float64)
    expected = torch.nn.functional.batch_norm(
        torch.conv2d(x, t["x.conv.weight"]), t["x.norm.running_mean"], t["x.norm.running_var"], t["x.norm.weight"],
        t["x.norm.bias"], eps=1e-5,
    )  # fmt: skip
    assert bias is not None
    got = torch.conv2d(x, torch.from_numpy(weight).double(), torch.from_numpy(bias).double())
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_the_file_says_what_goes_in_and_out(network: Network) -> None:
    about = {"classes": ["ä", "b"], "mean": (0.5, 0.25, 0.125), "architecture": {"depth": [2]}, "group": "round"}
    model = onnx.load_from_string(onnx_bytes(network, about))
    held = {entry.key: entry.value for entry in model.metadata_props}
    assert {key: json.loads(value) for key, value in held.items()} == {
        "classes": ["ä", "b"], "mean": [0.5, 0.25, 0.125], "architecture": {"depth": [2]}, "group": "round",
    }  # fmt: skip
    shape = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    assert shape == {"image": ["batch", 3, 17, 17]}
    shape = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.output}
    assert shape == {"logits": ["batch", 5]}
    names = [node.output[0] for node in model.graph.node]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_layout_in_memory_does_not_matter(network: Network, layout: torch.memory_format) -> None:
    expected = onnx_bytes(network, {})
    assert onnx_bytes(network.to(memory_format=layout), {}) == expected


def test_differences_are_relative_to_the_largest_logit(network: Network) -> None:
    content = onnx_bytes(network, {})
    assert onnx_difference(network, content) < 1e-5
    network.head.classifier.linear.weight.mul_(2)
    network.head.classifier.linear.bias.mul_(2)
    assert onnx_difference(network, content) == pytest.approx(0.5, abs=1e-5)
    network.head.classifier.linear.bias.fill_(torch.nan)
    assert np.isnan(onnx_difference(network, content))


def test_torch_export_is_run_before_it_is_written(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = torch_export_bytes(network, {"classes": ["a"]})
    assert torch_export_difference(network, content) == pytest.approx(0, abs=1e-6)
    program = torch.export.load(io.BytesIO(content)).module()
    for batch in (1, 3, 8):
        x = torch.randn(batch, 3, 17, 17)
        torch.testing.assert_close(program(x), network(x))
    monkeypatch.setattr(sys.modules["snugnet.deploy.export"], "torch_export_bytes", lambda *_: content)
    path = tmp_path / "net.pt2"
    path.write_bytes(b"old")
    assert export(network, path, {}).read_bytes() == content
    path.write_bytes(b"old")
    network.head.classifier.linear.bias.add_(1)
    with pytest.raises(ExportError, match=r"\.pt2 file differs from the network"):
        export(network, path, {})
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_that_is_not_finite_is_not_written(network: Network, tmp_path: Path, value: float) -> None:
    network.head.classifier.linear.weight[0, 0] = value
    with pytest.raises(ExportError, match="differs"):
        export(network, tmp_path / "net.onnx", {})
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_format(tmp_path: Path) -> None:
    assert check_format("a/b.onnx") == Path("a/b.onnx")
    for name in ("net", "net.pth", "net.onnx.gz", ".onnx"):
        with pytest.raises(ConfigError, match=r"allowed: \.onnx \(ONNX\), \.pt2 \(torch\.export\)"):
            check_format(tmp_path / name)
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        check_format(tmp_path / "folder.onnx")


def test_measured_ms(network: Network) -> None:
    assert 0 < measured_ms(onnx_bytes(network, {}), repeats=3) < 10_000

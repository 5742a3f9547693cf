"""Files that do what the network does."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from snugnet.deploy import export, onnx_bytes
from snugnet.deploy.sessions import onnx_session
from snugnet.errors import ConfigError, ExportError
from snugnet.nn import Network
from snugnet.spaces import get_space
from snugnet.supernets import Supernet

SPACE = get_space(
    "ofa-mobilenet-v3", width_mult=0.2, resolution=19, num_classes=6, stem_stride=1, stage_strides=[2, 1, 2, 1, 2]
)


def network(seed: int) -> Network:
    """A random architecture with random batch-norm statistics."""
    made = Supernet(SPACE, seed=seed).extract(SPACE.sample(1, np.random.default_rng(seed)), [0, 3, 5]).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in made.state_dict().items():
        if name.endswith(("running_mean", "norm.bias")):
            tensor.normal_(0, 0.5, generator=generator)
        elif name.endswith(("running_var", "norm.weight")):
            tensor.uniform_(0.5, 2.0, generator=generator)
        elif "linear" in name:
            tensor.normal_(0, 0.5, generator=generator)
    return made.requires_grad_(False)


def test_torchs_own_exporters_give_the_same_network(tmp_path: Path) -> None:
    """Both of torch's exporters as oracles: the same outputs, and as many convolutions."""
    net, images = network(1), torch.randn(3, 3, 19, 19)
    ours = onnx.load_from_string(onnx_bytes(net, {}))
    (got,) = onnx_session(ours.SerializeToString()).run(None, {"image": images.numpy()})
    for dynamo in (True, False):
        path = tmp_path / f"{dynamo}.onnx"
        torch.onnx.export(net, (images,), path, dynamo=dynamo, input_names=["image"], verbose=False)
        theirs = onnx.load(path)
        (expected,) = onnx_session(path.read_bytes() if not dynamo else _inlined(path)).run(
            None, {"image": images.numpy()}
        )
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
        count = [sum(node.op_type == "Conv" for node in model.graph.node) for model in (ours, theirs)]
        assert count[0] == count[1]


def _inlined(path: Path) -> bytes:
    """The model with its external data inside."""
    return onnx.load(path, load_external_data=True).SerializeToString()


def test_metadata_is_in_the_file(tmp_path: Path) -> None:
    about = {"classes": ["a", "b", "c"], "mean": [0.5, 0.5, 0.5], "architecture": {"depth": [2]}, "group": "x"}
    path = export(network(2), tmp_path / "deep" / "net.onnx", about)
    held = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(held["classes"]) == about["classes"]
    assert json.loads(held["architecture"]) == about["architecture"]
    assert json.loads(held["group"]) == "x"


def test_torch_export(tmp_path: Path) -> None:
    net, images = network(3), torch.randn(5, 3, 19, 19)
    path = export(net, tmp_path / "net.pt2", {"classes": ["a", "b", "c"]})
    extra = {"snugnet.json": ""}
    program = torch.export.load(path, extra_files=extra)
    torch.testing.assert_close(program.module()(images), net(images))
    assert json.loads(extra["snugnet.json"])["classes"] == ["a", "b", "c"]


def test_what_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(4)
    for bad in ("net", "net.tflite"):
        with pytest.raises(ConfigError, match=r"\.onnx"):
            export(net, tmp_path / bad, {})
    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")
    other = onnx_bytes(network(5), {})
    monkeypatch.setattr(sys.modules["snugnet.deploy.export"], "onnx_bytes", lambda *_: other)
    with pytest.raises(ExportError, match="differs"):
        export(net, path, {})
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]

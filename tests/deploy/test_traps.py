"""What runtimes are known to get wrong is not written: on graphs made by hand, and on those of every space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tiny_spaces import TINY_SPACES
from torch import nn

from snugnet.deploy import export, onnx_bytes, onnx_difference
from snugnet.deploy.onnx import _Graph
from snugnet.deploy.traps import check_graph, traps
from snugnet.errors import ExportError
from snugnet.spaces import get_space
from snugnet.spaces.blueprint import Layer
from snugnet.supernets import Supernet

Nodes = list[onnx.NodeProto]
node = helper.make_node
POOL = {"kernel_shape": [3, 3], "strides": [2, 2]}


def graph(nodes: Nodes, **weights: Any) -> onnx.ModelProto:
    entry, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, "h", "w"]) for name in "xy")
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    return helper.make_model(helper.make_graph(nodes, "made", [entry], [out], held))


def gate(op: str, order: list[str], source: str = "x") -> Nodes:
    pooled = [node("GlobalAveragePool", ["x"], ["p"])] if source == "p" else []
    return [*pooled, node(op, [source], ["g"]), node("Mul", order, ["y"])]


BAD: dict[str, tuple[onnx.ModelProto, str]] = {
    "gate": (graph(gate("HardSigmoid", ["g", "x"], "p")), "HardSwish"),
    "gate, the other way round": (graph(gate("HardSigmoid", ["x", "g"], "p")), "HardSwish"),
    "counted pads": (graph([node("AveragePool", ["x"], ["y"], pads=[1] * 4, count_include_pad=1, **POOL)]), "a Pad"),
    "rounded up": (graph([node("MaxPool", ["x"], ["y"], ceil_mode=1, **POOL)]), "ceil_mode"),
    "average, rounded up": (graph([node("AveragePool", ["x"], ["y"], ceil_mode=1, **POOL)]), "ceil_mode"),
    "pads left open": (graph([node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER")]), "auto_pad"),
    "negative pads": (graph([node("Pad", ["x", "p"], ["y"])], p=np.array([0, 0, -1, -1, 0, 0, 1, 1])), "a Slice"),
    "pads of later": (graph([node("Pad", ["x", "p"], ["y"])]), "a constant"),
    "no zero point": (graph([node("DequantizeLinear", ["x", "s"], ["y"])], s=np.float32(1)), "give it one of 0"),
    "shapes of later": (graph([node("ConstantOfShape", ["s"], ["y"])]), "OpenCV 4 and 5"),
}
GOOD = {
    "hard swish in two": graph(gate("HardSigmoid", ["g", "x"])),
    "hard swish in two, the other way round": graph(gate("HardSigmoid", ["x", "g"])),
    "gate of a sigmoid": graph(gate("Sigmoid", ["x", "g"], "p")),
    "pads that do not count": graph([node("AveragePool", ["x"], ["y"], pads=[1] * 4, **POOL)]),
    "counted, without pads": graph([node("AveragePool", ["x"], ["y"], count_include_pad=1, **POOL)]),
    "pads of nothing": graph([node("Pad", ["x", "p"], ["y"])], p=np.zeros(8, np.int64)),
}


@pytest.mark.parametrize("name", BAD)
def test_traps(name: str) -> None:
    model, words = BAD[name]
    (found,) = traps(model)
    assert words in found
    with pytest.raises(ExportError, match=r"would not be the network everywhere: \w+ "):
        check_graph(model)


@pytest.mark.parametrize("name", GOOD)
def test_what_is_no_trap(name: str) -> None:
    assert traps(GOOD[name]) == []


def test_the_gate_that_was_written_once(shared_folder: Any) -> None:
    path = shared_folder / "cases" / "se-block.onnx"
    if not path.is_file():
        pytest.skip(f"no {path}")
    assert "HardSwish" in traps(onnx.load(path))[0]


@pytest.mark.parametrize("space_name", TINY_SPACES)
def test_every_space_goes_without(space_name: str, randomise: Callable[[nn.Module, int], None]) -> None:
    space = get_space(space_name, **TINY_SPACES[space_name])
    supernet = Supernet(space, seed=1).eval().requires_grad_(False)
    randomise(supernet, 2)
    drawn = space.sample(6, np.random.default_rng(0))
    for arch in (space.smallest, space.largest, *(drawn[i : i + 1] for i in range(6))):
        network = supernet.extract(arch).requires_grad_(False)
        content = onnx_bytes(network, {})
        assert traps(onnx.load_from_string(content)) == []
        assert onnx_difference(network, content) < (0.1 if network.blueprint.quantised else 1e-4)


def test_a_network_with_a_trap_is_not_written(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def as_before(self: _Graph, layer: Layer, name: str) -> None:
        entry = self.at
        self.node("GlobalAveragePool", f"{name}.pool")
        self.node("HardSigmoid", f"{name}.gate")
        self.node("Mul", f"{name}.scale", entry)

    monkeypatch.setattr(_Graph, "_se", as_before)
    space = get_space("attentive-nas", **TINY_SPACES["attentive-nas"])
    with pytest.raises(ExportError, match="HardSwish"):
        export(Supernet(space).extract(space.largest).eval(), tmp_path / "net.onnx", {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (2, 1), (3, 1), (3, 2), (4, 4), (4, 2)])
@pytest.mark.parametrize("size", range(4, 10))
def test_pads_of_average_pools(kernel: int, stride: int, size: int) -> None:
    layer = Layer("pool", "avg_pool", 2, 2, size, kernel, stride)
    made = _Graph({}, "x")
    made._avg_pool(layer, "y")
    entry, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2, "h", "w"]) for name in "xy")
    model = helper.make_model(
        helper.make_graph(made.nodes, "pool", [entry], [out], made.weights),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    assert traps(model) == []
    x = torch.randn(3, 2, size, size, generator=torch.Generator().manual_seed(size))
    from snugnet.deploy.sessions import onnx_session
    from snugnet.nn.layers import AvgPoolLayer

    (got,) = onnx_session(model.SerializeToString()).run(None, {"x": x.numpy()})
    np.testing.assert_allclose(got, AvgPoolLayer(layer)(x).numpy(), atol=1e-6)

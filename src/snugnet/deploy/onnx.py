"""ONNX straight from a blueprint: batch norm folded into the convolutions, no tracing, so it takes milliseconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from snugnet.nn.network import module_name
from snugnet.spaces.blueprint import Activation, Block, Blueprint, Layer

OPSET = 17
IR_VERSION = 8
BATCH_NORM_EPS = 1e-5

Array = NDArray[np.float32]


@dataclass
class _Graph:
    """Nodes and weights as they are written; ``at`` is the name of the last output."""

    state: Mapping[str, Array]
    at: str
    nodes: list[Any] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)

    def node(self, op: str, name: str, *extra: str, source: str | None = None, **attributes: Any) -> str:
        """Append a node that reads ``source`` (the last output by default), then the named weights."""
        inputs = [self.at if source is None else source, *extra]
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        self.at = name
        return name

    def weight(self, name: str, array: Array) -> str:
        """Add a weight."""
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array, dtype=np.float32), name))
        return name

    def integers(self, name: str, values: list[int]) -> str:
        """Add a list of whole numbers."""
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def block(self, block: Block) -> None:
        """Write a block."""
        name, entry = module_name(block), self.at
        own, *around = block.branches
        sources = self.split(block, f"{name}.split") if block.split else (entry, entry)
        out = self.row(block, own.layers, sources[0])
        if around:
            beside = self.row(block, around[0].layers, sources[1])
            if block.join == "concat":
                self.node("Concat", f"{name}.concat", out, source=beside, axis=1)
            else:
                self.node("Add", f"{name}.shortcut", beside, source=out)

    def split(self, block: Block, name: str) -> tuple[str, str]:
        """Write the split of an input into its odd and its even channels: shuffled as ShuffleNet is everywhere, then cut."""
        channels, size = block.in_channels, block.layers[0].resolution
        for step, shape in (("apart", [0, channels // 2, 2, size * size]), ("together", [0, channels, size, size])):
            self.node("Reshape", f"{name}.{step}", self.integers(f"{name}.{step}.shape", shape))
            if step == "apart":
                self.node("Transpose", f"{name}.shuffle", perm=[0, 2, 1, 3])
        even, odd = f"{name}.even", f"{name}.odd"
        sizes = self.integers(f"{name}.sizes", [channels // 2] * 2)
        self.nodes.append(helper.make_node("Split", [self.at, sizes], [even, odd], name=name, axis=1))
        return odd, even

    def row(self, block: Block, layers: tuple[Layer, ...], source: str) -> str:
        """Write some of a block's layers, one after the other."""
        self.at = source
        for layer in layers:
            getattr(self, f"_{layer.op}")(layer, f"{module_name(block)}.{layer.name}")
        return self.at

    def _conv(self, layer: Layer, name: str) -> None:
        weight, bias = folded(self.state, layer, name)
        inputs = [self.weight(f"{name}.weight", weight)]
        if bias is not None:
            inputs.append(self.weight(f"{name}.bias", bias))
        self.node(
            "Conv",
            name,
            *inputs,
            kernel_shape=[layer.kernel] * 2,
            strides=[layer.stride] * 2,
            pads=[layer.padding] * 4,
            group=layer.groups,
        )
        self._activation(layer.activation, name)

    def _activation(self, activation: Activation, name: str) -> None:
        match activation:
            case "relu":
                self.node("Relu", f"{name}.relu")
            case "relu6":
                limits = (self.weight(f"{name}.relu6.{value}", np.array(value, np.float32)) for value in (0, 6))
                self.node("Clip", f"{name}.relu6", *limits)
            case "h_swish":
                self.node("HardSwish", f"{name}.h_swish")
            case "swish":
                entry = self.at
                self.node("Sigmoid", f"{name}.sigmoid")
                self.node("Mul", f"{name}.swish", entry)

    def _se(self, layer: Layer, name: str) -> None:
        entry = self.at
        self.node("GlobalAveragePool", f"{name}.pool")
        steps: tuple[tuple[str, str, dict[str, Any]], ...] = (
            ("reduce", "Relu", {}),
            ("expand", "HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
        )
        for step, op, attributes in steps:
            weight = self.weight(f"{name}.{step}.weight", self.state[f"{name}.{step}.weight"])
            bias = self.weight(f"{name}.{step}.bias", self.state[f"{name}.{step}.bias"])
            self.node("Conv", f"{name}.{step}", weight, bias, kernel_shape=[1, 1])
            self.node(op, f"{name}.{step}.{op}", **attributes)
        self.node("Mul", f"{name}.scale", entry)

    def _avg_pool(self, layer: Layer, name: str) -> None:
        self.node(
            "AveragePool",
            name,
            kernel_shape=[layer.kernel] * 2,
            strides=[layer.stride] * 2,
            pads=[layer.padding] * 4,
            count_include_pad=1,
        )

    def _pool(self, layer: Layer, name: str) -> None:
        self.node("GlobalAveragePool", name)

    def _flatten(self, layer: Layer, name: str) -> None:
        self.node("Flatten", name, axis=1)

    def _linear(self, layer: Layer, name: str) -> None:
        inputs = [
            self.weight(f"{name}.{key}", self.state[f"{name}.linear.{key}"])
            for key in ("weight", "bias")[: 1 + layer.bias]
        ]
        self.node("Gemm", name, *inputs, transB=1)


def folded(state: Mapping[str, Array], layer: Layer, name: str) -> tuple[Array, Array | None]:
    """Weight and bias of a convolution with its batch norm folded in (in float64, then rounded once)."""
    weight, bias = state[f"{name}.conv.weight"], state.get(f"{name}.conv.bias")
    if not layer.norm:
        return weight, bias
    mean, variance, gamma, beta = (
        state[f"{name}.norm.{key}"].astype(np.float64) for key in ("running_mean", "running_var", "weight", "bias")
    )
    scale = gamma / np.sqrt(variance + BATCH_NORM_EPS)
    shift = beta - mean * scale + (0 if bias is None else bias * scale)
    return (weight * scale[:, None, None, None]).astype(np.float32), shift.astype(np.float32)


def onnx_model(
    blueprint: Blueprint, state: Mapping[str, Array], metadata: Mapping[str, Any], name: str = "snugnet"
) -> onnx.ModelProto:
    """Write a network as an ONNX model.

    Args:
        blueprint: what to write.
        state: the static network's weights and statistics, by name.
        metadata: JSON-able; each value is stored as JSON text under its key.
        name: of the graph.

    Returns:
        A checked model: input ``image`` (batch, channels, height, width), float32, normalised; output ``logits``
        (batch, classes). The batch size is dynamic.
    """
    graph = _Graph(state, "image")
    for block in blueprint.blocks:
        graph.block(block)
    graph.nodes[-1].output[0] = "logits"
    size = blueprint.resolution
    made = helper.make_graph(
        graph.nodes,
        name,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", blueprint.in_channels, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", blueprint.num_classes])],
        graph.weights,
    )
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="snugnet"
    )
    helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.checker.check_model(model)
    return model

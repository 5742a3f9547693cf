"""ONNX straight from a blueprint: batch norm folded into the convolutions, no tracing, so it takes milliseconds.

Quantised convolutions keep their weights as codes, and quantise their input, with QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from snugnet.deploy.packing import packed
from snugnet.deploy.traps import check_graph
from snugnet.errors import ConfigError
from snugnet.nn.network import module_name
from snugnet.nn.quantise import activation_scale, weight_codes
from snugnet.spaces.blueprint import Activation, Block, Blueprint, Layer, Superclasses
from snugnet.spaces.graph import flow, steps

OPSET = 17
"""Of a file unless another is asked for."""
OPSET_REDUCED_BY_INPUT = 18
"""From here on axes of ReduceMax and ReduceLogSumExp are an input, and no attribute."""
OPSET_4_BITS = 21
"""From here on there are tensors of four bits."""
IR_VERSIONS = {14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, OPSET_4_BITS: 10}
"""The least of each opset, which is what files get; HardSwish is of 14."""
BATCH_NORM_EPS = 1e-5

Array = NDArray[np.float32]


@dataclass
class _Graph:
    """Nodes and weights as they are written; ``at`` is the name of the last output."""

    state: Mapping[str, Array]
    at: str
    opset: int = OPSET
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
        self.weights.append(numpy_helper.from_array(np.asarray(array, dtype=np.float32, order="C"), name))
        return name

    def integers(self, name: str, values: list[int]) -> str:
        """Add a list of whole numbers."""
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def gather(self, outputs: list[str], block: Block) -> str:
        """Bring together what a block takes."""
        source, *others = outputs
        name, attributes = f"{module_name(block)}.gather", {"axis": 1} if block.gather == "concat" else {}
        return self.node("Concat" if attributes else "Sum", name, *others, source=source, **attributes)

    def block(self, block: Block, entry: str) -> str:
        """Write a block that takes the output ``entry``."""
        name, self.at = module_name(block), entry
        own, *around = block.branches
        sources = self.split(block, f"{name}.split") if block.split else (entry, entry)
        out = self.row(block, own.layers, sources[0])
        if around:
            beside = self.row(block, around[0].layers, sources[1])
            if block.join == "concat":
                self.node("Concat", f"{name}.concat", out, source=beside, axis=1)
            else:
                self.node("Add", f"{name}.shortcut", beside, source=out)
        return self.at

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
            name = f"{module_name(block)}.{layer.name}"
            if layer.op == "activation":
                self._activation(layer.activation, name)
            else:
                getattr(self, f"_{layer.op}")(layer, name)
        return self.at

    def superclasses(self, superclasses: Superclasses) -> str:
        """Write what is said of superclasses, from the classifier's outputs."""
        name, op = "superclasses", {"sum": "ReduceLogSumExp", "max": "ReduceMax"}[superclasses.over]
        parts = [f"{name}.{i}.logits" for i in range(len(superclasses.sizes))]
        sizes = self.integers(f"{name}.sizes", list(superclasses.sizes))
        self.nodes.append(helper.make_node("Split", [self.at, sizes], parts, name=f"{name}.split", axis=1))
        axes = [self.integers(f"{name}.axes", [1])] if self.opset >= OPSET_REDUCED_BY_INPUT else []
        given: dict[str, Any] = {} if axes else {"axes": [1]}
        reduced = [
            self.node(op, f"{name}.{i}", *axes, source=part, keepdims=1, **given) for i, part in enumerate(parts)
        ]
        return self.node("Concat", name, *reduced[1:], source=reduced[0], axis=1)

    def _conv(self, layer: Layer, name: str) -> None:
        if layer.weight_bits or layer.activation_bits:
            self._quantised_conv(layer, name)
        else:
            weight, bias = folded(self.state, layer, name)
            inputs = [self.weight(f"{name}.weight", weight)]
            if bias is not None:
                inputs.append(self.weight(f"{name}.bias", bias))
            self._convolve(layer, name, inputs)
        self._activation(layer.activation, name)

    def _convolve(self, layer: Layer, name: str, inputs: list[str]) -> None:
        dilated: dict[str, Any] = {"dilations": [layer.dilation] * 2} if layer.dilation > 1 else {}
        self.node(
            "Conv",
            name,
            *inputs,
            kernel_shape=[layer.kernel] * 2,
            strides=[layer.stride] * 2,
            pads=[layer.padding] * 4,
            group=layer.groups,
            **dilated,
        )

    def _quantised_conv(self, layer: Layer, name: str) -> None:
        """Batch norm stays apart: folded in, it would give every channel levels of its own."""
        if layer.activation_bits:
            self._quantised_input(layer, name)
        entry, inputs = self.at, [f"{name}.conv.weight"]
        if layer.weight_bits:
            inputs = [self._quantised_weight(layer, name)]
        else:
            self.weight(inputs[0], self.state[inputs[0]])
        if layer.bias:
            inputs.append(self.weight(f"{name}.bias", self.state[f"{name}.conv.bias"]))
        self.at = entry
        self._convolve(layer, name, inputs)
        if layer.norm:
            self._batch_norm(name)

    def _batch_norm(self, name: str) -> None:
        keys = ("weight", "bias", "running_mean", "running_var")
        norm = [self.weight(f"{name}.norm.{key}", self.state[f"{name}.norm.{key}"]) for key in keys]
        self.node("BatchNormalization", f"{name}.norm", *norm, epsilon=BATCH_NORM_EPS)

    def _norm(self, layer: Layer, name: str) -> None:
        self._batch_norm(name)
        self._activation(layer.activation, name)

    def _quantised_input(self, layer: Layer, name: str) -> None:
        """Clip at the highest level, which lies below what eight bits would hold, then to whole numbers and back."""
        step = activation_scale(torch.tensor(self.state[f"{name}.clip"]), layer.activation_bits)
        scale, highest = (each.numpy().reshape(()) for each in (step, step * (2**layer.activation_bits - 1)))
        limits = (
            self.weight(f"{name}.clip.{end}", value)
            for end, value in (("low", np.zeros((), np.float32)), ("high", highest))
        )
        self.node("Clip", f"{name}.clip", *limits)
        level = (
            self.weight(f"{name}.input.scale", scale),
            self._codes(f"{name}.input.zero", np.zeros((), np.uint8), 8),
        )
        self.node("QuantizeLinear", f"{name}.input.codes", *level)
        self.node("DequantizeLinear", f"{name}.input", *level)

    def _quantised_weight(self, layer: Layer, name: str) -> str:
        """The codes, times their step, minus the offset: the very steps of :class:`snugnet.nn.quantise.Codes`.

        A zero point of 0 is the default, and is written all the same: without it OpenCV 4 reads other codes.
        """
        made = weight_codes(torch.tensor(self.state[f"{name}.conv.weight"]), layer.weight_bits)
        codes = self._codes(f"{name}.weight.codes", made.codes.numpy().astype(np.uint8), layer.weight_bits)
        step = self.weight(f"{name}.weight.step", made.step.numpy())
        zero = self._codes(f"{name}.weight.zero", np.zeros((), np.uint8), layer.weight_bits)
        self.node("DequantizeLinear", f"{name}.weight.scaled", step, zero, source=codes)
        return self.node("Sub", f"{name}.weight", self.weight(f"{name}.weight.offset", made.offset.numpy()))

    def _codes(self, name: str, codes: NDArray[np.uint8], bits: int) -> str:
        """Add whole numbers: two in a byte where they and the opset allow it."""
        if self.opset >= OPSET_4_BITS and bits <= 4:
            self.weights.append(
                helper.make_tensor(name, TensorProto.UINT4, codes.shape, packed(codes.ravel(), 4), raw=True)
            )
        else:
            self.weights.append(numpy_helper.from_array(codes, name))
        return name

    def _activation(self, activation: Activation, name: str) -> None:
        match activation:
            case "relu":
                self.node("Relu", f"{name}.relu")
            case "relu6":
                self._clip(f"{name}.relu6", 6)
            case "h_swish":
                self.node("HardSwish", f"{name}.h_swish")
            case "swish":
                entry = self.at
                self.node("Sigmoid", f"{name}.sigmoid")
                self.node("Mul", f"{name}.swish", entry)

    def _se(self, layer: Layer, name: str) -> None:
        """The gate is a Clip behind a convolution that scales and shifts: OpenCV takes HardSigmoid, then Mul, for HardSwish."""
        entry = self.at
        self.node("GlobalAveragePool", f"{name}.pool")
        for step in ("reduce", "expand"):
            weight, bias = (self.state[f"{name}.{step}.{key}"] for key in ("weight", "bias"))
            if step == "expand":
                weight, bias = _of_a_hard_sigmoid(weight, 0), _of_a_hard_sigmoid(bias, 0.5)
            inputs = self.weight(f"{name}.{step}.weight", weight), self.weight(f"{name}.{step}.bias", bias)
            self.node("Conv", f"{name}.{step}", *inputs, kernel_shape=[1, 1])
            if step == "reduce":
                self.node("Relu", f"{name}.{step}.relu")
            else:
                self._clip(f"{name}.{step}.gate", 1)
        self.node("Mul", f"{name}.scale", entry)

    def _clip(self, name: str, highest: int) -> None:
        limits = (self.weight(f"{name}.{value}", np.array(value, np.float32)) for value in (0, highest))
        self.node("Clip", name, *limits)

    def _max_pool(self, layer: Layer, name: str) -> None:
        self.node(
            "MaxPool",
            name,
            kernel_shape=[layer.kernel] * 2,
            strides=[layer.stride] * 2,
            pads=[layer.padding] * 4,
        )

    def _avg_pool(self, layer: Layer, name: str) -> None:
        """Zeros that count are a Pad of their own: OpenCV 4 leaves out what a pool pads, whatever ``count_include_pad`` says."""
        zeros = layer.padding if layer.kernel % 2 == 0 else 0
        if zeros:  # in front, and behind as far as the last window reaches
            reach = (layer.out_resolution - 1) * layer.stride + layer.kernel
            behind = max(0, reach - zeros - layer.resolution)
            self.node("Pad", f"{name}.pad", self.integers(f"{name}.pads", [0, 0, zeros, zeros, 0, 0, behind, behind]))
        self.node(
            "AveragePool",
            name,
            kernel_shape=[layer.kernel] * 2,
            strides=[layer.stride] * 2,
            pads=[0 if zeros else layer.padding] * 4,
        )

    def _pool(self, layer: Layer, name: str) -> None:
        self.node("GlobalAveragePool", name)

    def _identity(self, layer: Layer, name: str) -> None:
        """Nothing to write."""

    def _zero(self, layer: Layer, name: str) -> None:
        """Zeros for as many images as there are: one number of each times 0, plus zeros. Few runtimes take a ConstantOfShape of a size that is not known."""
        ends = (self.integers(f"{name}.{end}", [value] * 3) for end, value in (("first", 0), ("last", 1)))
        self.node("Slice", f"{name}.pixel", *ends, self.integers(f"{name}.axes", [1, 2, 3]))
        self.node("Mul", f"{name}.nothing", self.weight(f"{name}.factor", np.zeros((), np.float32)))
        zeros = np.zeros((1, layer.out_channels, *[layer.out_resolution] * 2), np.float32)
        self.node("Add", name, self.weight(f"{name}.zeros", zeros))

    def _shift(self, layer: Layer, name: str) -> None:
        """Pad, then cut off: a Pad by less than nothing is not taken everywhere, and of one pixel nothing would be left between."""
        self.node("Pad", f"{name}.pad", self.integers(f"{name}.pads", [0, 0, 0, 0, 0, 0, 1, 1]))
        ends = (self.integers(f"{name}.first", [1, 1]), self.integers(f"{name}.last", [layer.resolution + 1] * 2))
        self.node("Slice", name, *ends, self.integers(f"{name}.axes", [2, 3]))

    def _flatten(self, layer: Layer, name: str) -> None:
        self.node("Flatten", name, axis=1)

    def _linear(self, layer: Layer, name: str) -> None:
        inputs = [
            self.weight(f"{name}.{key}", self.state[f"{name}.linear.{key}"])
            for key in ("weight", "bias")[: 1 + layer.bias]
        ]
        self.node("Gemm", name, *inputs, transB=1)


def _of_a_hard_sigmoid(array: Array, shift: float) -> Array:
    """A sixth and a half of it, as in relu6(x + 3) / 6, before it is clipped to [0, 1] (in float64, then rounded once)."""
    return (array.astype(np.float64) / 6 + shift).astype(np.float32)


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


def sort_nodes(model: onnx.ModelProto) -> None:
    """Put nodes behind those whose outputs they read, as ONNX asks for; onnxruntime's tools leave them where they were added."""
    nodes = list(model.graph.node)
    made = {output: i for i, node in enumerate(nodes) for output in node.output}
    order = TopologicalSorter({i: [made[x] for x in node.input if x in made] for i, node in enumerate(nodes)})
    del model.graph.node[:]
    model.graph.node.extend(nodes[i] for i in order.static_order())


def check_versions(opset: int, ir_version: int | None) -> None:
    """Refuse an opset that files are not written with, or an IR version that it is not allowed in.

    Raises:
        ConfigError: says what is allowed.
    """
    if opset not in IR_VERSIONS:
        raise ConfigError(f"ONNX files are written with opset {min(IR_VERSIONS)} to {max(IR_VERSIONS)}, got {opset!r}")
    if ir_version is not None and not IR_VERSIONS[opset] <= ir_version <= onnx.IR_VERSION:
        raise ConfigError(
            f"opset {opset} is allowed in IR version {IR_VERSIONS[opset]} to {onnx.IR_VERSION}, got {ir_version!r}"
        )


def onnx_model(
    blueprint: Blueprint,
    state: Mapping[str, Array],
    metadata: Mapping[str, Any],
    name: str = "snugnet",
    opset: int = OPSET,
    batch: int | None = None,
    ir_version: int | None = None,
) -> onnx.ModelProto:
    """Write a network as an ONNX model.

    Args:
        blueprint: what to write.
        state: the static network's weights and statistics, by name.
        metadata: JSON-able; each value is stored as JSON text under its key.
        name: of the graph.
        opset: one of :data:`IR_VERSIONS`. What is quantised is in bytes; with the higher one, weights of at most four bits are in
            half of one.
        batch: number of images at once; any number without it.
        ir_version: the least that the opset allows without it.

    Returns:
        A checked model: input ``image`` (batch, channels, height, width), float32, normalised; output ``logits``
        (batch, classes), or (batch, superclasses) where the blueprint has some, or (batch, channels, height, width) where it is a
        part of a network that ends in a map.

    Raises:
        ConfigError: the opset is another one, or the IR version is not one that it allows.
        ExportError: the graph holds something that runtimes are known to get wrong (:mod:`snugnet.deploy.traps`).
    """
    check_versions(opset, ir_version)
    graph = _Graph(state, "image", opset)
    flow(steps(blueprint), "image", graph.gather, graph.block)
    if blueprint.superclasses is not None:
        graph.superclasses(blueprint.superclasses)
    graph.nodes[-1].output[0] = "logits"
    images = "batch" if batch is None else batch
    size, last = blueprint.resolution, blueprint.blocks[-1]
    map_size = [] if last.layers[-1].op in ("linear", "flatten") else [last.out_resolution] * 2
    width = last.out_channels if blueprint.superclasses is None else len(blueprint.superclasses.sizes)
    made = helper.make_graph(
        graph.nodes,
        name,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [images, blueprint.in_channels, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [images, width, *map_size])],
        graph.weights,
    )
    ir_version = ir_version or IR_VERSIONS[opset]
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version, producer_name="snugnet"
    )
    helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.checker.check_model(model)
    check_graph(model)
    return model

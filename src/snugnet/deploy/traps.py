"""Graphs that are valid ONNX and that some runtime gets wrong without a word, or does not take.

What is known of each was measured on hand-made graphs and on the files of all spaces (benchmarks/runtimes.py, docs/data.md). The writer
(:mod:`snugnet.deploy.onnx`) has other ways to say the same, which every runtime computes alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx
from onnx import helper, numpy_helper

from snugnet.errors import ExportError

Arrays = Mapping[str, Any]
"""Weights of a graph by name."""


def check_graph(model: onnx.ModelProto) -> None:
    """Refuse a graph that holds a known trap.

    Raises:
        ExportError: names the node, who gets it wrong, and what to write instead.
    """
    for trap in traps(model):
        raise ExportError(f"the ONNX graph would not be the network everywhere: {trap}")


def traps(model: onnx.ModelProto) -> list[str]:
    """What is known to go wrong with a graph somewhere; a line each."""
    nodes = model.graph.node
    arrays = {each.name: each for each in model.graph.initializer}
    arrays |= {node.output[0]: node.attribute[0].t for node in nodes if node.op_type == "Constant"}
    made = {output: node for node in nodes for output in node.output}
    found = []
    for node in nodes:
        check = _CHECKS.get(node.op_type)
        if check and (problem := check(node, made, arrays)):
            found.append(f"{node.op_type} {node.name or node.output[0]!r}: {problem}")
    return found


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _mul(node: onnx.NodeProto, made: Mapping[str, onnx.NodeProto], arrays: Arrays) -> str:
    """A hard sigmoid times something other than its own input."""
    for gate, other in (node.input, list(node.input)[::-1]):
        source = made.get(gate)
        if source is not None and source.op_type == "HardSigmoid" and source.input[0] != other:
            return (
                "OpenCV 4 and 5 take a HardSigmoid and a Mul for a HardSwish, whatever else is multiplied; "
                "write the gate as Clip(0, 1) behind a layer that scales and shifts"
            )
    return ""


def _average_pool(node: onnx.NodeProto, made: Mapping[str, onnx.NodeProto], arrays: Arrays) -> str:
    """Zeros that count, and sizes that are left to the runtime."""
    about = _attributes(node)
    if about.get("count_include_pad") and any(about.get("pads", ())):
        return "OpenCV 4 leaves out the zeros that count; write a Pad of its own in front"
    return _left_open(about)


def _left_open(about: Mapping[str, Any]) -> str:
    if about.get("ceil_mode"):
        return "runtimes differ in what a window beyond the edge holds (ceil_mode); write pads"
    if about.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return "what is padded is left to the runtime (auto_pad); write pads"
    return ""


def _window(node: onnx.NodeProto, made: Mapping[str, onnx.NodeProto], arrays: Arrays) -> str:
    return _left_open(_attributes(node))


def _pad(node: onnx.NodeProto, made: Mapping[str, onnx.NodeProto], arrays: Arrays) -> str:
    """Pads by less than nothing, or by what is only known later."""
    if len(node.input) < 2:
        return ""  # before opset 11
    if node.input[1] not in arrays:
        return "how much is padded must be a constant"
    if (numpy_helper.to_array(arrays[node.input[1]]) < 0).any():
        return "OpenCV 4 refuses negative pads; write a Slice"
    return ""


def _later(node: onnx.NodeProto, made: Mapping[str, onnx.NodeProto], arrays: Arrays) -> str:
    return (
        "OpenCV 4 and 5 do not take sizes that are only known when it runs; write constants, and add them to something"
    )


def _dequantised(node: onnx.NodeProto, made: Mapping[str, onnx.NodeProto], arrays: Arrays) -> str:
    """Whole numbers without a zero point."""
    if len(node.input) < 3 or not node.input[2]:
        return "OpenCV 4 reads unsigned numbers without a zero point as others; give it one of 0"
    return ""


Check = Callable[[onnx.NodeProto, Mapping[str, onnx.NodeProto], Arrays], str]
_CHECKS: dict[str, Check] = {
    "Mul": _mul,
    "AveragePool": _average_pool,
    "MaxPool": _window,
    "Conv": _window,
    "Pad": _pad,
    "DequantizeLinear": _dequantised,
    "ConstantOfShape": _later,
}

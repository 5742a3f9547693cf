"""Peak memory and bytes of weights against the exported graph itself: shapes inferred by onnx, tensors freed after their last reader."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, shape_inference
from tiny_spaces import TINY_SPACES

from snugnet.costs import COSTS
from snugnet.deploy.onnx import onnx_model
from snugnet.nn.network import build
from snugnet.profiling.writing import file_content
from snugnet.spaces import Blueprint, get_space, list_spaces

HANDED_ON = ("Flatten", "Reshape")
EXTRA = {  # odd and even sizes, other strides, and spaces as they are published
    "ofa-mobilenet-v3": {"width_mult": 0.35, "resolution": 33, "num_classes": 7},
    "attentive-nas": {"resolutions": (48, 64), "num_classes": 7},
    "spos-shufflenet-v2": {"resolution": 32, "num_classes": 7},
    "nas-bench-201": {"resolution": 16, "num_classes": 7},
    "darts": {"resolution": 16, "num_classes": 7, "cells": 5, "channels": 4},
    "resnet-mixed-precision": {
        "bits": ((1, 2), (32, 32))[:1],
        "resolution": 32,
        "num_classes": 7,
        "widths": (8, 8, 8, 8),
    },
    "mobilenet-v2": {"resolution": 32, "num_classes": 7},
}


def exported(blueprint: Blueprint) -> onnx.ModelProto:
    network = build(blueprint).eval()
    state = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
    model = onnx_model(blueprint, state, {})
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def walked(model: onnx.ModelProto) -> int:
    """Bytes in float32 that are held at most."""
    graph = model.graph
    size = {
        value.name: math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    constant = {each.name for each in graph.initializer}
    # what belongs to one layer: all that is named after its convolution, or after its norm
    heads = [n.name for n in graph.node if n.op_type == "Conv"]
    heads += [n.name.removesuffix(".norm") for n in graph.node if n.op_type == "BatchNormalization"]
    operations: list[tuple[str, set[str], list[str], list[str]]] = []  # of a layer: inputs, all outputs, the last ones
    same: dict[str, str] = {}
    for node in graph.node:
        reads = {same.get(name, name) for name in node.input if name and name not in constant}
        if not reads:
            constant.update(node.output)
            continue
        if node.op_type in HANDED_ON:
            same[node.output[0]] = reads.pop()
            continue
        head = next((h for h in heads if node.name == h or node.name.startswith(f"{h}.")), node.name)
        if operations and operations[-1][0] == head:
            _, before, inner, _ = operations.pop()
            operations.append((head, before | (reads - set(inner)), [*inner, *node.output], list(node.output)))
        else:
            operations.append((head, reads, list(node.output), list(node.output)))
    layers = [(reads, made) for _, reads, _, made in operations]
    last = {name: i for i, (reads, _) in enumerate(layers) for name in reads}
    last["logits"] = len(layers)
    alive, peak = {"image"}, 0
    for i, (reads, made) in enumerate(layers):
        assert reads <= alive
        alive |= set(made)
        peak = max(peak, sum(size[name] for name in alive))
        alive = {name for name in alive if last.get(name, -1) > i}
    assert alive == {"logits"}
    return 4 * peak


def weights(model: onnx.ModelProto) -> int:
    """Bytes of what was trained; steps, offsets, limits, shapes and zeros are constants."""
    trained = [
        each
        for each in model.graph.initializer
        if each.data_type != TensorProto.INT64 and each.dims and not each.name.endswith((".zeros", ".step", ".offset"))
    ]
    return sum(math.prod(each.dims) * (4 if each.data_type == TensorProto.FLOAT else 1) for each in trained)


@pytest.mark.parametrize("options", [TINY_SPACES, EXTRA], ids=["tiny", "larger"])
@pytest.mark.parametrize("name", list_spaces())
def test_costs_are_those_of_the_file(name: str, options: dict) -> None:
    space = get_space(name, **options[name])
    rows = np.concatenate([space.smallest, space.largest, space.sample(3, np.random.default_rng(7))])
    for row in rows:
        blueprint = space.blueprint(row).with_classes(3)
        model = exported(blueprint)
        assert COSTS["peak_memory"].of(blueprint) == walked(model)
        if name != "nas-bench-201":  # whose counts have what is not run
            assert COSTS["weight_memory"].of(blueprint) == weights(model)


@pytest.mark.parametrize(
    "name", [name for name in list_spaces() if name not in ("resnet-mixed-precision", "nas-bench-201")]
)
def test_bytes_are_those_of_the_int8_file(name: str) -> None:
    space = get_space(name, **TINY_SPACES[name])
    for row in np.concatenate([space.smallest, space.largest]):
        blueprint = space.blueprint(row).with_classes(3)
        made = onnx.load_from_string(file_content(blueprint, 1, "int8"))
        trained = [
            each
            for each in made.graph.initializer
            if each.data_type != TensorProto.INT64 and each.dims and not each.name.endswith(("_scale", "_zero_point"))
        ]
        of_each = {TensorProto.INT8: 1, TensorProto.INT32: 4, TensorProto.FLOAT: 4}
        assert COSTS["weight_memory_int8"].of(blueprint) == sum(
            math.prod(each.dims) * of_each[each.data_type] for each in trained
        )


def test_every_cell_of_nas_bench_201_that_hands_its_input_on() -> None:
    """Identities and zeros: who holds what depends on most of the six edges."""
    space = get_space("nas-bench-201", **TINY_SPACES["nas-bench-201"])
    rows = np.indices((2,) * 6).reshape(6, -1).T.astype(np.int16)
    rows[rows == 1] = np.random.default_rng(0).integers(1, 4, size=(rows == 1).sum())
    table = COSTS["peak_memory"].table(space)
    for row, peak in zip(rows, table(rows), strict=True):
        assert walked(exported(space.blueprint(row))) == peak

"""Peak memory against what ONNX Runtime says that it ran: its own trace, with the bytes of each output, of its own optimised graph."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from test_memory_of_files import exported
from tiny_spaces import TINY_SPACES

from snugnet.costs import COSTS
from snugnet.spaces import Blueprint, get_space

HANDED_ON = ("Flatten", "Reshape", "Identity")


def traced(blueprint: Blueprint, folder: Path) -> int:
    """Bytes that are held at most, when a tensor is freed after its last reader."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED  # layouts in blocks are padded
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "trace")
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    session = ort.InferenceSession(exported(blueprint).SerializeToString(), options, providers=["CPUExecutionProvider"])
    image = np.zeros((1, blueprint.in_channels, blueprint.resolution, blueprint.resolution), dtype=np.float32)
    session.run(None, {"image": image})
    trace = json.loads(Path(session.end_profiling()).read_text())
    graph = onnx.load(folder / "optimised.onnx").graph
    named = {node.name: node for node in graph.node if node.name}
    nameless = iter(
        [node for node in graph.node if not node.name]
    )  # h-swish is two operations at this level; with all, it is part of the convolution
    constants = {each.name for each in graph.initializer}
    size, same, ran = {"image": image.nbytes}, dict[str, str](), list[tuple[list[str], str]]()
    for event in trace:
        if not event["name"].endswith("_kernel_time"):
            continue
        node = named.get(event["name"].removesuffix("_kernel_time")) or next(nameless)
        assert node.op_type == event["args"]["op_name"]
        reads, made = [same.get(name, name) for name in node.input if name and name not in constants], node.output[0]
        if node.op_type in HANDED_ON or not node.name:
            same[made] = reads[0]
        else:
            size[made] = int(event["args"]["output_size"])
            ran.append((reads, made))
    assert not list(nameless)
    last = {name: i for i, (reads, _) in enumerate(ran) for name in reads} | {"logits": len(ran)}
    alive, peak = {"image"}, 0
    for i, (reads, made) in enumerate(ran):
        assert set(reads) <= alive
        alive.add(made)
        peak = max(peak, sum(size[name] for name in alive))
        alive = {name for name in alive if last.get(name, -1) > i}
    assert alive == {"logits"}
    assert size["logits"] == 4 * math.prod((1, blueprint.num_classes))
    return peak


@pytest.mark.parametrize("name", ["ofa-mobilenet-v3", "mobilenet-v2"])
def test_twenty_networks_hold_what_the_cost_says(name: str, tmp_path: Path) -> None:
    space = get_space(name, **TINY_SPACES[name])
    rows = np.concatenate([space.smallest, space.largest, space.sample(8, np.random.default_rng(3))])
    for row in rows:
        blueprint = space.blueprint(row)
        assert traced(blueprint, tmp_path) == COSTS["peak_memory"].of(blueprint)

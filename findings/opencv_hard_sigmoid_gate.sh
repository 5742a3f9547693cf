#!/usr/bin/env bash
# opencv-python-headless 4.14.0.94 and 5.0.0.93: a squeeze-and-excitation gate is read as a HardSwish; the feature map is dropped.
#
# Source: ONNX operators, HardSigmoid (opset 6), HardSwish (opset 14: x * HardSigmoid(x), alpha 1/6, beta 1/2), Mul;
#         OpenCV, modules/dnn/src/onnx/onnx_graph_simplifier.cpp, `HardSwishSubgraph`.
# Date:   2026-11-30
# Guess:  HardSigmoid and Mul are a HardSwish where the Mul's other input is the HardSigmoid's own; a Mul by something else is left alone.
# Seen:   a Mul by anything is taken: the output is the gate's HardSwish, of 1 x 1 pixels, and no word is said. The same gate as a
#         convolution that scales and shifts, and Clip(0, 1), is right; so is one of a Sigmoid.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
for version in 4.14.0.94 5.0.0.93; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/python" -m pip install --quiet "opencv-python-headless==$version" onnx==1.23.2 numpy==2.4.6
  cd "$folder"
  "$folder/$version/bin/python" - <<'PYTHON'
import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

rng = np.random.default_rng(0)
x = rng.standard_normal((1, 4, 6, 6)).astype(np.float32)
weight = rng.standard_normal((4, 4, 1, 1)).astype(np.float32)
bias = np.zeros(4, np.float32)
gates = {
    "HardSigmoid": ([helper.make_node("HardSigmoid", ["c"], ["g"], alpha=1 / 6, beta=0.5)], weight, bias),
    "Clip": ([helper.make_node("Clip", ["c", "zero", "one"], ["g"])], weight / 6, bias + 0.5),
    "Sigmoid": ([helper.make_node("Sigmoid", ["c"], ["g"])], weight, bias),
}
seen = {}
for name, (gate, *arrays) in gates.items():
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Conv", ["p", "w", "b"], ["c"], kernel_shape=[1, 1]),
        *gate,
        helper.make_node("Mul", ["x", "g"], ["y"]),
    ]
    held = {"w": arrays[0], "b": arrays[1], "zero": np.float32(0), "one": np.float32(1)}
    entry, out = (helper.make_tensor_value_info(each, TensorProto.FLOAT, [1, 4, 6, 6]) for each in "xy")
    graph = helper.make_graph(nodes, "gate", [entry], [out], [numpy_helper.from_array(np.asarray(v), k) for k, v in held.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "gate.onnx")
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    net = cv2.dnn.readNetFromONNX("gate.onnx")
    net.setInput(x)
    got = net.forward()
    right = got.shape == expected.shape and bool(np.abs(got - expected).max() < 1e-5)
    seen[name] = (got.shape, right)
    print(f"OpenCV {cv2.__version__}, gate of a {name}: expected {expected.shape}, got {got.shape}, {'right' if right else 'WRONG'}")

assert seen["HardSigmoid"] == ((1, 4, 1, 1), False), seen
assert seen["Clip"][1], seen
assert seen["Sigmoid"][1], seen
PYTHON
done

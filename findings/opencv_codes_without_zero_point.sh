#!/usr/bin/env bash
# opencv-python-headless 4.14.0.94: weights of unsigned eight-bit codes without a zero point are read as other numbers.
#
# Source: ONNX operators, DequantizeLinear (opset 13): y = (x - x_zero_point) * x_scale; x_zero_point may be left out, and is 0 then.
# Date:   2026-11-30
# Guess:  a zero point of 0 that is written and one that is left out are the same convolution.
# Seen:   left out, each code comes out 128 lower, and no word is said; written, they are right. Signed codes are right
#         both ways, and so is OpenCV 5.0.0.93.
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

x = np.ones((1, 1, 1, 1), np.float32)
codes = np.arange(16).reshape(16, 1, 1, 1)
wrong = {}
for dtype in (np.uint8, np.int8):
    for written in (False, True):
        inputs = ["codes", "scale", *(["zero"] if written else [])]
        nodes = [helper.make_node("DequantizeLinear", inputs, ["w"]), helper.make_node("Conv", ["x", "w"], ["y"])]
        held = {"codes": codes.astype(dtype), "scale": np.float32(1), **({"zero": dtype(0)} if written else {})}
        entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1, 1])
        out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, 1, 1])
        weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()]
        graph = helper.make_graph(nodes, "codes", [entry], [out], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, "codes.onnx")
        net = cv2.dnn.readNetFromONNX("codes.onnx")
        net.setInput(x)
        got = net.forward().ravel()
        wrong[dtype.__name__, written] = not np.array_equal(got, np.arange(16))
        print(f"OpenCV {cv2.__version__}, {dtype.__name__}, zero point {'written' if written else 'left out'}: {got[:4]} ...")

old = cv2.__version__.startswith("4")
assert wrong == {("uint8", False): old, ("uint8", True): False, ("int8", False): False, ("int8", True): False}, wrong
PYTHON
done

#!/usr/bin/env bash
# onnxruntime 1.32.0, its float16 converter: a valid model becomes one that onnx's checker refuses.
#
# Source: onnxruntime, onnxruntime/transformers/float16.py, `convert_float_to_float16`; ONNX specification, "Graphs": nodes of a
#         graph stand in topological order.
# Date:   2026-11-30
# Guess:  the converter's model is valid where its input is: with `keep_io_types=True` a Cast behind the input, one before the output.
# Seen:   Cast nodes stand at the end of the list, behind those that read them. onnxruntime sorts and runs it; onnx's checker, and
#         readers that walk the list in its order, such as onnx's own reference evaluator, refuse it.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.transformers.float16 import convert_float_to_float16

x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], "matmul"), helper.make_node("Relu", ["h"], ["y"], "relu")]
model = helper.make_model(
    helper.make_graph(nodes, "small", [x], [y], [weight]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
)
onnx.checker.check_model(model)
print("before:", [node.op_type for node in model.graph.node], "valid")

half = convert_float_to_float16(model, keep_io_types=True)
order = [node.op_type for node in half.graph.node]
said = {}
for name, work in (
    ("onnx.checker", lambda: onnx.checker.check_model(half)),
    ("onnx.reference", lambda: ReferenceEvaluator(half).run(None, {"x": np.ones((1, 4), np.float32)})),
    ("onnxruntime", lambda: onnxruntime.InferenceSession(half.SerializeToString(), providers=["CPUExecutionProvider"])),
):
    try:
        work()
        said[name] = "taken"
    except Exception as error:
        said[name] = f"refused ({type(error).__name__})"
print("after: ", order)
for name, text in said.items():
    print(f"{name}: {text}")

assert order == ["MatMul", "Relu", "Cast", "Cast"], order
assert said["onnx.checker"].startswith("refused"), said
assert said["onnxruntime"] == "taken", said
PYTHON

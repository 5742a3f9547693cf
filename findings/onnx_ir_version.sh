#!/usr/bin/env bash
# onnx 1.23.2: the IR version of a model does not follow its opset, so a runtime refuses a model of operators it knows.
#
# Source: onnx, onnx/helper.py, `make_model` (`model.ir_version = onnx.IR_VERSION`); documentation, "ONNX Versioning";
#         onnxruntime, documentation, "ONNX Runtime compatibility" (1.20: opset 21, IR 10).
# Date:   2026-11-27
# Guess:  a model that asks for opset 17 (of 2022) is read by every runtime that knows opset 17, such as that of November 2024.
# Seen:   it is refused for its IR version, 14, the newest that the installed onnx knows. `ir_version=8` helps; so does
#         `make_model_gen_version`, which takes the least one of the opset.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
for name in new old; do python3 -m venv "$folder/$name"; done
"$folder/new/bin/python" -m pip install --quiet onnx==1.23.2 numpy==2.4.6
"$folder/old/bin/python" -m pip install --quiet onnxruntime==1.20.1 numpy==2.4.6
cd "$folder"
"$folder/new/bin/python" - <<'PYTHON'
import onnx
from onnx import TensorProto, helper

x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
opset = [helper.make_opsetid("", 17)]
for name, make, more in (
    ("default", helper.make_model, {}),
    ("pinned", helper.make_model, {"ir_version": 8}),
    ("least", helper.make_model_gen_version, {}),
):
    model = make(graph, opset_imports=opset, **more)
    onnx.checker.check_model(model)
    onnx.save(model, f"{name}.onnx")
    print(f"onnx {onnx.__version__}, {name}: opset {model.opset_import[0].version}, IR {model.ir_version}")
PYTHON
"$folder/old/bin/python" - <<'PYTHON'
import onnxruntime

loaded = {}
for name in ("default", "pinned", "least"):
    try:
        onnxruntime.InferenceSession(f"{name}.onnx", providers=["CPUExecutionProvider"])
        loaded[name] = "loaded"
    except Exception as error:
        loaded[name] = "Unsupported" + str(error).strip().partition("Unsupported")[2]
    print(f"onnxruntime {onnxruntime.__version__}, {name}: {loaded[name]}")

assert loaded["default"] == "Unsupported model IR version: 14, max supported IR version: 10", loaded
assert loaded["pinned"] == loaded["least"] == "loaded", loaded
PYTHON

#!/usr/bin/env bash
# MNN 3.6.1: converting a model installs another package, into whichever environment's `pip` comes first on the PATH.
#
# Source: the package MNN, MNN/tools/utils/log.py, imported by the command mnnconvert (MNN/tools/mnnconvert.py): where `aliyun.log` cannot
#         be imported, `os.system` runs `pip install -U` of that package. (It then reports the conversion to a service, where that answers.)
# Date:   2026-11-30
# Guess:  a converter reads one file and writes another, and leaves environments as they are.
# Seen:   an empty environment that stands first on the PATH, and is not the one that MNN is installed in, has aliyun-log-python-sdk and what
#         that needs after one conversion. MNN's own environment has not, so every further conversion runs pip again: seconds each.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/mnn"
python3 -m venv "$folder/other"
"$folder/mnn/bin/python" -m pip install --quiet MNN==3.6.1 onnx==1.23.0 numpy==2.4.6
cd "$folder"
"$folder/mnn/bin/python" - <<'PYTHON'
from onnx import TensorProto, checker, helper, save

x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in "xy")
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "one_layer", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
checker.check_model(model)
save(model, "model.onnx")
PYTHON
packages() { "$folder/$1/bin/python" -m pip list --format=freeze --disable-pip-version-check | sed 's/==.*//' | tr 'A-Z\n' 'a-z '; }
before=$(packages other)
PATH="$folder/other/bin:$PATH" "$folder/mnn/bin/mnnconvert" -f ONNX --modelFile model.onnx --MNNModel model.mnn --bizCode x > log.txt 2>&1 || true
test -s model.mnn && echo "converted: yes"
echo "in the other environment before: $before"
echo "in the other environment after:  $(packages other)"
echo "in MNN's own:                    $(packages mnn)"
[[ "$before" != *aliyun* && "$(packages other)" == *aliyun-log-python-sdk* && "$(packages mnn)" != *aliyun* ]]

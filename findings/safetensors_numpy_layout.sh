#!/usr/bin/env bash
# safetensors 0.8.0: a NumPy array that is not in C order is saved without a word and comes back with other values.
#
# Source: safetensors, bindings/python/py_src/safetensors/numpy.py, `_flatten` (shape and address of the memory, no strides);
#         issue 825 of safetensors/safetensors, open on this date: 0.7.0 gave Fortran-ordered arrays back as they were.
#         The docstring asks for "contiguous and dense" tensors, which a Fortran-ordered array is.
# Date:   2026-11-27
# Guess:  what is loaded equals what was saved, or saving fails, as it does for torch tensors that are not contiguous.
# Seen:   a transposed (or Fortran-ordered) matrix has its shape and its numbers, in another order.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet safetensors==0.8.0 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
from safetensors.numpy import load, save

matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
same = {}
for name, array in {"C order": matrix, "transposed": matrix.T, "Fortran order": np.asfortranarray(matrix)}.items():
    back = load(save({"x": array}))["x"]
    same[name] = np.array_equal(back, array)
    print(f"{name:14} saved {array.tolist()}, loaded {back.tolist()}")

assert same == {"C order": True, "transposed": False, "Fortran order": False}, same
PYTHON

#!/usr/bin/env bash
# datasets 5.2.0: a folder of images has labels, or none at all, by what else is in the folder.
#
# Source: datasets, src/datasets/packaged_modules/folder_based_builder/folder_based_builder.py, `add_labels`;
#         documentation, "Create an image dataset": the class label is inferred from the name of the directory.
# Date:   2026-11-27
# Guess:  train/cat/0.png has the label cat.
# Seen:   it has, with a second class beside it. With cat alone there is no label column; nor is there for any of the images
#         once a single one lies a level higher (train/stray.png). Nothing is said.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet datasets==5.2.0 pillow==13.0.0
cd "$folder"
HF_HOME="$folder/cache" HF_HUB_OFFLINE=1 "$folder/env/bin/python" - <<'PYTHON'
from pathlib import Path

import datasets
from PIL import Image

datasets.disable_progress_bars()
CASES = {
    "two classes": ["train/cat/0.png", "train/dog/0.png"],
    "one class": ["train/cat/0.png", "train/cat/1.png"],
    "a stray image": ["train/cat/0.png", "train/dog/0.png", "train/stray.png"],
}
columns = {}
for name, files in CASES.items():
    for file in files:
        path = Path(name, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    columns[name] = datasets.load_dataset(name)["train"].column_names
    print(f"{name:14} {columns[name]}")

assert columns == {"two classes": ["image", "label"], "one class": ["image"], "a stray image": ["image"]}, columns
PYTHON

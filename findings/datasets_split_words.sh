#!/usr/bin/env bash
# datasets 5.2.0: a class folder with a split word in its name puts images of one split into another.
#
# Source: datasets, src/datasets/data_files.py (SPLIT_KEYWORDS, NON_WORDS_CHARS, KEYWORDS_IN_DIR_NAME_BASE_PATTERNS);
#         documentation, "Create an image dataset", section ImageFolder: "folder/train/dog/golden_retriever.png".
#         Hub documentation, "File names and splits": the split word may stand anywhere in a name, set off by a delimiter.
# Date:   2026-11-27
# Guess:  split folders stand above class folders, so train/ holds the training images: 4 in train, 4 in test, none in both.
# Seen:   test also has train/test_tube/*, so a model is tested on images it was trained on; and test/test_tube/* is in it
#         twice, once for each part of the path that matches. Nothing is said, and labels are right.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet datasets==5.2.0 pillow==13.0.0
cd "$folder"
HF_HOME="$folder/cache" HF_HUB_OFFLINE=1 "$folder/env/bin/python" - <<'PYTHON'
from collections import Counter
from pathlib import Path

import datasets
from PIL import Image

datasets.disable_progress_bars()
for split in ("train", "test"):
    for name in ("beaker", "test_tube"):
        for number in range(2):
            path = Path("images", split, name, f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(path)

loaded = datasets.load_dataset("images")
seen = {}
for split, data in loaded.items():
    cells = data.cast_column("image", datasets.Image(decode=False))["image"]
    seen[split] = Counter("/".join(Path(cell["path"]).parts[-3:]) for cell in cells)
    for path, count in sorted(seen[split].items()):
        print(f"{split:5}  {count} x {path}")

assert sum(seen["train"].values()) == 4, seen
assert sum(seen["test"].values()) == 8, seen
assert seen["test"]["train/test_tube/0.png"] == 1 and seen["train"]["train/test_tube/0.png"] == 1, seen
assert seen["test"]["test/test_tube/0.png"] == 2, seen
PYTHON

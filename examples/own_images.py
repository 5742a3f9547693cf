# %% [markdown]
# # Your own images in a folder
#
# A folder `train/<superclass>/<class>/*.png` (or .jpg, ...) and `test/...` is all that a training needs. Without a folder this makes one out of
# the handwritten digits, and trains for some seconds; give yours more epochs, and a resolution that fits it.
#
#     python examples/own_images.py [FOLDER]

# %%
import sys
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

import snugnet
from snugnet.recipe import parse_recipe

GROUPS = {"round": "0689", "straight": "147"}
folder = Path(sys.argv[1] if len(sys.argv) == 2 else "runs/examples/images")
if len(sys.argv) != 2:
    digits = load_digits()
    for i, (pixels, label) in enumerate(zip(digits.images[:500], digits.target[:500], strict=True)):
        for group, classes in GROUPS.items():
            if str(label) in classes:
                path = folder / ("test" if i % 5 == 0 else "train") / group / str(label) / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray((pixels * 255 / 16).astype("uint8")).save(path)

# %% [markdown]
# A recipe says everything that the run depends on; as a YAML file it is for `snugnet train`. The same recipe goes on where it was stopped.

# %%
elastic = {"kernel_size": 3, "depth": 2, "expand_ratio": 2}
recipe = parse_recipe({
    "name": folder.name,
    "output": f"runs/examples/{folder.name}-family",
    "device": "cpu",
    "data": {"source": str(folder), "resolution": 8, "validation": 0.2},
    "space": {"width_mult": 0.1, "stem_stride": 1, "stage_strides": [2, 2, 1, 1, 1], "depths": [1, 2], "expand_ratios": [2, 3]},
    "training": {"batch_size": 64, "stages": [
        {"name": "largest", "epochs": 4, "learning_rate": 0.1},
        {"name": "elastic", "epochs": 1, "learning_rate": 0.05, "elastic": elastic},
    ]},
    "generator": {"steps": 5, "pairs": 4, "images": 8},
    "evaluation": {"calibration_images": 256},
})  # fmt: skip
family = snugnet.train(recipe, progress=False)
print(f"{folder}: groups {dict(family.groups)}, {len(family.validation)} validation images")

# %%
for group in family.groups:
    net = family.specialize(group, params="30%")
    right = family.validation_accuracy(net)
    path = net.export(f"runs/examples/{folder.name}-{group}.onnx")
    print(f"{path}: {net.costs['params']:,} params, right on {right:.1%} of its validation images")

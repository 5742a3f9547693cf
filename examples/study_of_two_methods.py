# %% [markdown]
# # A study of two methods
#
# Supernets of two seeds on the handwritten digits, each searched in two ways for three superclasses under two budgets: the architecture generator
# (EAS), and the best of four random architectures. Trainings are so short that the table shows the way, and says nothing about the methods.
# As a YAML file this is for `snugnet study`.
#
#     python examples/study_of_two_methods.py

# %%
from pathlib import Path

from snugnet.study.config import StudyConfig
from snugnet.study.run import run_study

recipe = {
    "device": "cpu",
    "data": {"source": "digits", "groups": "digits", "resolution": 8, "train_rows": 250, "validation": 0.3},
    "space": {"width_mult": 0.1, "stem_stride": 1, "stage_strides": [2, 2, 1, 1, 1], "depths": [1, 2], "kernel_sizes": [3, 5], "expand_ratios": [2, 3]},
    "training": {"batch_size": 64, "stages": [
        {"name": "largest", "epochs": 2, "learning_rate": 0.1},
        {"name": "all", "epochs": 2, "learning_rate": 0.1, "elastic": "all"},
    ]},
    "generator": {"steps": 5, "pairs": 4, "images": 8},
    "evaluation": {"calibration_images": 64},
}  # fmt: skip
study = StudyConfig(
    name="two-methods",
    output="runs/examples/study",
    seeds=[0, 1],
    budgets=["30%", "70%"],
    report="validation",  # on images that nothing was trained or searched on; test comes once, at the end
    recipe=recipe,
    supernets={"dropout": {"training.superclass_dropout": 0.3}},  # by name, what each changes in the recipe
    methods=[
        {"name": "EAS", "supernet": "dropout", "search": "generator"},
        {"name": "Best of 4", "supernet": "dropout", "search": "random", "settings": {"samples": 4}},
    ],
    tables={"Two methods": ["EAS", "Best of 4"]},
    baseline="Best of 4",
)

# %% [markdown]
# Each step's result is kept below the output folder: the same study goes on where it stopped, and trains only what was added.

# %%
results = run_study(study, progress=False)
print(results.markdown())
print(*results.save(Path(study.output)), sep="\n")

# %% [markdown]
# # A search space of your own
#
# Two stages of plain convolutions, each with a width and a kernel to choose, the second with a depth. Counts, tables, draws, decodes, supernet, gates
# and ONNX files all follow from the layers that are written down here.
#
#     python examples/own_space.py

# %%
import sys
from typing import Self

import snugnet
from snugnet.recipe import parse_recipe
from snugnet.spaces import Block, Choice, Layer, Part, SearchSpace, register
from snugnet.spaces.effects import effects
from snugnet.testing import check_space

# %% [markdown]
# A part builds its blocks from the options of a few choices. A layer takes what the one before it gives: so the second stage depends on the width of
# the first as well.


# %%
def stage(name: str, resolution: int, before: int, width: int, kernel: int, depth: int = 1) -> tuple[Block, ...]:
    """A convolution of stride 2, and at depth 2 another one with a shortcut around it."""
    first = Layer("conv", "conv", before, width, resolution, kernel, 2, norm=True, activation="relu")
    again = Layer("conv", "conv", width, width, first.out_resolution, kernel, norm=True, activation="relu")
    blocks = (Block(f"{name}.block1", (first,)), Block(f"{name}.block2", (again,), shortcut=()))
    return blocks[:depth]


@register
class PlainNet(SearchSpace):
    """Two stages of plain convolutions: widths, kernels, and the depth of the second."""

    name = "plain-net"

    @classmethod
    def create(cls, num_classes: int = 10, resolution: int = 16, widths: tuple[int, ...] = (8, 12, 16)) -> Self:
        """The space; options are plain JSON, and a recipe gives the number of classes and the resolution."""
        middle = -(-resolution // 2)
        last = -(-middle // 2)
        gates = len(widths) - 1  # between n options there are n - 1 gates, and each belongs to a layer
        choices = (
            Choice("stage1.width", tuple(widths), "width", (0,) * gates),
            Choice("stage1.kernel_size", (1, 3), "kernel_size", (0,)),
            Choice("stage2.width", tuple(widths), "width", (1,) * gates),
            Choice("stage2.kernel_size", (1, 3), "kernel_size", (1,)),
            Choice("stage2.depth", (1, 2), "depth", (2,)),
        )

        def head(width: int) -> tuple[Block, ...]:
            pool = Layer("pool", "pool", width, width, last)
            flat = Layer("flatten", "flatten", width, width, 1)
            return (Block("head", (pool, flat, Layer("classifier", "linear", width, num_classes, 1, bias=True))),)

        parts = (  # name, columns of the choices, and what is built from their options
            Part("stage1", (0, 1), lambda width, kernel: stage("stage1", resolution, 3, width, kernel)),
            Part("stage2", (0, 2, 3, 4), lambda *chosen: stage("stage2", middle, *chosen)),
            Part("head", (2,), head),
        )
        options = {"num_classes": num_classes, "resolution": resolution, "widths": list(widths)}
        return cls(options, choices, parts, 3, resolution)


# %% [markdown]
# The laws: everything that other rooms rely on, tried on a small one. Then what was found out about the choices by comparing blueprints.

# %%
space = PlainNet.create(resolution=8, num_classes=4, widths=(4, 6))
check_space(space)
print(f"{space.name} keeps every law of a space; {space.size} architectures")
print(effects(space))
print(space.blueprint(space.largest))

# %% [markdown]
# It has its place everywhere: a family of it, trained on the digits for some seconds.

# %%
recipe = parse_recipe({
    "name": "plain",
    "output": sys.argv[1] if len(sys.argv) == 2 else "runs/examples/plain-net",
    "device": "cpu",
    "data": {"source": "digits", "groups": "digits", "resolution": 8, "train_rows": 600},
    "space": {"name": "plain-net"},
    "training": {"batch_size": 64, "stages": [{"name": "all", "epochs": 4, "learning_rate": 0.1, "elastic": "all", "subnets": 2}]},
    "generator": {"steps": 10, "pairs": 4, "images": 8},
})  # fmt: skip
family = snugnet.train(recipe, progress=False)
for share in ("0%", "50%", "100%"):
    net = family.specialize("round", madds=share)
    print(f"{share}: {net.costs['madds']:,} MAdds, right on {family.validation_accuracy(net):.1%}: {net.arch}")

# %% [markdown]
# # From a family to a file
#
# A trained family hands out the network for any group of classes and any budget. The network becomes an ONNX file, and the file is run.
#
#     make quickstart                                      # trains runs/digits, once
#     python examples/specialize_and_export.py [FAMILY]    # runs/digits without it

# %%
import json
import sys
from pathlib import Path

import onnxruntime

import snugnet

FAMILY = sys.argv[1] if len(sys.argv) == 2 else "runs/digits"
family = snugnet.load(FAMILY)
for name, classes in family.groups.items():
    low, high = family.cost_range("madds", name)
    print(f"{name}: classes {', '.join(classes)}; its networks take {low:,.0f} to {high:,.0f} MAdds")

# %% [markdown]
# A budget is an amount (`"4M"`) or a share of the group's own range (`"40%"`). The network is never above it.

# %%
group = next(iter(family.groups))
net = family.specialize(group, madds="40%")
print(f"{group} within {net.budgets['madds']:,.0f} MAdds: {net.costs['madds']:,} MAdds, {net.costs['params']:,} params")
print(json.dumps(net.arch))

# %% [markdown]
# Any classes will do, under budgets on any costs at once. Many scenarios are answered together.

# %%
some = list(family.classes[1:4])
scenarios = [(some, {"madds": share, "peak_memory": "80%"}) for share in ("5%", "30%", "60%", "100%")]
for each in family.specialize_many(scenarios):
    right = family.validation_accuracy(each)
    print(f"{each.group}: {each.costs['madds']:,} MAdds, right on {right:.1%} of their validation images")

# %% [markdown]
# The file says of itself what goes in and what comes out.

# %%
out = Path("runs/examples")
out.mkdir(parents=True, exist_ok=True)
session = onnxruntime.InferenceSession(net.export(out / f"{group}.onnx"))
about = {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}
images, labels = net.pictures(family.validation).arrays()  # normalised, (n, 3, h, w); places among the classes
answers = session.run(None, {"image": images})[0].argmax(1)
print(f"{out / group}.onnx takes {about['input']}")
print(
    f"the first images are of {[about['classes'][i] for i in labels[:5]]}, it says {[about['classes'][i] for i in answers[:5]]}"
)
print(
    f"right on {(answers == labels).mean():.1%} of {len(labels)} validation images, torch on {family.validation_accuracy(net):.1%}"
)

# %% [markdown]
# # Asking a service
#
# `snugnet serve` hands out networks over HTTP; the client needs the standard library alone.
#
#     snugnet serve runs/digits                                        # in another terminal; needs snugnet[serve]
#     python examples/service_client.py [http://HOST:PORT/FAMILY]      # http://localhost:8000/digits without it

# %%
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

from snugnet.client import Client

ADDRESS = sys.argv[1] if len(sys.argv) == 2 else "http://localhost:8000/digits"
url, _, name = ADDRESS.rpartition("/")
service = Client(url)
family = service.family(name)
print(f"{name}: {len(family['classes'])} classes; groups {', '.join(family['groups'])}")

# %% [markdown]
# What is feasible for some classes under a budget on another cost, and one network within it.

# %%
madds = service.ranges(name, ["1", "7"], params="30%")["madds"]
print(f"1 and 7 within 30% of the range of params: {madds}")
net = service.specialize(name, ["1", "7"], params="30%")
print(f"{net['id']}: {net['costs']['params']:,} params within {net['budgets']['params']:,.0f}")

# %% [markdown]
# Its file, and what it says about an image.

# %%
out = Path("runs/examples")
out.mkdir(parents=True, exist_ok=True)
path = service.save(net, out / "one-or-seven.onnx")
print(f"{path}: {path.stat().st_size:,} bytes")
digits = load_digits()
seven = digits.images[digits.target == 7][0]
image = BytesIO()
Image.fromarray((seven * 255 / 16).astype("uint8")).save(image, "PNG")
for each in service.predict(net, image.getvalue())["predictions"]:
    print(f"a seven is a {each['class']}")

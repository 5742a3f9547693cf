# %% [markdown]
# # A device's latency table
#
# What a family needs to know of a device is how long each distinct block of its space takes there. `snugnet profile bundle` writes those as ONNX
# files; any tool may time them; a CSV with a line a file comes back. Here ONNX Runtime and a stopwatch on this machine are the tool, in a hurry:
# `snugnet profile FAMILY` takes more care.
#
#     python examples/device_latency.py [FAMILY]    # runs/digits without it

# %%
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

import snugnet
from snugnet.profiling.measuring import import_measured, needed_widths
from snugnet.profiling.writing import write_bundle

FAMILY = sys.argv[1] if len(sys.argv) == 2 else "runs/digits"
family = snugnet.load(FAMILY)
widths = needed_widths(family.groups, len(family.classes))
bundle = write_bundle(family.space, widths, Path("runs/examples/bundle"), networks=20, fresh=True, progress=False)

# %% [markdown]
# On the device: every file, some times, and the least of them.


# %%
def milliseconds(path: Path, repeats: int = 5) -> float:
    """Least time of one run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    feed = {each.name: np.zeros(each.shape, np.float32) for each in session.get_inputs()}
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - started)
    return 1e3 * min(times[1:])


files = sorted(bundle.glob("*.onnx"))
lines = [f"{path.name},{milliseconds(path):.6f}" for path in files]
table = bundle.parent / "measured.csv"
table.write_text("\n".join(["file,ms", *lines]) + "\n")
print(f"{len(files)} files timed: {table}")

# %% [markdown]
# Back at the family (on the command line: `snugnet profile import FAMILY measured.csv --name mine`). The error is on whole networks that were left out.

# %%
profile = import_measured(family.space, widths, table, "mine", "ms")
family.add_measured(profile)  # and family.save(FAMILY), to keep it
print(
    f"sums of blocks are {profile.accuracy.mape:.0%} off whole networks, Kendall tau {profile.accuracy.kendall_tau:.2f}"
)
group = next(iter(family.groups))
low, high = family.cost_range("latency_ms@mine", group)
print(f"{group}: {low:.3f} to {high:.3f} ms")
for share in ("20%", "60%"):
    net = family.specialize(group, latency_ms=share)
    print(f"{share}: {net.costs['latency_ms@mine']:.3f} ms, {net.costs['madds']:,} MAdds")

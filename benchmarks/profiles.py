"""How far a profile of a space is from a watch on this machine, and how long it takes: what `snugnet profile` does, without a family.

    python benchmarks/profiles.py OUT.json [rounds] [option=value ...]      options of ofa-mobilenet-v3

Blocks, 50 whole networks, one thread, float32. The error is on networks that were left out of the fit. Go on with the same command after a kill.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import yaml

from snugnet.profiling import measuring
from snugnet.profiling.runner import Settings
from snugnet.spaces import get_space


def main(out: str, rounds: str = "60", *options: str) -> None:
    """Measure, print, write."""
    space = get_space(
        "ofa-mobilenet-v3",
        **{key: yaml.safe_load(value) for key, _, value in (each.partition("=") for each in options)},
    )
    folder = Path(tempfile.gettempdir()) / f"snugnet-profile-{Path(out).stem}"
    began, load = time.perf_counter(), os.getloadavg()
    (profile,), noise = measuring.measure_here(space, (), folder, "here", Settings(rounds=int(rounds)))
    result = {
        "command": " ".join(["python", *sys.argv]),
        "seconds_of_this_call": round(time.perf_counter() - began, 1),
        "blocks": len(profile.values),
        "accuracy": profile.accuracy,
        "factors": profile.factors,
        "about": dict(profile.about),
        "noise": noise,
        "load_before_and_after": [load, os.getloadavg()],
    }
    text = json.dumps(result, indent=1, default=vars) + "\n"
    print(text)
    Path(out).write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""int8 files beside float ones on the digits' test images: python benchmarks/int8.py [--family runs/digits]

For every superclass under four budgets, the network that the family hands out as float32 and as int8: accuracy on the test images of its
classes, milliseconds, bytes, layers kept in float, seconds that the file took. Beside it what the tool makes by itself (one scale a
channel, weights of eight bits, ranges by minimum and maximum), on the same images. Writes docs/results/int8-digits.json.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

import snugnet
from snugnet.cli.evaluate import test_images
from snugnet.deploy import onnx_bytes
from snugnet.family.int8 import accuracy_of, beside_float
from snugnet.family.report import check_groups, spread_budgets
from snugnet.pipeline import machine

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "results" / "int8-digits.json"


class Images:
    """For the tool, one by one."""

    def __init__(self, images: np.ndarray) -> None:
        self.left = iter(images[:, None])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next one."""
        image = next(self.left, None)
        return None if image is None else {"image": image}


def by_the_tool_alone(content: bytes, images: np.ndarray) -> bytes:
    """The int8 file with weights of eight bits."""
    from onnxruntime.quantization import QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "int8.onnx"
        model = onnx.load_from_string(content)
        quantize_static(model, path, Images(images), per_channel=True, activation_type=QuantType.QUInt8)
        return path.read_bytes()


def measured(family: Any, test: Any, group: str, budget: float) -> dict[str, Any]:
    """One network both ways."""
    network = family.specialize(group, madds=budget)
    network.module  # noqa: B018  built before the clock runs
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        content = network.export(Path(folder) / "net.onnx", precision="int8").read_bytes()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    beside = beside_float(network.module, content, network.pictures(test))
    ranges, _ = network.int8_images(None)
    alone = by_the_tool_alone(onnx_bytes(network.module, {}), ranges)
    images, labels = network.pictures(test).arrays()
    return {
        "group": group,
        "madds": network.costs["madds"],
        **beside.to_json(),
        "lost_points": round(100 * (beside.float_accuracy - beside.accuracy), 2),
        "accuracy_of_the_tool_alone": accuracy_of(alone, images, labels),
        "seconds": round(wall, 2),
        "processor_seconds": round(cpu, 2),
    }


def main() -> None:
    """Measure all, write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", type=Path, default=ROOT / "runs" / "digits")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    family = snugnet.load(asked.family)
    test = test_images(family, family.provenance, {})
    load = os.getloadavg()
    rows = []
    for group in check_groups(family):
        for budget in spread_budgets(family, 4, "madds"):
            rows.append(measured(family, test, group, budget))
            about = rows[-1]
            print(group, about["madds"], about["lost_points"], about["milliseconds"], about["seconds"], flush=True)
    report = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine(),
        "load_before_and_after": [load, os.getloadavg()],
        "date": time.strftime("%Y-%m-%d"),
        "most_points_lost": max(row["lost_points"] for row in rows),
        "most_points_lost_by_the_tool_alone": round(
            100 * max(row["float_accuracy"] - row["accuracy_of_the_tool_alone"] for row in rows), 2
        ),
        "rows": rows,
    }
    asked.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

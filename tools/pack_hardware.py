"""Pack HW-NAS-Bench's costs of the cells of nas-bench-201 into the package's own file.

    python tools/pack_hardware.py ../shared/data/nas-bench-201

The folder holds ``hardware.csv.gz`` (HW-NAS-Bench, Li et al., ICLR 2021, github.com/GATECH-EIC/HW-NAS-Bench, MIT) and ``accuracy.csv.gz``
(NAS-Bench-201), joined by ``arch_idx``; six decimals at most. Writes src/snugnet/costs/devices/nas-bench-201.npz: for each data set, cost and
device millionths as int32, so that values come back as they are printed, in the order of the space's rows; -1 where nothing was measured.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from snugnet.costs.hardware import DATASETS, DEVICES, MILLIONTHS, numbers_of
from snugnet.spaces.nas_bench_201 import NASBench201

OUT = Path(__file__).resolve().parents[1] / "src" / "snugnet" / "costs" / "devices" / "nas-bench-201.npz"
PREFIXES = dict(zip(DATASETS, ("c10", "c100", "in16"), strict=True))
NAMES = {"latency_ms": "latency", "energy_mj": "energy"}


def read(path: Path) -> pa.Table:
    """A table in the order of the benchmark's own index."""
    table = csv.read_csv(path).sort_by("arch_idx")
    assert table["arch_idx"].to_pylist() == list(range(NASBench201.create().size))
    return table


def main(folder: Path) -> None:
    """Join, reorder, check, write."""
    space, costs, cells = NASBench201.create(), read(folder / "hardware.csv.gz"), read(folder / "accuracy.csv.gz")
    rows = np.concatenate([space.from_str(text) for text in cells["arch_str"].to_pylist()])
    order = np.argsort(numbers_of(space, rows))
    packed = {}
    for dataset, prefix in PREFIXES.items():
        for device, kinds in DEVICES.items():
            for kind in kinds:
                values = costs[f"{prefix}_{device}_{NAMES[kind]}"].to_numpy()[order]
                there = ~np.isnan(values)
                whole = np.where(there, np.rint(np.nan_to_num(values) * MILLIONTHS), -1).astype(np.int32)
                assert (whole[there] / MILLIONTHS == values[there]).all()
                packed[f"{dataset}.{kind}@{device}"] = whole
    np.savez_compressed(OUT, **packed)
    print(f"{OUT}: {len(packed)} columns, {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

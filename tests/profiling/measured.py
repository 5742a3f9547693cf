"""Tables of measurements that nobody measured: from a law, so that what comes out is known."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from snugnet.costs.units import block_name, distinct_blocks, is_silent, network_name
from snugnet.profiling.writing import drawn_networks
from snugnet.spaces import Block, SearchSpace

FACTORS = {"time": 0.8, "block": 0.01, "inputs": 2.0}


def alone(block: Block) -> float:
    """Milliseconds of a block by itself: a number from 1 to 2 of its own, whatever the layers."""
    return 1 + zlib.crc32(block_name(block, 1).encode()) % 1000 / 1000


def whole(space: SearchSpace, row: object) -> float:
    """Milliseconds of a network, by a law that a profile can say exactly."""
    blocks = [block for block in space.blueprint(row).blocks if not is_silent(block)]  # type: ignore[arg-type]
    return sum(FACTORS[name] * each for block in blocks for name, each in _features(block).items())


def _features(block: Block) -> dict[str, float]:
    return {"time": alone(block), "block": 1.0, "inputs": 4e-6 * block.in_channels * block.layers[0].resolution ** 2}


def rows_of(
    space: SearchSpace,
    widths: Iterable[int] = (),
    networks: int = 24,
    batch: int = 1,
    of: Callable[[Block], float] = alone,
) -> dict[str, float]:
    """What a runner would have measured of a space."""
    found = {name: of(block) for name, block in distinct_blocks(space, list(widths), batch).items()}
    for row in drawn_networks(space, networks) if networks else ():
        found[network_name(space, row[None], batch)] = whole(space, row)
    return found


def write_rows(path: Path, rows: Mapping[str, float | str], unit: str = "ms", above: str = "") -> Path:
    """A table as people write it."""
    path.write_text(
        above + f"file,{unit}\n" + "".join(f"{name},{value}\n" for name, value in rows.items()), encoding="utf-8"
    )
    return path

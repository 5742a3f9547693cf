"""``snugnet profile``: here, a bundle, an import; and one line for what cannot be taken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from measured import rows_of, write_rows

from snugnet.family.disk import load_family
from snugnet.profiling.measuring import needed_widths


@pytest.fixture
def own(family: Path, tmp_path: Path) -> Path:
    """A family that may be changed."""
    return Path(shutil.copytree(family, tmp_path / "own"))


@pytest.fixture
def table(own: Path, tmp_path: Path) -> Path:
    """What was measured of it, by a law."""
    loaded = load_family(own)
    rows = rows_of(loaded.space, needed_widths(loaded.groups, len(loaded.classes)))
    return write_rows(tmp_path / "pixel.csv", rows)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_here(snugnet: Any, own: Path) -> None:
    fast = ("--rounds", "1", "--seconds", "0.0005", "--networks", "12", "--name", "box")
    (done,) = snugnet("profile", own, *fast, "--json").json
    assert (done["cost"], done["unit"]) == ("latency_ms@box", "ms")
    assert done["accuracy"]["networks"] == 12
    assert done["about"]["threads"] == "1"
    assert not (own / "profile").exists()
    network = snugnet("specialize", own, "--group", "round", "--latency-ms", "50%", "--json").json
    assert network["costs"]["latency_ms@box"] <= network["budgets"]["latency_ms@box"]


def test_a_bundle_there_and_back(snugnet: Any, own: Path, tmp_path: Path) -> None:
    from snugnet.profiling.runner import main

    out = tmp_path / "bundle"
    done = snugnet("profile", "bundle", own, "--out", out, "--networks", "4", "--json").json
    assert done["files"] == len(list(out.glob("*.onnx")))
    assert main([str(out), "--rounds", "1", "--seconds", "0.0005"]) == 0
    (made,) = snugnet("profile", "import", own, out / "measured.csv", "--name", "pixel", "--json").json
    assert made["cost"] == "latency_ms@pixel"
    assert set(load_family(own).profiles) == {"latency_ms@pixel"}


def test_devices_as_budgets(snugnet: Any, own: Path, table: Path) -> None:
    for name in ("pixel", "pi"):
        (made,) = snugnet("profile", "import", own, table, "--name", name, "--unit", "ms", "--json").json
        assert made["accuracy"]["mape"] < 1e-4
    asked = ("specialize", own, "--group", "round", "--json")
    network = snugnet(*asked, "--latency-ms", "pixel=60%", "--latency-ms", "pi=40%").json
    assert network["budgets"].keys() == {"latency_ms@pixel", "latency_ms@pi"}
    assert all(network["costs"][name] <= limit for name, limit in network["budgets"].items())
    assert (
        "latency_ms was measured on several devices; its devices: pixel, pi"
        in snugnet(*asked, "--latency-ms", "8").error
    )
    assert (
        "latency_ms was not measured on 'phone'; its devices: pixel, pi"
        in snugnet(*asked, "--latency-ms", "phone=8").error
    )
    assert "energy_mj" in snugnet(*asked, "--energy-mj", "8").error
    assert "--latency-ms: a budget is a positive number" in snugnet(*asked, "--latency-ms", "pixel=fast").error
    assert (
        "two budgets of latency_ms@pixel are given"
        in snugnet(*asked, "--latency-ms", "pixel=1", "--latency-ms", "pixel=2").error
    )
    text = snugnet("profile", "import", own, table, "--name", "pixel").out
    assert "latency_ms@pixel" in text
    assert "Kendall tau" in text


def test_a_file_of_budgets(snugnet: Any, own: Path, table: Path, tmp_path: Path) -> None:
    assert snugnet("profile", "import", own, table, "--name", "pixel").code == 0
    (tmp_path / "budgets.csv").write_text("group,latency_ms@pixel\nround,50%\n")
    done = snugnet("specialize", own, "--all", "--budgets", "budgets.csv", "--out", "files", "--json").json
    (network,) = done["networks"]
    assert network["costs"]["latency_ms@pixel"] <= network["budgets"]["latency_ms@pixel"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [*lines[:-1], lines[-1].split(",")[0] + ",-3"], "needed: a positive, finite number"),
        (lambda lines: [*lines[:-1], lines[-1].split(",")[0] + ",nan"], "needed: a positive, finite number"),
        (lambda lines: [*lines, lines[1]], "stands there twice (line 2 too)"),
        (lambda lines: [lines[0], *lines[2:]], "blocks: block-"),
        (lambda lines: [*lines, "block-0123456789ab,1"], "block-0123456789ab is no file of this family's bundle"),
        (lambda lines: ["# batch: 4", *lines], "measured with batch 4; needed: 1"),
        (lambda lines: ["# version: 9", *lines], "is of a bundle of version 9; needed: 1"),
        (lambda lines: ["file,mJ", *lines[1:]], "no column 'ms'"),
    ],
)
def test_tables_that_are_refused(snugnet: Any, own: Path, table: Path, change: Any, message: str) -> None:
    before = content(own)
    table.write_text("\n".join(change(table.read_text().splitlines())) + "\n")
    assert message in snugnet("profile", "import", own, table, "--name", "pixel").error
    assert content(own) == before


def test_a_missing_block_may_be_filled_and_it_is_said(snugnet: Any, own: Path, table: Path) -> None:
    from snugnet.costs.units import distinct_blocks

    blocks = distinct_blocks(load_family(own).space, (), 1)
    small = next(
        name
        for name, block in blocks.items()
        if max(layer.kernel for layer in block.layers) == 3 and len(block.layers) == 3
    )
    table.write_text(
        "".join(line for line in table.read_text().splitlines(keepends=True) if not line.startswith(small))
    )
    assert (
        f"{small}; --fill gives it the value of a larger one"
        in snugnet("profile", "import", own, table, "--name", "a").error
    )
    done = snugnet("profile", "import", own, table, "--name", "a", "--fill")
    assert done.code == 0
    assert "1 blocks were not measured; each has the value of a larger one" in done.err
    assert json.loads((own / "family.json").read_text())["profiles"][0]["filled"] == [small]


def test_what_cannot_be_measured_here(snugnet: Any, own: Path) -> None:
    before = content(own)
    assert "there is no folder" in snugnet("profile", "nowhere").error
    assert "a device's name has letters" in snugnet("profile", own, "--name", "a=b").error
    if not Path("/sys/class/powercap").is_dir():
        assert "no RAPL here" in snugnet("profile", own, "--meter", "rapl").error
    assert content(own) == before

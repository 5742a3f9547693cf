"""Examples run as they stand, on a small untrained family, and what they print and write is so."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_family import tiny_family

from snugnet.costs import COSTS
from snugnet.family import load_family
from snugnet.search.method import METHODS
from snugnet.spaces.space import SPACES

EXAMPLES = Path(__file__).parents[2] / "examples"
Example = Callable[..., str]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained family on digits."""
    return tiny_family(tmp_path_factory.mktemp("family") / "tiny")


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Example]:
    """Runs an example in an empty folder, in this process; gives what it printed. What it registers is forgotten afterwards."""
    for registry in (SPACES, COSTS, METHODS):
        monkeypatch.setattr(registry, "_own", dict(registry._own))
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


def numbers(text: str, pattern: str) -> list[float]:
    """The numbers in places of a text."""
    return [float(each.replace(",", "")) for each in re.findall(pattern, text)]


def test_specialize_and_export(example: Example, family: Path) -> None:
    said = example("specialize_and_export", family)
    budget, madds = next(iter(re.findall(r"within ([\d,]+) MAdds: ([\d,]+) MAdds", said)))
    assert int(madds.replace(",", "")) <= int(budget.replace(",", ""))
    low, high = load_family(family).cost_range("madds", ["1", "2", "3"])
    costs = numbers(said, r"1,2,3: ([\d,]+) MAdds")
    assert len(costs) == 4
    assert all(cost <= low + share * (high - low) for cost, share in zip(costs, (0.05, 0.3, 0.6, 1), strict=True))
    told = numbers(said, r"([\d.]+)% of \d+ validation images, torch on")
    assert told == numbers(said, r"torch on ([\d.]+)%")
    assert onnx.load("runs/examples/round.onnx")


def test_own_images(example: Example) -> None:
    said = example("own_images")
    assert len(list(Path("runs/examples/images").glob("train/round/8/*.png"))) > 20
    made = load_family("runs/examples/images-family")
    assert dict(made.groups) == {"round": ("0", "6", "8", "9"), "straight": ("1", "4", "7")}
    for group, params in re.findall(r"images-(\w+)\.onnx: ([\d,]+) params", said):
        low, high = made.cost_range("params", group)
        assert low <= int(params.replace(",", "")) <= low + 0.3 * (high - low)
        assert onnx.load(f"runs/examples/images-{group}.onnx")
    assert said.count(".onnx: ") == 2


def test_own_space(example: Example) -> None:
    said = example("own_space")
    assert "plain-net keeps every law of a space; 32 architectures" in said
    costs = numbers(said, r"%: ([\d,]+) MAdds")
    assert costs == sorted(costs)
    made = load_family("runs/examples/plain-net")
    assert made.space.name == "plain-net"
    assert costs[0] == made.cost_range("madds", "round")[0]


def test_own_method(example: Example, family: Path) -> None:
    said = example("own_method", family)
    assert "halving keeps every law of a search method" in said
    halving, random = numbers(said, r"(\d+) evaluated")
    assert (halving, random) == (31, 32)  # 16 + 8 + 4 + 2 + 1
    low, high = load_family(family).cost_range("madds", "round")
    assert all(madds <= low + 0.4 * (high - low) for madds in numbers(said, r"at ([\d,]+) MAdds"))


def test_own_cost(example: Example, family: Path) -> None:
    said = example("own_cost", family)
    assert "traffic keeps every law of a cost" in said
    low, high = load_family(family).cost_range("traffic", "round")  # as it is registered still
    alone, _, both = numbers(said, r": ([\d,]+) bytes,")
    assert max(alone, both) <= low + 0.3 * (high - low)


def test_device_latency(example: Example, family: Path) -> None:
    said = example("device_latency", family)
    low, high = next(iter(re.findall(r"round: ([\d.]+) to ([\d.]+) ms", said)))
    first, second = numbers(said, r"%: ([\d.]+) ms")
    assert float(low) <= first <= second <= float(high)
    lines = Path("runs/examples/measured.csv").read_text().splitlines()
    assert len(lines) == 1 + len(list(Path("runs/examples/bundle").glob("*.onnx")))
    assert np.isfinite(numbers(said, r"Kendall tau (-?[\d.]+)")).all()


def test_study_of_two_methods(example: Example) -> None:
    said = example("study_of_two_methods")
    results = json.loads(Path("runs/examples/study/study.json").read_text())
    assert {(each["method"], each["seed"]) for each in results["outcomes"]} == {
        (name, seed) for name in ("EAS", "Best of 4") for seed in (0, 1)
    }
    rows = [row for each in results["outcomes"] for row in each["rows"]]
    assert all(row["costs"]["madds"] <= row["budget"] for row in rows)
    assert "| EAS | " in said
    assert "Points ahead, seed by seed" in said


def test_notebooks_are_the_scripts() -> None:
    """``make notebooks`` makes them anew."""
    paths = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))
    assert len(paths) == 2
    for path in paths:
        script, size = (EXAMPLES / f"{path.stem}.py").read_text(), 0
        cells = json.loads(path.read_text())["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        left = re.sub(r"\s", "", script)
        for cell in code:
            text = re.sub(r"\s", "", "".join(cell["source"]))
            assert text in left, f"{path.name} is not what its script says now"
            size += len(json.dumps(cell["outputs"]))
            assert not any(output["output_type"] == "error" for output in cell["outputs"])
        assert len(code) == script.count("\n# %%\n")
        assert 0 < size < 100_000

"""Running the command line, and a small family to run it on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TINY = {
    "name": "tiny",
    "output": "runs/tiny",
    "device": "cpu",
    "data": {"source": "digits", "groups": "digits", "resolution": 8, "train_rows": 200, "test_rows": 60},
    "space": {
        "width_mult": 0.1,
        "stem_stride": 1,
        "stage_strides": [2, 2, 1, 1, 1],
        "depths": [1, 2],
        "kernel_sizes": [3, 5],
        "expand_ratios": [2, 3],
    },
    "training": {
        "batch_size": 64,
        "stages": [
            {"name": "largest", "epochs": 1, "learning_rate": 0.1},
            {
                "name": "all",
                "epochs": 1,
                "learning_rate": 0.1,
                "elastic": {"kernel_size": 2, "depth": 2, "expand_ratio": 2},
            },
        ],
    },
    "generator": {"steps": 2, "pairs": 2, "images": 8, "budgets": 3},
    "evaluation": {"budgets": 2, "calibration_images": 64},
}


@dataclass
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which is one JSON document and nothing else."""
        assert self.code == 0, self.err
        return json.loads(self.out, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))

    @property
    def error(self) -> str:
        """The one line that says what is wrong."""
        assert (self.code, self.out) == (2, ""), self
        lines = [line for line in self.err.splitlines() if line]  # a bar that was not shown leaves an empty one
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        return lines[0]


Run = Callable[..., Outcome]


@pytest.fixture
def snugnet(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``snugnet`` in this process (torch is imported once, not for every test), in an empty folder."""
    from snugnet.cli.main import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return Outcome(caught.value.code, printed.out, printed.err)

    return run


def tiny_family(folder: Path, changes: dict[str, Any] | None = None, classes: Sequence[str] | None = None) -> Path:
    """Save a family of the tiny recipe whose weights are those of the start."""
    from snugnet import pipeline
    from snugnet.data import load_data
    from snugnet.recipe import parse_recipe
    from snugnet.supernets import Supernet

    recipe = parse_recipe({**TINY, **(changes or {})})
    data = load_data(recipe.data, progress=False)
    space = pipeline.make_space(recipe, data)
    generator = pipeline.make_generator(recipe, space, data)
    return pipeline.make_family(recipe, data, Supernet(space), generator, {}).save(folder)


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained family on digits."""
    return tiny_family(tmp_path_factory.mktemp("family") / "tiny")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The tiny recipe as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps(TINY), encoding="utf-8")  # JSON is YAML
    return path


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[int]:
    """A process that works in runs/a; gives its number."""
    hold = "import sys, time\nfrom pathlib import Path\nfrom snugnet.files import locked\nwith locked(Path(sys.argv[1])):\n    print('in', flush=True)\n    time.sleep(100)"
    process = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path / "runs" / "a")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process.pid
    process.kill()
    process.wait()

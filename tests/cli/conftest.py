"""Running the command line, and a small family to run it on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tiny_family import TINY, tiny_family


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

"""Build wheel and sdist, install each in a fresh environment, and look at what came out. ``make release-check``.

Downloads what snugnet needs, twice (torch included), so it is run before a release and in no test suite. The environments lie in
``build/release``, wheel and sdist in ``dist``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parents[1]
WORK, DIST = ROOT / "build" / "release", ROOT / "dist"

INSTALLED = """
import json, sys
from importlib.metadata import files, version
from pathlib import Path
import snugnet
from snugnet.cli.common import packaged_recipe
from snugnet.costs import measured_cost
from snugnet.recipe import load_recipe

expected, recipes = json.loads(sys.argv[1])
home = Path(snugnet.__file__).parent
assert home.is_relative_to(sys.prefix), f"snugnet is imported from {home}"
assert snugnet.__version__ == version("snugnet")
assert not (lacking := [name for name in expected if not (home / name).is_file()]), f"not installed: {lacking}"
assert any(str(file).endswith("licenses/LICENSE") for file in files("snugnet")), "no licence"
for name in recipes:
    assert packaged_recipe(name).is_relative_to(sys.prefix)
load_recipe(packaged_recipe("recipes/quickstart.yaml"))
space = snugnet.get_space("nas-bench-201")
assert len(measured_cost(space, "latency_ms", "raspi4").values) == space.size == 15625
snugnet.load
import snugnet.deploy  # torch, onnx
"""


def run(*command: str | Path, cwd: Path = WORK) -> str:
    """A command's standard output; its errors are shown.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    # nothing of this checkout may be found but what was installed
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    print("$", *(str(each) if len(str(each)) < 100 else "..." for each in command), flush=True)
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, cwd=cwd, env=environment).stdout


def environment(name: str) -> Path:
    """The folder of the programs of a fresh environment."""
    venv.create(WORK / name, with_pip=True)
    return WORK / name / ("Scripts" if os.name == "nt" else "bin")


def wheel_of(python: Path, source: Path, out: Path) -> Path:
    """The wheel that is built of a source tree."""
    run(python, "-m", "build", "--wheel", "--outdir", out, source)
    return next(out.glob("*.whl"))


def contents(wheel: Path) -> dict[str, int]:
    """Names of a wheel's files and their checksums, without its own list of them."""
    with ZipFile(wheel) as file:
        return {each.filename: each.CRC for each in file.infolist() if not each.filename.endswith("RECORD")}


def main() -> None:
    """Build, install, look.

    Raises:
        subprocess.CalledProcessError: something does not build, install or run.
        AssertionError: something is not as it should be.
    """
    shutil.rmtree(WORK, ignore_errors=True)
    shutil.rmtree(DIST, ignore_errors=True)
    WORK.mkdir(parents=True)
    source = ROOT / "src" / "snugnet"
    left_out = [path for path in ("build/lib", "src/snugnet.egg-info") if (ROOT / path).exists()]
    for path in left_out:  # setuptools would take old files from there
        shutil.rmtree(ROOT / path)
    builder = environment("builder") / "python"
    run(builder, "-m", "pip", "install", "--quiet", "build")
    run(builder, "-m", "build", "--sdist", "--outdir", DIST, ROOT)
    sdist, wheel = next(DIST.glob("*.tar.gz")), wheel_of(builder, ROOT, DIST)
    with tarfile.open(sdist) as file:
        file.extractall(WORK / "sdist", filter="data")
    again = wheel_of(builder, next((WORK / "sdist").iterdir()), WORK / "again")
    assert contents(again) == contents(wheel), "the sdist builds another wheel than the checkout"

    data = [path for path in source.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    expected = sorted(str(path.relative_to(source)) for path in data)
    recipes = sorted(f"recipes/{path.name}" for path in (ROOT / "recipes").glob("*.yaml"))
    assert expected
    assert recipes
    version = re.search(r'"(.+)"', (source / "_version.py").read_text().split("__version__")[1])
    for file in (wheel, sdist):
        programs = environment(f"with-{'wheel' if file is wheel else 'sdist'}")
        run(programs / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", file)
        run(programs / "python", "-I", "-c", INSTALLED, json.dumps([expected, recipes]))
        assert version
        assert run(programs / "snugnet", "--version").split() == ["snugnet", version[1]]
        shown = json.loads(run(programs / "snugnet", "space", "show", "ofa-mobilenet-v3", "--json"))
        assert shown["size"] == 7371**5, shown["size"]
        print(f"{file.name}: installed, {len(expected)} files and {len(recipes)} recipes are there, it runs")
    print(f"{wheel.name} and {sdist.name} in {DIST}")


if __name__ == "__main__":
    sys.exit(main())

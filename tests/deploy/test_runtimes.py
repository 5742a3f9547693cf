"""An onnxruntime two years old loads our files; it lives in an environment of its own, so it is only asked on request."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_spaces import TINY_SPACES

from snugnet.deploy import onnx_bytes
from snugnet.spaces import get_space
from snugnet.supernets import Supernet

OLD = "1.20.1"  # of November 2024
RUN = """
import sys, numpy, onnxruntime
assert onnxruntime.__version__ == sys.argv[1]
for name in sys.argv[2:]:
    session = onnxruntime.InferenceSession(name + ".onnx", providers=["CPUExecutionProvider"])
    numpy.save(name + ".out.npy", session.run(["logits"], {"image": numpy.load(name + ".in.npy")})[0])
"""


@pytest.fixture(scope="module")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with an old onnxruntime; skips where it is not asked for or not to be had."""
    if os.environ.get("SNUGNET_RUNTIMES") != "1":
        pytest.skip("installs an old onnxruntime (230 MB); set SNUGNET_RUNTIMES=1")
    folder = tmp_path_factory.mktemp("old")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", f"onnxruntime=={OLD}"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        version = ".".join(map(str, sys.version_info[:2]))
        pytest.skip(f"no onnxruntime {OLD} for Python {version} here: {done.stderr.strip().splitlines()[-1]}")
    return python


def test_an_onnxruntime_of_two_years_ago(old_python: Path, tmp_path: Path, randomise: object) -> None:
    expected = {}
    for space_name, options in TINY_SPACES.items():
        space = get_space(space_name, **options)
        supernet = Supernet(space, seed=1).eval().requires_grad_(False)
        randomise(supernet, 2)  # type: ignore[operator]
        for size in ("smallest", "largest"):
            network = supernet.extract(getattr(space, size)).requires_grad_(False)
            name = f"{space_name}-{size}"
            shape = (3, space.in_channels, *[network.blueprint.resolution] * 2)
            x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
            (tmp_path / f"{name}.onnx").write_bytes(onnx_bytes(network, {"classes": ["a"]}))
            np.save(tmp_path / f"{name}.in.npy", x)
            expected[name] = network(torch.from_numpy(x)).numpy()
    subprocess.run([old_python, "-c", RUN, OLD, *expected], cwd=tmp_path, check=True)
    for name, logits in expected.items():
        got = np.load(tmp_path / f"{name}.out.npy")
        np.testing.assert_allclose(got, logits, rtol=0, atol=1e-4 * np.abs(logits).max())

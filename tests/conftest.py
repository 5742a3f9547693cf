"""Settings and small helpers that tests of several rooms share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from tiny_spaces import TINY_SPACES

if TYPE_CHECKING:
    from torch import nn

    from snugnet.spaces import SearchSpace

# networks take milliseconds, and the first call of each takes longer: a deadline would only make the tests flaky
settings.register_profile("snugnet", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("snugnet")

ROOT = Path(__file__).parent
SLOW = {
    ".": "bundles cell_search commented documents extras files retraining testing",
    "benchmarks": "*",
    "cli": "cli_cluster cli_cost cli_evaluate cli_int8 cli_main cli_optimise cli_outside cli_plot cli_predictor cli_profile cli_retrain cli_router cli_search cli_search_cell cli_space cli_specialize cli_specialize_all cli_study cli_train",
    "costs": "allowed decode every_space hardware measured peak_memory sampling",
    "data": "data_draws data_labels data_load data_mutated data_shared data_sources data_storage data_transforms",
    "deploy": "export int8 memory_in_onnxruntime memory_of_files onnx quantised traps",
    "differentiable": "*",
    "examples": "examples",
    "family": "family_disk family_int8 family_of_every_space joint_limits peak_memory_of_families profiles report routes search_limits search_scoring specialize specialize_laws stored_network",
    "generator": "generator_training on_predictor",
    "gpu": "*",
    "nn": "choice_blocks drop_path gated gates graphs judged layers network quantise splits_and_concatenations",
    "predictors": "predictors_kinds predictors_published predictors_tables",
    "profiling": "*",
    "search": "ascent climb searchers",
    "serve": "api bad_requests client process store",
    "spaces": "darts nas_bench_201 reading space spos_shufflenet_v2",
    "study": "*",
    "supernets": "block_graphs mixed sorting supernet",
    "training": "*",
}
"""By folder, the files ``test_NAME.py`` that ``make test-fast`` leaves out: what trains, starts processes, goes through whole spaces, or takes over a second and a half."""


def is_slow(path: Path) -> bool:
    """Whether a file is one of :data:`SLOW`."""
    if not path.parent.is_relative_to(ROOT):
        return False
    folder, name = path.parent.relative_to(ROOT).as_posix(), path.stem.removeprefix("test_")
    return bool({"*", name} & {*SLOW.get(folder, "").split()})


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A run without slow tests does not even import them: that alone takes a minute."""
    return True if "not slow" in config.option.markexpr and is_slow(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by where they lie and by what they take."""
    for item in items:
        if is_slow(item.path):
            item.add_marker(pytest.mark.slow)
        if "shared_folder" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared)


@pytest.fixture(params=TINY_SPACES)
def tiny_space(request: pytest.FixtureRequest) -> SearchSpace:
    """Each registered space in turn, as small as it can be."""
    from snugnet.spaces import get_space

    return get_space(request.param, **TINY_SPACES[request.param])


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder of shared data, beside the project or where ``SNUGNET_SHARED`` says; skips where there is none."""
    path = Path(os.environ.get("SNUGNET_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (path / "data").is_dir():
        pytest.skip(f"no shared data at {path}; set SNUGNET_SHARED to the folder that holds data/")
    return path


@pytest.fixture(scope="session")
def cases(shared_folder: Path) -> Path:
    """Small inputs of the kinds that people have; skips where they are not there."""
    path = shared_folder / "cases"
    if not path.is_dir():
        pytest.skip(f"no small inputs at {path}")
    return path


@pytest.fixture(scope="session")
def randomise() -> Callable[[nn.Module, int], None]:
    """Gives every bias, batch norm and classifier values that are not the trivial ones of a fresh network."""
    from snugnet.testing.networks import randomise

    return randomise

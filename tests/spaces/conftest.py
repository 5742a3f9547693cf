import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def published() -> Path:
    """The folder of published OFA data, beside the project or where ``SNUGNET_SHARED`` says."""
    beside = Path(__file__).resolve().parents[3] / "shared"
    path = Path(os.environ.get("SNUGNET_SHARED", beside)) / "data" / "ofa-mobilenet-v3"
    if not path.is_dir():
        pytest.skip(f"no published data at {path}; set SNUGNET_SHARED to the folder that holds data/")
    return path

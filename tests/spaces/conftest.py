from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def published(shared_folder: Path) -> Path:
    """The folder of published OFA data."""
    return shared_folder / "data" / "ofa-mobilenet-v3"

"""Where the service's packages are missing, its tests are left out, and this one says so."""

import pytest
from asking import NEEDED


@pytest.mark.parametrize("package", NEEDED)
def test_the_service_can_be_tested(package: str) -> None:
    pytest.importorskip(
        package, reason=f"{package} is not installed, so the service is not tested: pip install -e '.[dev]'"
    )

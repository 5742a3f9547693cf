"""Services on a small untrained family: in a thread of this process, or asked without a socket."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from asking import NEEDED
from tiny_family import tiny_family

if TYPE_CHECKING:
    import httpx

    from snugnet.family import Family


missing = [package for package in NEEDED if find_spec(package) is None]
collect_ignore = [
    path.name for path in Path(__file__).parent.glob("test_*.py") if missing and path.stem != "test_packages"
]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained family on digits; tests copy it before they change it."""
    return tiny_family(tmp_path_factory.mktemp("served") / "digits")


@pytest.fixture(scope="session")
def family(folder: Path) -> Family:
    """The same, loaded: what it hands out, the service has to."""
    from snugnet.family import load_family

    return load_family(folder)


@contextmanager
def serving(families: Mapping[str, Path], cache: Path, **options: Any) -> Iterator[httpx.Client]:
    """A service in a thread, behind a socket; gives a client of it."""
    import httpx
    import uvicorn

    from snugnet.serve.app import create_app
    from snugnet.serve.settings import Limits, Settings

    limits = Limits(**options.pop("limits", {}))
    settings = Settings({name: str(path) for name, path in families.items()}, cache, limits, **options)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None, access_log=False, ws="none"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        headers = {"Authorization": f"Bearer {settings.token}"} if settings.token else {}
        with httpx.Client(
            base_url=f"http://127.0.0.1:{listening.getsockname()[1]}/v1/", headers=headers, timeout=60, trust_env=False
        ) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


Serving = Callable[..., Any]


@pytest.fixture
def serve() -> Serving:
    """:func:`serving`."""
    return serving


@pytest.fixture(scope="session")
def service(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service with the family ``digits``, and one, ``broken``, that cannot be loaded."""
    broken = tmp_path_factory.mktemp("broken")
    (broken / "family.json").write_text((folder / "family.json").read_text()[:-20])
    with serving({"digits": folder, "broken": broken}, tmp_path_factory.mktemp("cache")) as client:
        yield client

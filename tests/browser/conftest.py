"""A page in Chromium, before a real service; what it must never do is watched in every test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tiny_family import tiny_family

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NEEDED = ("playwright", "fastapi", "uvicorn", "httpx")
Opened = Callable[..., Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks all of them, and says why they are skipped."""
    missing = [package for package in NEEDED if find_spec(package) is None]
    reason = f"needs {', '.join(missing)}" if missing else "needs Chromium: apt-get install chromium"
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.browser)
            if missing or CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained family on digits, whose generator has random weights: networks differ with the group and the budget."""
    import torch

    from snugnet.family import load_family

    folder = tiny_family(tmp_path_factory.mktemp("page") / "digits")
    family = load_family(folder)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in family.generator.parameters():
            parameter.normal_()
    return family.save(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium as the system has it; Playwright's event loop ends with the file, as other tests run loops of their own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def opened(browser: Browser) -> Opened:
    """Opens a page in a ``with``: at an address, of a width, with what a context of Playwright takes."""

    @contextmanager
    def open_page(url: str, width: int = 1280, height: int = 900, **options: Any) -> Iterator[Page]:
        wrong: list[str] = []
        origin = "/".join(url.split("/")[:3])
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        page = context.new_page()
        page.set_default_timeout(60_000)
        # what the browser itself says of an answer that is a refusal is no error of the page
        page.on("console", lambda m: None if m.text.startswith("Failed to load resource") else wrong.append(m.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith((f"{origin}/", "blob:")) else wrong.append(r.url))
        page.goto(url)
        yield page
        context.close()
        assert not wrong

    return open_page

"""The page's files, without a browser (tests/browser has the page itself)."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import httpx

from snugnet.serve.app import PAGE

SOURCES = Path(__file__).resolve().parents[2] / "page"


def test_the_build_is_of_these_sources() -> None:
    digest = hashlib.sha256()
    files = {path.relative_to(SOURCES).as_posix(): path for path in SOURCES.rglob("*") if path.is_file()}
    for name in sorted(name for name in files if not name.startswith("node_modules/")):
        digest.update(name.encode() + b"\0" + files[name].read_bytes() + b"\0")
    assert (PAGE / "sources.sha256").read_text().strip() == digest.hexdigest(), "make page builds it anew"


def test_what_is_served_asks_nothing_from_elsewhere(service: httpx.Client) -> None:
    root = str(service.base_url).removesuffix("v1/")
    index = httpx.get(root, trust_env=False)
    assert index.headers["content-type"].startswith("text/html")
    policy = index.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    for name in re.findall(r'(?:src|href)="\./([^"]+)"', index.text):
        assert httpx.get(root + name, trust_env=False).content == (PAGE / name).read_bytes()
    for path in PAGE.iterdir():
        text = path.read_text()
        assert set(re.findall(r"https?://[\w.]+", text)) <= {"http://www.w3.org"}, (
            path.name
        )  # names of XML, never fetched
        assert not re.search(r"<script(?![^>]*src=)|<style|style=|@import|url\(", text) or path.suffix == ".js", (
            path.name
        )
    assert sum(path.stat().st_size for path in PAGE.iterdir()) < 100_000

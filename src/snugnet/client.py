"""Asking a service (``snugnet serve``) from Python, with nothing but the standard library.

>>> from snugnet.client import Client
>>> service = Client("http://127.0.0.1:8000")                    # doctest: +SKIP
>>> net = service.specialize("digits", "round", madds="4M")      # doctest: +SKIP
>>> service.save(net, "round.onnx")                              # doctest: +SKIP
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from snugnet.errors import ConfigError, RemoteError
from snugnet.files import write_atomically

TOKEN = "SNUGNET_TOKEN"
Group = str | Sequence[str]
Network = dict[str, Any]
"""A network as the service describes it: ``id``, ``family``, ``group``, ``classes``, ``architecture``, ``budgets``, ``costs``,
``validation_accuracy``."""
_TRIES = 5  # of a request that is put off (429, 503)
_LONGEST = 30.0  # seconds that it is put off at a time


class Client:
    """A service.

    Attributes:
        url: where it is, such as ``http://127.0.0.1:8000``.
        token: that it wants; that of the environment (``SNUGNET_TOKEN``) without it.
        seconds: that one answer may take.
    """

    def __init__(self, url: str, token: str | None = None, seconds: float = 120.0) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise ConfigError(f"a service is at an address such as http://127.0.0.1:8000, got {url!r}")
        self.url, self.seconds = url.rstrip("/"), seconds
        self.token = token if token is not None else os.environ.get(TOKEN)

    def families(self) -> list[dict[str, Any]]:
        """``name``, ``available`` and ``reason`` of each family."""
        found: list[dict[str, Any]] = self._json("families")["families"]
        return found

    def family(self, name: str) -> dict[str, Any]:
        """Classes, groups and costs of a family."""
        return self._json(_path(name))

    def ranges(self, family: str, group: Group, **budgets: float | str) -> dict[str, Any]:
        """Of each cost of a group's networks the range, and what of it is feasible within the budgets of the others."""
        pairs = [*_group_query(group), *(("budget", f"{name}={value}") for name, value in budgets.items())]
        costs: dict[str, Any] = self._json(f"{_path(family, 'costs')}?{urlencode(pairs)}")["costs"]
        return costs

    def curve(self, family: str, group: Group, cost: str | None = None) -> dict[str, Any]:
        """Accuracy on validation images over a cost."""
        pairs = [*_group_query(group), *([("cost", cost)] if cost else [])]
        return self._json(f"{_path(family, 'curve')}?{urlencode(pairs)}")

    def specialize(self, family: str, group: Group, *, best_of: int = 1, **budgets: float | str) -> Network:
        """The network for a group of classes under budgets; see :meth:`snugnet.family.SpecialisingFamily.specialize`.

        Raises:
            RemoteError: the service cannot be reached, or refuses: the message is its own.
        """
        return self._json(_path(family, "networks"), {**_scenario(group, budgets), "best_of": best_of})

    def specialize_many(
        self, family: str, scenarios: Iterable[tuple[Group, Mapping[str, float | str]]]
    ) -> list[Network]:
        """Networks for many scenarios, (group, budgets) each, in order."""
        body = {"scenarios": [_scenario(group, budgets) for group, budgets in scenarios]}
        networks: list[Network] = self._json(_path(family, "networks"), body)["networks"]
        return networks

    def download(self, network: Network, suffix: str = ".onnx") -> bytes:
        """A network's file, ``.onnx`` or ``.pt2``."""
        return self._request(_path(network["family"], "networks", network["id"]) + suffix)

    def save(self, network: Network, path: str | Path) -> Path:
        """Write a network's file; the suffix names the format."""
        write_atomically(Path(path), self.download(network, Path(path).suffix))
        return Path(path)

    def predict(self, network: Network, image: bytes, kind: str = "image/*") -> dict[str, Any]:
        """What a network says.

        Args:
            network: to ask.
            image: an encoded image; or decoded ones, bytes of (n, 3, r, r).
            kind: of these: ``image/*``, or ``application/octet-stream``.
        """
        path = _path(network["family"], "networks", network["id"], "predict")
        return self._read(self._request(path, image, kind))

    def _json(self, path: str, body: Any = None) -> dict[str, Any]:
        content = None if body is None else json.dumps(body).encode()
        return self._read(self._request(path, content, "application/json"))

    def _read(self, content: bytes) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(content)
        except ValueError:
            raise RemoteError(f"{self.url} answers what is no JSON; is it a snugnet service?") from None
        return found

    def _request(self, path: str, body: bytes | None = None, kind: str = "") -> bytes:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if body is not None:
            headers["Content-Type"] = kind
        for left in reversed(range(_TRIES)):
            try:
                with _OPENER.open(Request(f"{self.url}/v1/{path}", body, headers), timeout=self.seconds) as answer:
                    content: bytes = answer.read()
                    return content
            except HTTPError as error:
                if error.code in (429, 503) and left:
                    time.sleep(_wait(error.headers.get("Retry-After", "")))
                    continue
                raise RemoteError(_detail(error)) from None
            except (URLError, HTTPException, OSError, ValueError) as error:
                raise RemoteError(
                    f"{self.url} does not answer ({getattr(error, 'reason', error)}); is it a service?"
                ) from None
        raise AssertionError


class _NoRedirects(HTTPRedirectHandler):
    """A token is for the address that was given, and for no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = build_opener(_NoRedirects)


def _wait(told: str) -> float:
    """Seconds before another try; a date, as some proxies give it, counts as one second."""
    return min(float(told), _LONGEST) if told.isdecimal() else 1.0


def _detail(error: HTTPError) -> str:
    """What a problem document says."""
    try:
        return str(json.loads(error.read())["detail"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"{error.url} answers {error.code} {error.reason}; is it a snugnet service?"


def _path(*names: str) -> str:
    return "/".join(("families", *(quote(name, safe="") for name in names)))


def _scenario(group: Group, budgets: Mapping[str, float | str]) -> dict[str, Any]:
    return {"group" if isinstance(group, str) else "classes": group, "budgets": dict(budgets)}


def _group_query(group: Group) -> list[tuple[str, str]]:
    return [("group", group)] if isinstance(group, str) else [("classes", name) for name in group]

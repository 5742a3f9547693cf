"""What the tests of the service need, and an application asked without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NEEDED = ("fastapi", "uvicorn", "prometheus_client", "python_multipart", "filelock", "httpx", "schemathesis")


@dataclass
class Answer:
    """What an application said."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        """Its body, as JSON."""
        return json.loads(self.body)


async def ask(app: Any, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
    """Ask an application without a socket, so that thousands of requests take seconds; the path may be anything."""
    raw, _, query = path.partition("?")
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": raw, "raw_path": raw.encode("latin-1", "replace"), "query_string": query.encode("latin-1", "replace"),
        "root_path": "", "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in (headers or {}).items()],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {},
    }  # fmt: skip
    answer, given = Answer(), False

    async def receive() -> dict[str, Any]:
        nonlocal given
        if given:
            await asyncio.Event().wait()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {k.decode(): v.decode("latin-1") for k, v in message["headers"]}
        else:
            answer.body += message.get("body", b"")

    await app(scope, receive, send)
    return answer

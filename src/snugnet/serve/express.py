"""The two requests that a service is asked most, answered without the framework, which takes most of the time of a short answer."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from snugnet.serve.guard import API, replayed
from snugnet.serve.identity import PATTERN
from snugnet.serve.routes import JSON, Routes
from snugnet.serve.schemas import Question

_NETWORKS = re.compile(rf"{API}/families/([^/]{{1,200}})/networks(?:/({PATTERN.strip('^$')})\.onnx)?", re.DOTALL)
_QUESTION = TypeAdapter(Question)


class Matched(NamedTuple):
    """A route, as metrics and logs have it."""

    path: str


class Express:
    """Stands before the application: networks for scenarios, and a network's ONNX file.

    It calls what the application's own routes call. A request that has anything unusual about it goes on to the application, and so do all
    others; what is wrong with it is said there.

    Attributes:
        app: the application.
        routes: whose answers these are.
    """

    def __init__(self, app: ASGIApp, routes: Routes) -> None:
        self.app, self.routes = app, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _NETWORKS.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if found is None or scope["query_string"]:
            await self.app(scope, receive, send)
            return
        family, network = found.groups()
        answer: Response | None = None
        if network is not None and scope["method"] == "GET":
            scope["route"] = Matched(f"{API}/families/{{family}}/networks/{{network}}.onnx")
            tags = Headers(scope=scope).get("if-none-match", "")
            answer = await self.routes.download(family, network, ".onnx", tags)
        elif network is None and scope["method"] == "POST" and _says_json(scope):
            body: bytes = (await receive())["body"]  # whole: the guard has read it
            receive = replayed(body, receive)
            question = _read(body)
            if question is not None:
                scope["route"] = Matched(f"{API}/families/{{family}}/networks")
                answer = await self.routes.specialize(family, question)
        await (answer or self.app)(scope, receive, send)


def _says_json(scope: Scope) -> bool:
    return any(name == b"content-type" and value == JSON.encode() for name, value in scope["headers"])


def _read(body: bytes) -> Question | None:
    """What a body asks; None where it is no question."""
    try:
        return _QUESTION.validate_python(json.loads(body))
    except (ValueError, ValidationError, RecursionError):
        return None

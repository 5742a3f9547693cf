"""Around every request: an id, the token, limits, time, headers; one line in the log and one in the metrics."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from snugnet.errors import SnugnetError
from snugnet.serve.metrics import Metrics
from snugnet.serve.problems import Late, Overloaded, Refused, TooLarge, Unavailable, problem, problem_of
from snugnet.serve.settings import Settings

API = "/v1"
REQUEST = "snugnet.request"
"""Where a request's scope holds its id."""
_ALWAYS = (f"{API}/health", f"{API}/ready")  # answered without a token, and however many requests are open
_DIGITS = 15  # of a length that can be true
_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_OF_API = {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Cache-Control": "no-store"}
_OF_PAGE = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}

log = logging.getLogger(__name__)


class Guard:
    """What stands before the application."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app, self.limits, self.metrics = app, settings.limits, metrics
        self._token = settings.token.encode() if settings.token is not None else None
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer(scope, send)
        scope[REQUEST] = answer.request
        try:
            await self._guarded(scope, receive, answer)
        except SnugnetError as error:
            await answer.instead(problem_of(error), receive)
        except Exception:  # ours: told in full to the log, and not to who asks
            log.exception("failed", extra={"request": answer.request})
            await answer.instead(failed(scope), receive)
        finally:
            self._note(scope, answer)

    async def _guarded(self, scope: Scope, receive: Receive, send: _Answer) -> None:
        if scope["path"] in _ALWAYS or not scope["path"].startswith(API):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        self._check_token(headers)
        if self._open >= self.limits.open_requests:
            raise Overloaded(f"{self._open} requests are open, and no more are taken; ask again in a while")
        self._open += 1
        self.metrics.open.inc()
        try:
            body = await self._body(headers, receive)
            async with asyncio.timeout(self.limits.seconds):
                await self.app(scope, replayed(body, receive), send)
        except TimeoutError:
            raise Unavailable(
                f"there was no answer within {self.limits.seconds:g} seconds; ask again in a while"
            ) from None
        finally:
            self._open -= 1
            self.metrics.open.dec()

    def _check_token(self, headers: Headers) -> None:
        if self._token is None:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        if not hmac.compare_digest(given.strip().encode(), self._token) or kind.lower() != "bearer":
            raise Refused("this service wants its token: Authorization: Bearer TOKEN")

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """The whole body, within its limits of bytes and seconds."""
        most = self.limits.body_bytes
        told = headers.get("content-length", "0")
        if told.isdecimal() and (len(told) > _DIGITS or int(told) > most):
            raise TooLarge(f"a body has at most {most:,} bytes, this one has more")
        parts, size = list[bytes](), 0
        try:
            async with asyncio.timeout(self.limits.seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Late("who asks has gone")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise TooLarge(f"a body has at most {most:,} bytes, this one has more")
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise Late(f"the body of this request did not come within {self.limits.seconds:g} seconds") from None
        return b"".join(parts)

    def _note(self, scope: Scope, answer: _Answer) -> None:
        seconds = time.perf_counter() - answer.started
        route = getattr(scope.get("route"), "path", "") or "none"
        method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "OPTIONS") else "other"
        self.metrics.requests.labels(route, method, str(answer.status or 499)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        log.info(
            "request",
            extra={
                "request": answer.request, "method": method, "path": scope["path"][:200], "status": answer.status or 499,
                "bytes": answer.size, "ms": round(1e3 * seconds, 2),
            },
        )  # fmt: skip


def failed(scope: Scope) -> Response:
    """A fault of the service: its log has the rest, under the request's id."""
    text = f"the service failed on this; its log says why, at request {scope[REQUEST]}"
    return problem(500, text, request=scope[REQUEST])


class _Answer:
    """The way back: adds headers, and knows what was sent."""

    def __init__(self, scope: Scope, send: Send) -> None:
        given = Headers(scope=scope).get("x-request-id", "")
        self.request = given if _ID.fullmatch(given) else secrets.token_hex(16)
        self.started, self.status, self.size = time.perf_counter(), 0, 0
        self._scope, self._send = scope, send
        self._own = {
            **_HEADERS,
            **(_OF_API if scope["path"].startswith(API) else _OF_PAGE),
            "X-Request-ID": self.request,
        }

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in self._own.items():
                headers.setdefault(name, value)
        elif message["type"] == "http.response.body":
            self.size += len(message.get("body", b""))
        await self._send(message)

    async def instead(self, response: Callable[[Scope, Receive, Send], Awaitable[Any]], receive: Receive) -> None:
        """Send a response, unless one has begun: then the connection is closed, as the rest cannot come."""
        if not self.status:
            await response(self._scope, receive, self)


def replayed(body: bytes, receive: Receive) -> Receive:
    """A body that was read, whole, then what comes after it."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay

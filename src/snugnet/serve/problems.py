"""What goes wrong, as RFC 9457 problem details, in the words that the command line has for it."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from snugnet.errors import (
    BudgetError,
    ConfigError,
    DataError,
    FamilyError,
    NetworkError,
    SnugnetError,
    SpaceError,
)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1


class ServiceError(SnugnetError, RuntimeError):
    """A request that the service does not take; the status says which kind it is."""

    status = HTTPStatus.BAD_REQUEST


class NotFound(ServiceError):
    """A family that the service does not have."""

    status = HTTPStatus.NOT_FOUND


class TooLarge(ServiceError):
    """A request that is beyond a limit."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class WrongType(ServiceError):
    """A body of a type that is not read."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class Refused(ServiceError):
    """A request without the token, or with another one."""

    status = HTTPStatus.UNAUTHORIZED


class Forbidden(ServiceError):
    """A request that is not for whoever asks."""

    status = HTTPStatus.FORBIDDEN


class Late(ServiceError):
    """A body that has not come in time."""

    status = HTTPStatus.REQUEST_TIMEOUT


class Overloaded(ServiceError):
    """More than can be worked on at a time."""

    status = HTTPStatus.TOO_MANY_REQUESTS


class Unavailable(ServiceError):
    """What will be there later, or once somebody has mended it."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


_KINDS: tuple[tuple[type[SnugnetError], HTTPStatus, str], ...] = (
    (BudgetError, HTTPStatus.UNPROCESSABLE_ENTITY, "budget"),
    (DataError, HTTPStatus.UNPROCESSABLE_ENTITY, "image"),
    (FamilyError, HTTPStatus.UNPROCESSABLE_ENTITY, "group"),
    (ConfigError, HTTPStatus.UNPROCESSABLE_ENTITY, "request"),
    (SpaceError, HTTPStatus.UNPROCESSABLE_ENTITY, "request"),
    (NetworkError, HTTPStatus.NOT_FOUND, "network"),
)


def problem(
    status: int, detail: str, kind: str | None = None, headers: dict[str, str] | None = None, **more: Any
) -> Response:
    """A problem as a response.

    Args:
        status: of HTTP.
        detail: what is wrong, what is allowed, what to do.
        kind: of problem, for machines: ``urn:snugnet:problem:<kind>``; by the status alone without it.
        headers: besides.
        more: members of the document.
    """
    title = HTTPStatus(status).phrase
    kind = f"urn:snugnet:problem:{kind}" if kind else "about:blank"
    content = {"type": kind, "title": title, "status": status, "detail": detail, **more}
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        headers = {"Retry-After": str(RETRY_SECONDS), **(headers or {})}
    if status == HTTPStatus.UNAUTHORIZED:
        headers = {"WWW-Authenticate": "Bearer", **(headers or {})}
    return Response(json.dumps(content), status, headers, MEDIA_TYPE)


def problem_of(error: SnugnetError) -> Response:
    """An error of the package as a response; one that is nobody's fault who asks is a 500."""
    if isinstance(error, ServiceError):
        return problem(error.status, str(error))
    for of, status, kind in _KINDS:
        if isinstance(error, of):
            return problem(status, str(error), kind)
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))

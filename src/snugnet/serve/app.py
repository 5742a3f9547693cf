"""The application: put together, begun and ended."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from snugnet._version import __version__
from snugnet.data.images import no_warnings
from snugnet.errors import SnugnetError
from snugnet.serve.builds import Builds
from snugnet.serve.express import Express
from snugnet.serve.families import Families
from snugnet.serve.guard import API, Guard, failed
from snugnet.serve.metrics import Metrics
from snugnet.serve.problems import problem, problem_of
from snugnet.serve.routes import Routes
from snugnet.serve.schemas import Problem
from snugnet.serve.settings import Settings
from snugnet.serve.store import Store
from snugnet.texts import cut
from snugnet.training.threads import begin_worker

PAGE = Path(__file__).with_name("page")
"""Files that are served under ``/``, if there are any."""


def create_app(settings: Settings) -> ASGIApp:
    """The service as an ASGI application; families are loaded when it begins.

    Args:
        settings: what it is started with.
    """
    metrics = Metrics()
    families = Families(settings.families, metrics.scenarios.observe)
    limits = settings.limits
    store = Store(
        settings.cache, limits.disk_bytes, limits.memory_bytes, lambda place: metrics.files.labels(place).inc()
    )
    builds = Builds(store, limits.builds, limits.waiting_builds)
    routes = Routes(settings, families, builds, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with no_warnings():
            await asyncio.to_thread(families.load)
            loop, reloads = asyncio.get_running_loop(), set[asyncio.Task[None]]()

            def reload() -> None:
                task = asyncio.create_task(asyncio.to_thread(families.load))
                reloads.add(task)
                task.add_done_callback(reloads.discard)

            # not in the first thread, or there is no such signal
            with suppress(AttributeError, ValueError, RuntimeError, NotImplementedError):
                loop.add_signal_handler(signal.SIGHUP, reload)
            yield
            for each in (routes, builds, families):
                each.close()

    app = FastAPI(
        title="snugnet",
        version=__version__,
        description="For any group of classes and any budgets, the network that fits.",
        openapi_url=f"{API}/openapi.json",
        docs_url=None,  # its pages fetch what they show from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.include_router(routes.router())
    app.openapi = partial(_described, app, app.openapi)  # type: ignore[method-assign]
    app.exception_handler(SnugnetError)(_refused)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_http)
    app.exception_handler(Exception)(_failed)
    if PAGE.is_dir():
        app.mount("/", StaticFiles(directory=PAGE, html=True))
    guarded = Guard(Express(app, routes), settings, metrics)
    if not settings.origins:
        return guarded
    # outside of the guard: a browser asks without a token whether it may ask, and a page is to read refusals as well
    return CORSMiddleware(
        guarded, allow_origins=list(settings.origins), allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", "If-None-Match", "X-Request-ID"],
        expose_headers=["ETag", "X-Request-ID", "Retry-After"],
    )  # fmt: skip


def create_worker(settings: Settings, threads: int) -> ASGIApp:
    """The application of one process, which is maybe one of several.

    Args:
        settings: of the service.
        threads: of torch.
    """
    if settings.workers > 1:
        begin_worker(threads)  # ends when the first process does, however that ends
    else:
        torch.set_num_threads(threads)
    return create_app(settings)


def _described(app: FastAPI, openapi: Any) -> dict[str, Any]:
    document: dict[str, Any] = openapi()
    document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
    return document


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, SnugnetError)
    return problem_of(error)


async def _invalid(_: Request, error: Exception) -> Response:
    """The first fault of a request, in one line: where it is, and what is allowed."""
    assert isinstance(error, RequestValidationError)
    faults = sorted(error.errors(), key=lambda each: each["type"] == "missing")  # what is misspelt is missing as well
    part, *where = faults[0]["loc"] or ("body",)
    if faults[0]["type"] == "json_invalid":
        return problem(
            422, f"the body is not JSON: {faults[0]['ctx']['error']}, at character {where[0] + 1}", "request"
        )
    place = cut(".".join(map(str, where))) or str(part)
    message = "no such key" if faults[0]["type"] == "extra_forbidden" else str(faults[0]["msg"])
    return problem(422, f"{place}: {message[:1].lower()}{message[1:]}", "request")


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, str(error.detail), headers=dict(error.headers or {}))


async def _failed(request: Request, _: Exception) -> Response:
    return failed(request.scope)

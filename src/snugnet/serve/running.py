"""The processes of a service: one, or several behind one socket."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from functools import partial
from typing import Any

import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.supervisors.multiprocess import Multiprocess

from snugnet.serve.metrics import MULTIPROCESS
from snugnet.serve.settings import Settings

_CONNECTIONS = 8  # for each request that may be open; beyond these a connection is answered 503 and closed
_DRAIN = 30  # seconds that requests have to come to an end
_SILENT = 20  # seconds without a sign of a process, after which another takes its place; it gives signs from before it imports torch
_PLAIN = set(logging.makeLogRecord({}).__dict__) | {"message", "color_message"}


class JsonLines(logging.Formatter):
    """A line of JSON for each record: time, level, event, and what was given with it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "process": record.process,
        }
        line |= {key: value for key, value in record.__dict__.items() if key not in _PLAIN}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": JsonLines}},
    "handlers": {"lines": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}},
    "loggers": {
        "snugnet": {"handlers": ["lines"], "level": "INFO", "propagate": False},
        "uvicorn": {"handlers": ["lines"], "level": "INFO", "propagate": False},
    },
}


def serve(settings: Settings, listening: socket.socket) -> None:
    """Answer requests until the process is told to end (SIGTERM, Ctrl-C); those that are open are answered first.

    SIGHUP has all families loaded anew.

    Args:
        settings: of the service.
        listening: where requests come in.
    """
    if hasattr(signal, "SIGHUP"):  # one that comes before the families are there ends nothing; processes inherit it
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    several = settings.workers > 1
    threads = max(1, (os.cpu_count() or 1) // settings.workers)
    shared = None
    if several and MULTIPROCESS not in os.environ:
        shared = tempfile.TemporaryDirectory(prefix="snugnet-metrics-")
        os.environ[MULTIPROCESS] = shared.name
    config = uvicorn.Config(
        partial(_app, settings, threads), factory=True, workers=settings.workers, log_config=LOGGING, access_log=False,
        server_header=False, proxy_headers=False, ws="none", limit_concurrency=_CONNECTIONS * settings.limits.open_requests,
        timeout_graceful_shutdown=_DRAIN, timeout_worker_healthcheck=_SILENT,
    )  # fmt: skip
    try:
        if several:
            _Workers(config, [listening]).run()
        else:
            server = uvicorn.Server(config)
            server.run([listening])
            if not server.started:
                sys.exit(1)
    finally:
        listening.close()
        if shared is not None:
            shared.cleanup()


def _app(settings: Settings, threads: int) -> Any:
    """The application; imported in the process that runs it, after what several share is set up."""
    from snugnet.serve.app import create_worker

    return create_worker(settings, threads)


class _Workers(Multiprocess):
    """Processes that load families anew in place: uvicorn's own way is to start others. Those that end open no requests any more."""

    def keep_subprocess_alive(self) -> None:
        ended = [each.pid for each in self.processes if each.pid is not None and not each.process.is_alive()]
        super().keep_subprocess_alive()
        for process in ended:
            mark_process_dead(process)

    def handle_hup(self) -> None:
        for each in self.processes:
            if each.pid is not None and each.process.is_alive():
                os.kill(each.pid, signal.SIGHUP)

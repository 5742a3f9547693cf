"""What is counted, for Prometheus."""

from __future__ import annotations

import os

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable by which several processes share what they count; set before this is imported."""
_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)


disable_created_metrics()


class Metrics:
    """The counters of one service."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own = {"registry": self._registry, "namespace": "snugnet"}
        self.requests = Counter("requests", "Requests answered", ["route", "method", "status"], **own)
        self.seconds = Histogram("request_seconds", "From a request to its answer", ["route"], buckets=_SECONDS, **own)
        self.open = Gauge("open_requests", "Requests being worked on", multiprocess_mode="livesum", **own)
        self.scenarios = Histogram(
            "scenarios_together",
            "Scenarios of one pass of the generator",
            buckets=(1, 4, 16, 64, 256, 1024, 4096),
            **own,
        )
        self.contents = Counter("files", "Files asked for, by where they came from", ["place"], **own)
        self.images = Counter("images", "Images that networks were run on", **own)

    def text(self) -> bytes:
        """As Prometheus reads it; of all processes together."""
        if MULTIPROCESS not in os.environ:
            return generate_latest(self._registry)
        every = CollectorRegistry()
        MultiProcessCollector(every)
        return generate_latest(every)

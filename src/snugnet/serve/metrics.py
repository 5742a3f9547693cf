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
_SCENARIOS = (1, 4, 16, 64, 256, 1024, 4096)


disable_created_metrics()


class Metrics:
    """The counters of one service."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        name = "snugnet"
        self.requests = Counter("requests", "Answered", ["route", "method", "status"], name, registry=own)
        self.seconds = Histogram(
            "request_seconds", "From a request to its answer", ["route"], name, registry=own, buckets=_SECONDS
        )
        self.open = Gauge("open_requests", "Worked on now", (), name, registry=own, multiprocess_mode="livesum")
        self.scenarios = Histogram(
            "scenarios_together", "Of one pass of the generator", (), name, registry=own, buckets=_SCENARIOS
        )
        self.files = Counter("files", "Asked for, by where they came from", ["place"], name, registry=own)
        self.images = Counter("images", "That networks were run on", (), name, registry=own)

    def text(self) -> bytes:
        """As Prometheus reads it; of all processes together."""
        if MULTIPROCESS not in os.environ:
            return generate_latest(self._registry)
        every = CollectorRegistry()
        MultiProcessCollector(every)
        return generate_latest(every)

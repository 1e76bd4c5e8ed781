"""Metrics for Prometheus, and one line of JSON for each request."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fastapi import Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

if TYPE_CHECKING:
    from bagformer_cli.serve.service import SearchService

LOG = logging.getLogger("xmr.serve")

BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
"""Upper bounds in seconds of the histogram of request times."""


class Measurements:
    """Counters of a service.

    Args:
        service: The service that is measured.
    """

    def __init__(self, service: SearchService) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "xmr_requests", "Requests", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "xmr_request_seconds", "Time of requests", ["route"], buckets=BUCKETS,
            registry=self._registry,
        )  # fmt: skip
        waiting = Gauge("xmr_waiting_searches", "Searches that wait", registry=self._registry)
        waiting.set_function(lambda: service.batcher.depth)
        model = Counter("xmr_search_seconds", "Time in searches", registry=self._registry)
        batches = Counter("xmr_search_batches", "Batches of searches", registry=self._registry)
        queries = Counter("xmr_searches", "Searches", registry=self._registry)

        by_stage = Counter(
            "xmr_stage_seconds", "Time in stages of searches (encode: the model)", ["stage"],
            registry=self._registry,
        )  # fmt: skip

        def searched(count: int, seconds: float, stages: Mapping[str, float]) -> None:
            model.inc(seconds)
            for name, part in stages.items():
                by_stage.labels(name).inc(part)
            batches.inc()
            queries.inc(count)

        service.on_search = searched

    def add(self, request: Request, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        route = getattr(request.scope.get("route"), "path", "other")
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def response(self) -> Response:
        """Return all metrics in Prometheus' text format."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)


def log_request(request: Request, client: str, status: int, seconds: float) -> None:
    """Log a request; what was searched for is left out."""
    LOG.info(
        json.dumps(
            {
                "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                "client": client,
                "method": request.method,
                "path": request.url.path,
                "status": status,
                "ms": round(1000 * seconds, 1),
            }
        )
    )

"""What operators see of a server: counters for Prometheus and a log of requests, neither with secrets."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dbnd import ConfigError
from dbnd_tracker._access.callers import identity_of
from dbnd_tracker._access.roles import API
from dbnd_tracker._middleware.answers import POINTS_FORM, POINTS_HEADER
from dbnd_tracker._schemas.validation import UNKNOWN_KEYS

MULTIPROCESS_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable by which the workers of one server find each other's counters."""

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_LONGEST_PATH: Final = 500
_LONGEST_ID: Final = 64


class ServerMetrics:
    """Counters of one server process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        counter = partial(Counter, registry=self._registry)
        self.requests = counter(
            "databand_tracker_requests",
            "Requests that were answered, by route, method and status.",
            ("route", "method", "status"),
        )
        self.seconds = Histogram(
            "databand_tracker_request_seconds",
            "Time from a request to the end of its answer, by route.",
            ("route",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.received = counter("databand_tracker_received_bytes", "Bytes of request bodies as received.")
        self.running = Gauge(
            "databand_tracker_requests_in_progress",
            "Requests that are being handled.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self.dropped = counter(
            "databand_tracker_dropped_events",
            "Events that were dropped because their runs were deleted before they came.",
        )
        self._unknown = counter(
            "databand_tracker_unknown_keys",
            "Keys of bodies that the schemas do not know, by call; they are kept out.",
            ("call",),
        )
        self._lock = threading.Lock()
        self._counted: dict[str, int] = {}

    def text(self) -> bytes:
        """All counters in the text form of Prometheus; those of all workers where there are several."""
        with self._lock:
            for call, count in UNKNOWN_KEYS.counts().items():
                self._unknown.labels(call).inc(count - self._counted.get(call, 0))
                self._counted[call] = count
        if MULTIPROCESS_FOLDER not in os.environ:
            return generate_latest(self._registry)
        shared = CollectorRegistry()
        multiprocess.MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        return generate_latest(shared)


class ObservingMiddleware:
    """Counts and logs every request, refused ones included, and says in answers which points the API takes."""

    def __init__(self, app: ASGIApp, metrics: ServerMetrics, log: logging.Logger | None = None) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start, status, received = time.perf_counter(), 0, 0

        async def counting_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])  # an HTTPStatus is written as its name by Python 3.10
                if scope["path"].startswith(API):
                    MutableHeaders(scope=message)[POINTS_HEADER] = POINTS_FORM
            await send(message)

        self._metrics.running.inc()
        try:
            await self._app(scope, counting_receive, noting_send)
        finally:
            self._metrics.running.dec()
            took = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"  # a caller makes up no further labels
            self._metrics.requests.labels(route, method, str(status)).inc()
            self._metrics.seconds.labels(route).observe(took)
            self._metrics.received.inc(received)
            if self._log:
                # Queries, headers and bodies stay out of the log: they can hold secrets.
                entry = {
                    "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
                    "client": (scope.get("client") or ("",))[0],
                    "token": identity_of(scope).label or None,
                    "method": method,
                    "path": scope["path"][:_LONGEST_PATH],
                    "status": status,
                    "ms": round(took * 1000, 2),
                    "bytes": received,
                    "request_id": Headers(scope=scope).get("x-request-id", "")[:_LONGEST_ID] or None,
                }
                self._log.info(json.dumps(entry))


def access_log(target: str | None) -> logging.Logger | None:
    """A logger of requests as lines of JSON, to a file or (``-``) standard error; ConfigError if it cannot write."""
    if target is None:
        return None
    try:
        handler = logging.StreamHandler() if target == "-" else logging.FileHandler(Path(target).expanduser())
    except OSError as error:
        raise ConfigError(f"tracker.access_log = {target!r} cannot be written to: {error.strerror}.") from None
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("dbnd_tracker.access")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger

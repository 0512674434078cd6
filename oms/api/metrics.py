"""Requests counted and timed by route template: a small ASGI middleware and one registry per app."""

import time
from typing import Any

from litestar.types import ASGIApp, Message, Receive, Send
from prometheus_client import CollectorRegistry, Counter, Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Measures:
    """The counters of one app in this process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "oms_requests", "Requests by route and status.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "oms_request_seconds", "Time until the answer was sent.", ["method", "route"], buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.known: dict[tuple[str, str, int], tuple[Any, Any]] = {}

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """One answered request."""
        key = (method, route, status)
        pair = self.known.get(key)
        if pair is None:
            pair = self.known[key] = (
                self.requests.labels(method, route, str(status)),
                self.seconds.labels(method, route),
            )
        pair[0].inc()
        pair[1].observe(seconds)


class Measured:
    """Times what it wraps."""

    def __init__(self, app: ASGIApp, measures: Measures) -> None:
        self.app, self.measures = app, measures

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Counts the request once its answer began; one that raised counts as 500."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            route = str(scope.get("path_template") or "unmatched")
            self.measures.count(str(scope["method"]), route, status, time.perf_counter() - started)

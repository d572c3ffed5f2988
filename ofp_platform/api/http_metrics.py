"""Counters of the HTTP side alone; the plane's own counters come from the port."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from ofp_platform.api.connection_places import Places
from ofp_platform.online.service.loop_metrics import Durations, Tally

_SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2, 5, 10)


class HttpMetrics:
    """Requests by route and outcome (OK or the error's reason), their duration, connections, unexpected exceptions."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Tally("ofp_http_requests", "requests by route and outcome", ["route", "outcome"], registry=self.registry)
        self._seconds = Durations(
            "ofp_http_request_seconds", "time from head to answer", _SECONDS, ["route"], registry=self.registry
        )
        self.places: Places[Any] | None = None
        self._connections = Gauge("ofp_http_connections", "connections that hold a place", ["lane"], registry=self.registry)
        self._places = Gauge("ofp_http_places", "places for connections", ["lane"], registry=self.registry)
        self._unexpected = Counter(
            "ofp_http_unexpected_errors", "exceptions that became UNAVAILABLE / INTERNAL", registry=self.registry
        )

    def record(self, route: str, outcome: str, seconds: float) -> None:
        """Count one finished request. `route` is one of the declared routes, never a path that a client made up."""
        self._requests.counts[route, outcome] += 1
        self._seconds.observe(seconds, (route,))

    def record_unexpected(self) -> None:
        """Count an exception that nobody expected."""
        self._unexpected.inc()

    def exposition(self) -> bytes:
        """Prometheus text."""
        if self.places is not None:
            for lane, held, most in (
                ("ordinary", self.places.ordinary_count, self.places.limits.places),
                ("reserved", self.places.reserved_count, self.places.limits.lane),
            ):
                self._connections.labels(lane).set(held)
                self._places.labels(lane).set(most)
        return generate_latest(self.registry)

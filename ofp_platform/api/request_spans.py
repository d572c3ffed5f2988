"""Spans of requests, and the trace that a caller asks in (W3C `traceparent`)."""

from __future__ import annotations

from ofp_platform.api.refusals import Headers
from ofp_platform.api.request_head import header
from ofp_platform.telemetry.event_spans import Interval, event_spans
from ofp_platform.telemetry.trace_ids import Stage


def traceparent(headers: Headers) -> str | None:
    """The header of that name, as it came; None where there is none, or no spans are told."""
    given = header(headers, b"traceparent") if event_spans() is not None else None
    return None if given is None else given.decode("latin-1")


def tell_get_features(headers: Headers, seconds: float, snapshot_hash: str | None, reason: str | None) -> None:
    """The span of a question that took so long until now: its answer's hash, or the reason of its refusal."""
    spans = event_spans()
    if spans is not None:
        attributes = {} if snapshot_hash is None else {"ofp.snapshot_hash": snapshot_hash}
        spans.tell_request(Stage.GET_FEATURES, Interval.of_last(seconds), attributes, traceparent(headers), reason)

"""Spans of events: told where OpenTelemetry was started in this process, else nothing happens.

Whoever passes events on asks `event_spans()` once a batch; None, as it is in every process without tracing, ends it there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from ofp_platform.telemetry.trace_ids import Stage

Attributes = Mapping[str, str | int]


@dataclass(slots=True)
class Interval:
    """Begin and end of a piece of work, nanoseconds since 1970, taken by `with`. Of spans alone, and part of no value."""

    began: int = 0
    ended: int = 0

    def __enter__(self) -> Self:
        self.began = time.time_ns()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.ended = time.time_ns()

    @classmethod
    def of_last(cls, seconds: float) -> Interval:
        """The interval of so many seconds that ends now."""
        now = time.time_ns()
        return cls(now - int(seconds * 1e9), now)


class EventSpans(Protocol):
    """Takes spans. None of what it is told is a payload."""

    def tell(
        self,
        stage: Stage,
        event_id: str,
        interval: Interval,
        attributes: Attributes,
        *,
        is_first: bool = False,
        caller: str | None = None,
    ) -> None:
        """A span in the trace of an event. `is_first`: the one that later stages stand under; `caller`: the `traceparent` of who
        sent the event, which the span links to.
        """
        ...

    def tell_request(
        self, stage: Stage, interval: Interval, attributes: Attributes, caller: str | None, error: str | None
    ) -> None:
        """A span of a request, under the `traceparent` of the caller where that is given. `error`: the reason of a refusal."""
        ...


_spans: EventSpans | None = None


def event_spans() -> EventSpans | None:
    """Who takes the spans of this process; None: nobody."""
    return _spans


def use_spans(spans: EventSpans | None) -> None:
    """Let spans of this process go there from now on."""
    global _spans
    _spans = spans

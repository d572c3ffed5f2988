"""Spans by OpenTelemetry (extra `telemetry`), configured by its own environment variables (OTEL_...)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextvars import ContextVar
from multiprocessing.util import Finalize

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags, set_span_in_context
from opentelemetry.trace.propagation import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ofp_platform.telemetry.event_spans import Attributes, EventSpans, Interval
from ofp_platform.telemetry.trace_ids import PARENTS, Stage, span_id, trace_id
from ofp_platform.vocabulary.identity import ContextPins

_SCOPE = "ofp_platform"
_NEXT_IDS: ContextVar[tuple[int, int | None] | None] = ContextVar("next_ids", default=None)
_PROPAGATOR = TraceContextTextMapPropagator()


class DerivedIds(RandomIdGenerator):
    """Ids of the span that is being told, where they follow from its event; else random ones."""

    def generate_trace_id(self) -> int:
        """Of a span without a parent."""
        ids = _NEXT_IDS.get()
        return super().generate_trace_id() if ids is None else ids[0]

    def generate_span_id(self) -> int:
        """Of any span."""
        ids = _NEXT_IDS.get()
        return super().generate_span_id() if ids is None or ids[1] is None else ids[1]


class OpenTelemetrySpans(EventSpans):
    """Tells spans to a provider, whose id generator is `DerivedIds`."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer(_SCOPE)
        self._sampler = provider.sampler

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
        """See `EventSpans.tell`. Whether a trace is sampled follows from its id alone, so all processes agree."""
        trace = trace_id(event_id)
        if self._sampler.should_sample(Context(), trace, stage).decision is Decision.DROP:
            return
        # an event that comes again stands under its first admission
        parent = PARENTS.get(stage) or (None if is_first else Stage.ADMIT)
        context = Context()
        if parent is not None:
            remote = SpanContext(trace, span_id(parent, event_id), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
            context = set_span_in_context(NonRecordingSpan(remote))
        caller_context = _context_of(caller)
        links = [Link(caller_context)] if caller_context is not None else []
        token = _NEXT_IDS.set((trace, span_id(stage, event_id) if is_first else None))
        try:
            span = self._tracer.start_span(
                stage,
                context,
                links=links,
                attributes={"ofp.event_id": event_id, **attributes},
                start_time=interval.began,
            )
        finally:
            _NEXT_IDS.reset(token)
        span.end(interval.ended)

    def tell_request(
        self, stage: Stage, interval: Interval, attributes: Attributes, caller: str | None, error: str | None
    ) -> None:
        """See `EventSpans.tell_request`."""
        context = Context() if caller is None else _PROPAGATOR.extract({"traceparent": caller}, Context())
        span = self._tracer.start_span(stage, context, attributes=attributes, start_time=interval.began)
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(interval.ended)


def _context_of(caller: str | None) -> SpanContext | None:
    """The span that a `traceparent` names; None where it names none."""
    if caller is None:
        return None
    context = get_current_span(_PROPAGATOR.extract({"traceparent": caller}, Context())).get_span_context()
    return context if context.is_valid else None


def resource(process: str, pins: ContextPins | None, environment: Mapping[str, str] = os.environ) -> Resource:
    """The resource of a process: the pins of its run, and its name where OTEL_SERVICE_NAME gives none."""
    attributes: dict[str, str | int] = {} if pins is None else {f"ofp.{name}": value for name, value in pins.wire().items()}
    if not environment.get("OTEL_SERVICE_NAME"):
        attributes["service.name"] = f"ofp {process}"
    return Resource.create(attributes)


def open_spans(process: str, pins: ContextPins | None) -> OpenTelemetrySpans:
    """Spans that go to the OTLP endpoint (HTTP) of the environment, from a thread of their own. At the end of the process what
    waits is sent.
    """
    provider = TracerProvider(resource=resource(process, pins), id_generator=DerivedIds(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    Finalize(None, provider.shutdown, exitpriority=10)  # atexit does not run in workers
    return OpenTelemetrySpans(provider)

"""Spans of this process in memory, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from ofp_platform.telemetry.event_spans import event_spans, use_spans
from ofp_platform.telemetry.open_telemetry import DerivedIds, OpenTelemetrySpans
from ofp_platform.telemetry.trace_ids import trace_id


@dataclass(frozen=True)
class RecordedSpans:
    """What was told so far."""

    exporter: InMemorySpanExporter
    spans: OpenTelemetrySpans

    def all(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def of_event(self, event_id: str) -> list[ReadableSpan]:
        """Those of the event's trace."""
        trace = trace_id(event_id)
        return [span for span in self.all() if span.context is not None and span.context.trace_id == trace]

    def names(self, event_id: str) -> list[str]:
        return [span.name for span in self.of_event(event_id)]


def recorded(sampler: Sampler | None = None) -> RecordedSpans:
    """Spans that go to memory."""
    provider = TracerProvider(sampler=sampler, id_generator=DerivedIds(), shutdown_on_exit=False)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return RecordedSpans(exporter, OpenTelemetrySpans(provider))


@contextmanager
def recording() -> Iterator[RecordedSpans]:
    """All spans of this process go to memory while the context lasts."""
    before, memory = event_spans(), recorded()
    use_spans(memory.spans)
    try:
        yield memory
    finally:
        use_spans(before)

"""Spans of an event stand in one trace whose ids follow from it; sampling and links are OpenTelemetry's own."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import StatusCode

from ofp_platform.telemetry.event_spans import Interval
from ofp_platform.telemetry.open_telemetry import open_spans, resource
from ofp_platform.telemetry.trace_ids import PARENTS, Stage, span_id, trace_id
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform_tests.telemetry.recorded_spans import RecordedSpans, recorded

PINS = ContextPins(scenario_id="s", run_id="r", manifest_fingerprint="m", parameter_hash="p", seed=7)
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
AT = Interval(1_000, 2_000)


def tell_chain(memory: RecordedSpans, event_id: str) -> None:
    for stage in Stage:
        memory.spans.tell(stage, event_id, AT, {}, is_first=stage in (Stage.ADMIT, Stage.APPEND, Stage.DECIDE))


def test_one_event_gives_one_chain() -> None:
    memory = recorded()
    tell_chain(memory, "e-1")
    tell_chain(memory, "e-2")
    spans = {span.name: span for span in memory.of_event("e-1")}
    assert set(spans) == {stage.value for stage in Stage}
    for stage in Stage:
        span = spans[stage.value]
        assert span.context is not None
        assert span.context.trace_id == trace_id("e-1")
        assert (span.start_time, span.end_time) == (1_000, 2_000)
        assert span.attributes is not None
        assert span.attributes["ofp.event_id"] == "e-1"
        parent = PARENTS.get(stage)
        if parent is None:
            assert span.parent is None
        else:
            assert span.parent is not None
            parent_context = spans[parent.value].context
            assert parent_context is not None
            assert span.parent.span_id == parent_context.span_id == span_id(parent, "e-1")
    assert len({span.context.span_id for span in memory.all() if span.context}) == 2 * len(Stage)


def test_an_event_that_comes_again_stands_under_its_first_admission() -> None:
    memory = recorded()
    memory.spans.tell(Stage.ADMIT, "e-1", AT, {}, is_first=True)
    memory.spans.tell(Stage.ADMIT, "e-1", AT, {})
    first, again = memory.of_event("e-1")
    assert first.context is not None
    assert again.context is not None
    assert again.parent is not None
    assert again.parent.span_id == first.context.span_id != again.context.span_id


@pytest.mark.parametrize("sampler", [TraceIdRatioBased(0.5), ParentBased(TraceIdRatioBased(0.5))])
def test_a_trace_is_sampled_whole_or_not_at_all(sampler: TraceIdRatioBased | ParentBased) -> None:
    memory = recorded(sampler)
    for number in range(100):
        tell_chain(memory, f"e-{number}")
    counts = {len(memory.of_event(f"e-{number}")) for number in range(100)}
    assert counts == {0, len(Stage)}


def test_the_trace_of_the_sender_is_linked() -> None:
    memory = recorded()
    memory.spans.tell(Stage.ADMIT, "e-1", AT, {}, is_first=True, caller=CALLER)
    memory.spans.tell(Stage.ADMIT, "e-2", AT, {}, is_first=True, caller="nonsense")
    (link,) = memory.of_event("e-1")[0].links
    assert f"{link.context.trace_id:032x}-{link.context.span_id:016x}" == CALLER[3:-3]
    assert not memory.of_event("e-2")[0].links


def test_a_request_stands_in_the_trace_of_its_caller() -> None:
    memory = recorded()
    memory.spans.tell_request(Stage.GET_FEATURES, AT, {"ofp.snapshot_hash": "h"}, CALLER, None)
    memory.spans.tell_request(Stage.GET_FEATURES, AT, {}, None, "STORE_DOWN")
    inside, alone = memory.all()
    assert inside.parent is not None
    assert f"{inside.parent.trace_id:032x}" == CALLER[3:35]
    assert inside.status.status_code is StatusCode.UNSET
    assert alone.parent is None
    assert (alone.status.status_code, alone.status.description) == (StatusCode.ERROR, "STORE_DOWN")


def test_the_resource_has_the_pins_and_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    named = resource("projector", PINS, {}).attributes
    assert (named["service.name"], named["ofp.run_id"], named["ofp.seed"]) == ("ofp projector", "r", 7)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    assert resource("projector", None, {"OTEL_SERVICE_NAME": "mine"}).attributes["service.name"] == "mine"


def test_spans_are_sent_to_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    received = threading.Event()
    bodies: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()
            received.set()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        try:
            open_spans("projector", PINS).tell(Stage.ADMIT, "e-1", AT, {}, is_first=True)
            assert received.wait(30)
        finally:
            server.shutdown()
            thread.join()
    path, body = bodies[0]
    assert path == "/v1/traces"
    assert trace_id("e-1").to_bytes(16) in body

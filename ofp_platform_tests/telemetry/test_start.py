"""When spans are told: where OpenTelemetry's own variables ask for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from ofp_platform.telemetry import start
from ofp_platform.telemetry.event_spans import event_spans, use_spans

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


@pytest.fixture(autouse=True)
def no_spans() -> Iterator[None]:
    use_spans(None)
    yield
    use_spans(None)


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, True),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "True"}, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_an_endpoint_asks_for_spans(environment: dict[str, str], asked: bool) -> None:
    assert start.is_asked_for(environment) is asked


def test_nothing_is_started_where_nobody_asks() -> None:
    start.start_spans("tried", None, {})
    assert event_spans() is None


def test_spans_go_to_whoever_opens_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from ofp_platform.telemetry import open_telemetry
    from ofp_platform_tests.telemetry.recorded_spans import recorded

    memory = recorded()
    monkeypatch.setattr(open_telemetry, "open_spans", lambda process, pins: memory.spans)
    start.start_spans("tried", None, ENDPOINT)
    assert event_spans() is memory.spans


def test_another_module_that_is_missing_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ofp_platform.telemetry.open_telemetry", None)
    with pytest.raises(ModuleNotFoundError):
        start.start_spans("tried", None, ENDPOINT)

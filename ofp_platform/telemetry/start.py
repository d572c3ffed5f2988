"""Starting to tell spans: where an OTLP endpoint is named, and OpenTelemetry is installed."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from ofp_platform.telemetry.event_spans import use_spans
from ofp_platform.vocabulary.identity import ContextPins

logger = logging.getLogger(__name__)
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def is_asked_for(environment: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's own variables name an endpoint, and do not say that nothing is to be sent."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    return environment.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp" and any(environment.get(name) for name in ENDPOINTS)


def start_spans(process: str, pins: ContextPins | None, environment: Mapping[str, str] = os.environ) -> None:
    """Tell spans from now on, if that is asked for; that nobody can is told once. Not before a process forks its workers."""
    if not is_asked_for(environment):
        return
    try:
        from ofp_platform.telemetry.open_telemetry import open_spans
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "opentelemetry":
            raise
        logger.warning("an OTLP endpoint is named, and no spans are told: install ofp-platform[telemetry]")
        return
    use_spans(open_spans(process, pins))

"""Without tracing there is nothing, and an interval is where it was taken."""

from __future__ import annotations

import subprocess
import sys
import time

from ofp_platform.telemetry.event_spans import Interval, event_spans, use_spans
from ofp_platform_tests.telemetry.recorded_spans import recording


def test_nobody_takes_spans_where_nothing_was_started() -> None:
    use_spans(None)
    assert event_spans() is None
    with recording() as memory:
        assert event_spans() is memory.spans
    assert event_spans() is None


def test_an_interval_has_begin_and_end_also_of_what_fails() -> None:
    interval = Interval()
    try:
        with interval:
            raise ValueError
    except ValueError:
        pass
    assert 0 < interval.began <= interval.ended


def test_the_last_seconds_end_now() -> None:
    before = time.time_ns()
    interval = Interval.of_last(1.5)
    assert interval.ended - interval.began == 1_500_000_000
    assert interval.ended >= before


WITHOUT_EXTRA = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("opentelemetry", "openlineage"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
import ofp_platform.actions.executing, ofp_platform.api.app, ofp_platform.api.ingress_app, ofp_platform.audit.appending
import ofp_platform.cli.main, ofp_platform.decisions.decider, ofp_platform.ingress.open_door, ofp_platform.online.plane
from ofp_platform.telemetry.event_spans import event_spans
from ofp_platform.telemetry.start import start_spans
from ofp_platform.vocabulary.identity import ContextPins
import logging
logging.basicConfig()
start_spans("tried", None, {})
start_spans("tried", None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
assert event_spans() is None
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


def test_without_the_extra_everything_is_imported_and_it_is_told_once() -> None:
    run = subprocess.run([sys.executable, "-c", WITHOUT_EXTRA], capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"
    assert run.stderr.count("install ofp-platform[telemetry]") == 1

"""The log of long-running commands: which form, and that all lines of the process are of it."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from ofp_platform.cli.environment import Environment
from ofp_platform.cli.process_log import follow_as, followed_as, log_as, log_form
from ofp_platform.vocabulary.identity import ContextPins

PINS = ContextPins(scenario_id="s", run_id="r", manifest_fingerprint="m", parameter_hash="p")


class Terminal(io.StringIO):
    """A stream that is one."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def process_log() -> Iterator[None]:
    """The log of this process as it was, afterwards."""
    root, hook, own = logging.getLogger(), sys.excepthook, [logging.getLogger(name) for name in ("ofp", "ofp_platform")]
    handlers, levels, streams = list(root.handlers), [each.level for each in own], (sys.stdout, sys.stderr)
    yield
    root.handlers, sys.excepthook, (sys.stdout, sys.stderr) = handlers, hook, streams
    for each, level in zip(own, levels, strict=True):
        each.setLevel(level)


@pytest.mark.parametrize(
    ("asked", "stream", "form"),
    [(None, Terminal, "text"), (None, io.StringIO, "json"), ("json", Terminal, "json"), ("text", io.StringIO, "text")],
)
def test_the_form_is_as_asked_for_or_fits_the_stream(asked: str | None, stream: type[io.StringIO], form: str) -> None:
    with patch.object(sys, "stderr", stream()):
        assert log_form(Environment.model_validate({"log_form": asked})) == form


def test_a_form_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="log_form"):
        Environment.model_validate({"log_form": "xml"})


def test_where_json_is_asked_for_every_line_is_json() -> None:
    with patch.object(sys, "stdout", io.StringIO()) as printed, patch.object(sys, "stderr", io.StringIO()) as logged:
        made = followed_as("tried", PINS, Environment(log_form="json"), lambda: "the application")
        print("serving at x")
        print("waiting", file=sys.stderr)
        logging.getLogger("ofp.http").warning("moved")
        log_as("tried", PINS, Environment(log_form="json"))  # again: no line becomes two
        logging.getLogger("ofp.http").warning("moved again")
    assert made == "the application"
    lines = [json.loads(line) for line in (printed.getvalue() + logged.getvalue()).splitlines()]
    assert [(line["level"], line["event"]) for line in lines] == [
        ("info", "serving at x"),
        ("warning", "waiting"),
        ("warning", "moved"),
        ("warning", "moved again"),
    ]
    assert all(line["context_pins"] == PINS.wire() and line["process"] == "tried" for line in lines)


def test_else_what_is_printed_stays_as_it_is() -> None:
    with patch.object(sys, "stdout", io.StringIO()) as printed, patch.object(sys, "stderr", io.StringIO()) as logged:
        log_as("tried", PINS, Environment(log_form=None))
        print("serving at x")
        logging.getLogger("ofp.http").warning("moved")
    assert printed.getvalue() == "serving at x\n"
    assert json.loads(logged.getvalue())["event"] == "moved"


def test_a_command_that_ends_by_itself_prints_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr("ofp_platform.telemetry.start.start_spans", lambda process, _pins: started.append(process))
    handlers = list(logging.getLogger().handlers)
    follow_as("tried", PINS, Environment(log_form="json"), ends=True)
    assert logging.getLogger().handlers == handlers
    follow_as("tried on", PINS, Environment(log_form="text"))
    assert len(logging.getLogger().handlers) == len(handlers) + 1
    assert started == ["tried", "tried on"]

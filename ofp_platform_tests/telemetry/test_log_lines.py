"""Log lines: one JSON object each, with the pins of the run, whoever logs; and never a payload."""

from __future__ import annotations

import ast
import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

import ofp_platform
from ofp_platform.log.port import LogUnavailable
from ofp_platform.telemetry.line_parts import error_places, positions
from ofp_platform.telemetry.log_lines import FIELDS, LogForm, configure_log_lines, json_line, line_fields, line_formatter
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import Basis, OffsetKind, PartitionBasis

PINS = ContextPins(scenario_id="s", run_id="r", manifest_fingerprint="m", parameter_hash="p")
FIELDS_OF_PROCESS = line_fields("projector", PINS)
BASIS = Basis(
    stream_name="events", partitions=(PartitionBasis(partition_id="0", offset_kind=OffsetKind.EXCLUSIVE_NEXT, offset=7),)
)
MARKER = "4111111111111111"
PAYLOAD_NAMES = frozenset({"payload", "body", "record", "records", "envelope", "envelopes", "event", "events", "answer", "text"})
"""Names whose values hold, or may hold, what was sent."""


@pytest.fixture
def logger() -> tuple[logging.Logger, io.StringIO]:
    """A logger of a library with the handler of a process, and what it writes."""
    output = io.StringIO()
    library = logging.Logger("a.library")
    handler = logging.StreamHandler(output)
    handler.setFormatter(line_formatter(FIELDS_OF_PROCESS, "json"))
    library.addHandler(handler)
    return library, output


def lines(output: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_a_line_has_time_level_logger_event_process_pins_and_position(logger: tuple[logging.Logger, io.StringIO]) -> None:
    library, output = logger
    library.warning("moved by %d", 3, extra={**positions(BASIS), "projection_id": 4})
    (line,) = lines(output)
    assert list(line)[:6] == ["time", "level", "logger", "event", "process", "context_pins"]
    assert str(line.pop("time")).endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "a.library",
        "event": "moved by 3",
        "process": "projector",
        "context_pins": PINS.wire(),
        "positions": {"0": 7},
        "projection_id": 4,
    }


def test_several_lines_of_words_are_one_line(logger: tuple[logging.Logger, io.StringIO]) -> None:
    library, output = logger
    library.warning("two\nlines")
    assert [line["event"] for line in lines(output)] == ["two\nlines"]


def test_other_fields_of_a_call_are_left_out(logger: tuple[logging.Logger, io.StringIO]) -> None:
    library, output = logger
    library.warning("set aside", extra={"payload": MARKER, "offset": 5})
    assert MARKER not in output.getvalue()
    assert lines(output)[0]["offset"] == 5
    assert not PAYLOAD_NAMES & set(FIELDS)


class Amount(BaseModel):
    """A payload."""

    amount: int


def quoting_error() -> ValidationError:
    """An error whose text quotes the payload that it is about."""
    with pytest.raises(ValidationError) as raised:
        Amount.model_validate({"amount": f"card {MARKER}"})
    assert MARKER in str(raised.value)
    return raised.value


def test_an_error_is_told_by_type_and_place(logger: tuple[logging.Logger, io.StringIO]) -> None:
    library, output = logger
    library.error("not read", exc_info=quoting_error())
    assert MARKER not in output.getvalue()
    (line,) = lines(output)
    assert line["error"] == "ValidationError"
    places = line["places"]
    assert isinstance(places, list)
    assert any("quoting_error" in place for place in places)


@pytest.mark.parametrize("as_mapping", [False, True])
def test_an_error_of_a_library_among_the_words_is_its_type(logger: tuple[logging.Logger, io.StringIO], as_mapping: bool) -> None:
    library, output = logger
    if as_mapping:
        library.warning("not read: %(error)s", {"error": quoting_error()})
    else:
        library.warning("not read: %s", quoting_error())
    assert [line["event"] for line in lines(output)] == ["not read: ValidationError"]


def test_an_error_of_our_own_and_of_the_system_keep_their_words(logger: tuple[logging.Logger, io.StringIO]) -> None:
    library, output = logger
    library.warning("%s; %s", LogUnavailable("the log is away"), OSError(28, "no space"))
    assert [line["event"] for line in lines(output)] == ["the log is away; [Errno 28] no space"]


def test_other_handlers_get_the_record_as_it_was(
    logger: tuple[logging.Logger, io.StringIO], caplog: pytest.LogCaptureFixture
) -> None:
    library, _ = logger
    library.addHandler(caplog.handler)
    error = quoting_error()
    library.warning("not read: %s", error)
    assert caplog.records[0].args == (error,)


def test_words_for_a_terminal(logger: tuple[logging.Logger, io.StringIO]) -> None:
    library, output = logger
    library.handlers[0].setFormatter(line_formatter(FIELDS_OF_PROCESS, "text"))
    library.warning("moved", extra={"offset": 9})
    text = output.getvalue()
    assert "moved" in text
    assert "offset=9" in text
    assert "{" not in text
    assert "\x1b" not in text


def test_a_line_that_was_printed_has_the_same_form() -> None:
    line = json.loads(json_line("info", "ofp.output", "serving", FIELDS_OF_PROCESS))
    assert {name: line[name] for name in ("event", "process", "context_pins")} == {"event": "serving", **FIELDS_OF_PROCESS}


def test_a_process_without_a_run_has_no_pins() -> None:
    assert line_fields("up", None) == {"process": "up"}


PROGRAM = """
import logging, sys
from ofp_platform.telemetry.log_lines import configure_log_lines, line_fields
for form in ("text", sys.argv[1]):
    configure_log_lines(line_fields("tried", None), form)
logging.getLogger("ofp_platform.some").info("of our own")
logging.getLogger("some.library").info("not told")
logging.getLogger("some.library").warning("of a library")
raise ValueError("%s")
"""


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_process_tells_the_last_form_its_own_lines_and_its_end(form: LogForm) -> None:
    command = [sys.executable, "-c", PROGRAM % MARKER, form]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 1
    assert MARKER not in run.stderr
    assert len(run.stderr.splitlines()) == 3, run.stderr
    if form == "json":
        told = [json.loads(line) for line in run.stderr.splitlines()]
        assert [line["event"] for line in told] == ["of our own", "of a library", "the process ends: ValueError"]
        assert told[-1]["places"] == ["<string>:9 <module>"]


def test_no_handler_is_left_over() -> None:
    before = list(logging.getLogger().handlers)
    for _ in range(2):
        configure_log_lines({}, "json", io.StringIO())
    assert len(logging.getLogger().handlers) == len(before) + 1


def test_places_are_the_innermost_first() -> None:
    def raising() -> None:
        raise ValueError

    with pytest.raises(ValueError) as raised:
        raising()
    assert error_places(raised.value)[0].endswith(" raising")
    assert len(error_places(raised.value, 1)) == 1


def payload_arguments(source: str) -> list[str]:
    """The arguments of logging calls that name what was sent, as text."""
    named = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Name(id="logger" | "LOGGER" | "logging"),
                    attr="debug" | "info" | "warning" | "error" | "exception" | "critical" | "log",
                )
            ):
                arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
                named += [ast.unparse(argument) for argument in arguments if _names(argument) & PAYLOAD_NAMES]
    return named


def _names(argument: ast.expr) -> set[str]:
    """The names whose value the argument is; what is looked up in one by an attribute that is no payload is none."""
    match argument:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return {name}
        case ast.Call(func=ast.Name(id="len")):
            return set()
        case _:
            return {name for part in ast.iter_child_nodes(argument) if isinstance(part, ast.expr) for name in _names(part)}


def test_no_logging_call_is_given_a_payload() -> None:
    folder = Path(ofp_platform.__file__).parent
    sources = {path: path.read_text(encoding="utf-8") for path in folder.rglob("*.py")}
    assert sum("logger.warning(" in source for source in sources.values()) > 5
    assert {str(path): named for path, source in sources.items() if (named := payload_arguments(source))} == {}


@pytest.mark.parametrize(
    "call",
    ["logger.warning('%s', payload)", "LOGGER.error('x', extra={'offset': event.payload})", "logger.info(f'of {record}')"],
)
def test_a_payload_in_a_logging_call_is_seen(call: str) -> None:
    assert payload_arguments(call)


def test_counts_of_records_and_their_ids_are_no_payload() -> None:
    assert payload_arguments("logger.info('%d of %s', len(records), record.event_id)") == []

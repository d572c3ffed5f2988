"""The log of a process: each line one JSON object, or words for a terminal. Lines of libraries come out in the same form.

A line has the time, the level, the logger, the event in words, the process, the context pins of its run, and the position where
one is at hand. It never has a payload: of what is logged beside the words only the fields listed here are taken, and an error
is told by its type and by the places in the code.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from ofp_platform.telemetry.line_parts import error_places, line_time
from ofp_platform.vocabulary.identity import ContextPins

LogForm = Literal["json", "text"]
TIME = "time"
FIELDS = ("partition_id", "offset", "positions", "projection_id", "version")
"""What a logging call may give in `extra`: a position, the basis behind a step (offsets by partition), a projection."""
OWN_LOGGERS = ("ofp_platform", "ofp")
_LAST_PLACES = 30


class _LineHandler(logging.Handler):
    """The handler that `configure_log_lines` installs. `output`: None: standard error, whichever that is then."""

    def __init__(self, output: TextIO | None) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            output = self._output or sys.stderr
            output.write(f"{self.format(record)}\n")
            output.flush()
        except Exception:
            self.handleError(record)


class _LineFormatter(structlog.stdlib.ProcessorFormatter):
    """structlog's formatter, for records whose arguments may hold errors of other libraries."""

    def format(self, record: logging.LogRecord) -> str:
        """As a line."""
        line_record = copy.copy(record)  # other handlers get the same record
        match record.args:
            case tuple():
                line_record.args = tuple(map(_without_quote, record.args))
            case Mapping():
                line_record.args = {name: _without_quote(argument) for name, argument in record.args.items()}
        return super().format(line_record)


def _without_quote(argument: object) -> object:
    """An error of another library by its type: its text may quote the value that it is about. One of the operating system as
    it is.
    """
    is_foreign = isinstance(argument, BaseException) and type(argument).__module__.partition(".")[0] != "ofp_platform"
    return type(argument).__name__ if is_foreign and not isinstance(argument, OSError) else argument


def _add_time(_logger: WrappedLogger, _name: str, line: EventDict) -> EventDict:
    line[TIME] = line_time()
    return line


def _error_in_words(_logger: WrappedLogger, _name: str, line: EventDict) -> EventDict:
    """The type of an error and where it was raised, in the place of its text and trace."""
    exception = line.pop("exc_info", None)
    error = exception[1] if isinstance(exception, tuple) else exception
    if isinstance(error, BaseException):
        line["error"] = type(error).__name__
        line["places"] = error_places(error, _LAST_PLACES)
    line.pop("stack_info", None)
    return line


def _in_order(fields: Mapping[str, object]) -> Processor:
    def order(_logger: WrappedLogger, _name: str, line: EventDict) -> EventDict:
        head = {name: line.pop(name) for name in (TIME, "level", "logger", "event") if name in line}
        return {**head, **fields, **line}

    return order


def _json(line: EventDict, **_options: Any) -> str:
    return orjson.dumps(line, default=str).decode()


def json_line(level: str, logger: str, event: str, fields: Mapping[str, object]) -> str:
    """A line of the log in JSON, without an end of line."""
    return _json({TIME: line_time(), "level": level, "logger": logger, "event": event, **fields})


def line_fields(process: str, pins: ContextPins | None) -> dict[str, object]:
    """The fields of every line of a process. `pins`: None for one that works for no run."""
    return {"process": process} if pins is None else {"process": process, "context_pins": pins.wire()}


def line_formatter(fields: Mapping[str, object], form: LogForm, *, colours: bool = False) -> logging.Formatter:
    """The formatter of a process, which adds the fields to every line. `text` leaves the pins out: a terminal has one run."""
    if form == "json":
        renderer: Processor = structlog.processors.JSONRenderer(serializer=_json)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=colours, timestamp_key=TIME, pad_event_to=0, sort_keys=False)
        fields = {}
    return _LineFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(allow=FIELDS),
            _add_time,
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _error_in_words, _in_order(fields), renderer],
    )


def configure_log_lines(fields: Mapping[str, object], form: LogForm, output: TextIO | None = None) -> None:
    """Let all of this process log to `output` (standard error) in one form: own lines from INFO, those of libraries from WARNING.

    An error that ends the process is a line like the others. May be called again; the last call counts.
    """
    handler = _LineHandler(output)
    handler.setFormatter(line_formatter(fields, form, colours=(output or sys.stderr).isatty()))
    root = logging.getLogger()
    root.handlers = [other for other in root.handlers if not isinstance(other, _LineHandler)]
    root.addHandler(handler)
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
    sys.excepthook = _tell_of_end


def _tell_of_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("ofp").critical("the process ends: %s", kind.__name__, exc_info=(kind, error, trace))

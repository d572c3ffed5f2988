"""How a long-running command is followed, its log and its spans: set up once, in each process that it consists of."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ofp_platform.cli.environment import Environment
from ofp_platform.cli.stamped_output import PRINTED_LEVELS, StampedOutput

if TYPE_CHECKING:
    from ofp_platform.telemetry.log_lines import LogForm
    from ofp_platform.vocabulary.identity import ContextPins

Application = TypeVar("Application")


def log_form(environment: Environment) -> LogForm:
    """The form of log lines: as OFP_LOG_FORM says, else words on a terminal and JSON everywhere else."""
    return environment.log_form or ("text" if sys.stderr.isatty() else "json")


def log_as(process: str, pins: ContextPins, environment: Environment) -> None:
    """Let this process log by that name and for that run. Where JSON is asked for by name, what it prints is lines of it, too."""
    from ofp_platform.telemetry.log_lines import configure_log_lines, line_fields

    fields = line_fields(process, pins)
    for name, level in PRINTED_LEVELS.items():
        stream = getattr(sys, name)
        if environment.log_form == "json" and not isinstance(stream, StampedOutput):
            stream = StampedOutput(stream, level, as_json=True)
            setattr(sys, name, stream)
        if isinstance(stream, StampedOutput):
            stream.fields = fields
    configure_log_lines(fields, log_form(environment))


def follow_as(process: str, pins: ContextPins, environment: Environment, *, ends: bool = False) -> None:
    """Let this process log so, and tell its spans where OpenTelemetry is asked for. It starts a thread: not before a fork.

    `ends`: it ends by itself, and prints what any command does.
    """
    from ofp_platform.telemetry.start import start_spans

    if not ends:
        log_as(process, pins, environment)
    start_spans(process, pins)


def followed_as(process: str, pins: ContextPins, environment: Environment, factory: Callable[[], Application]) -> Application:
    """The product of the factory, in a worker that is followed so: one that is spawned has no log of its parent's."""
    follow_as(process, pins, environment)
    return factory()

"""Telling catalogues of others where a thing comes from: the option, and what is said where that cannot be."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from ofp_platform.cli.terminal.printed_facts import print_facts
from ofp_platform.cli.terminal.refusals import CommandRefused

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent

KEY_VARIABLE = "OPENLINEAGE_API_KEY"
OpenLineage = Annotated[
    str,
    typer.Option(
        "--openlineage",
        metavar="FILE|URL",
        help=f"File to append the event to, or URL of a collector (its key: {KEY_VARIABLE}).",
        show_default=False,
    ),
]


def demand_open_lineage() -> None:
    """Refuse where the client of OpenLineage is not installed.

    Raises:
        CommandRefused: it is not.
    """
    try:
        import openlineage.client  # noqa: F401
    except ModuleNotFoundError:
        raise CommandRefused("the client of OpenLineage is not installed: pip install 'ofp-platform[openlineage]'") from None


def tell_lineage(make: Callable[[], RunEvent], destination: str, *, as_json: bool) -> None:
    """Send an event, and print which.

    Raises:
        CommandRefused: the destination did not take it.
    """
    from ofp_platform.lineage.sending import LineageNotTaken, event_text, send

    event = make()
    try:
        send(event, destination, os.environ.get(KEY_VARIABLE) or None)
    except LineageNotTaken as refusal:
        raise CommandRefused(str(refusal)) from None
    content: dict[str, Any] = orjson.loads(event_text(event))
    print_facts(content, [f"told {destination}: {event.job.name}, run {event.run.runId}"], as_json=as_json)

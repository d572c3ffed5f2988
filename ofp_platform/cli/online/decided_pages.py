"""The decisions of a run, shown to a step of a command a page at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ofp_platform.cli.terminal.progress import bar
from ofp_platform.cli.terminal.refusals import CommandRefused

if TYPE_CHECKING:
    from ofp_platform.decisions.decided_span import PastDecision
    from ofp_platform.online.plane import Plane

Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="At most this many of the oldest; default: all.", show_default=False)
]


def over_run(plane: Plane, limit: int | None, words: str, look_at: Callable[[list[PastDecision]], None]) -> None:
    """Show a step all decisions of the run.

    Raises:
        CommandRefused: a decision stands on nothing in the log.
    """
    from ofp_platform.cli.online.decided_run import decided_run
    from ofp_platform.decisions.decided_span import DecisionsUnread

    run = decided_run(plane)
    parts = run.parts(limit)
    try:
        with bar(Console(stderr=True), words, sum(part.decisions for part in parts)) as advance:
            for page in run.pages(parts):
                look_at(page)
                advance(len(page))
    except DecisionsUnread as unread:
        raise CommandRefused(str(unread)) from None

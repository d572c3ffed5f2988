"""Options that many commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ofp_platform.vocabulary.model import IDENTIFIER_PATTERN

MOST_REASON = 400
"""Characters of a reason in a step, a message or an entry."""
MOST_FACT_REASON = 1_000
"""Characters of a reason that stands in a governance fact alone."""
_ACTOR = "'--actor'"
_IDENTIFIER = re.compile(IDENTIFIER_PATTERN, re.ASCII)


def actor_name(text: str) -> str:
    """A name that records can hold.

    Raises:
        typer.BadParameter: it cannot stand in one.
    """
    if _IDENTIFIER.fullmatch(text) is None:
        raise typer.BadParameter(
            "a name has letters, digits and _ . : / -, begins with a letter or digit, and has at most 128 characters",
            param_hint=_ACTOR,
        )
    return text


def actor_or_user(text: str | None) -> str:
    """As `actor_name`; where no name is given, that of the user of this process."""
    if text is not None:
        return actor_name(text)
    import getpass

    try:
        return actor_name(getpass.getuser())
    except (KeyError, OSError, typer.BadParameter):
        words = "the user of this process has no name that can stand in a record: say who it is"
        raise typer.BadParameter(words, param_hint=_ACTOR) from None


def reason_within(most: int) -> Callable[[str], str]:
    """The check of a reason that is kept for good: words, at most so many characters."""

    def check(text: str) -> str:
        if not text.strip():
            raise typer.BadParameter("say why: it is kept for good")
        if len(text) > most:
            raise typer.BadParameter(f"{len(text):,} characters, and a record keeps at most {most:,}: say it in short")
        return text

    return check


Home = Annotated[
    Path | None,
    typer.Option(
        "--home", help="Folder of everything local; default: OFP_HOME, or .ofp in the current folder.", show_default=False
    ),
]
ProfileSource = Annotated[
    str | None,
    typer.Option(
        "--profile",
        help="Shipped profile (demo, handbook, rings) or file; default: OFP_PROFILE, profile.yaml in the home folder, or demo.",
        show_default=False,
    ),
]
Actor = Annotated[str, typer.Option("--actor", callback=actor_name, help="Name of who asks, for the record.")]
ActorOrUser = Annotated[str | None, typer.Option("--actor", help="Name of who decides; default: the user of this process.")]
"""See `actor_or_user`."""
FactReason = Annotated[
    str, typer.Option("--reason", callback=reason_within(MOST_FACT_REASON), help="Why, for the record.", show_default=False)
]
Reason = Annotated[
    str, typer.Option("--reason", callback=reason_within(MOST_REASON), help="Why, for the record.", show_default=False)
]
OfContext = Annotated[bool, typer.Option("--context", help="Of the context stream: links between entities.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
AlwaysJson = Annotated[bool, typer.Option("--json", help="Print JSON, as this command always does.", expose_value=False)]

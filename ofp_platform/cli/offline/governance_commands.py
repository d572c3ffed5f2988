"""`ofp governance`: the facts that are kept for good about builds and runs."""

from __future__ import annotations

from typing import Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import AsJson, Home
from ofp_platform.cli.terminal.printed_facts import item, print_facts, when
from ofp_platform.cli.terminal.refusals import CommandRefused

app = typer.Typer(
    help="List governance facts: builds that ended, datasets that were superseded, runs of Dagster that failed.",
    no_args_is_help=True,
)


@app.callback()
def governance() -> None:
    """A group, though of one command."""


@app.command("list", short_help="List the newest governance facts.")
def show_list(
    fact: Annotated[
        str | None,
        typer.Option(
            "--fact",
            help="Name of the facts to list, such as build_completed, build_failed, dagster_run_failed or id_adjudicated.",
            show_default=False,
        ),
    ] = None,
    about: Annotated[str, typer.Option("--about", help="First digits of a request or of a run of Dagster.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Greatest number of facts to list.")] = 20,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """The newest facts, newest first."""
    from ofp_platform.storage.governance_facts import read_facts
    from ofp_platform.storage.postgres import open_pool
    from ofp_platform.vocabulary.offline.governance_fact import FACTS, gist, subject

    if fact is not None and fact not in FACTS:
        raise CommandRefused(f"there is no fact {fact!r}; there are {', '.join(FACTS)}")
    with open_pool(resolve(home).dsn("auditor")) as pool:
        recorded_facts = read_facts(pool, fact, about=about, limit=limit)
    print_facts(
        [{"recorded_at_utc": recorded.recorded_at_utc, **recorded.fact.wire()} for recorded in recorded_facts],
        (
            line
            for recorded in recorded_facts
            for line in item(
                when(recorded.recorded_at_utc), recorded.fact.fact, subject(recorded.fact)[:12], details=(gist(recorded.fact),)
            )
        ),
        as_json=json,
    )

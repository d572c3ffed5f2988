"""`ofp id`: event ids with several contents, and which of these makes the rows of datasets."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import ActorOrUser, AsJson, FactReason, Home, ProfileSource, actor_or_user
from ofp_platform.cli.terminal.printed_facts import item, print_facts, when
from ofp_platform.cli.terminal.refusals import CommandRefused, given_in_words

app = typer.Typer(help="Decide which content of an event id counts, where it has several.", no_args_is_help=True)


@app.command(short_help="Decide which record of a conflicting id counts.")
def adjudicate(
    event_class: Annotated[str, typer.Argument(metavar="CLASS", help="Class of the event: its type, unless the pack says else.")],
    event_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the event.")],
    position: Annotated[
        str,
        typer.Option("--counts", metavar="PARTITION/OFFSET", help="Place of the record that counts.", show_default=False),
    ],
    reason: FactReason,
    actor: ActorOrUser = None,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Record for good that of an id with several contents this one makes rows, so that training sets can be built again.

    The decision is part of the identity of every dataset of the run whose replay has that record. Values of features do not
    change: both contents are events, online and offline. A later decision about the same id takes its place.
    """
    from ofp_platform.log.governance_log import append_facts
    from ofp_platform.storage.postgres import open_pool
    from ofp_platform.vocabulary.offline.adjudication import Adjudication
    from ofp_platform.vocabulary.offline.governance_fact import IdAdjudicated
    from ofp_platform.vocabulary.times import MICROS_PER_SECOND, format_time

    partition_id, separator, offset = position.rpartition("/")
    if not (separator and partition_id and offset.isascii() and offset.isdigit() and len(offset) <= 128):
        raise CommandRefused(f"--counts: {position!r} is no place; write PARTITION/OFFSET as the refused build shows it")
    environment = resolve(home, profile)
    declared_profile = environment.load_profile()
    with given_in_words("the decision"):
        adjudication = Adjudication(
            event_class=event_class,
            event_id=event_id,
            partition_id=partition_id,
            offset=offset if declared_profile.log_kind == "kinesis" else int(offset),
        )
        decision = IdAdjudicated(
            stream_name=declared_profile.stream_name,
            context_pins=declared_profile.context_pins,
            adjudication=adjudication,
            actor=actor_or_user(actor),
            reason=reason,
            decided_at_utc=format_time(int(time.time() * MICROS_PER_SECOND)),
        )
    with open_pool(environment.dsn("offline")) as pool:
        append_facts(pool, [decision])
    line = f"of {event_class} {event_id} the record at {position} counts; build again with `ofp intent retry`"
    print_facts(decision, [line], as_json=json)


@app.command("list", short_help="List the decisions.")
def show_list(json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """The decisions about ids of the profile's run, oldest first; the last one about an id stands."""
    from ofp_platform.storage.id_adjudications import read_decisions
    from ofp_platform.storage.postgres import open_pool

    environment = resolve(home, profile)
    declared_profile = environment.load_profile()
    with open_pool(environment.dsn("offline")) as pool:
        decisions = read_decisions(pool, declared_profile.stream_name, declared_profile.context_pins)
    lines: list[str] = []
    for decision in decisions:
        adjudication = decision.adjudication
        place = f"{adjudication.partition_id}/{adjudication.offset}"
        details = (f"{decision.actor}: {decision.reason}",)
        lines += item(when(decision.decided_at_utc), " ".join(adjudication.name), place, details=details)
    print_facts(decisions, lines, as_json=json)

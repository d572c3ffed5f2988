"""`ofp quarantine`: records that ingress set aside, listed, shown without their content, and sent again."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.files.run_door import door_of
from ofp_platform.cli.options import ActorOrUser, AsJson, FactReason, Home, ProfileSource, actor_or_user
from ofp_platform.cli.terminal.printed_facts import item, print_facts, when
from ofp_platform.cli.terminal.refusals import CommandRefused

app = typer.Typer(help="Show records that were set aside, and send them again.", no_args_is_help=True)
RecordId = Annotated[int, typer.Argument(metavar="ID", help="Id of the record, as `ofp quarantine list` shows it.")]


@app.command("list", short_help="List records that were set aside.")
def show_list(
    reason: Annotated[str | None, typer.Option("--reason", help="Reason of those to list.", show_default=False)] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Greatest number of records to list.")] = 50,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Records of the profile's run that were set aside, newest first: reason, field, producer; nothing of their content."""
    from ofp_platform.ingress.receipts import quarantine_by_reason, read_quarantine
    from ofp_platform.vocabulary.admission_receipt import QuarantineReason

    if reason is not None and reason not in list(QuarantineReason):
        raise CommandRefused(f"there is no reason {reason!r}; there are {', '.join(QuarantineReason)}")
    with resolve(home, profile).open_plane_without_log("auditor") as plane, plane.pool.connection() as connection:
        pins = plane.profile.context_pins
        records = read_quarantine(connection, pins, reason=reason, limit=limit)
        by_reason = quarantine_by_reason(connection, pins)
    lines = [f"{name}: {count:,}" for name, count in by_reason.items()]
    for record in records:
        again = f"; sent again: {record.replays}" if record.replays else ""
        head = record.quarantine_id, when(record.received_at_utc), record.reason, record.event_type or "", record.event_id or ""
        lines += item(*head, details=(record.detail, f"from {record.producer}{again}"))
    print_facts({"by_reason": by_reason, "records": records}, lines or ["nothing was set aside"], as_json=json)


@app.command(short_help="Show why a record was set aside.")
def show(record_id: RecordId, json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Reason, field, batch, and the object in which the record is kept. Its content is not printed: who may read the object store
    reads it there.
    """
    from ofp_platform.ingress.receipts import quarantined_record

    with resolve(home, profile).open_plane_without_log("auditor") as plane, plane.pool.connection() as connection:
        record = quarantined_record(connection, plane.profile.context_pins, record_id)
    facts = vars(record)
    print_facts(record, [f"{name}: {'none' if value is None else value}" for name, value in facts.items()], as_json=json)


@app.command(short_help="Send a record through the door again.")
def replay(
    record_id: RecordId,
    reason: FactReason,
    actor: ActorOrUser = None,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Send a record as it was sent, and keep that as a governance fact. Exit code 1 if it was set aside again."""
    from ofp_platform.ingress.quarantine_replay import replay_record
    from ofp_platform.ingress.receipts import quarantined_record
    from ofp_platform.vocabulary.times import MICROS_PER_SECOND, format_time

    with resolve(home, profile).open_plane("ingress") as plane:
        with plane.pool.connection() as connection:
            record = quarantined_record(connection, plane.profile.context_pins, record_id)
        at_utc = format_time(int(time.time() * MICROS_PER_SECOND))
        receipt = replay_record(door_of(plane), record, actor_or_user(actor), reason, at_utc)
    (outcome,) = receipt.outcomes
    words = "" if outcome.reason is None else f": {outcome.reason}: {outcome.detail}"
    facts = {"quarantine_id": record_id, "batch_id": receipt.batch_id, "outcome": outcome.outcome, "reason": outcome.reason}
    print_facts(facts, [f"{outcome.outcome}{words}"], as_json=json)
    if outcome.reason is not None:
        raise typer.Exit(1)

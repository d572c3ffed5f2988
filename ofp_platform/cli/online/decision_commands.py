"""`ofp decision`: one recorded decision with all that made it; decisions made again; what else would have been decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.online.decided_pages import Limit
from ofp_platform.cli.online.what_if_command import what_if
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import item, print_facts
from ofp_platform.cli.terminal.progress import bar
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.vocabulary.model import is_digest

if TYPE_CHECKING:
    from ofp_platform.online.plane import Plane
    from ofp_platform.vocabulary.loop.decision_record import DecisionRecord

app = typer.Typer(help="Show recorded decisions, decide again, or otherwise.", no_args_is_help=True)
_MISMATCH = "MISMATCH: the rule does not give what was decided"
_MOST_SHOWN = 20


@app.command(short_help="Show one decision, and make it again from what it names.")
def show(
    decision_id: Annotated[str, typer.Argument(metavar="ID", help="64 hex digits, the decision_id of the record.")],
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """The record of a decision, and what its rule or bundle gives for the snapshot that it names by hash.

    Exit code 1 if that is another score or outcome, or if it cannot be told: snapshot, rule or bundle is not stored.
    """
    if not is_digest(decision_id):
        raise CommandRefused("a decision id is 64 hex digits, in lower case")
    from ofp_platform.storage.decision_records import stored_decision
    from ofp_platform.vocabulary.loop.decision_record import DecisionRecord

    with resolve(home, profile).open_plane_without_log("auditor") as plane:
        with plane.pool.connection() as connection:
            stored = stored_decision(connection, decision_id, plane.profile.context_pins)
        if stored is None:
            raise CommandRefused(f"no decision {decision_id} is recorded in the run of the profile")
        record = DecisionRecord.model_validate_json(stored.content)
        again, problem = _by_rule(plane, record) if record.rule is not None else _by_bundle(plane, record, stored.content)
    facts: dict[str, Any] = {"decision": record.wire(), "submitted_by": stored.submitted_by, "again": again}
    facts["equal"] = None if again is None else problem is None
    lines = _lines(record, stored.submitted_by)
    if again is not None:
        lines.append(f"again        {again['outcome']}, score {again['score']}, by what it names, on the stored snapshot")
    lines += ["MATCH"] if problem is None else []
    if problem is not None and again is None:
        facts["problem"] = problem
    print_facts(facts, lines, as_json=json)
    if problem is not None:
        typer.echo(problem, err=True)
        raise typer.Exit(1)


@app.command(short_help="Make the plane's decisions again, bit for bit.")
def replay(
    limit: Limit = None,
    workers: Annotated[int, typer.Option(min=1, help="The most processes; a short run takes one.")] = 2,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Decide again on every event that the plane decided on: from the event in the log, the vector that was served, bundle and
    mode as the record names them. Exit code 1 if one is not the same to the last byte, if one cannot be made again, or if there
    is none.
    """
    from ofp_platform.cli.online import decided_run
    from ofp_platform.decisions.decided_span import DecisionsUnread
    from ofp_platform.decisions.redeciding import ReplayTally
    from ofp_platform.decisions.replaying import ReplayBroken

    tally = ReplayTally()
    with resolve(home, profile).open_plane("auditor") as plane:
        parts = decided_run.decided_run(plane).parts(limit)
        try:
            with bar(Console(stderr=True), "Deciding again", sum(part.decisions for part in parts)) as advance:
                for count in decided_run.replay(plane, parts, tally, workers):
                    advance(count)
        except (DecisionsUnread, ReplayBroken) as error:
            raise CommandRefused(str(error)) from None
    if not tally.decisions:
        raise CommandRefused("the plane has decided on nothing in the run of the profile: there is nothing to make again")
    shown_differences = tally.differences[:_MOST_SHOWN]
    lines = [f"{tally.decisions:,} decisions made again: {tally.equal:,} are equal to the last byte"]
    lines += [line for one in shown_differences for line in item(one.decision_id, one.words)]
    facts = {"decisions": tally.decisions, "equal": tally.equal, "differing": len(tally.differences), "first": shown_differences}
    print_facts(facts, lines, as_json=json)
    if tally.equal != tally.decisions:
        raise typer.Exit(1)


app.command("whatif", short_help="Show which decisions would flip otherwise, and why.")(what_if)


_Again = tuple[dict[str, Any] | None, str | None]


def _by_rule(plane: Plane, record: DecisionRecord) -> _Again:
    """The decision by the stored rule, and what is wrong; None: nothing."""
    from ofp_platform.decisions.redecision import NotRedecided, decide_again
    from ofp_platform.online.serving.snapshot_store import SnapshotStore
    from ofp_platform.storage.evidence import read_evidence
    from ofp_platform.vocabulary.serving import SnapshotRecord

    assert record.rule is not None
    assert record.feature_snapshot_hash is not None
    with plane.pool.connection() as connection:
        rule_text = read_evidence(connection, [record.rule.digest]).get(record.rule.digest)
    served_record = SnapshotStore(plane.pool, plane.objects).load(record.feature_snapshot_hash, plane.is_own)
    try:
        again = decide_again(record, SnapshotRecord.model_validate_json(served_record), rule_text)
    except NotRedecided as error:
        return None, str(error)
    return {"score": again.score, "outcome": again.outcome.value}, None if again.equal else _MISMATCH


def _by_bundle(plane: Plane, record: DecisionRecord, stored: str) -> _Again:
    """The decision by the bundle, and what is wrong; None: nothing."""
    import orjson

    from ofp_platform.decisions.decided_span import PastDecision
    from ofp_platform.decisions.event_reader import ReadEvent
    from ofp_platform.decisions.ready_bundles import ReadyBundles
    from ofp_platform.decisions.redeciding import ReplayTally, redecide
    from ofp_platform.log.port import UnreadableRecord
    from ofp_platform.log.record_lookup import record_at
    from ofp_platform.storage.snapshot_records import read_records
    from ofp_platform.vocabulary.times import parse_time

    at = record.event_position
    found_record = record_at(plane.archived_log, plane.archive, at.partition_id, str(at.offset))
    if isinstance(found_record, UnreadableRecord):
        return None, f"the record at {at.partition_id}:{at.offset} is no event"
    envelope = found_record.envelope
    event = ReadEvent(at, envelope.event_id, parse_time(envelope.ts_utc), dict(envelope.payload))
    name = record.feature_snapshot_hash
    hashed_part = None if name is None else read_records(plane.pool, plane.objects, [name], record.context_pins).get(name)
    past = PastDecision(stored, orjson.loads(stored), event, None if hashed_part is None else hashed_part["values"])
    tally = ReplayTally()
    redecide([past], ReadyBundles(plane.objects).load, tally)
    if tally.differences:
        return None, tally.differences[0].words
    return {"score": record.score, "outcome": record.outcome.value}, None


def _lines(record: DecisionRecord, submitted_by: str | None) -> list[str]:
    at = record.event_position
    lines = [
        f"decision     {record.decision_id}",
        f"event        {record.event_type} {record.event_id}, {at.partition_id}:{at.offset}",
        f"as of        {record.as_of_time_utc}",
        f"snapshot     {record.feature_snapshot_hash or 'none: it was decided without'}",
    ]
    if record.rule is not None:
        lines.append(f"rule         {record.rule.rule_name} {record.rule.rule_version}, {record.rule.digest}")
    elif record.posture is not None:
        bundle, under = record.bundle, record.posture
        lines.append(
            "bundle       none was in force"
            if bundle is None
            else f"bundle       {bundle.bundle.bundle_name}, {bundle.bundle.digest}, step {bundle.sequence} of its registry"
        )
        lowering = "" if under.lowering is None else f", lowered to {under.applied_mode}: {under.lowering}"
        lines.append(f"posture      {under.in_force.mode}{lowering}")
        lines.append(f"reasons      {', '.join(record.reason_codes or ()) or 'none'}")
    lines += [
        f"decided      {record.outcome.value}, score {record.score}, at {record.decided_at_utc}",
        f"recorded by  {submitted_by or 'a decision service of this installation'}",
    ]
    return lines

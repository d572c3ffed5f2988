"""`ofp decision`: one recorded decision, and the same decision made again."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import print_facts
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.vocabulary.model import is_digest

app = typer.Typer(help="Show a recorded decision, and decide again.", no_args_is_help=True)
_MISMATCH = "MISMATCH: the rule does not give what was decided"


@app.callback()
def decision() -> None:
    """Show a recorded decision, and decide again."""


@app.command(short_help="Show one decision, and make it again from its rule and snapshot.")
def show(
    decision_id: Annotated[str, typer.Argument(metavar="ID", help="64 hex digits, the decision_id of the record.")],
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """The record of a decision, and what the rule that it names by digest gives for the snapshot that it names by hash.

    Exit code 1 if that is another score or outcome, or if it cannot be told: snapshot or rule is not stored.
    """
    if not is_digest(decision_id):
        raise CommandRefused("a decision id is 64 hex digits, in lower case")
    from ofp_platform.decisions.redecision import NotRedecided, decide_again
    from ofp_platform.online.serving.snapshot_store import SnapshotStore
    from ofp_platform.storage.decision_records import stored_decision
    from ofp_platform.storage.evidence import read_evidence
    from ofp_platform.vocabulary.offline.decision_record import DecisionRecord
    from ofp_platform.vocabulary.serving import SnapshotRecord

    with resolve(home, profile).open_plane_without_log("auditor") as plane:
        with plane.pool.connection() as connection:
            stored = stored_decision(connection, decision_id, plane.profile.context_pins)
            if stored is None:
                raise CommandRefused(f"no decision {decision_id} is recorded in the run of the profile")
            record = DecisionRecord.model_validate_json(stored.content)
            rule_text = read_evidence(connection, [record.rule.digest]).get(record.rule.digest)
        served = SnapshotStore(plane.pool, plane.objects).load(record.feature_snapshot_hash, plane.is_own)
    lines = _lines(record, stored.submitted_by)
    facts: dict[str, Any] = {"decision": record.wire(), "submitted_by": stored.submitted_by, "again": None, "equal": None}
    problem = None
    try:
        again = decide_again(record, SnapshotRecord.model_validate_json(served), rule_text)
    except NotRedecided as error:
        facts["problem"] = problem = str(error)
    else:
        facts |= {"again": {"score": again.score, "outcome": again.outcome.value}, "equal": again.equal}
        lines.append(f"again        {again.outcome.value}, score {again.score}, by the stored rule on the stored snapshot")
        lines += ["MATCH"] if again.equal else []
        problem = None if again.equal else _MISMATCH
    print_facts(facts, lines, as_json=json)
    if problem is not None:
        typer.echo(problem, err=True)
        raise typer.Exit(1)


def _lines(record: Any, submitted_by: str | None) -> list[str]:
    at = record.event_position
    return [
        f"decision     {record.decision_id}",
        f"event        {record.event_type} {record.event_id}, {at.partition_id}:{at.offset}",
        f"as of        {record.as_of_time_utc}",
        f"snapshot     {record.feature_snapshot_hash}",
        f"rule         {record.rule.rule_name} {record.rule.rule_version}, {record.rule.digest}",
        f"decided      {record.outcome.value}, score {record.score}, at {record.decided_at_utc}",
        f"recorded by  {submitted_by or 'a decision service of this installation'}",
    ]

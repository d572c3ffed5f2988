"""Actions as they were recorded: intents with their attempts and outcomes, read by key, or listed by where they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.loop.action import (
    ActionAttempt,
    ActionIntent,
    ActionOutcome,
    ActionRecord,
    ActionState,
    AttemptEnd,
)
from ofp_platform.vocabulary.times import format_time

_UNENDED = """EXISTS (
    SELECT FROM ofp.action_attempt AS a WHERE a.intent_id = open.intent_id AND NOT EXISTS (
        SELECT FROM ofp.action_attempt_end AS e WHERE (e.intent_id, e.attempt) = (a.intent_id, a.attempt)))"""
_OPEN = "SELECT open.intent_id FROM ofp.action_open AS open WHERE open.pins_digest = %(run)s"
_LISTS: dict[ActionState | None, str] = {
    None: "SELECT intent_id FROM ofp.action_intent WHERE pins_digest = %(run)s",
    ActionState.OPEN: f"{_OPEN} AND NOT {_UNENDED}",
    ActionState.UNKNOWN: f"{_OPEN} AND {_UNENDED}",
}
_ENDED = """
    SELECT intent_id FROM ofp.action_outcome JOIN ofp.action_intent USING (intent_id)
    WHERE pins_digest = %(run)s AND outcome = %(state)s"""
_RECORDS = """
    SELECT i.intent_id, i.content, o.content, coalesce(q.waiting, ''), (
        SELECT count(*) FROM ofp.action_intent_conflict AS c
        WHERE (c.pins_digest, c.idempotency_key) = (i.pins_digest, i.idempotency_key))
    FROM ofp.action_intent AS i LEFT JOIN ofp.action_outcome AS o USING (intent_id)
        LEFT JOIN ofp.action_open AS q USING (intent_id)
    WHERE i.intent_id = ANY(%s) ORDER BY i.intent_id DESC"""
_ATTEMPTS = """
    SELECT a.intent_id, a.attempt, a.executor, a.started_at, e.state, e.reason, e.ended_at
    FROM ofp.action_attempt AS a LEFT JOIN ofp.action_attempt_end AS e USING (intent_id, attempt)
    WHERE a.intent_id = ANY(%s) ORDER BY a.intent_id, a.attempt"""
_KEYS = """
    SELECT idempotency_key FROM ofp.action_intent WHERE pins_digest = %s AND starts_with(idempotency_key, %s)
    ORDER BY idempotency_key LIMIT 2"""
_COUNTS = f"""
    SELECT outcome, count(*) FROM ofp.action_outcome JOIN ofp.action_intent USING (intent_id)
    WHERE pins_digest = %(run)s GROUP BY outcome
    UNION ALL SELECT CASE WHEN {_UNENDED} THEN 'UNKNOWN' ELSE 'OPEN' END, count(*)
    FROM ofp.action_open AS open WHERE open.pins_digest = %(run)s GROUP BY 1"""
_HELD = """
    SELECT DISTINCT ON (account_id) account_id, step FROM ofp.account_hold
    WHERE pins_digest = %s AND account_id = ANY(%s) ORDER BY account_id, hold_id DESC"""


@dataclass(frozen=True)
class ActionPage:
    """Intents, the newest first. `behind`: the number in the ledger behind which the next page begins; None: it is the last."""

    records: list[ActionRecord]
    behind: int | None


def list_actions(
    connection: Connection[Any], pins: ContextPins, state: ActionState | None = None, limit: int = 20
) -> list[ActionRecord]:
    """At most `limit` intents of a run, the newest first; `state`: those that stand there."""
    return page_of_actions(connection, pins, state, limit).records


def page_of_actions(
    connection: Connection[Any], pins: ContextPins, state: ActionState | None, limit: int, behind: int | None = None
) -> ActionPage:
    """As `list_actions`, behind the intent of that number."""
    listed = f"SELECT intent_id FROM ({_LISTS.get(state, _ENDED)}) AS listed"
    query = f"{listed} WHERE %(behind)s::bigint IS NULL OR intent_id < %(behind)s"
    arguments = {
        "run": pins_digest(pins),
        "state": None if state is None else state.value,
        "most": limit + 1,
        "behind": behind,
    }
    rows = connection.execute(f"{query} ORDER BY intent_id DESC LIMIT %(most)s", arguments).fetchall()
    intent_ids = [intent_id for (intent_id,) in rows]
    is_last = len(intent_ids) <= limit
    return ActionPage(read_actions(connection, intent_ids[:limit]), None if is_last else intent_ids[limit - 1])


def read_actions(connection: Connection[Any], intent_ids: Sequence[int]) -> list[ActionRecord]:
    """Intents by their numbers in the ledger, the newest first."""
    ids = list(intent_ids)
    attempts: dict[int, list[ActionAttempt]] = {}
    for intent_id, number, executor, started_at, end, reason, ended_at in connection.execute(_ATTEMPTS, (ids,)).fetchall():
        attempt = ActionAttempt(
            attempt=number,
            executor=executor,
            started_at_utc=format_time(started_at),
            end=None if end is None else AttemptEnd(end),
            reason=reason or "",
            ended_at_utc=None if ended_at is None else format_time(ended_at),
        )
        attempts.setdefault(intent_id, []).append(attempt)
    return [
        _record(content, outcome, waiting, attempts.get(intent_id, []), conflicts)
        for intent_id, content, outcome, waiting, conflicts in connection.execute(_RECORDS, (ids,)).fetchall()
    ]


def _record(
    content: str, outcome_text: str | None, waiting: str, attempts: Sequence[ActionAttempt], conflicts: int
) -> ActionRecord:
    outcome = None if outcome_text is None else ActionOutcome.model_validate_json(outcome_text)
    if outcome is not None:
        state = ActionState(outcome.outcome.value)
    else:
        state = ActionState.UNKNOWN if any(attempt.end is None for attempt in attempts) else ActionState.OPEN
    return ActionRecord(
        intent=ActionIntent.model_validate_json(content),
        state=state,
        attempts=tuple(attempts),
        outcome=outcome,
        waiting=waiting,
        conflicts=conflicts,
    )


def read_action(connection: Connection[Any], pins: ContextPins, idempotency_key: str) -> ActionRecord | None:
    """The intent of a run with this key; None: there is none."""
    row = connection.execute(
        "SELECT intent_id FROM ofp.action_intent WHERE (pins_digest, idempotency_key) = (%s, %s)",
        (pins_digest(pins), idempotency_key),
    ).fetchone()
    return None if row is None else read_actions(connection, [row[0]])[0]


def keys_beginning(connection: Connection[Any], pins: ContextPins, digits: str) -> list[str]:
    """At most two idempotency keys of a run that begin so: one is the key that was meant."""
    return [key for (key,) in connection.execute(_KEYS, (pins_digest(pins), digits)).fetchall()]


def count_actions(connection: Connection[Any], pins: ContextPins) -> dict[ActionState, int]:
    """How many intents of a run stand where; states of none are left out."""
    rows = connection.execute(_COUNTS, {"run": pins_digest(pins)}).fetchall()
    return {ActionState(state): count for state, count in rows}


def held_accounts(connection: Connection[Any], pins: ContextPins, account_ids: Sequence[str]) -> set[str]:
    """Which of these accounts are held in a run: their last step is a hold."""
    rows = connection.execute(_HELD, (pins_digest(pins), list(account_ids))).fetchall()
    return {account_id for account_id, step in rows if step == "HOLD"}

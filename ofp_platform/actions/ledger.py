"""The ledger of actions: claims that one executor has at a time, attempts, and outcomes with their messages."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from psycopg import Connection

from ofp_platform.ingress.own_streams import Message, append_messages
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.storage.crash_points import crash_point
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.loop.action import ACTION_OUTCOME, ActionIntent, ActionOutcome, AttemptEnd

_CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
# who finds a row locked leaves it to who locked it; who claimed one has it until its lease is over, whatever becomes of them
_CLAIM = f"""
    WITH due AS MATERIALIZED (
        SELECT intent_id FROM ofp.action_open
        WHERE pins_digest = %(run)s AND is_outside = %(outside)s AND NOT for_people AND due_at <= {_CLOCK}
        ORDER BY due_at, intent_id LIMIT %(most)s FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE ofp.action_open AS open SET due_at = {_CLOCK} + %(lease)s, claim = open.claim + 1 FROM due
        WHERE open.intent_id = due.intent_id RETURNING open.intent_id, open.claim, open.questions
    )
    SELECT claimed.intent_id, claimed.claim, claimed.questions, intent.content, last.attempt, last.executor, last.ended
    FROM claimed JOIN ofp.action_intent AS intent USING (intent_id) LEFT JOIN LATERAL (
        SELECT a.attempt, a.executor, EXISTS (
            SELECT FROM ofp.action_attempt_end AS e WHERE (e.intent_id, e.attempt) = (a.intent_id, a.attempt)) AS ended
        FROM ofp.action_attempt AS a WHERE a.intent_id = claimed.intent_id ORDER BY a.attempt DESC LIMIT 1
    ) AS last ON true ORDER BY claimed.intent_id"""
# as _CLAIM asks
_DUE = f"""
    SELECT EXISTS (
        SELECT FROM ofp.action_open WHERE pins_digest = %(run)s AND is_outside = false AND NOT for_people AND due_at <= {_CLOCK}
    ), EXISTS (
        SELECT FROM ofp.action_open WHERE pins_digest = %(run)s AND is_outside = true AND NOT for_people AND due_at <= {_CLOCK}
    )"""
_STILL_CLAIMED = """
    SELECT open.intent_id FROM ofp.action_open AS open JOIN unnest(%s::bigint[], %s::bigint[]) AS mine (intent_id, claim)
    USING (intent_id, claim) ORDER BY open.intent_id FOR UPDATE OF open"""
_BEGIN = "INSERT INTO ofp.action_attempt (intent_id, attempt, executor, started_at) VALUES (%s, %s, %s, %s)"
_END = "INSERT INTO ofp.action_attempt_end (intent_id, attempt, state, reason, ended_at) VALUES (%s, %s, %s, %s, %s)"
_OUTCOME = "INSERT INTO ofp.action_outcome (intent_id, outcome, content) VALUES (%s, %s, %s)"
_OVER = "DELETE FROM ofp.action_open WHERE intent_id = ANY(%s)"
_WAIT = f"""
    UPDATE ofp.action_open SET due_at = {_CLOCK} + %s, questions = %s, for_people = %s, waiting = %s WHERE intent_id = %s"""
MOST_REASON = 400


class LastAttempt(NamedTuple):
    """The newest attempt at an intent. Not `has_ended`: nobody knows whether it was done."""

    number: int
    executor: str
    has_ended: bool


@dataclass(frozen=True)
class Claim:
    """An intent that is this executor's until its lease is over. `questions`: how often it was asked for by key in vain."""

    intent_id: int
    number: int
    questions: int
    intent: ActionIntent
    last: LastAttempt | None

    @property
    def attempts(self) -> int:
        """How many were begun."""
        return 0 if self.last is None else self.last.number


@dataclass(frozen=True)
class Wait:
    """An intent is not over. `for_people`: until an operator settles it, whatever `pause_us` is."""

    intent_id: int
    pause_us: int
    questions: int
    for_people: bool
    reason: str


@dataclass(frozen=True)
class AttemptEnding:
    """The end of an attempt."""

    intent_id: int
    number: int
    state: AttemptEnd
    reason: str


def are_due(connection: Connection[Any], pins: ContextPins) -> tuple[bool, bool]:
    """Whether intents of a run have their time come: of those that the plane does by itself, and of those outside."""
    row = connection.execute(_DUE, {"run": pins_digest(pins)}).fetchone()
    assert row is not None
    return bool(row[0]), bool(row[1])


def claim_due(connection: Connection[Any], pins: ContextPins, most: int, lease_us: int, *, outside: bool) -> list[Claim]:
    """Claim at most so many intents of a run whose time has come, the longest due first, in the order of their recording.
    `outside`: those that a webhook does, or the others.
    """
    arguments = {"run": pins_digest(pins), "outside": outside, "most": most, "lease": lease_us}
    return [
        Claim(
            intent_id,
            number,
            questions,
            ActionIntent.model_validate_json(content),
            None if attempt is None else LastAttempt(attempt, executor, has_ended),
        )
        for intent_id, number, questions, content, attempt, executor, has_ended in connection.execute(
            _CLAIM, arguments
        ).fetchall()
    ]


def still_claimed(connection: Connection[Any], claims: Collection[Claim]) -> set[int]:
    """The intents of those claims that nobody else has claimed, or settled, since; they are locked."""
    rows = connection.execute(_STILL_CLAIMED, ([c.intent_id for c in claims], [c.number for c in claims])).fetchall()
    return {intent_id for (intent_id,) in rows}


def begin_attempts(connection: Connection[Any], attempts: Sequence[tuple[int, int, str]], at_us: int) -> None:
    """Append the beginning of attempts: intent, number, executor. Committed before anything is done outside."""
    with connection.cursor() as cursor:
        cursor.executemany(_BEGIN, [(*attempt, at_us) for attempt in attempts])


def record_endings(connection: Connection[Any], endings: Sequence[AttemptEnding], at_us: int) -> None:
    """Append the ends of attempts."""
    with connection.cursor() as cursor:
        cursor.executemany(_END, [(e.intent_id, e.number, e.state.value, e.reason[:MOST_REASON], at_us) for e in endings])


def keep_waiting(connection: Connection[Any], waits: Sequence[Wait]) -> None:
    """Give intents back, to be claimed again after their pause."""
    with connection.cursor() as cursor:
        cursor.executemany(_WAIT, [(w.pause_us, w.questions, w.for_people, w.reason[:MOST_REASON], w.intent_id) for w in waits])


def record_outcomes(connection: Connection[Any], log: PostgresLog, outcomes: Sequence[tuple[int, ActionOutcome]]) -> None:
    """End intents, in the ledger and in the stream. Call `log.tell` when it has committed.

    Raises:
        psycopg.errors.UniqueViolation: one has ended before. MessageRefused | LogUnsettled | StreamNotFound: see there.
    """
    if outcomes:
        rows = [(intent_id, outcome.outcome.value, canonical_bytes(outcome.wire()).decode()) for intent_id, outcome in outcomes]
        with connection.cursor() as cursor:
            cursor.executemany(_OUTCOME, rows)
        connection.execute(_OVER, ([intent_id for intent_id, _ in outcomes],))
        messages = [
            Message(ACTION_OUTCOME, outcome.message_id, outcome.context_pins, outcome.at_utc, outcome) for _, outcome in outcomes
        ]
        append_messages(connection, log, messages)
    crash_point("action.recording")

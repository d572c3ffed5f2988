"""Settling by hand: an operator found out whether an attempt that nobody can be asked about was done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from ofp_platform.actions.allow_list import executor_of
from ofp_platform.actions.ledger import AttemptEnding, Wait, keep_waiting, record_endings, record_outcomes
from ofp_platform.log.governance_log import append_facts_with
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.loop.action import ActionIntent, ActionOutcome, AttemptEnd, OutcomeKind
from ofp_platform.vocabulary.loop.action_policy import ActionPolicy
from ofp_platform.vocabulary.offline.governance_fact import ActionSettled
from ofp_platform.vocabulary.times import format_time

_LOCK = """
    SELECT open.intent_id, intent.content, open.for_people, (
        SELECT max(a.attempt) FROM ofp.action_attempt AS a WHERE a.intent_id = open.intent_id AND NOT EXISTS (
            SELECT FROM ofp.action_attempt_end AS e WHERE (e.intent_id, e.attempt) = (a.intent_id, a.attempt)))
    FROM ofp.action_open AS open JOIN ofp.action_intent AS intent USING (intent_id)
    WHERE (intent.pins_digest, intent.idempotency_key) = (%s, %s) FOR UPDATE OF open"""


class NothingToSettle(Exception):
    """An intent does not wait for people; the text says why, and what to do."""


@dataclass(frozen=True)
class Settlement:
    """An operator's answer about an intent, and why. `now`: microseconds since the epoch."""

    key: str
    is_done: bool
    actor: str
    reason: str
    now: Callable[[], int]


def settle(
    connection: Connection[Any], log: PostgresLog, pins: ContextPins, policy: ActionPolicy, settlement: Settlement
) -> None:
    """Say whether the attempt was done, in the caller's transaction: done, and the intent is EXECUTED; not done, and it is tried
    again like any other. Who said so stands among the governance facts. Call `log.tell` when it has committed.

    Raises:
        NothingToSettle: it is over, was never begun, or is still being asked for.
    """
    row = connection.execute(_LOCK, (pins_digest(pins), settlement.key)).fetchone()
    if row is None:
        raise NothingToSettle(f"intent {settlement.key} is over, or there is none in this run (`ofp action show`)")
    intent_id, content, for_people, attempt = row
    if attempt is None or not for_people:
        raise NothingToSettle(
            f"intent {settlement.key} does not wait for people: `ofp action run` tries it, or asks for it, by itself"
        )
    intent, at_us = ActionIntent.model_validate_json(content), settlement.now()
    state = AttemptEnd.DONE if settlement.is_done else AttemptEnd.NOT_DONE
    words = f"{settlement.actor}: {settlement.reason}"
    record_endings(connection, [AttemptEnding(intent_id, attempt, state, words)], at_us)
    fact = ActionSettled(
        context_pins=pins,
        idempotency_key=intent.idempotency_key,
        attempt=attempt,
        is_done=settlement.is_done,
        action_type=intent.action_type,
        action_policy_rev=policy.rev,
        actor=settlement.actor,
        reason=settlement.reason,
        at_utc=format_time(at_us),
    )
    if not settlement.is_done:
        keep_waiting(connection, [Wait(intent_id, 0, 0, False, words)])
        append_facts_with(connection, [fact])
        return
    outcome = ActionOutcome(
        context_pins=pins,
        idempotency_key=intent.idempotency_key,
        outcome=OutcomeKind.EXECUTED,
        attempts=attempt,
        reason=settlement.reason,
        executor=executor_of(intent, policy.webhooks),
        settled_by=settlement.actor,
        action_policy_rev=policy.rev,
        at_utc=format_time(at_us),
    )
    record_outcomes(connection, log, [(intent_id, outcome)])
    append_facts_with(connection, [fact])

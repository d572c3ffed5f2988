"""Actions that investigators asked for in cases, made intents by who acts: once each, however often it is looked."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from ofp_platform.actions.intents import record_intents
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.storage.case_entries import requested_actions
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.action import ActionIntent, ActionOrigin, OriginKind, target_of

PAGE = 500


def collect_requests(connection: Connection[Any], log: PostgresLog, pins: ContextPins, policy_rev: str) -> int:
    """Record the intents of what was asked for in cases and has none yet, in the caller's transaction; how many. Call `log.tell`
    when it has committed.

    Raises:
        MessageRefused | LogUnsettled | StreamNotFound | psycopg.Error: see `record_intents`; roll back.
    """
    intents = [
        ActionIntent.create(
            origin=ActionOrigin(origin_kind=OriginKind.CASE, reference=f"{request.case_id}/{request.sequence}"),
            action_type=request.content.action_type,
            target=target_of(request.content.target),
            context_pins=pins,
            actor=request.actor,
            reason=request.content.reason[:400],
            policy_rev=policy_rev,
            at_utc=request.at_utc,
        )
        for request in requested_actions(connection, pins, PAGE)
    ]
    return len(record_intents(connection, log, intents).new_intents)

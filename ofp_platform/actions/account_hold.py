"""Holds on accounts, kept in PostgreSQL: done in the transaction of the outcome, so nobody ever wonders whether one was done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import Connection

from ofp_platform.vocabulary.identity import FeatureKey, pins_digest
from ofp_platform.vocabulary.loop.action import HOLD_ACCOUNT, ActionIntent

_ADD = "INSERT INTO ofp.account_hold (pins_digest, account_id, step, idempotency_key, at) VALUES (%s, %s, %s, %s, %s)"


def append_holds(connection: Connection[Any], intents: Sequence[ActionIntent], at_us: int) -> None:
    """Append the step that each intent wants, in their order; the last step of an account says whether it is held.

    Raises:
        psycopg.errors.UniqueViolation: one was done before; nothing of the transaction stands.
    """
    rows = []
    for intent in intents:
        assert isinstance(intent.target, FeatureKey)
        step = "HOLD" if intent.action_type == HOLD_ACCOUNT else "RELEASE"
        rows.append((pins_digest(intent.context_pins), intent.target.key_id, step, intent.idempotency_key, at_us))
    with connection.cursor() as cursor:
        cursor.executemany(_ADD, rows)

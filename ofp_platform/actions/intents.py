"""Recording intents: in the ledger and in the stream of decisions, in the transaction of whoever wants them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from ofp_platform.ingress.own_streams import Message, append_messages
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.vocabulary.identity import pins_digest
from ofp_platform.vocabulary.loop.action import ACTION_INTENT, ActionIntent, WebhookTarget

logger = logging.getLogger(__name__)
_COLUMNS = "pins_digest, idempotency_key, content_digest, content"
_OFFERED = f"unnest(%s::text[], %s::text[], %s::text[], %b::text[], %s::boolean[]) AS offered ({_COLUMNS}, is_outside)"
# in the order of their keys: two who want the same wait for each other, and never in a circle
_ADD = f"""
    WITH offered AS MATERIALIZED (SELECT * FROM {_OFFERED}), new AS (
        INSERT INTO ofp.action_intent ({_COLUMNS})
        SELECT {_COLUMNS} FROM offered ORDER BY pins_digest, idempotency_key
        ON CONFLICT (pins_digest, idempotency_key) DO NOTHING RETURNING intent_id, pins_digest, idempotency_key
    ), waiting AS (
        INSERT INTO ofp.action_open (intent_id, pins_digest, is_outside)
        SELECT intent_id, pins_digest, is_outside FROM new JOIN offered USING (pins_digest, idempotency_key))
    SELECT pins_digest, idempotency_key FROM new"""
# a statement of its own sees what another has committed meanwhile
_OTHER = f"""
    SELECT offered.pins_digest, offered.idempotency_key, offered.content_digest FROM {_OFFERED}
        JOIN ofp.action_intent AS known USING (pins_digest, idempotency_key)
    WHERE known.content_digest <> offered.content_digest"""
_REFUSE = f"INSERT INTO ofp.action_intent_conflict ({_COLUMNS}) SELECT {_COLUMNS} FROM {_OFFERED} ON CONFLICT DO NOTHING"


class IntentConflict(Exception):
    """An intent of that key is recorded with other content: what was wanted once is never wanted otherwise."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"INTENT_CONFLICT: intent {key} is recorded already, with other content; nothing is done for this one. `ofp action"
            f" show {key[:12]}` shows the first; something else needs an origin of its own"
        )


@dataclass(frozen=True)
class Recorded:
    """Intents by what became of them: recorded now, there before with the same content, or refused as INTENT_CONFLICT."""

    new_intents: tuple[ActionIntent, ...] = ()
    known_intents: tuple[ActionIntent, ...] = ()
    conflicts: tuple[ActionIntent, ...] = ()

    def demand_no_conflict(self) -> None:
        """Raise for the first that was refused.

        Raises:
            IntentConflict: see there.
        """
        for intent in self.conflicts:
            raise IntentConflict(intent.idempotency_key)


def record_intents(connection: Connection[Any], log: PostgresLog, intents: Sequence[ActionIntent]) -> Recorded:
    """Record intents in the caller's transaction, with their messages. Call `log.tell` when it has committed.

    The ledger keeps the first of a key. Another with other content is refused, kept as a conflict, and told in the log of the
    process; the others are recorded.

    Raises:
        MessageRefused: the stream does not take one (a card number in its reason); roll back.
        LogUnsettled | StreamNotFound | psycopg.Error: see `append_messages`; roll back.
    """
    first: dict[tuple[str, str], ActionIntent] = {}
    for intent in intents:
        first.setdefault((pins_digest(intent.context_pins), intent.idempotency_key), intent)
    if not first:
        return Recorded()
    new_keys = set(connection.execute(_ADD, _columns(list(first.values()))).fetchall())
    new_intents = [intent for key, intent in first.items() if key in new_keys]
    conflicts: list[ActionIntent] = []
    known_intents: list[ActionIntent] = []
    if len(new_intents) < len(intents):
        differing = set(connection.execute(_OTHER, _columns(intents)).fetchall())
        for intent in intents:
            key = pins_digest(intent.context_pins), intent.idempotency_key
            if (*key, intent.content_digest) in differing:
                conflicts.append(intent)
            elif key in new_keys:
                new_keys.remove(key)  # the first of them; the others were there then
            else:
                known_intents.append(intent)
    if conflicts:
        connection.execute(_REFUSE, _columns(conflicts))
        for intent in conflicts:
            logger.warning("INTENT_CONFLICT: intent %s came again with other content", intent.idempotency_key)
    messages = [
        Message(ACTION_INTENT, intent.idempotency_key, intent.context_pins, intent.at_utc, intent) for intent in new_intents
    ]
    append_messages(connection, log, messages)
    return Recorded(tuple(new_intents), tuple(known_intents), tuple(conflicts))


def _columns(intents: Sequence[ActionIntent]) -> tuple[list[str], list[str], list[str], list[str], list[bool]]:
    return (
        [pins_digest(intent.context_pins) for intent in intents],
        [intent.idempotency_key for intent in intents],
        [intent.content_digest for intent in intents],
        [intent.content for intent in intents],
        [isinstance(intent.target, WebhookTarget) for intent in intents],
    )

"""Changes of posture in the database: each is appended, the last one is in force. Changing it waits for who commits under it.

Whoever commits decisions holds the posture, shared, to the end of its transaction, and decides under what that call returned.
Whoever changes it holds it alone. So behind the commit of a change no decision made under the former mode can commit. A holder
from whom nothing is heard for `SILENCE_MILLISECONDS` inside its transaction is ended by the server, so that one behind a network
that was parted delays a kill by no more than that.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection
from psycopg.pq import TransactionStatus

from ofp_platform.storage.notices import send_notice
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.loop.posture import NOTHING_SAID, PostureChange, PostureInForce
from ofp_platform.vocabulary.position import Position

POSTURE_CHANNEL = "ofp_posture"
"""Changes, challenges and answers; the payload is the digest of the pins."""
SILENCE_MILLISECONDS = 400
"""The longest that a holder of the posture says nothing inside its transaction."""
_KEY = "hashtextextended('ofp.posture/' || %s, 0)"
_LOCK = f"SELECT pg_advisory_xact_lock({_KEY})"
_HOLD = f"""
    SELECT set_config('idle_in_transaction_session_timeout', '{SILENCE_MILLISECONDS}ms', true),
        pg_advisory_xact_lock_shared({_KEY})"""
_LAST = "SELECT content, position FROM ofp.posture_change WHERE pins_digest = %s ORDER BY sequence DESC LIMIT %s"


def lock_posture(connection: Connection[Any], pins: ContextPins) -> None:
    """Until the transaction ends, nobody else changes the posture of a run, and nobody commits a decision of it.

    Raises:
        RuntimeError: the connection is in no transaction, and would hold nothing.
    """
    _demand_transaction(connection)
    connection.execute(_LOCK, (pins_digest(pins),))


def hold_posture_shared(connection: Connection[Any], pins: ContextPins) -> PostureInForce:
    """The posture of a run, which stays until the transaction ends; others may hold it so, too.

    To be called inside a transaction, in READ COMMITTED, before whatever it writes. Inside it, what is not heard of for
    `SILENCE_MILLISECONDS` is ended by the server: decide first, then hold and commit.

    Raises:
        RuntimeError: the connection is in no transaction, and would hold nothing.
    """
    _demand_transaction(connection)
    connection.execute(_HOLD, (pins_digest(pins),))
    return posture_in_force(connection, pins)


def posture_in_force(connection: Connection[Any], pins: ContextPins) -> PostureInForce:
    """The posture of a run as it is now: `NOTHING_SAID` where nobody ever said anything."""
    for change, position in posture_history(connection, pins, 1):
        return PostureInForce(mode=change.mode, sequence=change.sequence, position=position)
    return NOTHING_SAID


def last_posture_change(connection: Connection[Any], pins: ContextPins) -> PostureChange | None:
    """The change that is in force; None: nobody ever said anything."""
    for change, _ in posture_history(connection, pins, 1):
        return change
    return None


def posture_history(connection: Connection[Any], pins: ContextPins, limit: int) -> list[tuple[PostureChange, Position]]:
    """The newest changes of a run and where control says each, the newest first."""
    rows = connection.execute(_LAST, (pins_digest(pins), limit)).fetchall()
    return [(PostureChange.model_validate_json(content), Position.model_validate_json(position)) for content, position in rows]


def append_posture_change(connection: Connection[Any], change: PostureChange, position: Position) -> None:
    """Append a change that control says at `position`, in the caller's transaction, which holds it alone (`lock_posture`)."""
    content, place = (canonical_bytes(wire).decode() for wire in (change.wire(), position.model_dump(exclude_none=True)))
    connection.execute(
        "INSERT INTO ofp.posture_change (pins_digest, sequence, content, position) VALUES (%s, %s, %s, %s)",
        (pins_digest(change.context_pins), change.sequence, content, place),
    )


def _demand_transaction(connection: Connection[Any]) -> None:
    if connection.autocommit and connection.info.transaction_status is TransactionStatus.IDLE:
        raise RuntimeError("a posture is held to the end of a transaction, and the connection is in none")


def tell_of_posture(connection: Connection[Any], pins: ContextPins) -> None:
    """Wake who waits for changes, challenges or answers of a run; on a connection that is in no transaction."""
    send_notice(connection, POSTURE_CHANNEL, pins_digest(pins))

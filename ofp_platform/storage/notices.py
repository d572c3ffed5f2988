"""Notices between sessions (LISTEN/NOTIFY): sent after the commit that they tell of, never inside it.

A transaction that carries a notice holds one lock of the whole cluster from before its commit until the commit is durable: all of
them commit one after the other, whatever they wrote. A notice alone has nothing to make durable, so it holds that lock for
microseconds. It may be lost, with the process between the two or with the connection: who waits for one looks for itself too,
every `LOOK_SECONDS`.
"""

from __future__ import annotations

import logging
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.pq import TransactionStatus

from ofp_platform.storage.postgres import answered_within

LOG_CHANNEL = "ofp_log"
"""Appends; the payload is the stream's name."""
PROJECTION_CHANNEL = "ofp_projection"
"""Commits of projections (the payload is the id) and switches (`SWITCH`)."""
SWITCH = "switch"
EPOCH_CHANNEL = "ofp_epoch"
"""What the key shards of a projection tell each other; the payload is its id."""

LOOK_SECONDS = 0.25
"""How long anybody waits for a notice before looking for itself."""

_SEND = "SELECT set_config('lock_timeout', '100ms', true), pg_notify(%s, %s)"
_ANSWER_SECONDS = 3.0
logger = logging.getLogger(__name__)


def send_notice(connection: Connection[Any], channel: str, payload: str) -> None:
    """Tell whoever listens. What it tells of is committed already, so a notice that cannot be sent is no error.

    Raises:
        RuntimeError: the connection is inside a transaction.
    """
    if connection.info.transaction_status is TransactionStatus.INTRANS:
        raise RuntimeError(
            f"a notice on {channel} belongs after the commit: sent inside the transaction, all others would wait for it"
        )
    try:
        with answered_within(connection, _ANSWER_SECONDS):
            connection.execute(_SEND, (channel, payload))
    except (psycopg.Error, OSError) as error:
        logger.info("a notice on %s was not sent (%s): who waits for it looks for itself", channel, type(error).__name__)

"""Faults of PostgreSQL that pass by themselves: told by SQLSTATE, in one table. What is not in it is not tried again silently."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from socket import gaierror

import asyncpg
import psycopg
from psycopg_pool import PoolClosed

from ofp_platform.storage.postgres import DatabaseUnavailable

CLASSES: Mapping[str, str] = {
    "08": "the connection failed, or a pooler closed it",
    "53": "the server is out of connections, memory or disk",
}
"""SQLSTATE classes (the first two characters)."""
STATES: Mapping[str, str] = {
    "25006": "the server takes no writes: a standby after a failover, or default_transaction_read_only",
    "25P03": "the session was closed while its transaction was idle",
    "25P04": "the transaction took too long for the server",
    "40001": "another transaction was faster",
    "40003": "it is not known whether the statement was completed",
    "40P01": "two transactions waited for each other",
    "55000": "the database takes no connections now",
    "55P03": "a lock was not to be had in time",
    "57014": "the statement was cancelled",
    "57P01": "an administrator ended the session",
    "57P02": "another session crashed the server",
    "57P03": "the server starts, stops or recovers",
    "57P05": "the session was idle for too long",
}
"""Single SQLSTATEs, with what they mean."""
# what the system says of a peer that cannot be reached; a socket that is not there yet is one
_SYSTEM_ERRORS = {
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENOENT,
    errno.EPIPE,
    errno.ETIMEDOUT,
    None,  # several addresses, each with an error of its own
}


def is_transient(error: BaseException) -> bool:
    """Whether the same statement may succeed later, with nothing changed by anybody here.

    An error of a connection has no SQLSTATE: then nothing but the connection failed.
    """
    state = getattr(error, "sqlstate", None)
    if state is not None:
        return state in STATES or state[:2] in CLASSES
    if isinstance(error, PoolClosed):
        return False  # by this process itself
    if isinstance(error, OSError):
        return isinstance(error, TimeoutError | ConnectionError | gaierror) or error.errno in _SYSTEM_ERRORS
    without_state = DatabaseUnavailable | psycopg.OperationalError | asyncpg.InterfaceError
    return isinstance(error, without_state | asyncpg.TargetServerAttributeNotMatched)


def outage_words(error: BaseException) -> str:
    """Name the failure, for an operator; nothing of what was sent."""
    state = getattr(error, "sqlstate", None)
    if state is None:
        return type(error).__name__
    meaning = STATES.get(state) or CLASSES.get(state[:2])
    return f"SQLSTATE {state}" if meaning is None else f"SQLSTATE {state}, {meaning}"


def outage_message(error: BaseException) -> str:
    """The same as a sentence, with what the server said."""
    if getattr(error, "sqlstate", None) is None:
        return f"PostgreSQL does not answer: {error}"
    return f"PostgreSQL does not do its work ({outage_words(error)}): {error}"

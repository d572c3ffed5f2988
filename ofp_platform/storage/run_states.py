"""The steps of runs in the database: each is appended, the last one counts. Changing a run waits for who admits events of it."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.scenario import READABLE_STATES, RunState, RunStatus

_LOCK = "SELECT pg_advisory_xact_lock{}(hashtextextended('ofp.run_status/' || %s, 0))"
_LAST = "SELECT content FROM ofp.run_status WHERE pins_digest = %s ORDER BY sequence DESC LIMIT 1"
_STATE = "SELECT state FROM ofp.run_status WHERE pins_digest = %s ORDER BY sequence DESC LIMIT 1"
_ALL = """
    SELECT content FROM (
        SELECT DISTINCT ON (pins_digest) pins_digest, sequence, content FROM ofp.run_status ORDER BY pins_digest, sequence DESC
    ) AS last ORDER BY content::jsonb ->> 'at_utc' DESC LIMIT %s"""


class RunNotReady(Exception):
    """A run was not made READY, or was cancelled; the text says what to do."""


def lock_run(connection: Connection[Any], pins: ContextPins) -> None:
    """Until the transaction ends, nobody changes the run, and nobody admits events of it."""
    connection.execute(_LOCK.format(""), (pins_digest(pins),))


def admitting_state(connection: Connection[Any], pins: ContextPins) -> RunState | None:
    """The state of a run, which stays until the transaction ends; others may hold it so, too. None: nobody asked for the run."""
    connection.execute(_LOCK.format("_shared"), (pins_digest(pins),))
    return run_state(connection, pins)


def run_state(connection: Connection[Any], pins: ContextPins) -> RunState | None:
    """The state of a run as it is now; None: nobody asked for it."""
    row = connection.execute(_STATE, (pins_digest(pins),)).fetchone()
    return None if row is None else RunState(row[0])


def read_run_status(connection: Connection[Any], pins: ContextPins) -> RunStatus | None:
    """The last step of a run; None: nobody asked for it."""
    row = connection.execute(_LAST, (pins_digest(pins),)).fetchone()
    return None if row is None else RunStatus.model_validate_json(row[0])


def list_run_status(connection: Connection[Any], limit: int) -> list[RunStatus]:
    """The last step of each run, the newest first."""
    return [RunStatus.model_validate_json(content) for (content,) in connection.execute(_ALL, (limit,)).fetchall()]


def append_run_status(connection: Connection[Any], status: RunStatus) -> None:
    """Append a step, in the caller's transaction, which holds the run (`lock_run`)."""
    connection.execute(
        "INSERT INTO ofp.run_status (pins_digest, sequence, state, content) VALUES (%s, %s, %s, %s)",
        (pins_digest(status.context_pins), status.sequence, status.state, canonical_bytes(status.wire()).decode()),
    )


def demand_readable(connection: Connection[Any], pins: ContextPins) -> None:
    """Refuse a run that may not be served or built from.

    Raises:
        RunNotReady: nobody made it READY, or it was cancelled.
    """
    state = run_state(connection, pins)
    if state is None:
        raise RunNotReady(f"run {pins.run_id!r} is not READY: nobody asked for it (`ofp run request WORLD`)")
    if state not in READABLE_STATES:
        raise RunNotReady(f"run {pins.run_id!r} is {state}: nothing of it is served or built from (`ofp run show` says why)")

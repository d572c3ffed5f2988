"""When signals were last looked at, by the clock of the database."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.loop.posture import PosturePolicy, PostureWatched

WATCHED_SECONDS = 15
"""Where nobody looked for so long, nobody watches. A look comes each second, and waits some seconds for a service."""
_CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_NOTE = f"""
    INSERT INTO ofp.posture_look (pins_digest, looked_at) VALUES (%s, {_CLOCK})
    ON CONFLICT (pins_digest) DO UPDATE SET looked_at = greatest(posture_look.looked_at, excluded.looked_at)"""
_AGO = f"SELECT greatest(0, {_CLOCK} - looked_at) / 1000 FROM ofp.posture_look WHERE pins_digest = %s"


def note_look(connection: Connection[Any], pins: ContextPins) -> None:
    """Say that the signals of a run were looked at just now."""
    connection.execute(_NOTE, (pins_digest(pins),))


def posture_watched(connection: Connection[Any], pins: ContextPins, policy: PosturePolicy | None) -> PostureWatched | None:
    """Whether somebody watches the posture of a run now, and when that was last so; None: the policy has nothing to look at."""
    if policy is None or not policy.thresholds:
        return None
    row = connection.execute(_AGO, (pins_digest(pins),)).fetchone()
    if row is None:
        return PostureWatched(is_watched=False, last_look_ms=None)
    return PostureWatched(is_watched=row[0] < WATCHED_SECONDS * 1_000, last_look_ms=row[0])

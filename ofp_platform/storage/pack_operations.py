"""Operations that put a pack live, or went back, kept among the governance facts: who, when, why, at which basis, for good."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.governance_fact import FACT, PackOperation

_OF_STREAM = """
    SELECT content FROM ofp.governance_fact
    WHERE fact = 'pack_operation' AND content::jsonb ->> 'stream_name' = %s ORDER BY fact_number"""
_NEWEST = """
    SELECT fact_number, content FROM ofp.governance_fact
    WHERE fact = 'pack_operation' AND content::jsonb ->> 'stream_name' = %(stream_name)s
        AND jsonb_strip_nulls(content::jsonb -> 'context_pins') = %(pins)s::jsonb
        AND (%(before)s::bigint IS NULL OR fact_number < %(before)s)
    ORDER BY fact_number DESC LIMIT %(limit)s"""
_LEAST_MILLISECONDS = 100


def read_operations(pool: Pool, stream_name: str, pins: ContextPins) -> list[PackOperation]:
    """The steps of all operations of a run, oldest first."""
    with pool.connection() as connection:
        rows = connection.execute(_OF_STREAM, (stream_name,)).fetchall()
    steps = [FACT.validate_json(content) for (content,) in rows]
    return [step for step in steps if isinstance(step, PackOperation) and step.context_pins == pins]


def newest_operations(
    connection: Connection[Any], stream_name: str, pins: ContextPins, limit: int, before: int | None = None
) -> list[tuple[int, PackOperation]]:
    """At most `limit` steps of the operations of a run, the newest first, each with its number, less than `before`."""
    arguments = {"stream_name": stream_name, "pins": canonical_bytes(pins.wire()).decode(), "before": before, "limit": limit}
    rows = connection.execute(_NEWEST, arguments).fetchall()
    return [(number, PackOperation.model_validate_json(content)) for number, content in rows]


def last_build_rate(pool: Pool, stream_name: str, pins: ContextPins) -> int | None:
    """Records a second of the last build of a pack that took long enough to tell; None: there is none."""
    for step in reversed(read_operations(pool, stream_name, pins)):
        if step.milliseconds >= _LEAST_MILLISECONDS and step.records:
            return max(1, step.records * 1000 // step.milliseconds)
    return None


def last_switch(pool: Pool, stream_name: str, pins: ContextPins, live_projection: int) -> PackOperation | None:
    """The switch that made a projection live; None: no operation did, or it was gone back on."""
    switches = [step for step in read_operations(pool, stream_name, pins) if step.step in ("switched", "rolled_back")]
    if not switches or switches[-1].step != "switched" or switches[-1].to_projection != live_projection:
        return None
    return switches[-1]

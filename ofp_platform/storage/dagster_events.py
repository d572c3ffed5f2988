"""Old events of Dagster: the log lines of runs that ended, and reports that a later one of the same partition replaced.

What is kept: every run itself, the events of runs that go on, and of each asset, partition and kind the newest event, so that
Dagster shows what is there as before. Dagster has no such clean-up of its own; its tables are read in its own schema.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection, sql

from ofp_platform.storage.dagster_schema import DAGSTER_SCHEMA
from ofp_platform.storage.postgres import connect

_STEP = 10_000
_ENDED = ("SUCCESS", "FAILURE", "CANCELED")
_OLD = """
    SELECT old.id FROM {events} AS old
    WHERE old.timestamp < (now() AT TIME ZONE 'UTC') - make_interval(secs => %(seconds)s)
    AND (old.run_id = '' OR EXISTS (SELECT FROM {runs} AS run WHERE run.run_id = old.run_id AND run.status = ANY(%(ended)s)))
    AND (old.asset_key IS NULL AND old.dagster_event_type IS DISTINCT FROM 'ASSET_CHECK_EVALUATION'
        OR old.asset_key IS NOT NULL AND EXISTS (
            SELECT FROM {events} AS later
            WHERE later.asset_key = old.asset_key AND later.dagster_event_type = old.dagster_event_type
            AND later.partition IS NOT DISTINCT FROM old.partition AND later.id > old.id))"""


def count_old_events(dsn: str, age_us: int) -> int:
    """How many events are older than that and may go; 0 where Dagster has no tables."""
    with connect(dsn, autocommit=True) as connection:
        if not _is_there(connection):
            return 0
        row = connection.execute(_statement("SELECT count(*) FROM ({old}) AS old"), _arguments(age_us)).fetchone()
    return 0 if row is None else int(row[0])


def remove_old_events(dsn: str, age_us: int) -> int:
    """Remove them, some at a time; how many went."""
    removed = 0
    with connect(dsn, autocommit=True) as connection:
        if not _is_there(connection):
            return 0
        statement = _statement("DELETE FROM {events} WHERE id IN ({old} LIMIT %(step)s)")
        while count := connection.execute(statement, _arguments(age_us)).rowcount:
            removed += count
    return removed


def _statement(text: str) -> sql.Composed:
    names = {"events": sql.Identifier(DAGSTER_SCHEMA, "event_logs"), "runs": sql.Identifier(DAGSTER_SCHEMA, "runs")}
    return sql.SQL(text).format(**names, old=sql.SQL(_OLD).format(**names))


def _arguments(age_us: int) -> dict[str, Any]:
    return {"seconds": age_us / 1_000_000, "ended": list(_ENDED), "step": _STEP}


def _is_there(connection: Connection[Any]) -> bool:
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (f"{DAGSTER_SCHEMA}.event_logs",)).fetchone()
    return row is not None and bool(row[0])

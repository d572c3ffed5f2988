"""Runs of Dagster whose process is gone, for `ofp doctor`: Dagster itself leaves them STARTED for ever.

Looked up in Dagster's own tables: to load Dagster takes longer than all other checks together.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from psycopg.rows import dict_row

from ofp_platform.online.projecting.continuous import CATCH_UP
from ofp_platform.storage.dagster_schema import DAGSTER_SCHEMA
from ofp_platform.storage.postgres import connect

_ADDRESS = "OFP_DAGSTER_POSTGRES_URL"
_LOCK_SECONDS = 30
"""From the start of a run until it holds what it works on."""
_STARTED = """
    SELECT run_id, pipeline_name AS job_name, start_time,
        (SELECT value FROM run_tags WHERE run_tags.run_id = runs.run_id AND key = 'dagster/partition' LIMIT 1) AS partition,
        (SELECT event FROM event_logs WHERE event_logs.run_id = runs.run_id AND event LIKE '%%Started process for run (pid: %%'
            ORDER BY id LIMIT 1) AS process
    FROM runs WHERE status = 'STARTED' AND start_time < extract(epoch FROM clock_timestamp()) - %s
    ORDER BY start_time LIMIT 50"""
_HELD = """
    SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND CASE WHEN %(job)s = 'catch_up' THEN classid = %(catch_up)s AND objsubid = 2
            ELSE objsubid = 1
                AND ((classid::bigint << 32) | objid::bigint) IN (
                    SELECT hashtextextended('ofp.build_run/' || run_key, 0) FROM ofp.build_run
                    WHERE %(digits)s <> '' AND starts_with(run_key, %(digits)s)
                    UNION ALL SELECT hashtextextended('ofp.build_run/' || %(digits)s, 0)) END"""
_HOLDING_JOBS = frozenset({"catch_up", "build_dataset"})
_PROCESS = re.compile(r"Started process for run \(pid: ([0-9]+)\)")


@dataclass(frozen=True)
class LostRun:
    """A run that Dagster calls STARTED and that nobody carries on. `reason`: how that is known."""

    run_id: str
    job_name: str
    partition: str | None
    reason: str


def lost_runs(dsn: str, is_alive: Callable[[int], bool] | None = None) -> list[LostRun]:
    """The runs of that kind, oldest first; none where Dagster has no tables.

    `dsn` is the database of the plane, in which a catch-up holds its projection and a build its request. Other runs hold
    nothing: of these it is asked whether their process is on this machine (`is_alive`).

    Raises:
        psycopg.Error: a database does not answer.
    """
    alive = is_alive or _is_alive
    with connect(os.environ.get(_ADDRESS) or dsn, autocommit=True) as connection:
        connection.execute("SELECT set_config('search_path', %s, false)", (DAGSTER_SCHEMA,))
        cursor = connection.cursor(row_factory=dict_row)
        if cursor.execute("SELECT to_regclass('runs') IS NULL AS absent").fetchall()[0]["absent"]:
            return []
        rows = cursor.execute(_STARTED, (_LOCK_SECONDS,)).fetchall()
    dead_runs = []
    with connect(dsn, autocommit=True) as connection:
        for row in rows:
            reason = _reason(connection, row["job_name"], row["partition"], row["process"] or "", alive)
            if reason is not None:
                dead_runs.append(LostRun(row["run_id"], row["job_name"], row["partition"], reason))
    return dead_runs


def _reason(
    connection: psycopg.Connection[tuple[object, ...]],
    job_name: str,
    partition: str | None,
    process: str,
    alive: Callable[[int], bool],
) -> str | None:
    if job_name in _HOLDING_JOBS:
        # the partition of a request is its name and the first digits of its key
        arguments = {"job": job_name, "digits": (partition or "").rpartition(".")[2], "catch_up": CATCH_UP}
        lock_count = connection.execute(_HELD, arguments).fetchone()
        return None if lock_count is not None and lock_count[0] else "it holds nothing of what it works on"
    match = _PROCESS.search(process)
    if match is None or alive(int(match[1])):
        return None
    return f"its process, {match[1]}, is not on this machine"


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

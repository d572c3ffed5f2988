"""The runs that wait for a builder: those that were never started, and those whose builder is gone."""

from __future__ import annotations

from psycopg.rows import dict_row

from ofp_platform.offline.runs.run_ledger import readable_runs
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.offline.build_run import BuildRun

# the lock of RunLedger.claim, looked at and not taken: to take it, however briefly, would turn a builder away
_WAITING = """
    SELECT * FROM ofp.build_run AS run
    WHERE state IN ('QUEUED', 'PUBLISH_PENDING', 'RUNNING') AND NOT EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND objsubid = 1
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND ((classid::bigint << 32) | objid::bigint) = hashtextextended('ofp.build_run/' || run.run_key, 0))
    ORDER BY run_number LIMIT 50"""


def waiting_runs(pool: Pool) -> list[BuildRun]:
    """The 50 oldest runs that can be claimed now, oldest first. A RUNNING one among them lost its builder."""
    with pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
        return readable_runs(cursor.execute(_WAITING).fetchall())

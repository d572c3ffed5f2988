"""The runs that wait for a builder, and those that failed for a reason that may pass by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import LiteralString

from psycopg.rows import dict_row

from ofp_platform.offline.runs.run_ledger import readable_runs
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.offline.build_refusal import RETRYABLE
from ofp_platform.vocabulary.offline.build_run import BuildRun

_PAGE = 50

# the lock of RunLedger.claim, looked at and not taken: to take it, however briefly, would turn a builder away
_WAITING = """
    SELECT * FROM ofp.build_run AS run
    WHERE state IN ('QUEUED', 'PUBLISH_PENDING', 'RUNNING') AND run_number > %(behind)s AND NOT EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND objsubid = 1
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND ((classid::bigint << 32) | objid::bigint) = hashtextextended('ofp.build_run/' || run.run_key, 0))
    ORDER BY run_number LIMIT %(page)s"""
_MAY_PASS = """
    SELECT * FROM ofp.build_run WHERE state = 'FAILED' AND refusal_reason = ANY(%(reasons)s) AND run_number > %(behind)s
    ORDER BY run_number LIMIT %(page)s"""


def waiting_runs(pool: Pool) -> Iterator[BuildRun]:
    """The runs that can be claimed now, oldest first, read as they are taken. A RUNNING one among them lost its builder."""
    return _runs(pool, _WAITING)


def runs_that_may_pass(pool: Pool) -> Iterator[BuildRun]:
    """The failed runs whose reason may pass by itself, oldest first, read as they are taken."""
    return _runs(pool, _MAY_PASS)


def _runs(pool: Pool, query: LiteralString) -> Iterator[BuildRun]:
    arguments = {"behind": 0, "page": _PAGE, "reasons": sorted(reason.value for reason in RETRYABLE)}
    while True:
        with pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(query, arguments).fetchall()
        yield from readable_runs(rows)
        if len(rows) < _PAGE:
            return
        arguments["behind"] = rows[-1]["run_number"]

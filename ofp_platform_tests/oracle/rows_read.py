"""Rows of tables that the database has read, counted by itself."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg.sql import SQL, Identifier

from ofp_platform.storage.postgres import Pool

_READ = """
SELECT relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables
WHERE schemaname = 'ofp' AND relname = ANY (%s)"""


def rows_read(pool: Pool, tables: Sequence[str]) -> dict[str, int]:
    """Rows read so far, by table. The pool has one connection: what others read is in the statistics whenever they tell it."""
    with pool.connection() as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
    with pool.connection() as connection:
        counts: dict[str, int] = dict(connection.execute(_READ, (list(tables),)).fetchall())
    assert sorted(counts) == sorted(tables), f"no statistics of {set(tables) - set(counts)}"
    return counts


def analyse(pool: Pool, tables: Sequence[str]) -> None:
    """Give the planner statistics of these tables, as autovacuum does whenever it comes by."""
    with pool.connection() as connection:
        for table in tables:
            connection.execute(SQL("VACUUM (ANALYZE) ofp.{}").format(Identifier(table)))

"""The state of projections that were retired: found by age, and removed.

Nothing that is published needs it: snapshots, datasets and parity are proven from log and archive. The projection itself goes
first, so that nobody can switch to one whose state is half gone; what it leaves is removed in steps, now or by the next time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import Connection, sql

from ofp_platform.online.projecting.continuous import CATCH_UP, holds_projection
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.times import format_time, to_micros

_ROWS = 5_000


@dataclass(frozen=True)
class RetiredProjection:
    """A projection that was retired long enough ago. `rows`: those of its state and of its failures."""

    projection_id: int
    registry_digest: str
    retired_at_utc: str
    rows: int


def retired_projections(pool: Pool, age_us: int) -> list[RetiredProjection]:
    """Those that were retired at least that many microseconds ago, and that nobody applies records to."""
    with pool.connection() as connection:
        rows = connection.execute(
            "SELECT projection_id, registry_digest, retired_at FROM ofp.projection WHERE status = 'retired'"
            " AND retired_at <= clock_timestamp() - make_interval(secs => %s) ORDER BY projection_id",
            (age_us / 1_000_000,),
        ).fetchall()
        tables = _tables(connection)
        counts = {number: sum(_count(connection, table, number) for table in tables) for number, _, _ in rows}
    return [
        RetiredProjection(number, digest, format_time(to_micros(retired_at)), counts[number])
        for number, digest, retired_at in rows
        if not (holds_projection(pool, number) or holds_projection(pool, number, CATCH_UP))
    ]


def remove_retired(pool: Pool, projection_id: int) -> bool:
    """Remove a projection, unless it is no longer retired: whether it went. `remove_leftovers` removes the rest of its state."""
    with pool.connection() as connection:
        return (
            connection.execute(
                "DELETE FROM ofp.projection WHERE projection_id = %s AND status = 'retired'", (projection_id,)
            ).rowcount
            > 0
        )


def leftovers(pool: Pool) -> int:
    """How many rows are left of projections that are gone."""
    with pool.connection() as connection:
        return sum(_count(connection, table, number) for table in _tables(connection) for number in _gone(connection, table))


def remove_leftovers(pool: Pool) -> None:
    """Remove those rows, some in a transaction. Stopped anywhere, the next call goes on."""
    with pool.connection() as connection:
        for table in _tables(connection):
            statement = sql.SQL(
                "DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE projection_id = %s LIMIT %s))"
            ).format(table=sql.Identifier("ofp", table))
            for number in _gone(connection, table):
                while connection.execute(statement, (number, _ROWS)).rowcount:
                    pass


def _gone(connection: Connection[Any], table: str) -> list[int]:
    """The projections of a table's rows that are no more: from id to id by the index, whatever the number of rows."""
    statement = sql.SQL("SELECT min(projection_id) FROM {} WHERE projection_id > %s").format(sql.Identifier("ofp", table))
    known_ids = {number for (number,) in connection.execute("SELECT projection_id FROM ofp.projection").fetchall()}
    gone: list[int] = []
    last = -1
    while (row := connection.execute(statement, (last,)).fetchone()) is not None and row[0] is not None:
        last = int(row[0])
        if last not in known_ids:
            gone.append(last)
    return gone


def _count(connection: Connection[Any], table: str, projection_id: int) -> int:
    statement = sql.SQL("SELECT count(*) FROM {} WHERE projection_id = %s").format(sql.Identifier("ofp", table))
    row = connection.execute(statement, (projection_id,)).fetchone()
    return 0 if row is None else int(row[0])


def _tables(connection: Connection[Any]) -> list[str]:
    """Every table with rows of projections but that of the projections themselves."""
    rows = connection.execute(
        "SELECT table_name FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)"
        " WHERE table_schema = 'ofp' AND column_name = 'projection_id' AND table_type = 'BASE TABLE'"
        " AND table_name <> 'projection' ORDER BY table_name"
    ).fetchall()
    return [str(name) for (name,) in rows]

"""One snapshot of the store for several reads: what is read through it belongs to one commit, however long it takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from psycopg import Connection

from ofp_platform.storage.postgres import Pool


class _OneConnection:
    """Stands in for a pool: hands out the one connection, whose transaction holds the snapshot."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection

    @contextmanager
    def connection(self) -> Iterator[Connection[Any]]:
        yield self._connection


@contextmanager
def store_snapshot(pool: Pool) -> Iterator[tuple[Connection[Any], Pool]]:
    """A connection in a repeatable-read transaction, and the same as a pool for readers. For one thread."""
    with pool.connection() as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        # a reader needs nothing of a pool but `connection()`
        yield connection, cast(Pool, _OneConnection(connection))

"""One snapshot of the store for several reads: what is read through it belongs to one commit, however long it takes.

Of a projection with several key shards it is one in which all of them have the same version: between the commits of an epoch
there is none.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from psycopg import Connection

from ofp_platform.online.state.key_shards import shard_words
from ofp_platform.online.state.projection import ProjectionConflict
from ofp_platform.storage.postgres import Pool, one_snapshot


class _OneConnection:
    """Stands in for a pool: hands out the one connection, whose transaction holds the snapshot."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection

    @contextmanager
    def connection(self) -> Iterator[Connection[Any]]:
        yield self._connection


WAIT_SECONDS = 10.0
_LOOK_SECONDS = 0.01
_BEHIND = """
SELECT p.version, array_remove(array_agg(s.shard ORDER BY s.shard) FILTER (WHERE s.version = p.version) || 0::smallint, NULL)
FROM ofp.projection AS p JOIN ofp.projection_shard AS s USING (projection_id)
WHERE projection_id = %s GROUP BY p.version HAVING max(s.version) > p.version
"""


@contextmanager
def store_snapshot(
    pool: Pool, projection_id: int, *, wait_seconds: float = WAIT_SECONDS
) -> Iterator[tuple[Connection[Any], Pool]]:
    """A connection in a repeatable-read transaction, and the same as a pool for readers. For one thread.

    Raises:
        ProjectionConflict: some shards of the projection have an epoch that others did not apply in time.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        with one_snapshot(pool) as connection:
            behind = connection.execute(_BEHIND, (projection_id,)).fetchone()
            if behind is None:
                # a reader needs nothing of a pool but `connection()`
                yield connection, cast(Pool, _OneConnection(connection))
                return
        if time.monotonic() >= deadline:
            raise ProjectionConflict(
                f"projection {projection_id}: epoch {behind[0] + 1} is not applied yet by {shard_words(behind[1])}; see"
                " whether a process attends to each shard (`ofp projector status`)"
            )
        time.sleep(_LOOK_SECONDS)

"""Shards commit an epoch together: each writes it, says so, and commits when all have.

A process holds two advisory locks of its shard, on a connection of its own: one as long as it attends, one while it stands at the
barrier with an epoch written and not committed. Both end with the process, however that ends, so nobody waits for the dead: an
epoch is not begun while the process of a shard is missing, and who has waited too long rolls back. Readers see one epoch all that
time. They meet two only between the commits of one barrier; if a process dies there, requests that need its keys together with
others wait for the next one.

Correctness rests on none of this, but on the versions of the shards.
"""

from __future__ import annotations

import time

from psycopg import Connection
from psycopg.rows import TupleRow

from ofp_platform.online.state.epochs import read_epoch
from ofp_platform.online.state.key_shards import KeyShard, shard_words
from ofp_platform.online.state.projection import ProjectionRow
from ofp_platform.storage.notices import EPOCH_CHANNEL, send_notice
from ofp_platform.storage.postgres import connect

ATTENDS = 0x6F7100
"""The lock spaces of shards that a process attends to, one for each number."""
READY = 0x6F7200
"""The lock spaces of shards at the barrier."""
WAIT_SECONDS = 60.0
"""For a shard that has a process: a large epoch may take some shards much longer than others."""
ABSENT_SECONDS = 2.0
"""For a shard whose process is gone: a standby takes over sooner."""
LOOK_SECONDS = 0.02
"""How long anybody waits for a notice before looking for itself."""

_HELD = """
    SELECT (classid::bigint - %(space)s)::integer FROM pg_locks
    WHERE locktype = 'advisory' AND classid::bigint BETWEEN %(space)s AND %(space)s + %(count)s - 1 AND objid = %(object)s
        AND objsubid = 2 AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
_MISSING = f"SELECT generate_series(0, %(count)s - 1) EXCEPT ({_HELD}) ORDER BY 1"
# versions and locks are not of one moment: who commits is seen in one of them at last
_NOT_READY = f"""
    SELECT generate_series(0, %(count)s - 1)
    EXCEPT (
        {_HELD}
        UNION ALL
        SELECT shard::integer FROM ofp.projection_shard WHERE projection_id = %(projection)s AND version >= %(version)s
    )
    ORDER BY 1"""
_BEHIND = "SELECT shard FROM ofp.projection_shard WHERE projection_id = %(projection)s AND version < %(version)s ORDER BY shard"


class EpochHeld(Exception):
    """Some shards keep an epoch from being applied; the text says which, and why."""

    def __init__(self, text: str, shards: tuple[int, ...]) -> None:
        super().__init__(text)
        self.shards = shards


class EpochBarrier:
    """The barrier of one shard's process. A context manager; not safe for threads."""

    def __init__(self, dsn: str, projection_id: int, shard: KeyShard, *, wait_seconds: float = WAIT_SECONDS) -> None:
        """Attend from now on.

        Raises:
            psycopg.OperationalError: the server does not answer.
        """
        self.shard = shard
        self._projection_id = projection_id
        self._stands_at: tuple[int, int] | None = None
        self._wait_seconds = wait_seconds
        self._connection = connect(dsn, autocommit=True)
        self._connection.execute("SELECT pg_advisory_lock_shared(%s, %s)", (ATTENDS + shard.number, projection_id))
        self._connection.execute(f"LISTEN {EPOCH_CHANNEL}")

    def close(self) -> None:
        """Attend no longer."""
        self._connection.close()

    def __enter__(self) -> EpochBarrier:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def demand_attendance(self, version: int) -> None:
        """Refuse to begin an epoch that a shard without a process would hold.

        Raises:
            EpochHeld: there is such a shard.
        """
        missing = missing_shards(self._connection, self._projection_id, self.shard.count)
        if missing:
            text = (
                f"epoch {version} of projection {self._projection_id} waits for {shard_words(missing)}: no process attends to it;"
                " start `ofp projector run --shard`"
            )
            raise EpochHeld(text, missing)

    def tell(self) -> None:
        """Tell the others to look."""
        send_notice(self._connection, EPOCH_CHANNEL, str(self._projection_id))

    def wait(self, timeout_seconds: float) -> None:
        """Wait until another process tells to look; at most that long."""
        deadline = time.monotonic() + timeout_seconds
        own_pid = self._connection.info.backend_pid
        while (seconds_left := deadline - time.monotonic()) > 0:
            notices = list(self._connection.notifies(timeout=seconds_left, stop_after=1))
            notices += self._connection.notifies(timeout=0)  # one look for all of them
            if any(notice.pid != own_pid and notice.payload == str(self._projection_id) for notice in notices):
                return

    def await_ready(self, version: int) -> None:
        """Stand at the barrier with an epoch written, until each shard does or has committed.

        Raises:
            EpochHeld: not in time.
        """
        place = (READY + self.shard.number, _object_of(self._projection_id, version))
        self._connection.execute("SELECT pg_advisory_lock(%s, %s)", place)
        self._stands_at = place
        self.tell()
        self._await(_NOT_READY, version, "not ready")

    def leave(self) -> None:
        """Stand at the barrier no longer: the epoch is committed, or rolled back."""
        if self._stands_at is not None and not self._connection.closed:
            self._connection.execute("SELECT pg_advisory_unlock(%s, %s)", self._stands_at)
        self._stands_at = None
        self.tell()

    def await_others(self, version: int) -> None:
        """Wait until each other shard has committed: for shard 0, which moves the projection.

        Raises:
            EpochHeld: not in time.
        """
        self._await(_BEHIND, version, "not committed")

    def _await(self, statement: str, version: int, words: str) -> None:
        arguments = {
            "space": READY,
            "count": self.shard.count,
            "object": _object_of(self._projection_id, version),
            "projection": self._projection_id,
            "version": version,
        }
        began = time.monotonic()
        while missing := tuple(shard for (shard,) in self._connection.execute(statement, arguments)):
            seconds = time.monotonic() - began
            if seconds >= min(ABSENT_SECONDS, self._wait_seconds):
                absent = set(missing_shards(self._connection, self._projection_id, self.shard.count))
                if seconds >= self._wait_seconds or absent.intersection(missing):
                    text = f"epoch {version} of projection {self._projection_id}: {shard_words(missing)} {words}"
                    raise EpochHeld(f"{text} within {seconds:.3g} s", missing)
            self.wait(LOOK_SECONDS)


def missing_shards(connection: Connection[TupleRow], projection_id: int, count: int) -> tuple[int, ...]:
    """The shards of a projection with `count` of them that no process attends to."""
    arguments = {"space": ATTENDS, "count": count, "object": projection_id}
    return tuple(shard for (shard,) in connection.execute(_MISSING, arguments))


def holding_shards(connection: Connection[TupleRow], row: ProjectionRow) -> tuple[int, ...]:
    """The shards that keep a projection from moving, as far as that shows at this moment.

    Those without a process, where others have one; else those that have not written the epoch that is open.
    """
    if row.shards == 1:
        return ()
    missing = missing_shards(connection, row.projection_id, row.shards)
    if missing:
        return missing if len(missing) < row.shards else ()
    arguments = {
        "space": READY,
        "count": row.shards,
        "object": _object_of(row.projection_id, row.version + 1),
        "projection": row.projection_id,
        "version": row.version + 1,
    }
    is_open = read_epoch(connection, row.projection_id) is not None
    return tuple(shard for (shard,) in connection.execute(_NOT_READY, arguments)) if is_open else ()


def _object_of(projection_id: int, version: int) -> int:
    """The object of the lock at the barrier; where two epochs have one, shards may commit further apart, and nothing else."""
    return (projection_id * 65_537 + version) & 0x7FFFFFFF

"""Evidence about the shards of a stream, kept while they are read, and what operators decided about them.

Kinesis does not tell what it trimmed. So readers keep what they saw: the first record of a shard and the first after a long
silence, and until when nothing stood behind its head. Times are microseconds of the broker's clock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

import psycopg
from psycopg_pool import PoolTimeout

from ofp_platform.log.port import LogUnavailable
from ofp_platform.storage.postgres import Pool

_STORE_SECONDS = 60  # between two sightings of one head in the store
_SIGHTING = """
    INSERT INTO ofp.log_head_sighting AS known (stream_name, partition_id, position, arrived_at, seen_at)
    VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (stream_name, partition_id) DO UPDATE
    SET position = excluded.position, arrived_at = excluded.arrived_at, seen_at = excluded.seen_at
    WHERE known.seen_at < excluded.seen_at"""


@dataclass(frozen=True, slots=True)
class HeadSighting:
    """At `seen_at` nothing stood behind `position` ('': the shard had no record). `arrived_at`: of the record there."""

    position: str
    arrived_at: int | None
    seen_at: int


@dataclass(frozen=True, slots=True)
class AcceptedGap:
    """An operator's decision: of a partition nothing was lost behind `position`, as far as it could be known then."""

    partition_id: str
    position: str
    reason: str
    decided_at: int


class ShardEvidence(Protocol):
    """Where evidence is kept. Reading it may raise LogUnavailable; what cannot be written is not kept."""

    def sighting(self, shard_id: str) -> HeadSighting | None:
        """The newest sighting of a head."""

    def note_sighting(self, shard_id: str, sighting: HeadSighting) -> None:
        """Keep a sighting."""

    def following(self, shard_id: str, after: str) -> str | None:
        """The number of the record that follows another one ('': of the first that the shard ever had); None: nobody kept it."""

    def note_following(self, shard_id: str, after: str, offset: str) -> None:
        """Keep which record follows another one, for good."""

    def decisions(self) -> list[AcceptedGap]:
        """Decisions of operators about the shards of the stream, in their order."""


@dataclass
class ProcessEvidence:
    """Evidence of this process alone: it ends with it."""

    _heads: dict[str, HeadSighting] = field(default_factory=dict)
    _following: dict[tuple[str, str], str] = field(default_factory=dict)

    def sighting(self, shard_id: str) -> HeadSighting | None:
        """See `ShardEvidence`."""
        return self._heads.get(shard_id)

    def note_sighting(self, shard_id: str, sighting: HeadSighting) -> None:
        """See `ShardEvidence`."""
        self._heads[shard_id] = sighting

    def following(self, shard_id: str, after: str) -> str | None:
        """See `ShardEvidence`."""
        return self._following.get((shard_id, after))

    def note_following(self, shard_id: str, after: str, offset: str) -> None:
        """See `ShardEvidence`."""
        self._following.setdefault((shard_id, after), offset)

    def decisions(self) -> list[AcceptedGap]:
        """None: decisions are stored."""
        return []


@dataclass
class StoredEvidence:
    """Evidence in PostgreSQL, shared by all readers of the stream. Safe to share between threads."""

    pool: Pool
    stream_name: str
    _heads: dict[str, HeadSighting] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def sighting(self, shard_id: str) -> HeadSighting | None:
        """See `ShardEvidence`."""
        with _answering(), self.pool.connection() as connection:
            row = connection.execute(
                "SELECT position, arrived_at, seen_at FROM ofp.log_head_sighting WHERE (stream_name, partition_id) = (%s, %s)",
                (self.stream_name, shard_id),
            ).fetchone()
        return None if row is None else HeadSighting(*row)

    def note_sighting(self, shard_id: str, sighting: HeadSighting) -> None:
        """See `ShardEvidence`; of one head once a minute."""
        with self._lock:
            known_sighting = self._heads.get(shard_id)
            same = known_sighting is not None and known_sighting.position == sighting.position
            if known_sighting is not None and same and sighting.seen_at - known_sighting.seen_at < _STORE_SECONDS * 1_000_000:
                return
            self._heads[shard_id] = sighting
        arguments = (self.stream_name, shard_id, sighting.position, sighting.arrived_at, sighting.seen_at)
        with suppress(psycopg.Error, PoolTimeout), self.pool.connection() as connection:
            connection.execute(_SIGHTING, arguments)

    def following(self, shard_id: str, after: str) -> str | None:
        """See `ShardEvidence`."""
        with _answering(), self.pool.connection() as connection:
            row = connection.execute(
                "SELECT position FROM ofp.log_following_record WHERE (stream_name, partition_id, after) = (%s, %s, %s)",
                (self.stream_name, shard_id, after),
            ).fetchone()
        return None if row is None else str(row[0])

    def note_following(self, shard_id: str, after: str, offset: str) -> None:
        """See `ShardEvidence`. A role that may only read keeps nothing: those who project or archive do."""
        with suppress(psycopg.errors.InsufficientPrivilege), _answering(), self.pool.connection() as connection:
            connection.execute(
                "INSERT INTO ofp.log_following_record (stream_name, partition_id, after, position) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                (self.stream_name, shard_id, after, offset),
            )

    def decisions(self) -> list[AcceptedGap]:
        """See `ShardEvidence`."""
        return accepted_gaps(self.pool, self.stream_name)


def accepted_gaps(pool: Pool, stream_name: str) -> list[AcceptedGap]:
    """Decisions of operators about the partitions of a stream, in their order.

    Raises:
        LogUnavailable: PostgreSQL does not answer.
    """
    with _answering(), pool.connection() as connection:
        rows = connection.execute(
            "SELECT partition_id, position, reason, (extract(epoch FROM decided_at) * 1000000)::bigint"
            " FROM ofp.log_accepted_gap WHERE stream_name = %s ORDER BY decided_at, partition_id",
            (stream_name,),
        ).fetchall()
    return [AcceptedGap(*row) for row in rows]


def accept_gap(pool: Pool, stream_name: str, partition_id: str, position: str, reason: str) -> None:
    """Record an operator's decision, for good. `position` is the text of a basis token ('': the start).

    Raises:
        ValueError: no reason. LogUnavailable: PostgreSQL does not answer.
    """
    if not reason.strip():
        raise ValueError("a decision has a reason")
    with _answering(), pool.connection() as connection:
        connection.execute(
            "INSERT INTO ofp.log_accepted_gap (stream_name, partition_id, position, reason) VALUES (%s, %s, %s, %s)",
            (stream_name, partition_id, position, reason.strip()),
        )


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as error:
        raise LogUnavailable(f"PostgreSQL, which holds the evidence about the log, does not answer: {error}") from error

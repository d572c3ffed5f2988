"""The log in PostgreSQL: dense offsets, blocks of records, LISTEN/NOTIFY.

An append locks the heads of the partitions that it touches, in the order of their ids, writes its blocks and moves the
heads, in one transaction: the offsets of a partition appear in order and without a gap, and appenders cannot deadlock. All of it
is one statement, so no head is held for a round trip; and what threads append meanwhile shares one (`GroupCommit`).
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any

import psycopg
from pydantic import TypeAdapter

from ofp_platform.log.admission import Admission
from ofp_platform.log.admitted import AdmittedBatch, AdmittedColumns
from ofp_platform.log.block import Block, StoredBlock, decode, encode, split
from ofp_platform.log.column_admission import admit_columns
from ofp_platform.log.group_commit import GroupCommit
from ofp_platform.log.incarnations import ONE_HISTORY, IncarnationStart, LogHistory
from ofp_platform.log.port import (
    AdmissionClock,
    AppendReceipt,
    Candidate,
    LogTailLost,
    LogUnavailable,
    LogUnsettled,
    PartitionInfo,
    PartitionNotFound,
    PartitionRequest,
    PositionTrimmed,
    PositionUnknown,
    RecordBatch,
    StreamNotFound,
    checked_start,
    demand_listed,
    empty_batch,
)
from ofp_platform.storage.notices import LOG_CHANNEL, LOOK_SECONDS, send_notice
from ofp_platform.storage.postgres import Pool
from ofp_platform.storage.transient import is_transient, outage_message
from ofp_platform.vocabulary.columns import EventColumns, Int64
from ofp_platform.vocabulary.position import DENSE, Basis, PartitionBasis, StreamName, make_basis

_Placed = tuple[str, Block]  # a block, and its partition
_Place = tuple[int, str | None]  # the first offset of a block, and its incarnation
_NAME: TypeAdapter[str] = TypeAdapter(StreamName)
_CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
# the greatest of the clock and what was given before, in any partition
_BROKER_TIME = f"SELECT greatest({_CLOCK}, max(last_broker_time)) FROM ofp.log_head WHERE stream_name = %s"
_CLOCK_BEHIND = f"SELECT max(last_broker_time) - {_CLOCK} FROM ofp.log_head WHERE stream_name = %s"
_LOCK = """
    SELECT head.partition_id, head.next_offset, stream.incarnation, right(stream.server, 8) = ofp.log_timeline()
    FROM ofp.log_head head JOIN ofp.log_stream stream USING (stream_name)
    WHERE head.stream_name = %s AND head.partition_id = ANY(%s) ORDER BY head.partition_id FOR UPDATE OF head"""
# a block without a head, or of a log that is not settled here, has no offset, which the table refuses: then nothing is written
_APPEND = """
    WITH block AS MATERIALIZED (
        SELECT *, max(last_admitted) FILTER (WHERE NOT declared) OVER (
            PARTITION BY partition_id ORDER BY ahead ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS given_ahead
        FROM unnest(
            %(partition)s::text[], %(ahead)s::bigint[], %(record_count)s::integer[], %(first_admitted)s::bigint[],
            %(last_admitted)s::bigint[], %(declared)s::boolean[], %(codec)s::smallint[], %(raw_bytes)s::integer[],
            %(data)b::bytea[]
        ) AS block (partition_id, ahead, record_count, first_admitted, last_admitted, declared, codec, raw_bytes, data)
    ), head AS MATERIALIZED (
        SELECT log_head.partition_id, log_head.next_offset, log_head.last_broker_time, stream.incarnation
        FROM ofp.log_head JOIN ofp.log_stream stream USING (stream_name)
        WHERE log_head.stream_name = %(stream)s AND log_head.partition_id = ANY(%(partition)s::text[])
            AND (%(settling)s::boolean OR right(stream.server, 8) = ofp.log_timeline())
        ORDER BY log_head.partition_id FOR UPDATE OF log_head
    ), moved AS (
        UPDATE ofp.log_head SET next_offset = head.next_offset + block.record_count,
            last_broker_time = greatest(head.last_broker_time, block.given)
        FROM head JOIN (
            SELECT partition_id, sum(record_count) AS record_count, max(last_admitted) FILTER (WHERE NOT declared) AS given
            FROM block GROUP BY partition_id) block USING (partition_id)
        WHERE log_head.stream_name = %(stream)s AND log_head.partition_id = head.partition_id
    ), stored AS (
        INSERT INTO ofp.log_block
            (stream_name, partition_id, first_offset, record_count, first_admitted, last_admitted, admitted_floor, codec,
            raw_bytes, block)
        SELECT %(stream)s, block.partition_id, head.next_offset + block.ahead, block.record_count,
            greatest(block.first_admitted, floor.time), greatest(block.last_admitted, floor.time), floor.time, block.codec,
            block.raw_bytes, block.data
        FROM block LEFT JOIN head USING (partition_id) CROSS JOIN LATERAL (
            SELECT CASE WHEN NOT block.declared THEN greatest(head.last_broker_time, block.given_ahead) END AS time) floor
    )
    SELECT partition_id, next_offset, incarnation FROM head"""
_STATEMENT_BYTES = 64_000_000  # of blocks in one statement: far below the 1 GB that PostgreSQL takes
_SETTLED = """
    SELECT incarnation, pg_is_in_recovery() OR server IS NOT DISTINCT FROM ofp.log_server() FROM ofp.log_stream
    WHERE stream_name = %s"""
_HISTORY = "SELECT incarnation, starts FROM ofp.log_incarnation WHERE stream_name = %s ORDER BY number"
_BEGIN = """
    INSERT INTO ofp.log_incarnation (stream_name, number, incarnation, starts, server, reason)
    SELECT %(stream)s, 1 + (SELECT count(*) FROM ofp.log_incarnation WHERE stream_name = %(stream)s),
        left(replace(gen_random_uuid()::text, '-', ''), 12), jsonb_object_agg(partition_id, next_offset), ofp.log_server(),
        %(reason)s
    FROM ofp.log_head WHERE stream_name = %(stream)s RETURNING incarnation"""
# where the first block begins is looked up once, by itself: as a condition of the blocks it would be looked up for each of them;
# the blocks of each partition are a range of their index, whatever the number of partitions
_READ = """
    WITH head AS MATERIALIZED (
        SELECT log_head.stream_name, log_head.partition_id, next_offset, floor_offset, request.count, stream.incarnation,
            coalesce(request.at, floor_offset) AS start
        FROM unnest(%(partitions)s::text[], %(offsets)s::bigint[], %(counts)s::bigint[]) AS request (partition_id, at, count)
            JOIN ofp.log_head ON log_head.stream_name = %(stream)s AND log_head.partition_id = request.partition_id
            JOIN ofp.log_stream stream ON stream.stream_name = log_head.stream_name
    ), reach AS MATERIALIZED (
        SELECT head.*, (
            SELECT coalesce(max(first_offset), 0) FROM ofp.log_block
            WHERE stream_name = head.stream_name AND partition_id = head.partition_id AND first_offset <= head.start) AS first
        FROM head
    )
    SELECT reach.partition_id, reach.next_offset, reach.floor_offset, reach.incarnation,
        block.first_offset, block.admitted_floor, block.codec, block.raw_bytes, block.block
    FROM reach LEFT JOIN LATERAL (
        SELECT first_offset, admitted_floor, codec, raw_bytes, block FROM ofp.log_block
        WHERE stream_name = reach.stream_name AND partition_id = reach.partition_id
            AND first_offset >= reach.first AND first_offset < reach.start + reach.count
        OFFSET 0
    ) block ON true
    ORDER BY reach.partition_id, block.first_offset"""


def clock_behind_us(pool: Pool, stream_name: str) -> int:
    """How far the clock of the database is behind an admission time that it gave, microseconds: it stepped back. Else 0.

    Raises:
        psycopg.Error: the database does not answer.
    """
    with pool.connection() as connection:
        row = connection.execute(_CLOCK_BEHIND, (stream_name,)).fetchone()
    return 0 if row is None or row[0] is None else max(0, int(row[0]))


class PostgresLog:
    """One stream in one database. Safe to share between threads; the pool stays the caller's."""

    position_kind = DENSE
    poll_seconds = 0.0

    def __init__(self, pool: Pool, stream_name: str, partition_count: int, partition_key: str) -> None:
        """Use `create` or `open`: they know that the stream exists."""
        self.stream_name = stream_name
        self.partition_key = partition_key
        self._pool = pool
        self._ids = self.first_partition_ids(partition_count)
        self._admission = Admission(partition_key)
        self._commits: GroupCommit[Sequence[_Placed], list[_Place]] = GroupCommit(self._store)
        self.history = ONE_HISTORY

    @staticmethod
    def first_partition_ids(count: int) -> list[str]:
        """The ids of the partitions of a stream."""
        return [f"{number:04d}" for number in range(count)]

    @classmethod
    def create(cls, pool: Pool, stream_name: str, partitions: int, partition_key: str, *, settled: bool = True) -> PostgresLog:
        """The stream, made if it does not exist. Not `settled`: nothing is appended before an incarnation of it begins.

        Raises:
            ValueError: it exists with other partitions or another key, or an argument is not valid.
            LogUnavailable: PostgreSQL does not answer.
        """
        if not 1 <= partitions <= 10_000:
            raise ValueError(f"a stream has 1 to 10000 partitions, not {partitions}")
        log = cls(pool, _NAME.validate_python(stream_name), partitions, partition_key)
        with log_answering(), pool.connection() as connection, connection.transaction():
            connection.execute(
                "INSERT INTO ofp.log_stream (stream_name, partition_count, partition_key, server)"
                " VALUES (%s, %s, %s, CASE WHEN %s THEN ofp.log_server() END) ON CONFLICT DO NOTHING",
                (stream_name, partitions, partition_key, settled),
            )
            connection.execute(
                "INSERT INTO ofp.log_head (stream_name, partition_id) SELECT %s, unnest(%s::text[]) "
                "WHERE (SELECT partition_count FROM ofp.log_stream WHERE stream_name = %s) = %s ON CONFLICT DO NOTHING",
                (stream_name, log._ids, stream_name, partitions),
            )
        existing = cls.open(pool, stream_name)
        if (len(existing._ids), existing.partition_key) != (partitions, partition_key):
            raise ValueError(
                f"stream {stream_name!r} exists with {len(existing._ids)} partitions by {existing.partition_key!r}, "
                f"and a stream's partitioning never changes (asked for: {partitions} by {partition_key!r}). "
                "Use it so, or choose another name."
            )
        return existing

    @classmethod
    def open(cls, pool: Pool, stream_name: str) -> PostgresLog:
        """The stream, which must exist.

        Raises:
            StreamNotFound: it does not.
            LogUnavailable: PostgreSQL does not answer.
            psycopg.errors.UndefinedTable: the database is not migrated; that is another thing than a stream that nobody made.
        """
        with log_answering(), pool.connection() as connection:
            row = connection.execute(
                "SELECT partition_count, partition_key FROM ofp.log_stream WHERE stream_name = %s", (stream_name,)
            ).fetchone()
        if row is None:
            raise StreamNotFound(f"there is no stream {stream_name!r} in this database: `ofp projector run` creates it")
        log = cls(pool, stream_name, *row)
        log._follow_history()
        return log

    def _follow_history(self) -> None:
        with log_answering(), self._pool.connection() as connection:
            rows = connection.execute(_HISTORY, (self.stream_name,)).fetchall()
        self.history = LogHistory(tuple(IncarnationStart(*row) for row in rows))

    def is_settled(self) -> bool:
        """Whether the server is the one on which an incarnation of the log began: none was promoted or put back since."""
        with log_answering(), self._pool.connection() as connection:
            row = connection.execute(_SETTLED, (self.stream_name,)).fetchone()
        assert row is not None
        if row[0] != self.history.current:
            self._follow_history()
        return bool(row[1])

    def demand_settled(self) -> None:
        """See `EventLog.demand_settled`."""
        if not self.is_settled():
            raise LogTailLost(_unsettled_words(self.stream_name))

    def begin_incarnation(self, reason: str, *, again: bool = False) -> str | None:
        """Let another incarnation begin at the heads, so that appends go on; None where that was done, and not `again`.

        Who calls it has made sure that the log has all that anybody has seen of it, or puts up with the loss.
        """
        with log_answering(), self._pool.connection() as connection, connection.transaction():
            connection.execute(_LOCK, (self.stream_name, self._ids))
            state = connection.execute(_SETTLED, (self.stream_name,)).fetchone()
            if state is not None and state[1] and not again:
                return None
            row = connection.execute(_BEGIN, {"stream": self.stream_name, "reason": reason}).fetchone()
            assert row is not None
            connection.execute(
                "UPDATE ofp.log_stream SET incarnation = %s, server = ofp.log_server() WHERE stream_name = %s",
                (row[0], self.stream_name),
            )
        self._follow_history()
        return str(row[0])

    def restore(self, batches: Iterable[RecordBatch]) -> None:
        """Put back records that the log lost, at the heads and in the order of their offsets, in one transaction.

        Nothing is admitted again: records, times and hashes are as they were. An incarnation begins behind them.

        Raises:
            PositionUnknown: a record does not stand at the head of its partition; nothing is put back.
        """
        with log_answering(), self._pool.connection() as connection, connection.transaction():
            rows = connection.execute(_LOCK, (self.stream_name, self._ids)).fetchall()
            heads: dict[str, int] = {name: head for name, head, *_ in rows}
            for batch in batches:
                name = batch.partition_id
                for low, high in split(batch.payloads):
                    if batch.offsets[low] != heads[name]:
                        text = f"partition {name!r} of {self.stream_name!r} ends at {heads[name]}, not at {batch.offsets[low]}"
                        raise PositionUnknown(text)
                    members = list(range(low, high))
                    block = encode(AdmittedColumns.of(batch).take(members), batch.admitted_at[low:high].tolist())
                    self._insert(connection, [(name, block)], settling=True)
                    heads[name] += block.record_count

    def partition_of(self, key: str) -> str:
        """The partition of a key: CRC-32 of its UTF-8 bytes modulo the number of partitions, for good."""
        return self._ids[zlib.crc32(key.encode()) % len(self._ids)]

    def partitions(self) -> list[PartitionInfo]:
        """All partitions; they never split and never close."""
        return [PartitionInfo(name) for name in self._ids]

    def append(self, envelopes: Sequence[Candidate], clock: AdmissionClock | None = None) -> AppendReceipt:
        """See `EventLog.append`; the admitted records are appended in one transaction, all of them or none."""
        return self._append(self._admission.admit_batch(envelopes, clock))

    def append_columns(self, columns: EventColumns, admitted_at: Int64) -> AppendReceipt:
        """See `EventLog.append_columns`; the admitted records are appended in one transaction, all of them or none."""
        return self._append(admit_columns(self._admission, columns, admitted_at))

    def _append(self, batch: AdmittedBatch) -> AppendReceipt:
        records = batch.records
        if not len(records):
            return batch.receipt(self.stream_name, [], None)
        times = [self._broker_time()] * len(records) if batch.admitted_at is None else batch.admitted_at
        blocks, members_of = self._blocks(records, times, is_declared=batch.admitted_at is not None)
        placed: list[tuple[str, int | str]] = [("", 0)] * len(records)
        firsts = self._commits.write(blocks, sum(len(block.data) for _, block in blocks))
        for (name, _), members, (first, _) in zip(blocks, members_of, firsts, strict=True):
            for offset, index in enumerate(members, first):
                placed[index] = (name, offset)
        return batch.receipt(self.stream_name, placed, firsts[0][1])

    def _blocks(
        self, records: AdmittedColumns, times: Sequence[int], *, is_declared: bool
    ) -> tuple[list[_Placed], list[list[int]]]:
        """The blocks of some records, by partition, and which records are in each."""
        groups: dict[str, list[int]] = {}
        for index, name in enumerate(map(self.partition_of, records.keys)):
            groups.setdefault(name, []).append(index)
        blocks: list[_Placed] = []
        members_of: list[list[int]] = []
        for name in sorted(groups):
            members = groups[name]
            for low, high in split([records.payloads[index] for index in members]):
                members_of.append(members[low:high])
                taken = records.take(members_of[-1])
                blocks.append((name, encode(taken, [times[index] for index in members_of[-1]], is_declared)))
        return blocks, members_of

    def append_within(
        self, connection: psycopg.Connection, records: AdmittedColumns, admitted_at: Sequence[int] | None
    ) -> tuple[list[tuple[str, int]], str | None]:
        """Append records in the caller's transaction, with whatever else that writes; partition and offset of each, and their
        incarnation. Call `tell` when it has committed. `admitted_at`: microseconds; None: the broker's own time.

        Raises:
            LogUnsettled: see there. StreamNotFound: it lacks partitions.
            psycopg.Error: nothing is appended; what it means is the caller's to judge.
        """
        if admitted_at is None:
            row = connection.execute(_BROKER_TIME, (self.stream_name,)).fetchone()
            assert row is not None
            times = [int(row[0])] * len(records)
        else:
            times = list(admitted_at)
        blocks, members_of = self._blocks(records, times, is_declared=admitted_at is not None)
        names = sorted({name for name, _ in blocks})
        heads = connection.execute(_LOCK, (self.stream_name, names)).fetchall()
        if len(heads) < len(names):
            raise StreamNotFound(f"stream {self.stream_name!r} lacks partitions that it was opened with: nothing was appended")
        if not all(is_settled for *_, is_settled in heads):
            raise LogUnsettled(_unsettled_words(self.stream_name))
        firsts = [place for part in _statements(blocks) for place in self._insert(connection, part)]
        placed: list[tuple[str, int]] = [("", 0)] * len(records)
        for (name, _), members, (first, _) in zip(blocks, members_of, firsts, strict=True):
            for offset, index in enumerate(members, first):
                placed[index] = (name, offset)
        return placed, firsts[0][1]

    def tell(self, connection: psycopg.Connection) -> None:
        """Wake who waits for records of the stream; on a connection that is in no transaction."""
        send_notice(connection, LOG_CHANNEL, self.stream_name)

    def _store(self, appends: Sequence[Sequence[_Placed]]) -> list[list[_Place]]:
        """Write the blocks of some appends, all or none; where each block begins."""
        blocks = [block for append in appends for block in append]
        firsts = iter(self._write(blocks))
        return [list(islice(firsts, len(append))) for append in appends]

    def _write(self, blocks: Sequence[_Placed]) -> list[_Place]:
        """Write the blocks, all or none; where each begins."""
        parts = _statements(blocks)
        firsts: list[_Place] = []
        with log_answering(), self._pool.connection() as connection:
            try:
                with connection.transaction() if len(parts) > 1 else nullcontext():
                    if len(parts) > 1:  # all heads before the first block: appenders lock in one order
                        connection.execute(_LOCK, (self.stream_name, sorted({name for name, _ in blocks})))
                    for part in parts:
                        firsts += self._insert(connection, part)
            except psycopg.errors.NotNullViolation as error:
                state = connection.execute(_SETTLED, (self.stream_name,)).fetchone()
                if state is not None and not state[1]:
                    raise LogUnsettled(_unsettled_words(self.stream_name)) from error
                raise StreamNotFound(
                    f"stream {self.stream_name!r} lacks partitions that it was opened with: nothing was appended"
                ) from error
            send_notice(connection, LOG_CHANNEL, self.stream_name)
        return firsts

    def _insert(self, connection: psycopg.Connection, blocks: Sequence[_Placed], *, settling: bool = False) -> list[_Place]:
        ahead, counts = [], dict.fromkeys([name for name, _ in blocks], 0)
        for name, block in blocks:
            ahead.append(counts[name])
            counts[name] += block.record_count
        arguments = {
            "stream": self.stream_name,
            "partition": [name for name, _ in blocks],
            "ahead": ahead,
            "record_count": [block.record_count for _, block in blocks],
            "first_admitted": [block.first_admitted for _, block in blocks],
            "last_admitted": [block.last_admitted for _, block in blocks],
            "declared": [block.is_declared for _, block in blocks],
            "codec": [block.codec for _, block in blocks],
            "raw_bytes": [block.raw_bytes for _, block in blocks],
            "data": [block.data for _, block in blocks],
            "settling": settling,
        }
        heads = {name: (head, incarnation) for name, head, incarnation in connection.execute(_APPEND, arguments).fetchall()}
        return [(heads[name][0] + before, heads[name][1]) for (name, _), before in zip(blocks, ahead, strict=True)]

    def _broker_time(self) -> int:
        with log_answering(), self._pool.connection() as connection:
            row = connection.execute(_BROKER_TIME, (self.stream_name,)).fetchone()
        assert row is not None
        return int(row[0])

    def read(self, partition_id: str, basis: PartitionBasis | None, max_records: int) -> RecordBatch:
        """See `EventLog.read`."""
        checked_start(partition_id, basis, self.position_kind.offset_kind, max_records)
        rows = self._read_rows([partition_id], [None if basis is None else int(basis.offset)], [max_records])
        return self._batch(partition_id, basis, max_records, rows.get(partition_id, []))

    @property
    def reads_many(self) -> bool:
        """One statement reads any number of partitions."""
        return True

    def read_many(self, requests: Sequence[PartitionRequest]) -> list[RecordBatch]:
        """See `ManyReader`; one statement."""
        parts = [request.basis for request in requests]
        for request in requests:
            checked_start(request.basis.partition_id, request.basis, self.position_kind.offset_kind, request.max_records)
        counts = [request.max_records for request in requests]
        rows = self._read_rows([part.partition_id for part in parts], [int(part.offset) for part in parts], counts)
        return [
            self._batch(part.partition_id, part, count, rows.get(part.partition_id, []))
            for part, count in zip(parts, counts, strict=True)
        ]

    def _read_rows(
        self, partition_ids: list[str], offsets: Sequence[int | None], counts: list[int]
    ) -> dict[str, list[tuple[Any, ...]]]:
        """Head, floor, incarnation and blocks, by partition."""
        arguments = {"stream": self.stream_name, "partitions": partition_ids, "offsets": list(offsets), "counts": counts}
        rows: dict[str, list[tuple[Any, ...]]] = {}
        with log_answering(), self._pool.connection() as connection, connection.cursor(binary=True) as cursor:
            for name, *row in cursor.execute(_READ, arguments):
                rows.setdefault(name, []).append(tuple(row))
        return rows

    def _batch(
        self, partition_id: str, basis: PartitionBasis | None, max_records: int, rows: list[tuple[Any, ...]]
    ) -> RecordBatch:
        if not rows:
            raise PartitionNotFound(f"stream {self.stream_name!r} has no partition {partition_id!r}")
        head, floor, incarnation = rows[0][:3]
        if incarnation != self.history.current:
            self._follow_history()
        start = floor if basis is None else int(basis.offset)
        _demand_between(self.stream_name, partition_id, start, floor, head)
        self._demand_history(basis)
        stop = min(start + max_records, self.history.next_start(partition_id, start) or head, head)
        after = self._part(partition_id, stop)
        if stop == start:
            return empty_batch(after)
        return decode([StoredBlock(*row[3:]) for row in rows if row[3] is None or row[3] < stop], start, stop, after)

    def ends(self) -> Basis:
        """See `EventLog.ends`."""
        return self._bounds("next_offset")

    def retention_floor(self) -> Basis:
        """See `EventLog.retention_floor`."""
        return self._bounds("floor_offset")

    def ordinal_lag(self, basis: Basis) -> dict[str, int]:
        """See `EventLog.ordinal_lag`; exact."""
        return self._lag(self.ends(), basis)

    def demand(self, basis: Basis) -> None:
        """See `EventLog.demand`."""
        self.demand_settled()
        known = basis.by_partition()
        demand_listed(self.stream_name, self.partitions(), known)
        heads = self.ends().by_partition()
        for floor in self.retention_floor().partitions:
            name = floor.partition_id
            part = known.get(name, floor.start())
            if part.closed:
                continue
            _demand_between(self.stream_name, name, int(part.offset), int(floor.offset), int(heads[name].offset))
            self._demand_history(part)

    def _demand_history(self, basis: PartitionBasis | None) -> None:
        if basis is not None and not self.history.is_of(basis):
            where = f"partition {basis.partition_id!r} of {self.stream_name!r}"
            raise LogTailLost(
                f"{where}: the basis {basis.offset} is of incarnation {basis.incarnation or 'one'}, the log has another"
                " one there: a recovery lost the records that the basis knows (docs/runbook.md, A failover)"
            )

    def accepted_ends(self) -> dict[str, PartitionBasis]:
        """See `EventLog.accepted_ends`."""
        return {}

    def retention_used(self, basis: Basis) -> dict[str, float]:
        """See `EventLog.retention_used`: nothing leaves by its age."""
        return {}

    def truncate_before(self, basis: Basis) -> None:
        """Move the retention floor up to the basis and delete the blocks that lie wholly before it; never down again.

        Raises:
            PositionUnknown: the basis is past the head of a partition; nothing is deleted.
        """
        with log_answering(), self._pool.connection() as connection, connection.transaction():
            parts = basis.by_partition()
            rows = connection.execute(_LOCK, (self.stream_name, sorted(parts))).fetchall()
            heads: dict[str, int] = {name: head for name, head, *_ in rows}
            for name, part in parts.items():
                checked_start(name, part, self.position_kind.offset_kind, 1)
                floor = int(part.offset)
                if floor > heads.get(name, -1):
                    raise PositionUnknown(f"partition {name!r} of {self.stream_name!r} does not reach offset {floor}")
                arguments = {"stream": self.stream_name, "partition": name, "floor": floor}
                connection.execute(
                    "UPDATE ofp.log_head SET floor_offset = greatest(floor_offset, %(floor)s) "
                    "WHERE stream_name = %(stream)s AND partition_id = %(partition)s",
                    arguments,
                )
                connection.execute(
                    "DELETE FROM ofp.log_block WHERE stream_name = %(stream)s AND partition_id = %(partition)s "
                    "AND first_offset < %(floor)s AND first_offset + record_count <= %(floor)s",
                    arguments,
                )

    def wait(self, basis: Basis, timeout_seconds: float) -> bool:
        """See `EventLog.wait`; it holds one connection of the pool meanwhile."""
        deadline = time.monotonic() + timeout_seconds
        with log_answering(), self._pool.connection() as connection:
            connection.execute(f"LISTEN {LOG_CHANNEL}")
            try:
                while True:
                    # listening comes before looking: what is appended in between wakes us
                    if any(self._lag(self._bounds("next_offset", connection), basis).values()):
                        return True
                    left = deadline - time.monotonic()
                    if left <= 0:
                        return False
                    # and looking again without a notice: it may be lost with whoever appended
                    # the notices of other streams come here, too, and are no reason to look
                    for notice in connection.notifies(timeout=min(left, LOOK_SECONDS)):
                        if notice.payload == self.stream_name:
                            break
            finally:
                if not connection.closed:
                    connection.execute("UNLISTEN *")

    def seen_lag(self) -> dict[str, int] | None:
        """See `EventLog.seen_lag`: it is asked for."""
        return None

    @contextmanager
    def pauses_end_with(self, stop: threading.Event) -> Iterator[None]:
        """See `EventLog.pauses_end_with`: there are none."""
        yield

    def close(self) -> None:
        """Nothing is this log's alone: the pool is the caller's."""

    def _bounds(self, column: str, connection: psycopg.Connection | None = None) -> Basis:
        query = (
            f"SELECT partition_id, {column}, incarnation FROM ofp.log_head JOIN ofp.log_stream USING (stream_name)"
            " WHERE stream_name = %s"
        )
        if connection is not None:
            rows = connection.execute(query, (self.stream_name,)).fetchall()
        else:
            with log_answering(), self._pool.connection() as other:
                rows = other.execute(query, (self.stream_name,)).fetchall()
        if rows and rows[0][2] != self.history.current:
            self._follow_history()
        return make_basis(self.stream_name, {name: self._part(name, offset) for name, offset, _ in rows})

    def _part(self, partition_id: str, offset: int) -> PartitionBasis:
        return self.history.with_incarnation(self.position_kind.basis(partition_id, offset))

    def _lag(self, ends: Basis, basis: Basis) -> dict[str, int]:
        known = {name: int(part.offset) for name, part in basis.by_partition().items()}
        return {name: max(int(end.offset) - known.get(name, 0), 0) for name, end in ends.by_partition().items()}


def _statements(blocks: Sequence[_Placed]) -> list[list[_Placed]]:
    """The blocks in their order, cut into what one statement may carry."""
    parts: list[list[_Placed]] = [[]]
    size = 0
    for name, block in blocks:
        if parts[-1] and size + len(block.data) > _STATEMENT_BYTES:
            parts.append([])
            size = 0
        parts[-1].append((name, block))
        size += len(block.data)
    return parts


def _demand_between(stream_name: str, partition_id: str, start: int, floor: int, head: int) -> None:
    if start < floor:
        raise PositionTrimmed(f"partition {partition_id!r} of {stream_name!r} is kept from offset {floor} on; {start} is gone")
    if start > head:
        raise PositionUnknown(f"partition {partition_id!r} of {stream_name!r} ends at {head}; {start} is of another log")


def _unsettled_words(stream_name: str) -> str:
    return (
        f"log {stream_name!r}: this server was promoted or put back since the log was last settled, so records may be lost. A"
        " projector settles it where the archive has nothing that the log lacks; else put that back: `ofp archive restore`"
        " (docs/runbook.md, A failover)"
    )


@contextmanager
def log_answering() -> Iterator[None]:
    """Inside the block, an outage of the database is one of the log.

    Raises:
        LogUnavailable: it does not answer.
    """
    try:
        yield
    except (psycopg.Error, OSError) as error:
        if not is_transient(error):
            raise
        raise LogUnavailable(f"the log is in PostgreSQL: {outage_message(error)}") from error

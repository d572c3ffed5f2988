"""The projector: folds records of the log into the state of one projection, exactly once, one transaction a micro-batch.

Nothing else writes state. A commit is guarded by the version of the projection's row: whoever read another version loses,
forgets what it holds in memory, and starts again from the store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import numpy as np
import numpy.typing as npt
from psycopg import Connection

from ofp_platform.kernel.query import LayoutArrays
from ofp_platform.log.port import EventLog, RecordBatch
from ofp_platform.online.projecting import chunk_merge
from ofp_platform.online.projecting.read_ahead import LEAST_RECORDS, ReadAhead, Reading, ReadRequest
from ofp_platform.online.projecting.record_intake import LOWEST, FoldedBatch, RecordIntake, RoutedRecords
from ofp_platform.online.state.buckets import KEY_TYPE_CODES, Buckets, read_buckets, replace_chunks
from ofp_platform.online.state.chunk_codec import pack_many, unpack_many
from ofp_platform.online.state.chunk_spans import SPAN_CHUNKS, ChangedChunk, refresh_spans
from ofp_platform.online.state.identity_pages import PageCorrupt
from ofp_platform.online.state.key_tails import TAIL_BYTES, append_to_tails
from ofp_platform.online.state.known_identities import IdentityPolicy, OlderIdentities
from ofp_platform.online.state.projection import ProjectionConflict, ProjectionRow, read_projection
from ofp_platform.online.state.pruning import FIRST_PLACE, LEAST_STEP, begin_pruning, pruning_step
from ofp_platform.online.state.touched_keys import record_touched
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.storage.crash_points import crash_point
from ofp_platform.storage.notices import PROJECTION_CHANNEL, send_notice
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import Basis, basis_text, make_basis

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ApplyReceipt:
    """Receipt of one commit. Counts are records, but for `touched_keys` and `chunks`, in which tails are counted too; times are
    microseconds.

    `failures`: records that feed nothing, by reason; `group_failures`: applied ones that some groups cannot use, by reason.
    `late` counts applied events at or behind the horizon as it stood before the commit: they change no servable value.
    """

    projection_id: int
    version: int
    basis_before: Basis
    basis_after: Basis
    records: int
    applied: int
    duplicates: int
    late: int
    ignored: int
    anomalies: int
    failures: Mapping[str, int]
    group_failures: Mapping[str, int]
    touched_keys: int
    chunks: int
    watermark: int | None
    horizon: int | None


@dataclass(frozen=True)
class Advance:
    """Where a commit takes the projection: basis, and watermark and horizon in microseconds (None before the first event)."""

    basis: Basis
    watermark: int | None
    horizon: int | None


class Projector:
    """Applies records to one projection. One instance per process and projection; not safe for threads."""

    def __init__(
        self,
        pool: Pool,
        log: EventLog,
        registry: CompiledRegistry,
        projection_id: int,
        *,
        clock_skew_us: int,
        allowed_lateness_us: int,
        chunk_events: int = chunk_merge.CHUNK_EVENTS,
        span_chunks: int = SPAN_CHUNKS,
        tail_bytes: int = TAIL_BYTES,
        least_step: int | None = None,
        least_ahead: int = LEAST_RECORDS,
        identity_policy: IdentityPolicy | None = None,
    ) -> None:
        self._pool = pool
        self._log = log
        self._registry = registry
        self._plans = {key_type: LayoutArrays.of(layout) for key_type, layout in registry.layouts.items()}
        self._projection_id = projection_id
        self._retained_us = registry.reach + allowed_lateness_us
        self._chunk_events = chunk_events
        self._span_chunks = span_chunks
        self._tail_bytes = tail_bytes
        self._least_step = LEAST_STEP if least_step is None else least_step
        self._intake = RecordIntake(registry, clock_skew_us, self._retained_us, log.position_kind, identity_policy)
        self._least_ahead = least_ahead
        self._row: ProjectionRow | None = None
        self._ahead: ReadAhead | None = None

    @property
    def basis(self) -> Basis:
        """The basis as last read or committed by this instance."""
        return self._load().basis

    @property
    def has_read_ahead(self) -> bool:
        """Whether the records of the next commit are read already."""
        return self._ahead is not None and self._ahead.is_ahead

    def forget(self) -> None:
        """Drop everything held in memory; the next apply reads the store again."""
        self._row = None
        self._ahead = None
        self._intake.forget()

    def apply_available(self, *, max_records: int, until: Basis | None = None) -> ApplyReceipt | None:
        """Apply what the log holds behind the basis, at most `max_records`, one commit. None: nothing was there.

        `until` bounds what is applied, partition by partition (partitions that it does not name are left alone).

        Raises:
            ProjectionConflict: another projector moved the basis; nothing was written, call again.
        """
        row = self._load()
        reading = self._reader(row.pins).read(ReadRequest(row.basis, max_records, until))
        return self._apply_reading(reading) if reading.records else None

    def apply(self, batches: Sequence[RecordBatch]) -> ApplyReceipt:
        """Apply records that continue the basis: one transaction, all or nothing.

        Raises:
            ProjectionConflict: the basis is not where these batches start, or moved meanwhile.
        """
        row = self._load()
        records = [self._intake.route(row.pins, batch) for batch in batches]
        return self._apply_reading(Reading(ReadRequest(row.basis, sum(map(len, batches))), records, more=False))

    def _reader(self, pins: ContextPins) -> ReadAhead:
        if self._ahead is None:
            self._ahead = ReadAhead(self._log, self._intake, pins, self._least_ahead)
        return self._ahead

    def _apply_reading(self, reading: Reading) -> ApplyReceipt:
        try:
            return self._apply(reading)
        except BaseException:
            self.forget()  # the known identities hold what was not committed
            raise

    def _apply(self, reading: Reading) -> ApplyReceipt:
        row = self._load()
        work = FoldedBatch()
        parts = dict(row.basis.by_partition())
        for records, older in zip(reading.records, self._older(row, reading.records), strict=True):
            self._intake.fold(row, records, work, older)
            parts[records.batch.partition_id] = records.batch.next
        after = make_basis(row.stream_name, parts)
        moments = [moment for moment in (row.watermark, work.watermark) if moment is not None and moment != LOWEST]
        watermark = max(moments, default=None)
        horizon = None if watermark is None else watermark - self._retained_us
        crash_point("projector.before_transaction")
        with self._reader(row.pins).beside(reading, after), self._pool.connection() as connection:
            keys, chunks = self._commit(connection, row, work, Advance(after, watermark, horizon))
            crash_point("projector.after_commit")
            send_notice(connection, PROJECTION_CHANNEL, str(self._projection_id))
        totals: Counter[str] = Counter()
        for counts in work.counts.values():
            totals.update(counts)
        return ApplyReceipt(
            projection_id=self._projection_id,
            version=row.version + 1,
            basis_before=row.basis,
            basis_after=after,
            records=totals["records"],
            applied=totals["applied"],
            duplicates=totals["duplicates"],
            late=totals["late"],
            ignored=totals["ignored"],
            anomalies=len(work.anomalies),
            failures=dict(Counter(failure[5] for failure in work.failures if not failure[8])),
            group_failures=dict(Counter(failure[5] for failure in work.failures if failure[8])),
            touched_keys=keys,
            chunks=chunks,
            watermark=watermark,
            horizon=horizon,
        )

    def _commit(self, connection: Connection[Any], row: ProjectionRow, work: FoldedBatch, advance: Advance) -> tuple[int, int]:
        """Write a batch in one transaction. Returns keys touched, and tails and chunks written."""
        horizon = advance.horizon
        with connection.transaction():
            stored_row = read_projection(connection, self._projection_id, for_update=True)
            if stored_row.version != row.version:
                raise ProjectionConflict(
                    f"projection {self._projection_id} is at version {stored_row.version}, this batch continues {row.version}"
                )
            chunks = keys = 0
            for key_type, touched_runs in sorted(work.touched.items()):
                merged_keys, chunk_count = self._merge(connection, key_type, touched_runs, horizon)
                keys, chunks = keys + merged_keys, chunks + chunk_count
            crash_point("projector.after_chunks")
            self._record(connection, row.version + 1, work)
            self._intake.known.record(connection, self._projection_id, row.version + 1, work.max_ts)
            pruned_keys = self._prune(connection, row, horizon, max(self._least_step, 2 * chunks))
            names = {
                kind: chain(pruned_keys.get(kind, ()), chain.from_iterable(ids for ids, _ in work.touched.get(kind, ())))
                for kind in pruned_keys.keys() | work.touched.keys()
            }
            self._intake.known.step(connection, self._projection_id)
            crash_point("projector.after_identities")
            record_touched(connection, self._projection_id, row.version + 1, names)
            connection.execute(
                "UPDATE ofp.projection SET version = %s, basis = %s, watermark = %s WHERE projection_id = %s",
                (row.version + 1, basis_text(advance.basis), advance.watermark, self._projection_id),
            )
            crash_point("projector.before_commit")
            self._row = read_projection(connection, self._projection_id)
        return keys, chunks

    # ---- reading -------------------------------------------------------------------------------------------------

    def _load(self) -> ProjectionRow:
        if self._row is not None:
            return self._row
        with self._pool.connection() as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            row = read_projection(connection, self._projection_id)
            if row.registry_digest != self._registry.digest:
                raise ProjectionConflict(
                    f"projection {self._projection_id} is of registry {row.registry_digest}, not of {self._registry.digest}"
                )
            active = connection.execute(
                "SELECT pins_digest FROM ofp.projection WHERE stream_name = %s AND status <> 'retired'", (row.stream_name,)
            )
            names = connection.execute(
                "SELECT partition_id FROM ofp.projection_partition WHERE projection_id = %s ORDER BY partition_number",
                (self._projection_id,),
            )
            self._intake.remember({digest for (digest,) in active}, [name for (name,) in names])
            self._intake.known.load(connection, self._projection_id)
        self._row = row
        return row

    def _older(self, row: ProjectionRow, records: Sequence[RoutedRecords]) -> Iterator[OlderIdentities | None]:
        """Look the events of a reading up in the segments, all at once; batch by batch."""
        if not self._intake.known.has_segments:
            yield from repeat(None, len(records))
            return
        digests = [self._intake.digests(batch) for batch in records]
        try:
            with self._pool.connection() as connection:
                older = self._intake.known.older(connection, self._projection_id, np.concatenate(digests))
        except PageCorrupt:
            with self._pool.connection() as connection:
                stored_row = read_projection(connection, self._projection_id)
            if stored_row.version != row.version:
                raise ProjectionConflict(f"projection {self._projection_id} is no longer at version {row.version}") from None
            raise
        start = 0
        for part in digests:
            yield older.part(start, start + len(part))
            start += len(part)

    # ---- writing -------------------------------------------------------------------------------------------------

    def _merge(
        self, connection: Connection[Any], key_type: str, touched_runs: list[tuple[list[str], Int64]], horizon: int | None
    ) -> tuple[int, int]:
        """Merge new events of one key type into its tails and chunks. Returns keys touched, and tails and chunks written."""
        numbers = dict.fromkeys(chain.from_iterable(ids for ids, _ in touched_runs), 0)
        numbers.update(zip(numbers, range(len(numbers)), strict=True))
        keys = np.fromiter(map(numbers.__getitem__, chain.from_iterable(ids for ids, _ in touched_runs)), np.int64)
        matrix = np.concatenate([part for _, part in touched_runs], axis=1)
        if horizon is not None:
            servable = matrix[0] > horizon
            keys, matrix = keys[servable], np.ascontiguousarray(matrix[:, servable])
        if not len(keys):
            return 0, 0
        code = KEY_TYPE_CODES[key_type]
        owner = (self._projection_id, code)
        floor = LOWEST if horizon is None else horizon
        rest = append_to_tails(connection, *owner, list(numbers), keys, matrix, horizon=floor, tail_bytes=self._tail_bytes)
        if not rest.key_ids:
            return len(numbers), rest.tails
        key_ids, keys, matrix = rest.key_ids, rest.keys, rest.matrix
        buckets = read_buckets(connection, self._projection_id, key_type, key_ids, keys, matrix[0])
        existing, offsets = unpack_many(buckets.blocks, matrix.shape[0])
        plan = self._plans[key_type]
        merged_chunks = chunk_merge.merge(
            existing, offsets, buckets.of_event, matrix, ties=plan.layout.ties, limit=self._chunk_events
        )
        summaries = chunk_merge.summarise_chunks(plan, merged_chunks.matrix, merged_chunks.chunk_offsets)
        packed_chunks = pack_many(merged_chunks.matrix, merged_chunks.chunk_offsets)
        starts, ends = merged_chunks.chunk_offsets[:-1], merged_chunks.chunk_offsets[1:] - 1
        first_ts, last_ts = merged_chunks.matrix[0, starts].tolist(), merged_chunks.matrix[0, ends].tolist()
        owners = buckets.key[merged_chunks.chunk_bucket].tolist()
        rows = [
            (key_ids[owner], first, last, summary.tobytes(), block)
            for owner, first, last, summary, block in zip(owners, first_ts, last_ts, summaries, packed_chunks, strict=True)
        ]
        stored_buckets = [index for index, block in enumerate(buckets.blocks) if block is not None]
        old = (
            [key_ids[buckets.key[index]] for index in stored_buckets],
            [int(buckets.first_ts[index]) for index in stored_buckets],
        )
        replace_chunks(connection, self._projection_id, key_type, old, rows)
        changed_chunks, grown_keys = _changes(key_ids, buckets, merged_chunks.chunk_bucket, first_ts, last_ts)
        refresh_spans(connection, *owner, plan, changed_chunks, grown_keys, self._span_chunks)
        return len(numbers), rest.tails + len(rows)

    def _prune(
        self, connection: Connection[Any], row: ProjectionRow, horizon: int | None, chunk_count: int
    ) -> Mapping[str, list[str]]:
        """Take a step of pruning, where there is one to take. The ids of the keys that lost something, by key type."""
        place, to = row.pruning, row.pruned_to
        if place is None and horizon is not None and horizon - (to or LOWEST) > self._retained_us // 8:
            self._intake.known.prune(connection, self._projection_id, horizon)
            begin_pruning(connection, self._projection_id, horizon)
            place, to = FIRST_PLACE, horizon
        if place is None or to is None:
            return {}
        return pruning_step(connection, self._projection_id, place, to, chunk_count)

    def _record(self, connection: Connection[Any], version: int, work: FoldedBatch) -> None:
        """Failures, anomalies and counters of this commit."""
        anomalies = Counter(anomaly[0] for anomaly in work.anomalies)
        with connection.cursor() as cursor:
            if work.failures:
                _copy(cursor, "apply_failure", ((self._projection_id, *failure) for failure in work.failures))
                totals = Counter((failure[8], failure[5]) for failure in work.failures)
                cursor.executemany(
                    "INSERT INTO ofp.failure_total AS t VALUES (%s, %s, %s, %s)"
                    " ON CONFLICT (projection_id, partial, reason) DO UPDATE SET records = t.records + excluded.records",
                    [(self._projection_id, *kind, records) for kind, records in sorted(totals.items())],
                )
            if work.anomalies:
                _copy(cursor, "anomaly", ((self._projection_id, *anomaly) for anomaly in work.anomalies))
            cursor.executemany(
                "INSERT INTO ofp.projection_partition AS p VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
                " ON CONFLICT (projection_id, partition_id) DO UPDATE SET records = p.records + excluded.records,"
                " applied = p.applied + excluded.applied, duplicates = p.duplicates + excluded.duplicates,"
                " late = p.late + excluded.late,"
                " failed = p.failed + excluded.failed, ignored = p.ignored + excluded.ignored,"
                " partial = p.partial + excluded.partial, anomalies = p.anomalies + excluded.anomalies",
                [
                    (
                        self._projection_id,
                        name,
                        self._intake.number(name),
                        counts["records"],
                        counts["applied"],
                        counts["duplicates"],
                        counts["late"],
                        counts["failed"],
                        counts["ignored"],
                        counts["partial"],
                        anomalies[name],
                    )
                    for name, counts in sorted(work.counts.items())
                ],
            )


def _changes(
    key_ids: list[str], buckets: Buckets, chunk_bucket: Int64, first_ts: list[int], last_ts: list[int]
) -> tuple[list[ChangedChunk], list[str]]:
    """The changes that spans must follow: merged chunks other than a key's newest, and keys whose newest was split."""
    begins = np.searchsorted(chunk_bucket, np.arange(len(buckets.key)), side="left").tolist()
    ends = np.searchsorted(chunk_bucket, np.arange(len(buckets.key)), side="right").tolist()
    changed_chunks, grown_keys = [], []
    for bucket, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        if begin == end:
            continue
        if not buckets.newest[bucket]:
            before = int(buckets.first_ts[bucket])
            changed_chunks.append(ChangedChunk(key_ids[buckets.key[bucket]], before, first_ts[begin], last_ts[end - 1]))
        elif end - begin > 1:
            grown_keys.append(key_ids[buckets.key[bucket]])
    return changed_chunks, grown_keys


def _copy(cursor: Any, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
    with cursor.copy(f"COPY ofp.{table} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)

"""The projector: folds records of the log into the state of one projection, exactly once, one transaction a micro-batch.

Nothing else writes state. A commit is guarded by the version of the projection's row: whoever read another version loses,
forgets what it holds in memory, and starts again from the store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from psycopg import Connection

from ofp_platform.kernel.plan import KernelPlan
from ofp_platform.log.port import EventLog, RecordBatch, readable_partitions
from ofp_platform.online import chunk_merge
from ofp_platform.online.chunk_codec import pack_many, unpack_many
from ofp_platform.online.identity_index import ANOMALY, DUPLICATE, IdentityIndex, offset_words, words_offset
from ofp_platform.online.projection import ProjectionConflict, ProjectionRow, read_projection
from ofp_platform.online.spans import SPAN_CHUNKS, ChangedChunk, refresh_spans
from ofp_platform.online.state import KEY_TYPE_CODES, Buckets, prune, read_buckets, replace_chunks
from ofp_platform.online.touched_keys import record_touched
from ofp_platform.registry.apply_failure import ApplyFailureReason
from ofp_platform.registry.belonging import belonging
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.routing import APPLIED, UNKNOWN_TYPE, RoutedBatch, Router, TouchedKeys
from ofp_platform.storage.crash_points import crash_point
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.identity import pins_digest
from ofp_platform.vocabulary.position import Basis, OffsetKind, PartitionBasis, basis_text, make_basis, order

Int64 = npt.NDArray[np.int64]
LOWEST = int(np.iinfo(np.int64).min)


@dataclass(frozen=True)
class ApplyReceipt:
    """What one commit did. Counts are records, but for `touched_keys` and `chunks`; times are microseconds.

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
    touched_keys: int
    chunks: int
    watermark: int | None
    horizon: int | None


@dataclass
class _Batch:
    """What is known of the records of one commit, before anything is written."""

    failures: list[tuple[str, str, str, str, int, str, str]] = field(default_factory=list)
    anomalies: list[tuple[str, str, str, str, str, str]] = field(default_factory=list)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    identities: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    touched: dict[str, list[tuple[list[str], Int64]]] = field(default_factory=dict)
    max_ts: int = LOWEST


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
    ) -> None:
        self._pool = pool
        self._log = log
        self._registry = registry
        self._router = Router(registry)
        self._plans = {key_type: KernelPlan.of(layout) for key_type, layout in registry.layouts.items()}
        self._projection_id = projection_id
        self._skew = clock_skew_us
        self._retained = registry.reach + allowed_lateness_us
        self._chunk_events = chunk_events
        self._span_chunks = span_chunks
        self._dense = log.offset_kind is OffsetKind.EXCLUSIVE_NEXT
        self._row: ProjectionRow | None = None
        self._index = IdentityIndex(self._word_count)
        self._partition_numbers: list[str] = []
        self._active: set[str] = set()

    @property
    def _word_count(self) -> int:
        return 6 if self._dense else 8

    @property
    def basis(self) -> Basis:
        """The basis as last read or committed by this instance."""
        return self._load().basis

    def forget(self) -> None:
        """Drop everything held in memory; the next apply reads the store again."""
        self._row = None
        self._index = IdentityIndex(self._word_count)
        self._partition_numbers = []

    def apply_available(self, *, max_records: int, until: Basis | None = None) -> ApplyReceipt | None:
        """Apply what the log holds behind the basis, at most `max_records`, one commit. None: nothing was there.

        `until` bounds what is applied, partition by partition (partitions that it does not name are left alone).

        Raises:
            ProjectionConflict: another projector moved the basis; nothing was written, call again.
        """
        batches = self.read_ahead(max_records=max_records, until=until)
        return self.apply(batches) if batches else None

    def read_ahead(self, *, max_records: int, until: Basis | None = None) -> list[RecordBatch]:
        """Read the records that the next commit would apply, spread over the partitions."""
        basis = self._load().basis
        known = basis.by_partition()
        names = readable_partitions(self._log.partitions(), basis)
        bounds = None if until is None else until.by_partition()
        batches = []
        left = max_records
        for number, name in enumerate(names):
            share = max(1, left // (len(names) - number))
            bound = None if bounds is None else bounds.get(name)
            if left <= 0 or (bounds is not None and bound is None):
                continue
            part = known.get(name)
            batch = self._log.read(name, part, share)
            if bound is not None:
                batch = _inside(batch, part, bound)
            if len(batch) or batch.unreadable or batch.next.closed:
                batches.append(batch)
                left -= len(batch)
        return batches

    def apply(self, batches: Sequence[RecordBatch]) -> ApplyReceipt:
        """Apply records that continue the basis: one transaction, all or nothing.

        Raises:
            ProjectionConflict: the basis is not where these batches start, or moved meanwhile.
        """
        try:
            return self._apply(batches)
        except BaseException:
            self.forget()  # the identity index holds what was not committed
            raise

    def _apply(self, batches: Sequence[RecordBatch]) -> ApplyReceipt:
        row = self._load()
        work = _Batch()
        parts = dict(row.basis.by_partition())
        for batch in batches:
            self._fold(batch, work)
            parts[batch.partition_id] = batch.next
        after = make_basis(row.stream_name, parts)
        moments = [moment for moment in (row.watermark, work.max_ts) if moment is not None and moment != LOWEST]
        watermark = max(moments, default=None)
        horizon = None if watermark is None else watermark - self._retained
        crash_point("projector.before_transaction")
        with self._pool.connection() as connection, connection.transaction():
            stored = read_projection(connection, self._projection_id, for_update=True)
            if stored.version != row.version:
                raise ProjectionConflict(
                    f"projection {self._projection_id} is at version {stored.version}, this batch continues {row.version}"
                )
            chunks = keys = 0
            for key_type, touched in sorted(work.touched.items()):
                merged_keys, written = self._merge(connection, key_type, touched, horizon)
                keys, chunks = keys + merged_keys, chunks + written
            crash_point("projector.after_chunks")
            self._record(connection, row.version + 1, work)
            pruned = horizon is not None and horizon - (row.pruned_to or LOWEST) > self._retained // 8
            if horizon is not None and pruned:
                prune(connection, self._projection_id, horizon)
            # what is pruned may be of any key
            names = None if pruned else {kind: chain.from_iterable(ids for ids, _ in part) for kind, part in work.touched.items()}
            record_touched(connection, self._projection_id, row.version + 1, names)
            connection.execute(
                "UPDATE ofp.projection SET version = %s, basis = %s, watermark = %s WHERE projection_id = %s",
                (row.version + 1, basis_text(after), watermark, self._projection_id),
            )
            connection.execute("SELECT pg_notify('ofp_projection', %s)", (str(self._projection_id),))
            crash_point("projector.before_commit")
            self._row = read_projection(connection, self._projection_id)
        crash_point("projector.after_commit")
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
            failures=dict(Counter(failure[5] for failure in work.failures)),
            touched_keys=keys,
            chunks=chunks,
            watermark=watermark,
            horizon=horizon,
        )

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
            runs = connection.execute(
                "SELECT content FROM ofp.identity_run WHERE projection_id = %s ORDER BY version", (self._projection_id,)
            )
            for (content,) in runs:
                self._index.load(np.frombuffer(content, np.uint64).reshape(-1, self._word_count))
            self._active = {
                digest
                for (digest,) in connection.execute(
                    "SELECT pins_digest FROM ofp.projection WHERE stream_name = %s AND status <> 'retired'",
                    (row.stream_name,),
                )
            }
            names = connection.execute(
                "SELECT partition_id FROM ofp.projection_partition WHERE projection_id = %s ORDER BY partition_number",
                (self._projection_id,),
            )
            self._partition_numbers = [name for (name,) in names]
        self._row = row
        return row

    def _number(self, partition_id: str) -> int:
        """A small number that stands for a partition in identity entries; persisted with the partition's counters."""
        if partition_id not in self._partition_numbers:
            self._partition_numbers.append(partition_id)
        return self._partition_numbers.index(partition_id)

    # ---- folding one partition's records ----------------------------------------------------------------------------

    def _fold(self, batch: RecordBatch, work: _Batch) -> None:
        row = self._load()
        known = row.basis.by_partition().get(batch.partition_id)
        if known is not None and len(batch) and not _follows(batch, known, self._dense):
            raise ProjectionConflict(f"records of partition {batch.partition_id} do not continue the basis")
        counts = work.counts.setdefault(batch.partition_id, Counter())
        counts["records"] += len(batch) + len(batch.unreadable)
        counts["failed"] += len(batch.unreadable)
        for record in batch.unreadable:
            reason, detail = ApplyFailureReason.MALFORMED_PAYLOAD, f"{record.reason}: {record.message}"
            work.failures.append((batch.partition_id, str(record.offset), "", "", 0, reason, detail))
        if not len(batch):
            return
        keep = self._belonging(batch, work, counts)
        if not len(keep):
            return
        everything = len(keep) == len(batch)
        routed = self._router.route(
            event_types=_take(batch.event_types, keep, everything),
            event_ids=_take(batch.event_ids, keep, everything),
            ts=batch.ts[keep],
            payload_hashes=_take(batch.payload_hashes, keep, everything),
            payloads=_take(batch.payloads, keep, everything),
        )
        for failure in routed.failures:
            work.failures.append(_failure(batch, int(keep[failure.index]), failure.reason, failure.detail))
        counts["failed"] += len(routed.failures)
        counts["ignored"] += int(np.count_nonzero(routed.status == UNKNOWN_TYPE))
        fresh = self._admit(batch, keep, routed, work, counts)
        if not fresh.any():
            return
        work.max_ts = max(work.max_ts, int(batch.ts[keep][fresh].max()))
        counts["applied"] += int(np.count_nonzero(fresh))
        if row.watermark is not None:
            counts["late"] += int(np.count_nonzero(batch.ts[keep][fresh] <= row.watermark - self._retained))
        for key_type, touched in routed.touched.items():
            _collect(work, key_type, touched, fresh)

    def _belonging(self, batch: RecordBatch, work: _Batch, counts: Counter[str]) -> Int64:
        """Indices of the records of this run that are not ahead of their admission by more than the skew."""
        row = self._load()
        found = belonging(row.pins, batch.pins, batch.pins_index, batch.ts, batch.admitted_at, self._skew)
        for index in np.flatnonzero(found.wrong_pins | found.other_run).tolist():
            if pins_digest(batch.pins[batch.pins_index[index]]) in self._active:
                counts["ignored"] += 1
                continue
            if found.wrong_pins[index]:
                reason, detail = ApplyFailureReason.WRONG_PINS, "this run's id with other pins"
            else:
                reason, detail = ApplyFailureReason.INACTIVE_RUN, "no projection of this run is active here"
            counts["failed"] += 1
            work.failures.append(_failure(batch, index, reason, detail))
        for index in np.flatnonzero(found.future).tolist():
            counts["failed"] += 1
            ahead = int(batch.ts[index] - batch.admitted_at[index]) // 1_000_000
            detail = f"event time is {ahead} s past its admission; allowed {self._skew // 1_000_000} s"
            work.failures.append(_failure(batch, index, ApplyFailureReason.FUTURE_EVENT, detail))
        return np.flatnonzero(found.own)

    def _admit(
        self, batch: RecordBatch, keep: Int64, routed: RoutedBatch, work: _Batch, counts: Counter[str]
    ) -> npt.NDArray[np.bool_]:
        """Which of the routed records are events that the projection does not know yet."""
        applied = np.flatnonzero(routed.status == APPLIED)
        fresh = np.zeros(len(keep), np.bool_)
        if not len(applied):
            return fresh
        words = np.empty((len(applied), self._word_count), np.uint64)
        words[:, 0:2] = routed.id_digest[applied]
        words[:, 2:4] = routed.tie_digest[applied]
        words[:, 4] = self._number(batch.partition_id)
        if self._dense:
            words[:, 5] = np.asarray(batch.offsets, np.uint64)[keep[applied]]
        else:
            words[:, 5:] = [offset_words(batch.offsets[index], False) for index in keep[applied]]
        status, earlier = self._index.admit(words)
        for index in np.flatnonzero(status == ANOMALY):
            first = self._index.entry(int(earlier[index]))
            record = int(keep[applied[index]])
            work.anomalies.append(
                (
                    batch.partition_id,
                    str(batch.offsets[record]),
                    batch.event_ids[record],
                    batch.event_types[record],
                    self._partition_numbers[int(first[4])],
                    words_offset(first[5:]),
                )
            )
        work.identities.append(words[status != DUPLICATE])
        counts["duplicates"] += int(np.count_nonzero(status == DUPLICATE))
        fresh[applied[status != DUPLICATE]] = True
        return fresh

    # ---- writing -------------------------------------------------------------------------------------------------

    def _merge(
        self, connection: Connection[Any], key_type: str, touched: list[tuple[list[str], Int64]], horizon: int | None
    ) -> tuple[int, int]:
        """Merge new events of one key type into its chunks. Returns keys touched and chunks written."""
        numbers: dict[str, int] = {}
        keys = np.array([numbers.setdefault(name, len(numbers)) for ids, _ in touched for name in ids], np.int64)
        matrix = np.concatenate([part for _, part in touched], axis=1)
        if horizon is not None:
            servable = matrix[0] > horizon
            keys, matrix = keys[servable], np.ascontiguousarray(matrix[:, servable])
        if not len(keys):
            return 0, 0
        key_ids = list(numbers)
        buckets = read_buckets(connection, self._projection_id, key_type, key_ids, keys, matrix[0])
        existing, offsets = unpack_many(buckets.blocks, matrix.shape[0])
        plan = self._plans[key_type]
        merged = chunk_merge.merge(existing, offsets, buckets.of_event, matrix, ties=plan.layout.ties, limit=self._chunk_events)
        summaries = chunk_merge.summarise_chunks(plan, merged.matrix, merged.chunk_offsets)
        packed = pack_many(merged.matrix, merged.chunk_offsets)
        starts, ends = merged.chunk_offsets[:-1], merged.chunk_offsets[1:] - 1
        first_ts, last_ts = merged.matrix[0, starts].tolist(), merged.matrix[0, ends].tolist()
        owners = buckets.key[merged.chunk_bucket].tolist()
        rows = [
            (key_ids[owner], first, last, summary.tobytes(), block)
            for owner, first, last, summary, block in zip(owners, first_ts, last_ts, summaries, packed, strict=True)
        ]
        stored = [index for index, block in enumerate(buckets.blocks) if block is not None]
        old = ([key_ids[buckets.key[index]] for index in stored], [int(buckets.first_ts[index]) for index in stored])
        replace_chunks(connection, self._projection_id, key_type, old, rows)
        changed, grown = _changes(key_ids, buckets, merged.chunk_bucket, first_ts, last_ts)
        code = KEY_TYPE_CODES[key_type]
        refresh_spans(connection, self._projection_id, code, plan, changed, grown, self._span_chunks)
        return len(key_ids), len(rows)

    def _record(self, connection: Connection[Any], version: int, work: _Batch) -> None:
        """Identities, failures, anomalies and counters of this commit."""
        identities = [words for words in work.identities if len(words)]
        if identities:
            content = np.concatenate(identities)
            connection.execute(
                "INSERT INTO ofp.identity_run VALUES (%s, %s, %s, %s, %s)",
                (self._projection_id, version, len(content), work.max_ts, content.tobytes()),
                binary=True,
            )
        with connection.cursor() as cursor:
            if work.failures:
                _copy(cursor, "apply_failure", ((self._projection_id, *failure) for failure in work.failures))
            if work.anomalies:
                _copy(cursor, "anomaly", ((self._projection_id, *anomaly) for anomaly in work.anomalies))
            cursor.executemany(
                "INSERT INTO ofp.projection_partition AS p VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
                " ON CONFLICT (projection_id, partition_id) DO UPDATE SET records = p.records + excluded.records,"
                " applied = p.applied + excluded.applied, duplicates = p.duplicates + excluded.duplicates,"
                " late = p.late + excluded.late,"
                " failed = p.failed + excluded.failed, ignored = p.ignored + excluded.ignored",
                [
                    (
                        self._projection_id,
                        name,
                        self._number(name),
                        counts["records"],
                        counts["applied"],
                        counts["duplicates"],
                        counts["late"],
                        counts["failed"],
                        counts["ignored"],
                    )
                    for name, counts in sorted(work.counts.items())
                ],
            )


def _changes(
    key_ids: list[str], buckets: Buckets, chunk_bucket: Int64, first_ts: list[int], last_ts: list[int]
) -> tuple[list[ChangedChunk], list[str]]:
    """What spans must know: which chunks but a key's newest were merged into, and the keys whose newest was split."""
    begins = np.searchsorted(chunk_bucket, np.arange(len(buckets.key)), side="left").tolist()
    ends = np.searchsorted(chunk_bucket, np.arange(len(buckets.key)), side="right").tolist()
    changed, grown = [], []
    for bucket, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        if begin == end:
            continue
        if not buckets.newest[bucket]:
            before = int(buckets.first_ts[bucket])
            changed.append(ChangedChunk(key_ids[buckets.key[bucket]], before, first_ts[begin], last_ts[end - 1]))
        elif end - begin > 1:
            grown.append(key_ids[buckets.key[bucket]])
    return changed, grown


def _copy(cursor: Any, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
    with cursor.copy(f"COPY ofp.{table} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def _collect(work: _Batch, key_type: str, touched: TouchedKeys, fresh: npt.NDArray[np.bool_]) -> None:
    chosen = fresh[touched.record_index]
    if chosen.all():
        work.touched.setdefault(key_type, []).append((touched.key_ids, touched.matrix))
    elif chosen.any():
        ids = [name for name, wanted in zip(touched.key_ids, chosen.tolist(), strict=True) if wanted]
        work.touched.setdefault(key_type, []).append((ids, touched.matrix[:, chosen]))


def _failure(batch: RecordBatch, index: int, reason: str, detail: str) -> tuple[str, str, str, str, int, str, str]:
    return (
        batch.partition_id,
        str(batch.offsets[index]),
        batch.event_ids[index],
        batch.event_types[index],
        int(batch.ts[index]),
        str(reason),
        detail,
    )


def _take(values: list[Any], keep: Int64, everything: bool) -> list[Any]:
    return values if everything else [values[index] for index in keep]


def _follows(batch: RecordBatch, known: PartitionBasis, dense: bool) -> bool:
    first = order(batch.offsets[0])
    return first == order(known.offset) if dense else first > order(known.offset)


def _inside(batch: RecordBatch, start: PartitionBasis | None, bound: PartitionBasis) -> RecordBatch:
    """The part of a batch that lies inside a bound."""
    dense = bound.offset_kind is OffsetKind.EXCLUSIVE_NEXT
    limit = order(bound.offset) - (1 if dense else 0)  # the last offset that is inside
    count = sum(1 for offset in batch.offsets if order(offset) <= limit)
    if count == len(batch):
        return batch
    if count:
        last = batch.offsets[count - 1]
        following: int | str = int(last) + 1 if dense else last
        after = PartitionBasis(partition_id=batch.partition_id, offset_kind=bound.offset_kind, offset=following)
    else:
        origin: int | str = 0 if dense else ""
        after = start or PartitionBasis(partition_id=batch.partition_id, offset_kind=bound.offset_kind, offset=origin)
    return replace(
        batch,
        offsets=batch.offsets[:count],
        admitted_at=batch.admitted_at[:count],
        event_ids=batch.event_ids[:count],
        event_types=batch.event_types[:count],
        schema_versions=batch.schema_versions[:count],
        ts=batch.ts[:count],
        emitted_at=batch.emitted_at[:count],
        pins_index=batch.pins_index[:count],
        payload_hashes=batch.payload_hashes[:count],
        payloads=batch.payloads[:count],
        next=after,
        unreadable=tuple(record for record in batch.unreadable if order(record.offset) <= limit),
    )

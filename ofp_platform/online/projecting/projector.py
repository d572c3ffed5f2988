"""The projector: folds records of the log into the state of one projection, exactly once, one transaction a micro-batch.

A commit is guarded by the version of the projection's row: whoever read another version loses, forgets what it holds in memory,
and starts again from the store. Nothing else writes state, but for the key shards of a projection that has several
(`epoch_sequencer.py`, `shard_projector.py`). This projector moves all of them in its transaction, and finishes an epoch that is
open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from psycopg import Connection

from ofp_platform.log.port import EventLog, RecordBatch
from ofp_platform.online.projecting.epoch_records import EpochDiffers, epoch_batches
from ofp_platform.online.projecting.projector_settings import ProjectorSettings
from ofp_platform.online.projecting.read_ahead import ReadAhead, Reading, ReadRequest
from ofp_platform.online.projecting.record_intake import LOWEST, FoldedBatch, RecordIntake, RoutedRecords
from ofp_platform.online.projecting.state_writer import StateWriter
from ofp_platform.online.state.epochs import Epoch, PartitionFates, close_epoch, read_epoch
from ofp_platform.online.state.identity_pages import PageCorrupt
from ofp_platform.online.state.key_shards import KeyEvents, KeyShard, lock_shards, move_shards, of_shards
from ofp_platform.online.state.known_identities import OlderIdentities
from ofp_platform.online.state.projection import ProjectionConflict, ProjectionRow, read_projection, read_projection_of
from ofp_platform.online.state.touched_keys import record_touched
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.storage.crash_points import crash_point
from ofp_platform.storage.notices import PROJECTION_CHANNEL, send_notice
from ofp_platform.storage.postgres import Pool, one_snapshot
from ofp_platform.telemetry.event_spans import Interval, event_spans
from ofp_platform.telemetry.trace_ids import Stage
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import Basis, basis_text, make_basis


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
        settings: ProjectorSettings,
    ) -> None:
        self._pool = pool
        self._log = log
        self._registry = registry
        self._projection_id = projection_id
        self._retained_us = registry.reach + settings.allowed_lateness_us
        self._writer = StateWriter(registry, projection_id, settings)
        self._intake = RecordIntake(registry, settings.clock_skew_us, self._retained_us, log.position_kind, settings.identities)
        self._least_ahead = settings.least_ahead
        self._row: ProjectionRow | None = None
        self._epoch: Epoch | None = None
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
        self._row = self._epoch = None
        self._ahead = None
        self._intake.forget()

    @property
    def is_retired(self) -> bool:
        """Whether the projection was retired when it was last read or written here."""
        return self._row is not None and self._row.status == "retired"

    def close(self) -> None:
        """Give back what is held besides the pool: nothing."""

    def apply_available(self, *, max_records: int, until: Basis | None = None) -> ApplyReceipt | None:
        """Apply what the log holds behind the basis, at most `max_records`, one commit. None: nothing was there.

        `until` bounds what is applied, partition by partition (partitions that it does not name are left alone). An epoch that is
        open is applied as it was laid down.

        Raises:
            ProjectionConflict: another projector moved the basis; nothing was written, call again.
        """
        row = self._load()
        if self._epoch is not None:
            return self._apply_reading(self._read_epoch(row, self._epoch))
        reading = self._reader(row.pins).read(ReadRequest(row.basis, max_records, until))
        return self._apply_reading(reading) if reading.records else None

    def apply(self, batches: Sequence[RecordBatch]) -> ApplyReceipt:
        """Apply records that continue the basis: one transaction, all or nothing.

        Raises:
            ProjectionConflict: the basis is not where these batches start, or moved meanwhile.
        """
        row = self._load()
        if self._epoch is not None:
            raise ProjectionConflict(f"epoch {self._epoch.version} of projection {self._projection_id} is open: that is next")
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
        for records, older in zip(reading.records, self._older(row, reading.records), strict=True):
            self._intake.fold(row, records, work, older)
        after = make_basis(row.stream_name, row.basis.by_partition() | work.ends)
        moments = [moment for moment in (row.watermark, work.watermark) if moment is not None and moment != LOWEST]
        watermark = max(moments, default=None)
        if self._epoch is not None:
            after = self._epoch.basis
        horizon = None if watermark is None else watermark - self._retained_us
        advance = Advance(after, watermark, horizon)
        crash_point("projector.before_transaction")
        with Interval() as applying, self._reader(row.pins).beside(reading, after), self._pool.connection() as connection:
            self._lay_down(connection, row, epoch_of(row, work, advance) if row.shards > 1 else None)
            keys, chunks = self._commit(connection, row, work, advance)
            crash_point("projector.after_commit")
            send_notice(connection, PROJECTION_CHANNEL, str(self._projection_id))
        self._tell(reading, applying, row.version + 1)
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

    def _tell(self, reading: Reading, applying: Interval, version: int) -> None:
        """The span of each event that was applied, from the fold of its batch to the commit."""
        spans = event_spans()
        if spans is None:
            return
        attributes = {"ofp.projection_id": self._projection_id, "ofp.version": version}
        for records in reading.records:
            for index in records.keep.tolist():
                spans.tell(Stage.APPLY, records.batch.event_ids[index], applying, attributes)

    def _commit(self, connection: Connection[Any], row: ProjectionRow, work: FoldedBatch, advance: Advance) -> tuple[int, int]:
        """Write a batch in one transaction. Returns keys touched, and tails and chunks written."""
        horizon = advance.horizon
        with connection.transaction():
            self._lock(connection, row)
            key_events = work.touched if row.shards == 1 else self._own_events(connection, row, work.touched)
            written = self._writer.merge(connection, key_events, horizon)
            crash_point("projector.after_chunks")
            self._record(connection, row.version + 1, work)
            self._intake.known.record(connection, self._projection_id, row.version + 1, work.max_ts)
            if self._writer.begins_pruning(row.pruning, row.pruned_to, horizon):
                assert horizon is not None
                self._intake.known.prune(connection, self._projection_id, horizon)
            pruned_keys = self._writer.prune(connection, row.pruning, row.pruned_to, horizon, written.chunks, self._shard)
            self._intake.known.step(connection, self._projection_id)
            crash_point("projector.after_identities")
            record_touched(connection, self._projection_id, row.version + 1, written.names(pruned_keys))
            connection.execute(
                "UPDATE ofp.projection SET version = %s, basis = %s, watermark = %s WHERE projection_id = %s",
                (row.version + 1, basis_text(advance.basis), advance.watermark, self._projection_id),
            )
            if row.shards > 1:
                self._close(connection, row)
            crash_point("projector.before_commit")
            self._row, self._epoch = read_projection(connection, self._projection_id), None
            self._await_shards(row.version + 1)
        return written.count, written.chunks

    def _lock(self, connection: Connection[Any], row: ProjectionRow) -> None:
        stored_row = read_projection(connection, self._projection_id, for_update=True)
        if stored_row.version != row.version:
            raise ProjectionConflict(
                f"projection {self._projection_id} is at version {stored_row.version}, this batch continues {row.version}"
            )

    # ---- key shards ----------------------------------------------------------------------------------------------

    _shard: KeyShard | None = None
    """The shard whose keys this projector writes; None: those of all."""

    def _lay_down(self, connection: Connection[Any], row: ProjectionRow, epoch: Epoch | None) -> None:
        """Hold an epoch that is open against the records. Where all shards move together, nothing is to be laid down for others.

        Raises:
            EpochDiffers: they are not what was laid down.
        """
        if self._epoch is not None and epoch != self._epoch:
            raise EpochDiffers(
                f"projection {self._projection_id}: the records of epoch {self._epoch.version} have other fates than it says"
            )

    def _own_events(self, connection: Connection[Any], row: ProjectionRow, key_events: KeyEvents) -> KeyEvents:
        """The events to write: those of keys whose shards have not applied this version; no shard can move until the commit."""
        if read_epoch(connection, self._projection_id) != self._epoch:
            raise ProjectionConflict(f"an epoch of projection {self._projection_id} was laid down meanwhile")
        versions = lock_shards(connection, self._projection_id)
        behind = {0, *(number for number, version in versions.items() if version == row.version)}
        return key_events if len(behind) == row.shards else of_shards(key_events, row.shards, behind)

    def _close(self, connection: Connection[Any], row: ProjectionRow) -> None:
        """Bring the shards along, and forget the epoch that is applied."""
        move_shards(connection, self._projection_id, row.version + 1)
        close_epoch(connection, self._projection_id)

    def _await_shards(self, version: int) -> None:
        """Wait for the other shards, with everything of this version written: there is nothing to wait for."""

    def _read_epoch(self, row: ProjectionRow, epoch: Epoch) -> Reading:
        records = [self._intake.route(row.pins, batch) for batch in epoch_batches(self._log, row.basis, epoch)]
        return Reading(ReadRequest(row.basis, sum(len(part.batch) for part in records)), records, more=False)

    # ---- reading -------------------------------------------------------------------------------------------------

    def _load(self) -> ProjectionRow:
        if self._row is not None:
            return self._row
        with one_snapshot(self._pool) as connection:
            row = read_projection_of(connection, self._projection_id, self._registry.digest)
            active = connection.execute(
                "SELECT pins_digest FROM ofp.projection WHERE stream_name = %s AND status <> 'retired'", (row.stream_name,)
            )
            names = connection.execute(
                "SELECT partition_id FROM ofp.projection_partition WHERE projection_id = %s ORDER BY partition_number",
                (self._projection_id,),
            )
            self._intake.remember({digest for (digest,) in active}, [name for (name,) in names])
            self._intake.known.load(connection, self._projection_id)
            self._epoch = read_epoch(connection, self._projection_id) if row.shards > 1 else None
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


def epoch_of(row: ProjectionRow, work: FoldedBatch, advance: Advance) -> Epoch:
    """The epoch after `row` that these records make."""
    fates = {
        name: PartitionFates.of(work.readable[name], np.concatenate([*work.duplicates.get(name, ()), np.zeros(0, np.int64)]))
        for name in work.ends
    }
    return Epoch(row.version + 1, advance.basis, advance.watermark, fates)


def _copy(cursor: Any, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
    with cursor.copy(f"COPY ofp.{table} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)

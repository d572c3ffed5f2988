"""A key shard other than shard 0: applies the epochs that the sequencer lays down to the keys that are its own.

It reads the records of an epoch from the log, as the sequencer did, leaves out the copies that the epoch names, and writes what
is left of its keys in one transaction, which moves its version. It knows no identities, and nothing of it is lost when it
is killed: whoever goes on reads the store and applies the same epoch, to the same state.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from psycopg import Connection

from ofp_platform.log.port import EventLog
from ofp_platform.online.projecting.epoch_barrier import EpochBarrier
from ofp_platform.online.projecting.epoch_records import epoch_batches
from ofp_platform.online.projecting.projector_settings import ProjectorSettings
from ofp_platform.online.projecting.record_intake import RecordIntake, collect_touched
from ofp_platform.online.projecting.state_writer import StateWriter
from ofp_platform.online.state.epochs import Epoch, read_epoch
from ofp_platform.online.state.key_shards import KeyEvents, KeyShard, Run, lock_shard, move_shards, of_shards, read_shards
from ofp_platform.online.state.projection import ProjectionConflict, ProjectionRow, read_projection_of
from ofp_platform.online.state.touched_keys import record_touched
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.routing import APPLIED
from ofp_platform.storage.crash_points import crash_point
from ofp_platform.storage.postgres import Pool, one_snapshot


@dataclass(frozen=True)
class ShardReceipt:
    """Receipt of one epoch of a shard. `records` of all keys were read; keys, tails and chunks are those of the shard."""

    projection_id: int
    shard: KeyShard
    version: int
    records: int
    touched_keys: int
    chunks: int


class ShardProjector:
    """Applies epochs to one shard. One instance per process and shard; not safe for threads."""

    def __init__(
        self,
        pool: Pool,
        log: EventLog,
        registry: CompiledRegistry,
        projection_id: int,
        settings: ProjectorSettings,
        *,
        barrier: EpochBarrier,
    ) -> None:
        self._pool = pool
        self._log = log
        self._registry = registry
        self._projection_id = projection_id
        self._shard = barrier.shard
        self._barrier = barrier
        self._retained_us = registry.reach + settings.allowed_lateness_us
        self._intake = RecordIntake(registry, settings.clock_skew_us, self._retained_us, log.position_kind)
        self._writer = StateWriter(registry, projection_id, settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Attend to the shard no longer."""
        self._barrier.close()

    def wait(self, timeout_seconds: float) -> None:
        """Wait for an epoch; at most that long."""
        self._barrier.wait(timeout_seconds)

    def apply_next(self) -> ShardReceipt | None:
        """Apply the open epoch, unless this shard has it already, or there is none: None.

        Raises:
            ShardRefused: the projection has another number of shards. ProjectionConflict: another process moved the shard;
                call again. EpochHeld: another shard keeps the epoch from being applied; call again. EpochDiffers | ReplayGap.
        """
        row, version, epoch = self._load()
        if epoch is None or version >= epoch.version:
            return None
        self._barrier.demand_attendance(epoch.version)
        key_events, records = self._read(row, epoch)
        crash_point("shard.before_transaction")
        with self._pool.connection() as connection:
            try:
                keys, chunks = self._commit(connection, epoch, key_events)
            finally:
                self._barrier.leave()
        crash_point("shard.after_commit")
        return ShardReceipt(self._projection_id, self._shard, epoch.version, records, keys, chunks)

    def _load(self) -> tuple[ProjectionRow, int, Epoch | None]:
        """The projection, the version of this shard and the open epoch, of one moment."""
        with one_snapshot(self._pool) as connection:
            row = read_projection_of(connection, self._projection_id, self._registry.digest)
            self._shard.demand(row)
            version = read_shards(connection, self._projection_id)[self._shard.number].version
            return row, version, read_epoch(connection, self._projection_id)

    def _read(self, row: ProjectionRow, epoch: Epoch) -> tuple[KeyEvents, int]:
        """The events that the records of the epoch bring to the keys of this shard, and how many records there are."""
        key_events: dict[str, list[Run]] = {}
        places: Counter[str] = Counter()
        records = 0
        for batch in epoch_batches(self._log, row.basis, epoch):
            records += len(batch) + len(batch.unreadable)
            routed_records = self._intake.route(row.pins, batch)
            first_place = places[batch.partition_id]
            places[batch.partition_id] += len(batch)
            routed_batch = routed_records.routed
            if routed_batch is None:
                continue
            duplicates = epoch.fates[batch.partition_id].duplicate_places - first_place
            fresh = (routed_batch.status == APPLIED) & ~np.isin(routed_records.keep, duplicates)
            collect_touched(key_events, routed_batch, fresh)
        return of_shards(key_events, self._shard.count, {self._shard.number}), records

    def _commit(self, connection: Connection[Any], epoch: Epoch, key_events: KeyEvents) -> tuple[int, int]:
        """Write the epoch in one transaction. Returns keys touched, and tails and chunks written."""
        horizon = None if epoch.watermark is None else epoch.watermark - self._retained_us
        with connection.transaction():
            shard_row = lock_shard(connection, self._projection_id, self._shard.number)
            if shard_row.version != epoch.version - 1 or read_epoch(connection, self._projection_id) != epoch:
                raise ProjectionConflict(
                    f"shard {self._shard} of projection {self._projection_id} is at version {shard_row.version}, this epoch is"
                    f" {epoch.version}"
                )
            written = self._writer.merge(connection, key_events, horizon)
            crash_point("shard.after_chunks")
            place, pruned_to = shard_row.pruning, shard_row.pruned_to
            pruned_keys = self._writer.prune(connection, place, pruned_to, horizon, written.chunks, self._shard)
            record_touched(connection, self._projection_id, epoch.version, written.names(pruned_keys), self._shard.number)
            move_shards(connection, self._projection_id, epoch.version, self._shard.number)
            crash_point("shard.written")
            self._barrier.await_ready(epoch.version)
            crash_point("shard.before_commit")
        return written.count, written.chunks

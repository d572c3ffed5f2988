"""Shard 0 of a projection with several key shards: the projector that lays the epochs down for all of them.

It reads the log, takes records in and records failures, anomalies, counts and identities, as any projector does. Before it
writes, it records the epoch: where it ends and which records are copies. Then all shards write the keys that are theirs, and
shard 0 commits last, with the row of the projection. A sequencer that ends in between leaves the epoch open; the next one reads
the same records again and finishes it.
"""

from __future__ import annotations

from typing import Any, Self

from psycopg import Connection

from ofp_platform.online.projecting.epoch_barrier import EpochBarrier, EpochHeld
from ofp_platform.online.projecting.projector import Advance, ApplyReceipt, Projector
from ofp_platform.online.projecting.record_intake import FoldedBatch
from ofp_platform.online.state.epochs import Epoch, close_epoch, open_epoch, read_epoch
from ofp_platform.online.state.key_shards import KeyEvents, of_shards
from ofp_platform.online.state.projection import ProjectionConflict, ProjectionRow, read_projection
from ofp_platform.storage.crash_points import crash_point
from ofp_platform.vocabulary.position import Basis


class EpochSequencer(Projector):
    """The projector of shard 0. One instance per process and projection; not safe for threads."""

    def __init__(self, *arguments: Any, barrier: EpochBarrier, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._shard = barrier.shard
        self._barrier = barrier

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Attend to the shard no longer."""
        self._barrier.close()

    def apply_available(self, *, max_records: int, until: Basis | None = None) -> ApplyReceipt | None:
        """As of any projector.

        Raises:
            ShardRefused: the projection has another number of shards. EpochHeld: a shard keeps the epoch from being applied; what
                was laid down stays, call again. EpochDiffers: an epoch that was laid down has other records now.
        """
        row = self._load()
        self._barrier.shard.demand(row)
        try:
            self._barrier.demand_attendance(row.version + 1)
        except EpochHeld:
            self._forget_if_moved(row)  # a shard may have ended because there is another number of them
            raise
        return super().apply_available(max_records=max_records, until=until)

    def _forget_if_moved(self, row: ProjectionRow) -> None:
        with self._pool.connection() as connection:
            stored_row = read_projection(connection, self._projection_id)
        if stored_row.version != row.version:
            self.forget()

    def _lay_down(self, connection: Connection[Any], row: ProjectionRow, epoch: Epoch | None) -> None:
        super()._lay_down(connection, row, epoch)
        if self._epoch is None:
            assert epoch is not None
            with connection.transaction():
                self._lock(connection, row)
                if read_epoch(connection, self._projection_id) is not None:
                    raise ProjectionConflict(f"an epoch of projection {self._projection_id} was laid down meanwhile")
                open_epoch(connection, self._projection_id, epoch)
            self._epoch = epoch
            crash_point("sequencer.epoch_open")
        self._barrier.tell()

    def _commit(self, connection: Connection[Any], row: ProjectionRow, work: FoldedBatch, advance: Advance) -> tuple[int, int]:
        try:
            return super()._commit(connection, row, work, advance)
        finally:
            self._barrier.leave()

    def _own_events(self, connection: Connection[Any], row: ProjectionRow, key_events: KeyEvents) -> KeyEvents:
        if read_epoch(connection, self._projection_id) != self._epoch:
            raise ProjectionConflict(f"the epoch of projection {self._projection_id} is not the one that was laid down")
        return of_shards(key_events, row.shards, {0})

    def _close(self, connection: Connection[Any], row: ProjectionRow) -> None:
        close_epoch(connection, self._projection_id)

    def _await_shards(self, version: int) -> None:
        self._barrier.await_ready(version)
        self._barrier.await_others(version)
        crash_point("sequencer.others_committed")

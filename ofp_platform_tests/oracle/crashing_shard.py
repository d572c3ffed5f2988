"""The work of a process that applies one key shard of a small plane until the log is applied. See test_epoch_sequencer."""

from __future__ import annotations

from ofp_platform.online.projecting.epoch_barrier import EpochHeld
from ofp_platform.online.state.key_shards import KeyShard, read_shards
from ofp_platform.online.state.projection import ProjectionConflict
from ofp_platform.storage.postgres import open_pool
from ofp_platform_tests.oracle.small_plane import SmallPlane
from ofp_platform_tests.oracle.small_shards import sequencer, shard_projector


def apply_all(dsn: str, stream_name: str, shard: str) -> None:
    """Apply everything, seven records an epoch."""
    place = KeyShard.parse(shard)
    with open_pool(dsn) as pool:
        plane = SmallPlane(pool, stream_name, chunk_events=2, span_chunks=2)
        if place.number == 0:
            with sequencer(plane, dsn, place.count, 1.0) as first:
                while plane.row().basis != plane.log.ends():
                    try:
                        first.apply_available(max_records=7)
                    except (ProjectionConflict, EpochHeld):
                        continue
            return
        with shard_projector(plane, dsn, place.number, place.count, 1.0) as projector:
            while not is_done(plane, place.number):
                try:
                    if projector.apply_next() is None:
                        projector.wait(0.05)
                except (ProjectionConflict, EpochHeld):
                    continue


def is_done(plane: SmallPlane, number: int) -> bool:
    """Whether the projection, and with it the shard, is at the end of the log."""
    with plane.pool.connection() as connection:
        version = read_shards(connection, plane.projection_id)[number].version
    row = plane.row()
    return row.basis == plane.log.ends() and row.version == version

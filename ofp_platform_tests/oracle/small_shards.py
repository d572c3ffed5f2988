"""The key shards of a small plane, each in a thread with a barrier of its own, as processes have them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ofp_platform.online.projecting.epoch_barrier import EpochBarrier, EpochHeld
from ofp_platform.online.projecting.epoch_sequencer import EpochSequencer
from ofp_platform.online.projecting.projector import Projector
from ofp_platform.online.projecting.shard_projector import ShardProjector
from ofp_platform.online.state.key_shards import KeyShard, reshard
from ofp_platform.online.state.projection import ProjectionConflict
from ofp_platform_tests.oracle.small_plane import SmallPlane

ENOUGH = 60.0
"""Seconds that a shard waits for the others; nothing waits that long when all is well."""


def sequencer(plane: SmallPlane, dsn: str, count: int, wait_seconds: float = ENOUGH) -> EpochSequencer:
    """The projector of shard 0; to be closed."""
    barrier = EpochBarrier(dsn, plane.projection_id, KeyShard(0, count), wait_seconds=wait_seconds)
    return EpochSequencer(*plane.parts, barrier=barrier)


def shard_projector(plane: SmallPlane, dsn: str, number: int, count: int, wait_seconds: float = ENOUGH) -> ShardProjector:
    """The projector of another shard; to be closed."""
    barrier = EpochBarrier(dsn, plane.projection_id, KeyShard(number, count), wait_seconds=wait_seconds)
    return ShardProjector(*plane.parts, barrier=barrier)


@contextmanager
def shards_of(plane: SmallPlane, dsn: str, count: int, wait_seconds: float = ENOUGH) -> Iterator[Projector]:
    """All shards but shard 0 in threads; the projector of shard 0 for the caller. What ends a thread is raised at the end."""
    if count == 1:
        yield plane.projector()
        return
    stop = threading.Event()
    errors: list[Exception] = []

    def run(projector: ShardProjector) -> None:
        try:
            while not stop.is_set():
                try:
                    if projector.apply_next() is None:
                        projector.wait(0.05)
                except (ProjectionConflict, EpochHeld):
                    continue
        except Exception as error:
            errors.append(error)

    with ExitStack() as stack:
        projectors = [shard_projector(plane, dsn, number, count, wait_seconds) for number in range(1, count)]
        for projector in projectors:
            stack.callback(projector.close)
        first = sequencer(plane, dsn, count, wait_seconds)
        stack.callback(first.close)
        threads = [threading.Thread(target=run, args=(projector,)) for projector in projectors]
        for thread in threads:
            thread.start()
        try:
            yield first
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    if errors:
        raise errors[0]


def set_shards(plane: SmallPlane, count: int) -> None:
    """Give the projection another number of shards."""
    with plane.pool.connection() as connection:
        reshard(connection, plane.projection_id, count)

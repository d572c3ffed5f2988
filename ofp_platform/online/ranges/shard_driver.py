"""The driver of one key shard of a projection, or of all of them: as a process of its own, or until nothing comes any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from ofp_platform.log.port import LogUnavailable
from ofp_platform.online.plane import Plane
from ofp_platform.online.projecting.continuous import run_continuous, run_shard
from ofp_platform.online.projecting.projector import ApplyReceipt
from ofp_platform.online.projecting.shard_projector import ShardReceipt
from ofp_platform.online.state.key_shards import KeyShard
from ofp_platform.online.state.projection import ProjectionRow
from ofp_platform.storage.transient import is_transient

_LOOK_SECONDS = 0.5


def drive(
    plane: Plane,
    row: ProjectionRow,
    shard: KeyShard | None,
    *,
    stop: threading.Event,
    on_commit: Callable[[ApplyReceipt | ShardReceipt], None],
    on_trouble: Callable[[str], None],
    on_standby: Callable[[], None],
    on_retired: Callable[[], None] = lambda: None,
) -> None:
    """Apply until `stop` is set; `shard` None: to all keys. `on_retired` as of `run_continuous`.

    Raises:
        ShardRefused: the projection has another number of shards, or has it by now.
    """
    if shard is not None and shard.number:
        run_shard(
            partial(plane.shard_projector, row, shard),
            plane.log,
            plane.dsn,
            row.projection_id,
            shard.number,
            stop=stop,
            on_commit=on_commit,
            on_trouble=on_trouble,
            on_standby=on_standby,
        )
        return
    run_continuous(
        partial(plane.projector, row) if shard is None else partial(plane.sequencer, row, shard),
        plane.log,
        plane.dsn,
        row.projection_id,
        batch_records=plane.profile.batch_records,
        stop=stop,
        on_commit=on_commit,
        on_trouble=on_trouble,
        on_standby=on_standby,
        on_retired=on_retired,
    )


@contextmanager
def until_idle(plane: Plane, row: ProjectionRow, seconds: float) -> Iterator[threading.Event]:
    """An event that is set once no record has waited, and the projection has not moved, for that long; 0: never.

    A watch that fails sets it, too, and its error is raised at the end: what nobody watched is not idle.
    """
    idle, end = threading.Event(), threading.Event()
    failures: list[Exception] = []

    def watch() -> None:
        version, since = -1, time.monotonic()
        while not end.wait(_LOOK_SECONDS):
            try:
                current = plane.row(row.projection_id)
                is_idle = current.version == version and not any(plane.log.ordinal_lag(current.basis).values())
                version = current.version
            except Exception as error:
                if not (isinstance(error, LogUnavailable) or is_transient(error)):
                    failures.append(error)
                    idle.set()
                    return
                is_idle = False  # an outage is waited out by the driver
            if not is_idle:
                since = time.monotonic()
            elif seconds and time.monotonic() - since >= seconds:
                idle.set()
                return

    watcher = threading.Thread(target=watch, name="idle watcher")
    watcher.start()
    try:
        yield idle
    finally:
        end.set()
        watcher.join()
    if failures:
        raise failures[0]

"""The log beside a projection: how far each partition is, and what the posture is judged by."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ofp_platform.log.port import LogRefused
from ofp_platform.online.plane import Plane
from ofp_platform.online.projecting.epoch_barrier import holding_shards
from ofp_platform.online.serving.posture import REFUSALS, Observation
from ofp_platform.online.state.progress import read_progress
from ofp_platform.online.state.projection import ProjectionRow
from ofp_platform.storage.postgres import takes_writes
from ofp_platform.vocabulary.position import PartitionBasis, make_basis, place


@dataclass(frozen=True)
class LogProgress:
    """Where one partition stands: `head` and `floor` of the log, `basis` of the projection, `lag` in records."""

    partition_id: str
    head: PartitionBasis
    floor: PartitionBasis
    basis: PartitionBasis | None
    lag: int


def progress(plane: Plane, row: ProjectionRow | None) -> list[LogProgress]:
    """The log beside a projection, partition by partition in the order of their ids. Without one, all of it is to be applied."""
    basis = make_basis(plane.log.stream_name, {}) if row is None else plane.row(row.projection_id).basis
    lag = plane.log.ordinal_lag(basis)
    floors = plane.log.retention_floor().by_partition()
    known_parts = basis.by_partition()
    return [
        LogProgress(name, head, floors.get(name, head), known_parts.get(name), lag.get(name, 0))
        for name, head in plane.log.ends().by_partition().items()
    ]


def observe(plane: Plane, row: ProjectionRow, *, stalled_seconds: float) -> Observation:
    """Observe the inputs of the posture. `stalled_seconds`: for how long the basis has not moved; it counts with a lag only."""
    current = plane.row(row.projection_id)
    with plane.pool.connection() as connection:
        totals = read_progress(connection, row.projection_id)
        read_only = not takes_writes(connection)
        held_by = holding_shards(connection, current)
    observation = Observation(
        current, totals, {}, stalled_seconds, read_only, holding_shards=held_by, held_seconds=stalled_seconds
    )
    try:
        plane.archived_log.demand(current.basis)
        return replace(observation, lag=plane.log.ordinal_lag(current.basis))
    except LogRefused as error:
        return replace(observation, refusal=REFUSALS[type(error)])


def known_to(plane: Plane, partition_id: str) -> PartitionBasis:
    """How far a partition is known: applied by the live projection, or archived, whichever reaches farther."""
    start = plane.log.position_kind.start(partition_id)
    live = plane.live()
    live_part = start if live is None else live.basis.by_partition().get(partition_id, start)
    return max(live_part, plane.archived_log.archived_end(start), key=place)

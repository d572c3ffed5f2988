"""Trimming the log in PostgreSQL: records that are archived, verified and applied leave it, and are read from the archive.

The floor of a partition moves in whole offset ranges, each of which has a segment of its own. So the range that is still being
filled stays in the log from its first record on, and archiving goes on as before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from psycopg import Connection

from ofp_platform.log.archive import ArchiveConflict
from ofp_platform.log.archive_check import cross_check
from ofp_platform.log.archive_ledger import missing_receipts
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.archive_verify import verify_partition
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.online.plane import Plane
from ofp_platform.online.state.projection import ProjectionRow, list_projections
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import PartitionBasis, make_basis, order


class TrimRefused(Exception):
    """Nothing was trimmed; the text says why and what to do."""


@dataclass(frozen=True)
class PartitionTrim:
    """The records of one partition that may go: [floor, until). `end`: of the log; `kept`: why the rest stays, '' without one."""

    partition_id: str
    floor: int
    until: int
    end: int
    kept: str

    @property
    def records(self) -> int:
        """The records that leave the log."""
        return self.until - self.floor


def plan_trim(plane: Plane, archive: Archive, on_partition: Callable[[], None] = lambda: None) -> list[PartitionTrim]:
    """Verify the archive, hold it against the log, and say of each partition how far it may be trimmed. Nothing is changed.

    `on_partition` is called after each partition.

    Raises:
        TrimRefused: the log is not in PostgreSQL; no projection of the stream is live; the archive is damaged, or has other
            records than the log.
        ObjectStoreUnavailable | LogUnavailable: the same call may be made again.
    """
    log = _postgres_log(plane)
    with plane.pool.connection() as connection:
        projections = _projections(connection, log.stream_name)
    floors = log.retention_floor().by_partition()
    trims, problems = [], missing_receipts(plane.pool, archive)
    for end in log.ends().partitions:
        verification = verify_partition(archive, end.partition_id, log.position_kind.offset_kind)
        problems += [f"{problem.path}: {problem.error}: {problem.message}" for problem in verification.problems]
        if verification.problems:
            continue
        archived_to = 0 if verification.contiguous is None else min(order(verification.contiguous.next), order(end.offset))
        floor = order(floors[end.partition_id].offset)
        if archived_to > floor:
            span = PartitionSpan(partition_id=end.partition_id, offset_kind=end.offset_kind, start=floor, next=archived_to)
            try:
                cross_check(log, archive, plane.pool, span).demand_agreement()
            except ArchiveConflict as error:
                problems.append(str(error))
        trims.append(_partition(plane, archive, end, floor, archived_to, projections))
        on_partition()
    if problems:
        advice = "nothing is trimmed: the log may be the only whole copy (`ofp archive verify`, runbook: the archive)"
        raise TrimRefused("\n".join([*problems, advice]))
    return trims


def trim(plane: Plane, trims: Sequence[PartitionTrim]) -> None:
    """Delete what `plan_trim` said, in one transaction: of every partition, or of none.

    Raises:
        TrimRefused: a projection that has not applied it all was opened meanwhile. LogUnavailable: see there.
    """
    log = _postgres_log(plane)
    floors = {
        partition_trim.partition_id: _at(log, partition_trim.partition_id, partition_trim.until)
        for partition_trim in trims
        if partition_trim.records
    }
    if not floors:
        return
    with plane.pool.connection() as connection, connection.transaction():
        # `open_projection` takes this lock too: until the floor has moved no projection begins at the old one
        connection.execute("LOCK TABLE ofp.registry_group IN SHARE ROW EXCLUSIVE MODE")
        for row in _projections(connection, log.stream_name):
            for name, floor in floors.items():
                if _applied_records(row, name) < order(floor.offset):
                    raise TrimRefused(
                        f"nothing is trimmed: {_projection_name(row)} was opened meanwhile, let it apply the log first"
                    )
        log.truncate_before(make_basis(log.stream_name, floors))


def _postgres_log(plane: Plane) -> PostgresLog:
    if not isinstance(plane.log, PostgresLog):
        name = plane.log.stream_name
        raise TrimRefused(f"log {name} is not in PostgreSQL: how long records are kept is a setting of the stream itself")
    return plane.log


def _projections(connection: Connection, stream_name: str) -> list[ProjectionRow]:
    """Everything that still reads the stream; one of them is live.

    Raises:
        TrimRefused: none is.
    """
    rows = [row for row in list_projections(connection) if row.stream_name == stream_name and row.status != "retired"]
    if not any(row.status == "live" for row in rows):
        raise TrimRefused(f"no projection of log {stream_name} is live: nothing has applied its records (`ofp projector run`)")
    return rows


def _partition(
    plane: Plane, archive: Archive, end: PartitionBasis, floor: int, archived_to: int, projections: Sequence[ProjectionRow]
) -> PartitionTrim:
    name, size = end.partition_id, plane.ranges.size
    last = min(projections, key=lambda row: _applied_records(row, name))
    bound = min(archived_to, _applied_records(last, name))
    archived_bounds = {(span.start, span.next) for span in archive.spans(name, end.offset_kind)}
    until = floor // size * size
    while until + size <= bound and (until, until + size) in archived_bounds:
        until += size
    until = max(until, floor)
    if until == order(end.offset):
        reason_kept = ""
    elif _applied_records(last, name) < min(until + size, order(end.offset)):
        reason_kept = f"{_projection_name(last)} has applied the log up to {_applied_records(last, name)} only"
    elif until + size > order(end.offset):
        reason_kept = "its offset range is still being filled"
    elif archived_to < until + size:
        reason_kept = f"it is archived up to {archived_to} only (`ofp archive run`)"
    else:
        reason_kept = f"offset range [{until}, {until + size}) has no segment of its own (`ofp archive run`)"
    return PartitionTrim(name, floor, until, order(end.offset), reason_kept)


def _applied_records(row: ProjectionRow, partition_id: str) -> int:
    part = row.basis.by_partition().get(partition_id)
    return 0 if part is None else order(part.offset)


def _projection_name(row: ProjectionRow) -> str:
    return f"projection {row.projection_id} ({row.status})"


def _at(log: PostgresLog, partition_id: str, offset: int) -> PartitionBasis:
    return log.position_kind.basis(partition_id, offset)

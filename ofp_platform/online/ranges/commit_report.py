"""Commits of a projection since the last report: partitions that moved, ranges that closed behind its basis.

Whoever made the commits (a run, the continuous driver), the report is the same; it is how lineage comes to be.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from ofp_platform.log.ranges import RangeBounds, shared_ranges
from ofp_platform.online.plane import Plane
from ofp_platform.online.ranges.range_contents import ProjectionContents, RangeContents
from ofp_platform.online.state.progress import PartitionProgress, read_progress
from ofp_platform.online.state.projection import ProjectionRow
from ofp_platform.vocabulary.model import Model
from ofp_platform.vocabulary.position import PartitionBasis

RANGES_A_REPORT = 100


class ReportCursor(Model):
    """Cursor of the reports. `offsets`: the basis per partition; `next_range`: the first range per partition not reported."""

    projection_id: int
    offsets: dict[str, int | str] = Field(default_factory=dict)
    next_range: dict[str, int] = Field(default_factory=dict)


@dataclass(frozen=True)
class MovedPartition:
    """One partition of the projection whose basis moved. `totals` are counts since the projection began."""

    basis: PartitionBasis
    totals: PartitionProgress
    lag: int


@dataclass(frozen=True)
class ClosedRange:
    """One range that is closed and wholly in the basis."""

    bounds: RangeBounds
    basis: PartitionBasis
    contents: RangeContents


@dataclass(frozen=True)
class CommitReport:
    """One report. `shared`: how many ranges all partitions have by now; `cursor`: where the next report begins."""

    row: ProjectionRow
    moved: tuple[MovedPartition, ...]
    ranges: tuple[ClosedRange, ...]
    shared: int
    cursor: ReportCursor


def report_commits(plane: Plane, row: ProjectionRow, cursor: ReportCursor | None) -> CommitReport:
    """Report the commits since the cursor; another projection than the cursor's is reported from its beginning.

    Only ranges that all partitions share are reported, at most `RANGES_A_REPORT` at once; the next report goes on.
    """
    if cursor is None or cursor.projection_id != row.projection_id:
        cursor = ReportCursor(projection_id=row.projection_id)
    closed_ranges = plane.ranges.closed()
    shared_count = shared_ranges(closed_ranges)
    row = plane.row(row.projection_id)
    with plane.pool.connection() as connection:
        totals = {part.partition_id: part for part in read_progress(connection, row.projection_id).partitions}
    lag = plane.log.ordinal_lag(row.basis)
    moved_partitions = tuple(
        MovedPartition(part, totals[name], lag.get(name, 0))
        for name, part in row.basis.by_partition().items()
        if name in totals and cursor.offsets.get(name) != part.offset
    )
    following = dict(cursor.next_range)
    newly_closed: list[tuple[RangeBounds, PartitionBasis]] = []
    for name, part in row.basis.by_partition().items():
        number = following.get(name, 0)
        while (
            number < min(closed_ranges[name].count if name in closed_ranges else 0, shared_count)
            and len(newly_closed) < RANGES_A_REPORT
        ):
            bounds = plane.ranges.bounds(name, number)
            if not bounds.is_inside(part):
                break
            newly_closed.append((bounds, part))
            number += 1
        following[name] = number
    ranges: tuple[ClosedRange, ...] = ()
    if newly_closed:
        contents = ProjectionContents(plane, row)
        ranges = tuple(ClosedRange(bounds, part, contents.contents(bounds)) for bounds, part in newly_closed)
    offsets = {name: part.offset for name, part in row.basis.by_partition().items()}
    after = ReportCursor(projection_id=row.projection_id, offsets=offsets, next_range=following)
    return CommitReport(row, moved_partitions, ranges, shared_count, after)

"""Apply offset ranges of one partition in order, or verify those that the projection has already.

Two drivers may do this at once: the projection's version decides who commits, the other one goes on from what it finds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ofp_platform.log.port import PositionTrimmed
from ofp_platform.log.ranges import (
    RangeBounds,
    RangeGap,
    RangeTrimmed,
    RangeUnreadable,
)
from ofp_platform.online.plane import Plane
from ofp_platform.online.projecting.apply_until import CONFLICTS
from ofp_platform.online.projecting.projector import ApplyReceipt, Projector
from ofp_platform.online.ranges.range_contents import ProjectionContents, Verification
from ofp_platform.online.state.projection import ProjectionConflict, ProjectionRow
from ofp_platform.storage.postgres import one_snapshot
from ofp_platform.vocabulary.position import Basis, PartitionBasis, order, place


@dataclass(frozen=True)
class RangeReceipt:
    """Receipt of one range. `applied`: its commits, and what was there before them was verified; `verified`: no-op.

    `counted` is how many records the projection's counters say it took of the partition, `expected` how many stand before
    its basis (a lower bound in a sparse log when the basis is past the range).
    """

    bounds: RangeBounds
    status: Literal["applied", "verified"]
    receipts: tuple[ApplyReceipt, ...]
    verification: Verification | None
    basis: PartitionBasis
    watermark: int | None
    counted: int
    expected: int
    exact: bool

    @property
    def contiguous(self) -> bool:
        """Whether the basis is a prefix of the partition: no record before it was skipped or taken twice."""
        return self.counted == self.expected if self.exact else self.counted >= self.expected

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """Records by fate: events, duplicates, late, failed, ignored, anomalies, forgotten."""
        totals: Counter[str] = Counter()
        for receipt in self.receipts:
            totals["events"] += receipt.applied
            totals["duplicates"] += receipt.duplicates
            totals["late"] += receipt.late
            totals["ignored"] += receipt.ignored
            totals["anomalies"] += receipt.anomalies
        if self.verification is not None:
            for name in ("events", "duplicates", "ignored", "forgotten"):
                totals[name] += getattr(self.verification, name)
        totals["failed"] = sum(self.failures.values())
        return totals

    @cached_property
    def failures(self) -> Mapping[str, int]:
        """Records that feed nothing, by reason."""
        totals: Counter[str] = Counter()
        for receipt in self.receipts:
            totals.update(receipt.failures)
        if self.verification is not None:
            totals.update(self.verification.failures)
        return dict(sorted(totals.items()))

    @cached_property
    def group_failures(self) -> Mapping[str, int]:
        """Events that some groups cannot use, by reason."""
        totals: Counter[str] = Counter()
        for receipt in self.receipts:
            totals.update(receipt.group_failures)
        if self.verification is not None:
            totals.update(self.verification.group_failures)
        return dict(sorted(totals.items()))


def apply_ranges(plane: Plane, row: ProjectionRow, partition_id: str, numbers: Sequence[int]) -> Iterator[RangeReceipt]:
    """Apply or verify ranges of one partition, in ascending order, one receipt each as soon as it is done.

    Raises:
        RangeGap: the basis stands before the range. RangeOpen: it is not full yet. RangeTrimmed: the log lost it.
        RangeUnreadable: the log does not give all of it. ProjectionConflict: others keep moving the basis.
    """
    projector = plane.projector(row)
    contents: ProjectionContents | None = None
    for number in sorted(numbers):
        bounds = plane.ranges.bounds(partition_id, number)
        projector.forget()
        before = projector.basis.by_partition().get(partition_id)
        if bounds.begins_after(before):
            where = "at the start" if before is None else f"at {before.offset}"
            raise RangeGap(
                f"range {bounds.name} of partition {partition_id} begins at {bounds.start.offset}, the basis is {where}:"
                " apply the ranges between first"
            )
        receipts = () if bounds.is_inside(before) else tuple(_apply(plane, projector, bounds))
        verification = None
        if before is not None and place(before) > place(bounds.start):
            if contents is None or receipts:
                contents = ProjectionContents(plane, row)
            verification = contents.verify(bounds.start, bounds.end if bounds.is_inside(before) else before)
        yield _receipt(plane, row, bounds, receipts, verification)


def _apply(plane: Plane, projector: Projector, bounds: RangeBounds) -> Iterator[ApplyReceipt]:
    until = bounds.until(plane.log.stream_name)
    conflicts = 0
    while not bounds.is_inside(projector.basis.by_partition().get(bounds.partition_id)):
        try:
            receipt = projector.apply_available(max_records=plane.profile.batch_records, until=until)
        except PositionTrimmed as error:
            raise RangeTrimmed(
                f"range {bounds.name} of partition {bounds.partition_id} needs records that neither log nor archive has: {error}"
            ) from error
        except ProjectionConflict:
            conflicts += 1
            if conflicts >= CONFLICTS:
                raise
            projector.forget()
            continue
        if receipt is None:
            raise RangeUnreadable(f"the log gives no more of range {bounds.name} of partition {bounds.partition_id} now")
        conflicts = 0
        yield receipt


def _receipt(
    plane: Plane,
    row: ProjectionRow,
    bounds: RangeBounds,
    receipts: tuple[ApplyReceipt, ...],
    verification: Verification | None,
) -> RangeReceipt:
    with one_snapshot(plane.pool) as connection:
        stored_row = connection.execute(
            "SELECT p.basis, p.watermark, coalesce(c.records, 0) FROM ofp.projection p LEFT JOIN ofp.projection_partition c"
            " ON c.projection_id = p.projection_id AND c.partition_id = %s WHERE p.projection_id = %s",
            (bounds.partition_id, row.projection_id),
        ).fetchone()
    assert stored_row is not None
    basis = Basis.model_validate_json(stored_row[0]).by_partition()[bounds.partition_id]
    countable = plane.log.position_kind.is_countable
    return RangeReceipt(
        bounds=bounds,
        status="applied" if receipts else "verified",
        receipts=receipts,
        verification=verification,
        basis=basis,
        watermark=stored_row[1],
        counted=int(stored_row[2]),
        expected=order(basis.offset) if countable else bounds.first_ordinal + bounds.records,
        exact=countable or basis.offset == bounds.end.offset,
    )

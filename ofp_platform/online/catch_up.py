"""A bounded catch-up: what the log held of one partition when it began, applied; and what there is to catch up with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ofp_platform.online.health import Observation, read_progress
from ofp_platform.online.plane import Plane
from ofp_platform.online.projection import ProjectionConflict, ProjectionRow
from ofp_platform.online.projector import ApplyReceipt, Projector
from ofp_platform.online.range_apply import CONFLICTS
from ofp_platform.vocabulary.position import Basis, PartitionBasis


@dataclass(frozen=True)
class CatchUpReceipt:
    """What one catch-up of a partition did. `basis` is None when the partition holds nothing; `lag` is what is left."""

    partition_id: str
    receipts: tuple[ApplyReceipt, ...]
    basis: PartitionBasis | None
    watermark: int | None
    version: int
    lag: int

    @property
    def counts(self) -> Mapping[str, int]:
        """Records by fate."""
        found: Counter[str] = Counter()
        for receipt in self.receipts:
            for name in ("records", "applied", "duplicates", "late", "ignored", "anomalies"):
                found[name] += getattr(receipt, name)
        found["failed"] = sum(self.failures.values())
        return found

    @property
    def failures(self) -> Mapping[str, int]:
        """Apply failures by reason."""
        found: Counter[str] = Counter()
        for receipt in self.receipts:
            found.update(receipt.failures)
        return dict(sorted(found.items()))


@dataclass(frozen=True)
class LogProgress:
    """Where one partition stands: `head` and `floor` of the log, `basis` of the projection, `lag` in records."""

    partition_id: str
    head: PartitionBasis
    floor: PartitionBasis
    basis: PartitionBasis | None
    lag: int


def progress(plane: Plane, row: ProjectionRow) -> list[LogProgress]:
    """The log beside a projection, partition by partition in the order of their ids."""
    basis = plane.row(row.projection_id).basis
    lag = plane.log.ordinal_lag(basis)
    floors = plane.log.retention_floor().by_partition()
    known = basis.by_partition()
    return [
        LogProgress(name, head, floors.get(name, head), known.get(name), lag.get(name, 0))
        for name, head in plane.log.ends().by_partition().items()
    ]


def observe(plane: Plane, row: ProjectionRow, *, stalled_seconds: float) -> Observation:
    """What the posture is judged by. `stalled_seconds`: for how long the basis has not moved; it counts with a lag only."""
    current = plane.row(row.projection_id)
    with plane.pool.connection() as connection:
        totals = read_progress(connection, row.projection_id)
    return Observation(current, totals, plane.log.ordinal_lag(current.basis), stalled_seconds)


def catch_up(plane: Plane, row: ProjectionRow, partition_id: str) -> CatchUpReceipt:
    """Apply what the log holds of a partition now. What is appended meanwhile is left for the next time.

    Raises:
        ProjectionConflict: others keep moving the basis.
    """
    head = plane.log.ends().by_partition().get(partition_id)
    receipts: list[ApplyReceipt] = []
    if head is not None:
        projector = plane.projector(row)
        receipts = apply_until(projector, Basis(stream_name=row.stream_name, partitions=(head,)), plane.profile.batch_records)
    after = plane.row(row.projection_id)
    return CatchUpReceipt(
        partition_id=partition_id,
        receipts=tuple(receipts),
        basis=after.basis.by_partition().get(partition_id),
        watermark=after.watermark,
        version=after.version,
        lag=plane.log.ordinal_lag(after.basis).get(partition_id, 0),
    )


def apply_until(projector: Projector, until: Basis, batch_records: int) -> list[ApplyReceipt]:
    """Apply up to a basis, or as far as the log gives it. Returns the commits made here.

    Raises:
        ProjectionConflict: others keep moving the basis.
    """
    receipts: list[ApplyReceipt] = []
    conflicts = 0
    while True:
        try:
            receipt = projector.apply_available(max_records=batch_records, until=until)
        except ProjectionConflict:
            conflicts += 1
            if conflicts >= CONFLICTS:
                raise
            projector.forget()
            continue
        if receipt is None:
            return receipts
        conflicts = 0
        receipts.append(receipt)

"""A bounded catch-up: what the log held of one partition when it began, applied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ofp_platform.online.plane import Plane
from ofp_platform.online.projecting.apply_until import apply_until
from ofp_platform.online.projecting.projector import ApplyReceipt
from ofp_platform.online.state.projection import ProjectionRow
from ofp_platform.vocabulary.position import Basis, PartitionBasis


@dataclass(frozen=True)
class CatchUpReceipt:
    """Receipt of one catch-up of a partition. `basis` is None when the partition holds nothing; `lag` is what is left."""

    partition_id: str
    receipts: tuple[ApplyReceipt, ...]
    basis: PartitionBasis | None
    watermark: int | None
    version: int
    lag: int

    @property
    def counts(self) -> Mapping[str, int]:
        """Records by fate."""
        totals: Counter[str] = Counter()
        for receipt in self.receipts:
            for name in ("records", "applied", "duplicates", "late", "ignored", "anomalies"):
                totals[name] += getattr(receipt, name)
        totals["failed"] = sum(self.failures.values())
        return totals

    @property
    def failures(self) -> Mapping[str, int]:
        """Records that feed nothing, by reason."""
        totals: Counter[str] = Counter()
        for receipt in self.receipts:
            totals.update(receipt.failures)
        return dict(sorted(totals.items()))

    @property
    def group_failures(self) -> Mapping[str, int]:
        """Events that some groups cannot use, by reason."""
        totals: Counter[str] = Counter()
        for receipt in self.receipts:
            totals.update(receipt.group_failures)
        return dict(sorted(totals.items()))


def catch_up(
    plane: Plane, row: ProjectionRow, partition_id: str, on_commit: Callable[[ApplyReceipt], None] = lambda receipt: None
) -> CatchUpReceipt:
    """Apply what the log holds of a partition now. What is appended meanwhile is left for the next time.

    Raises:
        ProjectionConflict: others keep moving the basis.
    """
    head = plane.log.ends().by_partition().get(partition_id)
    receipts: list[ApplyReceipt] = []
    if head is not None:
        projector = plane.projector(row)
        until = Basis(stream_name=row.stream_name, partitions=(head,))
        receipts = apply_until(projector, until, plane.profile.batch_records, on_commit)
    after = plane.row(row.projection_id)
    return CatchUpReceipt(
        partition_id=partition_id,
        receipts=tuple(receipts),
        basis=after.basis.by_partition().get(partition_id),
        watermark=after.watermark,
        version=after.version,
        lag=plane.log.ordinal_lag(after.basis).get(partition_id, 0),
    )

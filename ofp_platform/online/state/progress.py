"""How far a projection is: counts since it began, from the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import Connection


@dataclass(frozen=True)
class PartitionProgress:
    """Counts of one partition since the projection began, in records; `partial`: applied ones that some groups cannot use;
    `anomalies`: those that bring another content for a known event id."""

    partition_id: str
    records: int
    applied: int
    duplicates: int
    late: int
    failed: int
    ignored: int
    partial: int
    anomalies: int


@dataclass(frozen=True)
class Totals:
    """Counts of a projection over all partitions.

    `failures`: records that feed nothing, by reason; `group_failures`: applied ones that some groups cannot use, by reason.
    """

    partitions: tuple[PartitionProgress, ...]
    failures: Mapping[str, int]
    group_failures: Mapping[str, int]

    @property
    def anomalies(self) -> int:
        """Records that bring another content for a known event id."""
        return sum(part.anomalies for part in self.partitions)

    @property
    def all_failures(self) -> dict[str, int]:
        """Records that do not feed some group that should use them, by reason."""
        return dict(sorted((Counter(self.failures) + Counter(self.group_failures)).items()))

    def counters(self) -> dict[str, int]:
        """The projection's counters by name."""
        names = ("records", "applied", "duplicates", "late", "failed", "ignored", "partial")
        sums = {name: sum(getattr(part, name) for part in self.partitions) for name in names}
        return {
            "records_read": sums["records"],
            "events_applied": sums["applied"],
            "duplicates": sums["duplicates"],
            "late_events": sums["late"],
            "apply_failures": sums["failed"],
            "group_failures": sums["partial"],
            "events_ignored": sums["ignored"],
            "anomalies": self.anomalies,
        }


def read_progress(connection: Connection[Any], projection_id: int) -> Totals:
    """Counters of a projection, as its commits kept them: no record is counted again."""
    parts = connection.execute(
        "SELECT partition_id, records, applied, duplicates, late, failed, ignored, partial, anomalies"
        " FROM ofp.projection_partition WHERE projection_id = %s ORDER BY partition_id",
        (projection_id,),
    ).fetchall()
    failures = connection.execute(
        "SELECT partial, reason, records FROM ofp.failure_total WHERE projection_id = %s ORDER BY partial, reason",
        (projection_id,),
    ).fetchall()
    whole, groups = ({reason: count for is_partial, reason, count in failures if is_partial == kind} for kind in (False, True))
    return Totals(tuple(PartitionProgress(*part) for part in parts), whole, groups)

"""How far a projection is: counts since it began, from the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import Connection


@dataclass(frozen=True)
class PartitionProgress:
    """Counts of one partition since the projection began, in records."""

    partition_id: str
    records: int
    applied: int
    duplicates: int
    late: int
    failed: int
    ignored: int


@dataclass(frozen=True)
class Totals:
    """Counts of a projection over all partitions."""

    partitions: tuple[PartitionProgress, ...]
    failures: Mapping[str, int]
    anomalies: int

    def counters(self) -> dict[str, int]:
        """The projection's counters by name."""
        names = ("records", "applied", "duplicates", "late", "failed", "ignored")
        sums = {name: sum(getattr(part, name) for part in self.partitions) for name in names}
        return {
            "records_read": sums["records"],
            "events_applied": sums["applied"],
            "duplicates": sums["duplicates"],
            "late_events": sums["late"],
            "apply_failures": sums["failed"],
            "events_ignored": sums["ignored"],
            "anomalies": self.anomalies,
        }


def read_progress(connection: Connection[Any], projection_id: int) -> Totals:
    """Counters of a projection, from the store."""
    parts = connection.execute(
        "SELECT partition_id, records, applied, duplicates, late, failed, ignored FROM ofp.projection_partition"
        " WHERE projection_id = %s ORDER BY partition_id",
        (projection_id,),
    ).fetchall()
    failures = connection.execute(
        "SELECT reason, count(*) FROM ofp.apply_failure WHERE projection_id = %s GROUP BY reason ORDER BY reason",
        (projection_id,),
    ).fetchall()
    row = connection.execute("SELECT count(*) FROM ofp.anomaly WHERE projection_id = %s", (projection_id,)).fetchone()
    return Totals(tuple(PartitionProgress(*part) for part in parts), dict(failures), 0 if row is None else row[0])

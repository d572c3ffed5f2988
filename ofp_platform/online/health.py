"""Health of a projection: what the store knows, the lag against the log, and the posture that follows from thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from ofp_platform.online.projection import ProjectionRow
from ofp_platform.vocabulary.profile import Thresholds
from ofp_platform.vocabulary.serving import Health, PartitionHealth, PostureState
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, format_time


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


@dataclass(frozen=True)
class Observation:
    """The health inputs at one moment. `stalled_seconds`: since when records wait and the basis has not moved."""

    row: ProjectionRow
    totals: Totals
    lag: Mapping[str, int]
    stalled_seconds: float

    @property
    def lag_records(self) -> int:
        """Records behind the heads of all partitions."""
        return sum(self.lag.values())


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


def judge(observation: Observation | None, thresholds: Thresholds) -> tuple[PostureState, list[str]]:
    """State and reasons, worst first; None: the store or the log does not answer."""
    if observation is None:
        return PostureState.RED, ["STORE_DOWN"]
    lag, stalled = observation.lag_records, observation.stalled_seconds
    red, amber = [], []
    if lag > thresholds.lag_records_red:
        red.append(f"LAG_RECORDS>{thresholds.lag_records_red}")
    elif lag > thresholds.lag_records_amber:
        amber.append(f"LAG_RECORDS>{thresholds.lag_records_amber}")
    if lag and stalled > thresholds.stall_seconds_red:
        red.append(f"STALLED_SECONDS>{thresholds.stall_seconds_red}")
    elif lag and stalled > thresholds.stall_seconds_amber:
        amber.append(f"STALLED_SECONDS>{thresholds.stall_seconds_amber}")
    if red:
        return PostureState.RED, [*red, *amber]
    return (PostureState.AMBER, amber) if amber else (PostureState.GREEN, [])


def posture_of(observation: Observation | None, thresholds: Thresholds) -> dict[str, Any]:
    """The part of a response's posture that depends on the moment."""
    state, reasons = judge(observation, thresholds)
    return {
        "state": state.value,
        "reasons": reasons,
        "lag_records": None if observation is None else observation.lag_records,
    }


def health_of(observation: Observation | None, thresholds: Thresholds, process_counters: Mapping[str, int], now: int) -> Health:
    """The health document at `now` (microseconds since the epoch)."""
    state, reasons = judge(observation, thresholds)
    if observation is None:
        return Health(
            state=state,
            reasons=tuple(reasons),
            projection=None,
            input_basis=None,
            watermark_utc=None,
            watermark_age_seconds=None,
            partitions=(),
            counters=dict(process_counters),
            apply_failures={},
        )
    row = observation.row
    return Health(
        state=state,
        reasons=tuple(reasons),
        projection=f"{row.projection_id}:{row.registry_digest[:12]}",
        input_basis=row.basis,
        watermark_utc=None if row.watermark is None else format_time(row.watermark),
        watermark_age_seconds=None if row.watermark is None else (now - row.watermark) // MICROS_PER_SECOND,
        partitions=tuple(PartitionHealth(partition_id=name, lag_records=lag) for name, lag in sorted(observation.lag.items())),
        counters={**process_counters, **observation.totals.counters()},
        apply_failures=dict(observation.totals.failures),
    )

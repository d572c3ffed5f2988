"""The posture of a projection, judged by its lag and by thresholds, and the health document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ofp_platform.online.state.progress import Totals
from ofp_platform.online.state.projection import ProjectionRow
from ofp_platform.vocabulary.profile import Thresholds
from ofp_platform.vocabulary.serving import Health, PartitionHealth, PostureState
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, format_time


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


def judge(observation: Observation | None, thresholds: Thresholds) -> tuple[PostureState, list[str]]:
    """State and reasons, worst first; None: the store or the log does not answer."""
    if observation is None:
        return PostureState.RED, ["STORE_DOWN"]
    lag, stalled_seconds = observation.lag_records, observation.stalled_seconds
    red, amber = [], []
    if lag > thresholds.lag_records_red:
        red.append(f"LAG_RECORDS>{thresholds.lag_records_red}")
    elif lag > thresholds.lag_records_amber:
        amber.append(f"LAG_RECORDS>{thresholds.lag_records_amber}")
    if lag and stalled_seconds > thresholds.stall_seconds_red:
        red.append(f"STALLED_SECONDS>{thresholds.stall_seconds_red}")
    elif lag and stalled_seconds > thresholds.stall_seconds_amber:
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

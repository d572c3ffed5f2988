"""The posture of a projection, judged by its lag and by thresholds, and the health document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ofp_platform.log.port import LogMisconfigured, LogRefused, LogTailLost, PartitionVanished, PositionTrimmed, PositionUnknown
from ofp_platform.online.state.progress import Totals
from ofp_platform.online.state.projection import ProjectionRow
from ofp_platform.vocabulary.background_tasks import EndedTask
from ofp_platform.vocabulary.profile import Thresholds
from ofp_platform.vocabulary.serving import Health, PartitionHealth, PostureState
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, format_time

STORE_DOWN = "STORE_DOWN"
"""The reason when the store of the state does not answer; a log of kind postgres is in it."""

LOG_DOWN = "LOG_DOWN"
"""The reason when a log that is a service of its own does not answer."""

OBJECT_STORE_DOWN = "OBJECT_STORE_DOWN"
"""The reason when the object store does not answer: nothing can be archived, and what is served waits to be stored."""

NO_PROJECTION = "NO_PROJECTION"
"""The reason when nothing of the run was projected here."""

_CLOCK_SECONDS = 1.0
"""So much behind itself is no step back of a clock: processes append at the same time."""

LOG_TAIL_LOST = "LOG_TAIL_LOST"
"""The reason when a recovery lost records of the log: what is applied may be of a history that goes on no more."""

REFUSALS: Mapping[type[LogRefused], str] = {
    PositionTrimmed: "HISTORY_LOST",
    PartitionVanished: "PARTITION_VANISHED",
    PositionUnknown: "LOG_IS_ANOTHER",
    LogTailLost: LOG_TAIL_LOST,
    LogMisconfigured: "LOG_MISCONFIGURED",
}


@dataclass(frozen=True)
class Observation:
    """The health inputs at one moment. `stalled_seconds`: since when records wait and the basis has not moved.

    `read_only`: the store takes no writes, so that nothing can be applied. `refusal`: why reading cannot go on from the basis
    without a gap, one of `REFUSALS`; None: it can. `archive_lag`: the age of the oldest record that is not archived as a part of
    the log's retention; None: nobody looked, or the log keeps everything. `driverless_seconds`: since when the continuous driver
    of the projection is seen to have died. `replica_seconds`: since when the replica that is read from lacks a commit.
    `clock_behind_seconds`: how far the log's clock is behind an admission time that it gave.
    `holding_shards`: the key shards that the next epoch waits for, `held_seconds` since when it waits for some.
    """

    row: ProjectionRow
    totals: Totals
    lag: Mapping[str, int]
    stalled_seconds: float
    read_only: bool = False
    refusal: str | None = None
    archive_lag: float | None = None
    driverless_seconds: float = 0.0
    replica_seconds: float = 0.0
    clock_behind_seconds: float = 0.0
    holding_shards: tuple[int, ...] = ()
    held_seconds: float = 0.0

    @property
    def lag_records(self) -> int:
        """Records behind the heads of all partitions."""
        return sum(self.lag.values())


@dataclass(frozen=True)
class Trouble:
    """Facts besides an observation. `failure`: why there is none; `ended`: background tasks that ended unasked.

    `warnings`: reasons that are worth AMBER, `defects`: those that are worth RED.
    """

    failure: str = STORE_DOWN
    ended: Sequence[EndedTask] = ()
    warnings: Sequence[str] = ()
    defects: Sequence[str] = ()


NO_TROUBLE = Trouble()


def judge(
    observation: Observation | None, thresholds: Thresholds, trouble: Trouble = NO_TROUBLE
) -> tuple[PostureState, list[str]]:
    """State and reasons, worst first. What was not observed, or not looked at, is never GREEN."""
    red, amber = [*(task.reason for task in trouble.ended), *trouble.defects], [*trouble.warnings]
    if observation is None:
        return PostureState.RED, [*red, trouble.failure]
    lag, stalled_seconds = observation.lag_records, observation.stalled_seconds
    if observation.read_only:
        red.append("STORE_READ_ONLY")
    if observation.refusal is not None:
        red.append(observation.refusal)
    elif not observation.lag:
        red.append("NO_PARTITIONS")
    totals = observation.totals.counters()
    if not totals["events_applied"]:
        (red if totals["apply_failures"] else amber).append("NOTHING_APPLIED")
    if observation.archive_lag is not None and observation.archive_lag >= thresholds.archive_lag_red:
        red.append(f"ARCHIVE_LAG>={thresholds.archive_lag_red:g}")
    elif observation.archive_lag is not None and observation.archive_lag >= thresholds.archive_lag_amber:
        amber.append(f"ARCHIVE_LAG>={thresholds.archive_lag_amber:g}")
    if lag > thresholds.lag_records_red:
        red.append(f"LAG_RECORDS>{thresholds.lag_records_red}")
    elif lag > thresholds.lag_records_amber:
        amber.append(f"LAG_RECORDS>{thresholds.lag_records_amber}")
    if lag and stalled_seconds > thresholds.stall_seconds_red:
        red.append(f"STALLED_SECONDS>{thresholds.stall_seconds_red}")
    elif lag and stalled_seconds > thresholds.stall_seconds_amber:
        amber.append(f"STALLED_SECONDS>{thresholds.stall_seconds_amber}")
    if observation.replica_seconds > thresholds.stall_seconds_red:
        red.append(f"REPLICA_BEHIND_SECONDS>{thresholds.stall_seconds_red}")
    elif observation.replica_seconds > thresholds.stall_seconds_amber:
        amber.append(f"REPLICA_BEHIND_SECONDS>{thresholds.stall_seconds_amber}")
    if observation.clock_behind_seconds > _CLOCK_SECONDS:
        amber.append(f"CLOCK_BEHIND_SECONDS>{_CLOCK_SECONDS:g}")  # records are admitted at the last time until it is reached
    if observation.holding_shards and observation.held_seconds > thresholds.stall_seconds_amber:
        # what is applied is right; what comes now waits, and is RED then
        amber.append(f"EPOCH_WAITS_FOR_SHARD:{','.join(map(str, observation.holding_shards))}")
    if observation.driverless_seconds > thresholds.stall_seconds_amber:
        # what is applied is right; what comes now waits, and is RED then
        amber.append(f"NO_PROJECTOR_SECONDS>{thresholds.stall_seconds_amber}")
    if red:
        return PostureState.RED, [*red, *amber]
    return (PostureState.AMBER, amber) if amber else (PostureState.GREEN, [])


def posture_of(observation: Observation | None, thresholds: Thresholds, trouble: Trouble = NO_TROUBLE) -> dict[str, Any]:
    """The part of a response's posture that depends on the moment."""
    state, reasons = judge(observation, thresholds, trouble)
    return {
        "state": state.value,
        "reasons": reasons,
        "lag_records": None if observation is None else observation.lag_records,
    }


def health_of(
    observation: Observation | None, posture: Mapping[str, Any], process_counters: Mapping[str, int], now: int
) -> Health:
    """The health document at `now` (microseconds since the epoch); `posture` as in `posture_of`."""
    state, reasons = PostureState(posture["state"]), posture["reasons"]
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
        apply_failures=observation.totals.all_failures,
    )

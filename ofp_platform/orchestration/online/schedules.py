"""Schedules of the online plane: the hourly snapshot set and the nightly verification of ranges."""

import dagster as dg

from ofp_platform.log.ranges import shared_ranges
from ofp_platform.online.ranges.snapshot_sets import last_full_hour
from ofp_platform.orchestration.dagster_internals import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from ofp_platform.orchestration.online.projection_assets import replay_ranges_job
from ofp_platform.orchestration.online.snapshot_assets import snapshot_set_job
from ofp_platform.orchestration.partitions import HOUR_FORMAT, range_key
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.vocabulary.position import place
from ofp_platform.vocabulary.times import to_datetime

VERIFIED_RANGES = 400


@dg.schedule(
    cron_schedule="10 * * * *",
    job=snapshot_set_job,
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="The snapshot set of the last hour of event time that is over, once.",
    tags={"plane": "online"},
)
def snapshot_set_hourly(
    context: dg.ScheduleEvaluationContext, plane: dg.ResourceParam[PlaneResource]
) -> dg.RunRequest | dg.SkipReason:
    """By the watermark and not by the clock: a replay of history has hours of its own."""
    with plane.open() as opened_plane:
        row = opened_plane.live()
        if row is None:
            return dg.SkipReason("there is no live projection yet")
        start = last_full_hour(opened_plane.row(row.projection_id))
    if start is None:
        return dg.SkipReason("no event yet")
    key = to_datetime(start).strftime(HOUR_FORMAT)
    return dg.RunRequest(partition_key=key, run_key=f"{row.projection_id}-{key}")


@dg.schedule(
    cron_schedule="0 3 * * *",
    job=replay_ranges_job,
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description=f"Read the last {VERIFIED_RANGES} ranges of every partition again and find every record in the state.",
    tags={"plane": "online"},
)
def verify_ranges_nightly(
    context: dg.ScheduleEvaluationContext, plane: dg.ResourceParam[PlaneResource]
) -> list[dg.RunRequest] | dg.SkipReason:
    """One run per log partition, over the ranges that its basis holds and the log still keeps."""
    requests = []
    with plane.open() as opened_plane:
        row = opened_plane.live()
        if row is None:
            return dg.SkipReason("there is no live projection yet")
        basis = opened_plane.row(row.projection_id).basis.by_partition()
        floors = opened_plane.log.retention_floor().by_partition()
        closed_ranges = opened_plane.ranges.closed()
        shared_count = shared_ranges(closed_ranges)
        for name in sorted(closed_ranges):
            count = min(closed_ranges[name].count, shared_count)
            range_numbers = [
                number
                for number in range(max(count - VERIFIED_RANGES, 0), count)
                if (bounds := opened_plane.ranges.bounds(name, number)).is_inside(basis.get(name))
                and place(bounds.start) >= place(floors.get(name))
            ]
            if range_numbers:
                tags = {
                    ASSET_PARTITION_RANGE_START_TAG: range_key(name, range_numbers[0]),
                    ASSET_PARTITION_RANGE_END_TAG: range_key(name, range_numbers[-1]),
                }
                day = context.scheduled_execution_time.strftime("%Y-%m-%d")
                requests.append(dg.RunRequest(run_key=f"{row.projection_id}-{name}-{day}", tags=tags))
    return requests or dg.SkipReason("no range is in the basis yet")

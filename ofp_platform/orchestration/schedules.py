"""Schedules: snapshot set, archive of what has closed, nightly verification of ranges and of the archive."""

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from ofp_platform.log.ranges import place, shared_ranges
from ofp_platform.online.snapshot_sets import last_full_hour
from ofp_platform.orchestration.jobs import archive_job, replay_ranges_job, snapshot_set_job
from ofp_platform.orchestration.offline_archive import ARCHIVE_SEGMENT, verify_archive_job
from ofp_platform.orchestration.partitions import HOUR_FORMAT, range_key
from ofp_platform.orchestration.resources import PlaneResource
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
def snapshot_set_hourly(context: dg.ScheduleEvaluationContext, plane: PlaneResource) -> dg.RunRequest | dg.SkipReason:
    """By the watermark and not by the clock: a replay of history has hours of its own."""
    with plane.open() as opened:
        row = opened.ensure_live()
        start = last_full_hour(opened.row(row.projection_id))
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
def verify_ranges_nightly(context: dg.ScheduleEvaluationContext, plane: PlaneResource) -> list[dg.RunRequest] | dg.SkipReason:
    """One run per log partition, over the ranges that its basis holds and the log still keeps."""
    requests = []
    with plane.open() as opened:
        row = opened.ensure_live()
        basis = opened.row(row.projection_id).basis.by_partition()
        floors = opened.log.retention_floor().by_partition()
        closed = opened.ranges.closed()
        shared = shared_ranges(closed)
        for name in sorted(closed):
            count = min(closed[name].count, shared)
            known = [
                number
                for number in range(max(count - VERIFIED_RANGES, 0), count)
                if (bounds := opened.ranges.bounds(name, number)).is_inside(basis.get(name))
                and place(bounds.start) >= place(floors.get(name))
            ]
            if known:
                tags = {
                    ASSET_PARTITION_RANGE_START_TAG: range_key(name, known[0]),
                    ASSET_PARTITION_RANGE_END_TAG: range_key(name, known[-1]),
                }
                day = context.scheduled_execution_time.strftime("%Y-%m-%d")
                requests.append(dg.RunRequest(run_key=f"{row.projection_id}-{name}-{day}", tags=tags))
    return requests or dg.SkipReason("no range is in the basis yet")


@dg.schedule(
    cron_schedule="20 * * * *",
    job=archive_job,
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Archives the ranges that have closed and are not archived yet, a run for each log partition.",
    tags={"plane": "offline"},
)
def archive_closed_hourly(context: dg.ScheduleEvaluationContext, plane: PlaneResource) -> list[dg.RunRequest] | dg.SkipReason:
    """From the first range that no run has archived; one in between that is archived already is proven again."""
    with plane.open() as opened:
        closed = opened.ranges.closed()
    shared = shared_ranges(closed)
    known = context.instance.get_materialized_partitions(ARCHIVE_SEGMENT)
    hour = context.scheduled_execution_time.strftime(HOUR_FORMAT)
    requests = []
    for name in sorted(closed):
        keys = [range_key(name, number) for number in range(min(closed[name].count, shared))]
        missing = [key for key in keys if key not in known]
        if missing:
            tags = {ASSET_PARTITION_RANGE_START_TAG: missing[0], ASSET_PARTITION_RANGE_END_TAG: keys[-1]}
            requests.append(dg.RunRequest(run_key=f"archive-{name}-{hour}", tags=tags))
    return requests or dg.SkipReason("every closed range is archived")


verify_archive_nightly = dg.ScheduleDefinition(
    name="verify_archive_nightly",
    cron_schedule="0 4 * * *",
    job=verify_archive_job,
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Read the whole archive again: every digest, every payload hash, and that the segments join.",
    tags={"plane": "offline"},
)

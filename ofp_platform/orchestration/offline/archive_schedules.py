"""Schedules of the archive: hourly archiving of closed ranges and the nightly verification of all of it."""

import dagster as dg

from ofp_platform.log.ranges import shared_ranges
from ofp_platform.orchestration.dagster_internals import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from ofp_platform.orchestration.offline.archive_assets import ARCHIVE_SEGMENT, archive_job, verify_archive_job
from ofp_platform.orchestration.partitions import HOUR_FORMAT, range_key
from ofp_platform.orchestration.resources import PlaneResource


@dg.schedule(
    cron_schedule="20 * * * *",
    job=archive_job,
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Archives the ranges that have closed and are not archived yet, a run for each log partition.",
    tags={"plane": "offline"},
)
def archive_closed_hourly(
    context: dg.ScheduleEvaluationContext, plane: dg.ResourceParam[PlaneResource]
) -> list[dg.RunRequest] | dg.SkipReason:
    """From the first range that no run has archived; one in between that is archived already is proven again."""
    with plane.open("offline") as opened_plane:
        closed_ranges = opened_plane.ranges.closed()
    shared_count = shared_ranges(closed_ranges)
    archived_keys = context.instance.get_materialized_partitions(ARCHIVE_SEGMENT)
    hour = context.scheduled_execution_time.strftime(HOUR_FORMAT)
    requests = []
    for name in sorted(closed_ranges):
        keys = [range_key(name, number) for number in range(min(closed_ranges[name].count, shared_count))]
        missing = [key for key in keys if key not in archived_keys]
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

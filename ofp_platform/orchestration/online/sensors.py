"""Sensors of the online plane: records that wait for a catch-up, and commits to report."""

import time
from collections.abc import Sequence

import dagster as dg

from ofp_platform.log.ranges import range_name, shared_ranges
from ofp_platform.online.plane import profile_pack
from ofp_platform.online.projecting.continuous import CATCH_UP, holds_projection
from ofp_platform.online.ranges.commit_report import CommitReport, ReportCursor, report_commits
from ofp_platform.online.ranges.log_progress import progress
from ofp_platform.orchestration.dagster_internals import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from ofp_platform.orchestration.log.event_assets import log_observation
from ofp_platform.orchestration.online.projection_assets import PROJECTION, PROJECTION_RANGE, catch_up_job
from ofp_platform.orchestration.partitions import OFFSET_RANGE, REGISTRY_DIGEST, foreign_range_names, range_key, registry_key
from ofp_platform.orchestration.receipt_metadata import (
    basis_text,
    closed_range_metadata,
    moved_metadata,
)
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.orchestration.run_liveness import TICK_SECONDS, UNFINISHED, goes_on
from ofp_platform.registry.pack import pack_digest
from ofp_platform.storage.run_states import RunNotReady

AssetEvents = Sequence[dg.AssetMaterialization | dg.AssetObservation]


@dg.sensor(
    job=catch_up_job,
    minimum_interval_seconds=TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for a catch-up when records wait and no continuous driver holds the live projection.",
    tags={"plane": "online"},
)
def new_offsets(context: dg.SensorEvaluationContext, plane: dg.ResourceParam[PlaneResource]) -> dg.SensorResult | dg.SkipReason:
    """One run for all partitions that are behind: they share one projection, runs beside each other would only conflict."""
    with plane.open() as opened_plane:
        try:
            opened_plane.demand_ready()
        except RunNotReady as error:
            return dg.SkipReason(str(error))
        row = opened_plane.live()  # to look makes none: the run does
        if row is not None and holds_projection(opened_plane.pool, row.projection_id):
            return dg.SkipReason(f"a continuous driver holds projection {row.projection_id}")
        if row is not None and row.shards > 1:
            return dg.SkipReason(f"projection {row.projection_id} has {row.shards} key shards, which have runs of their own")
        behind = [partition for partition in progress(opened_plane, row) if partition.lag]
        is_held = row is not None and holds_projection(opened_plane.pool, row.projection_id, CATCH_UP)
    if not behind:
        return dg.SkipReason("the basis is at the head of every partition")
    records = context.instance.get_run_records(dg.RunsFilter(job_name=catch_up_job.name, statuses=UNFINISHED), limit=50)
    if is_held or any(goes_on(record, is_held=is_held, now=time.time()) for record in records):
        return dg.SkipReason("a catch-up is under way")
    for record in records:
        context.log.warning("run %s holds nothing and does not end: its process is gone", record.dagster_run.run_id)
    tags = {
        ASSET_PARTITION_RANGE_START_TAG: behind[0].partition_id,
        ASSET_PARTITION_RANGE_END_TAG: behind[-1].partition_id,
        "lag_records": str(sum(partition.lag for partition in behind)),
    }
    return dg.SensorResult(
        run_requests=[dg.RunRequest(tags=tags)],
        asset_events=[log_observation(partition) for partition in behind],
    )


@dg.sensor(
    minimum_interval_seconds=TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports commits of any driver: a materialisation per moved partition and per range closed behind the basis.",
    tags={"plane": "online"},
)
def commit_reporter(
    context: dg.SensorEvaluationContext, plane: dg.ResourceParam[PlaneResource]
) -> dg.SensorResult | dg.SkipReason:
    """Also adds the partitions themselves: ranges that closed everywhere, and the registry of the profile's pack."""
    cursor = ReportCursor.model_validate_json(context.cursor) if context.cursor else None
    with plane.open() as opened_plane:
        row = opened_plane.live()
        report = None if row is None else report_commits(opened_plane, row, cursor)
        moved_partitions = set() if report is None else {partition.basis.partition_id for partition in report.moved}
        observations = [
            log_observation(partition) for partition in progress(opened_plane, row) if partition.partition_id in moved_partitions
        ]
        shared_count = shared_ranges(opened_plane.ranges.closed()) if report is None else report.shared
        pack = profile_pack(opened_plane.profile)
    registry = registry_key(pack, pack_digest(pack))
    known_ranges = set(context.instance.get_dynamic_partitions(OFFSET_RANGE.name or ""))
    ranges = [name for name in map(range_name, range(shared_count)) if name not in known_ranges]
    requests: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
    if ranges:
        requests.append(OFFSET_RANGE.build_add_request(ranges))
    foreign_names = foreign_range_names(known_ranges)
    if foreign_names:
        context.log.warning("partitions that name no offset range are removed: %s", ", ".join(foreign_names))
        requests.append(OFFSET_RANGE.build_delete_request(foreign_names))
    if not context.instance.has_dynamic_partition(REGISTRY_DIGEST.name or "", registry):
        requests.append(REGISTRY_DIGEST.build_add_request([registry]))
    events: AssetEvents = []
    moved_count = closed_count = 0
    if report is not None:
        events = [*observations, *_moved(context.instance, report), *_closed(context.instance, report)]
        moved_count, closed_count = len(report.moved), len(report.ranges)
    if not events and not requests:
        return dg.SkipReason("nothing moved")
    return dg.SensorResult(
        asset_events=events,
        dynamic_partitions_requests=requests,
        cursor=context.cursor if report is None else report.cursor.model_dump_json(),
        # Dagster calls a tick without a run request skipped; its reason is where an operator reads what the tick did
        skip_reason=f"reported: {moved_count} partitions moved, {closed_count} ranges applied, {len(ranges)} ranges added,"
        f" {len(foreign_names)} foreign keys removed",
    )


def _moved(instance: dg.DagsterInstance, report: CommitReport) -> AssetEvents:
    """Partitions that moved, but for those whose last materialisation (a run's) says so already."""
    events: list[dg.AssetMaterialization] = []
    for partition in report.moved:
        partition_id = partition.basis.partition_id
        records_filter = dg.AssetRecordsFilter(PROJECTION, asset_partitions=[partition_id])
        records = instance.fetch_materializations(records_filter, limit=1).records
        latest = records[0].asset_materialization if records else None
        reported_basis = None if latest is None else latest.metadata.get("basis")
        if reported_basis is not None and reported_basis.value == basis_text(partition.basis):
            continue
        metadata = moved_metadata(partition, report.row.version, report.row.watermark)
        events.append(dg.AssetMaterialization(PROJECTION, partition=partition_id, metadata=metadata))
    return events


def _closed(instance: dg.DagsterInstance, report: CommitReport) -> AssetEvents:
    """Ranges behind the basis that no run has materialised."""
    if not report.ranges:
        return []
    known_keys = instance.get_materialized_partitions(PROJECTION_RANGE)
    events: list[dg.AssetMaterialization] = []
    for closed_range in report.ranges:
        key = range_key(closed_range.bounds.partition_id, closed_range.bounds.number)
        if key not in known_keys:
            events.append(dg.AssetMaterialization(PROJECTION_RANGE, partition=key, metadata=closed_range_metadata(closed_range)))
    return events

"""Reports segments and models that the command line or other builders wrote, as they lie in the object store."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import dagster as dg

from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.offline.datasets.publication import DatasetDamaged, DatasetNotFound, load_manifest
from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.offline.runs.object_inventory import archived_ranges, model_lineages
from ofp_platform.orchestration.offline.archive_assets import ARCHIVE_SEGMENT
from ofp_platform.orchestration.offline.build_metadata import archive_metadata
from ofp_platform.orchestration.offline.model_assets import MODEL, lineage_metadata
from ofp_platform.orchestration.partitions import BUILD_REQUEST, range_key, request_key
from ofp_platform.orchestration.resources import BuildContextResource

REPORTED_AT_ONCE = 200


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports archived ranges and trained models that no run of Dagster made: a materialisation for each, once.",
    tags={"plane": "offline"},
)
def offline_reporter(
    context: dg.SensorEvaluationContext, builds: dg.ResourceParam[BuildContextResource]
) -> dg.SensorResult | dg.SkipReason:
    """Report what is new, without reading it again; a run of `offline/archive_segment` proves it."""
    with builds.open() as build_context:
        ranges = OffsetRanges(build_context.pool, build_context.log, builds.load_profile().range_size)
        segments = list(islice(_segments(context.instance, build_context, ranges), REPORTED_AT_ONCE))
        models = list(islice(_models(context.instance, build_context), REPORTED_AT_ONCE))
    if not segments and not models:
        return dg.SkipReason("everything is shown")
    keys = {str(model.partition) for model in models}
    new = sorted(key for key in keys if not context.instance.has_dynamic_partition(str(BUILD_REQUEST.name), key))
    return dg.SensorResult(
        asset_events=[*segments, *models],
        dynamic_partitions_requests=[BUILD_REQUEST.build_add_request(new)] if new else [],
        skip_reason=f"reported: {len(segments)} archived ranges, {len(models)} trained models",
    )


def _segments(
    instance: dg.DagsterInstance, build_context: BuildContext, ranges: OffsetRanges
) -> Iterator[dg.AssetMaterialization]:
    archived_keys = instance.get_materialized_partitions(ARCHIVE_SEGMENT)
    new_segments = archived_ranges(
        ranges, build_context.archive, lambda partition_id, number: range_key(partition_id, number) in archived_keys
    )
    for number, receipt in new_segments:
        metadata = {"status": "reported", **archive_metadata(build_context.archive, receipt)}
        yield dg.AssetMaterialization(ARCHIVE_SEGMENT, partition=range_key(receipt.partition_id, number), metadata=metadata)


def _models(instance: dg.DagsterInstance, build_context: BuildContext) -> Iterator[dg.AssetMaterialization]:
    shown_paths = _shown_lineages(instance, build_context)
    for path, lineage in model_lineages(build_context.objects, lambda path: path in shown_paths):
        try:
            manifest = load_manifest(build_context.objects, lineage["dataset_name"], lineage["dataset_identity"])
        except (DatasetDamaged, DatasetNotFound):
            continue  # its dataset is of another store, or was tampered with: the check of the manifest says so
        metadata = {"status": "reported", **lineage_metadata(lineage, path, build_context.objects)}
        yield dg.AssetMaterialization(MODEL, partition=request_key(manifest.request_id, manifest.dataset_name), metadata=metadata)


def _shown_lineages(instance: dg.DagsterInstance, build_context: BuildContext) -> set[str]:
    paths: set[str] = set()
    cursor: str | None = None
    while True:
        page = instance.fetch_materializations(MODEL, limit=100, cursor=cursor)
        for record in page.records:
            event = record.asset_materialization
            value: Any = None if event is None else event.metadata.get("lineage")
            if value is not None:
                paths.add(str(value.value).removeprefix(f"{build_context.objects.url}/"))
        if not page.has_more:
            return paths
        cursor = page.cursor

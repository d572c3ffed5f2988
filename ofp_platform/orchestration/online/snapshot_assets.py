"""Snapshot sets as an asset: an hour of event time each."""

from collections import Counter
from collections.abc import Iterator

import dagster as dg

from ofp_platform.online.ranges.snapshot_sets import HourNotServable, damaged_objects, materialise_hour
from ofp_platform.orchestration.log.event_assets import OWNERS
from ofp_platform.orchestration.online.projection_assets import PROJECTION, RETRIES
from ofp_platform.orchestration.partitions import EVENT_HOUR, hour_start
from ofp_platform.orchestration.receipt_metadata import SNAPSHOT_COLUMNS, markdown_table
from ofp_platform.orchestration.resources import ObjectStoreResource, PlaneResource

SNAPSHOT_SET = dg.AssetKey(["online", "snapshot_set"])
HASH_IS_NAME = "hash_is_name"


@dg.asset(
    key=SNAPSHOT_SET,
    deps=[dg.AssetDep(PROJECTION, partition_mapping=dg.AllPartitionMapping())],
    partitions_def=EVENT_HOUR,
    description=(
        "Snapshots of every key that the hour touched, as of its end, on one basis: write-once objects named by their hash,"
        " and an index that names them. Hours are of event time, beginning after the full hour and including its end."
    ),
    group_name="online",
    kinds={"python", "json"},
    owners=OWNERS,
    metadata={"dagster/column_schema": SNAPSHOT_COLUMNS},
    code_version="1",
    retry_policy=RETRIES,
    check_specs=[
        dg.AssetCheckSpec(
            HASH_IS_NAME,
            asset=SNAPSHOT_SET,
            description="Read back from the store, the index and every snapshot have the SHA-256 that they are named by.",
        )
    ],
)
def snapshot_set(
    context: dg.AssetExecutionContext, plane: dg.ResourceParam[PlaneResource], object_store: dg.ResourceParam[ObjectStoreResource]
) -> Iterator[dg.MaterializeResult[object] | dg.AssetCheckResult]:
    """Materialise the hour of the partition."""
    objects = object_store.open()
    with plane.open() as opened_plane:
        try:
            stored_set = materialise_hour(opened_plane, opened_plane.known_live(), objects, hour_start(context.partition_key))
        except HourNotServable as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        problems = damaged_objects(opened_plane, objects, stored_set.index_path)
    yield dg.MaterializeResult(
        asset_key=SNAPSHOT_SET,
        data_version=dg.DataVersion(stored_set.index_digest),
        metadata={
            "dagster/partition_row_count": len(stored_set.entries),
            "new_snapshots": stored_set.created,
            "index": dg.MetadataValue.path(f"{objects.url}/{stored_set.index_path}"),
            "keys": markdown_table(["key type", "keys"], sorted(Counter(kind for kind, _, _ in stored_set.entries).items())),
            "first_snapshots": markdown_table(["key type", "key", "hash"], stored_set.entries[:10]),
            "basis": markdown_table(
                ["log partition", "offset"], [(part.partition_id, part.offset) for part in stored_set.basis.partitions]
            ),
        },
    )
    yield dg.AssetCheckResult(
        asset_key=SNAPSHOT_SET,
        check_name=HASH_IS_NAME,
        passed=not problems,
        metadata={"objects": len(stored_set.entries) + 1, "damaged": ", ".join(problems[:20]) or "none"},
    )


snapshot_set_job = dg.define_asset_job(
    "snapshot_sets", dg.AssetSelection.assets(SNAPSHOT_SET), description="Materialise the snapshots of an hour of event time."
)

"""Snapshot sets as an asset: an hour of event time each."""

from collections import Counter
from collections.abc import Iterator

import dagster as dg

from ofp_platform.online.ranges.snapshot_sets import HourNotServable, SnapshotSet, damaged_objects, materialise_hour
from ofp_platform.orchestration.log.event_assets import OWNERS
from ofp_platform.orchestration.online.projection_assets import PROJECTION, RETRIES
from ofp_platform.orchestration.partitions import TooManyPartitions, demand_few, event_hours, hour_start
from ofp_platform.orchestration.receipt_metadata import SNAPSHOT_COLUMNS, Metadata, markdown_table
from ofp_platform.orchestration.resources import ObjectStoreResource, PlaneResource
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.profile import Profile

SNAPSHOT_SET = dg.AssetKey(["online", "snapshot_set"])
HASH_IS_NAME = "hash_is_name"
POOL = "ofp_snapshots"
MOST_HOURS = 31 * 24


def snapshot_set_asset(profile: Profile) -> dg.AssetsDefinition:
    """`online/snapshot_set`: the snapshots of hours of event time."""
    hours = event_hours(profile)

    @dg.asset(
        key=SNAPSHOT_SET,
        deps=[dg.AssetDep(PROJECTION, partition_mapping=dg.AllPartitionMapping())],
        partitions_def=hours,
        backfill_policy=dg.BackfillPolicy.single_run(),
        description=(
            "Snapshots of every key that the hour touched, as of its end, on one basis: write-once objects named by their hash,"
            " and an index that names them. Hours are of event time, beginning after the full hour and including its end. A"
            f" backfill is one run, of at most {MOST_HOURS} hours."
        ),
        group_name="online",
        kinds={"python", "json"},
        owners=OWNERS,
        metadata={"dagster/column_schema": SNAPSHOT_COLUMNS},
        code_version="1",
        pool=POOL,
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
        context: dg.AssetExecutionContext,
        plane: dg.ResourceParam[PlaneResource],
        object_store: dg.ResourceParam[ObjectStoreResource],
    ) -> Iterator[dg.MaterializeResult[object] | dg.AssetCheckResult]:
        keys = context.partition_keys
        try:
            demand_few(keys, MOST_HOURS, "hours")
        except TooManyPartitions as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        objects, object_count = object_store.open(), 0
        damaged_hours: dict[str, list[str]] = {}
        refused_hours: dict[str, str] = {}
        digests: list[str] = []
        with plane.open("serving") as opened_plane:
            for number, key in enumerate(keys, 1):
                try:
                    stored_set = materialise_hour(opened_plane, opened_plane.known_live(), objects, hour_start(key))
                except HourNotServable as error:
                    refused_hours[key] = str(error)
                    continue
                if damaged := damaged_objects(opened_plane, objects, stored_set.index_path):
                    damaged_hours[key] = damaged
                object_count += len(stored_set.entries) + 1
                digests.append(stored_set.index_digest)
                context.log.info("%s: %d snapshots (%d of %d hours)", key, len(stored_set.entries), number, len(keys))
                metadata = _metadata(stored_set, objects)
                if refused_hours:
                    # whatever becomes of the run, these snapshots are stored: say so now
                    context.log_event(dg.AssetMaterialization(SNAPSHOT_SET, partition=key, metadata=metadata))
                else:
                    context.add_asset_metadata(metadata, partition_key=key)
        if refused_hours:
            raise dg.Failure(
                "\n".join(f"{key}: {why}" for key, why in refused_hours.items()),
                metadata={"stored_hours": len(digests)},
                allow_retries=False,
            )
        # of one hour its index; of many no digest says more than that they are many
        version = dg.DataVersion(digests[0]) if len(digests) == 1 else None
        yield dg.MaterializeResult(asset_key=SNAPSHOT_SET, data_version=version)
        yield dg.AssetCheckResult(
            asset_key=SNAPSHOT_SET,
            check_name=HASH_IS_NAME,
            passed=not damaged_hours,
            # a run has many hours, and Dagster gives its check none of them
            description=f"damaged: {', '.join(damaged_hours)}" if damaged_hours else None,
            metadata={
                "objects": object_count,
                "damaged": markdown_table(
                    ["hour", "object"], [(hour, path) for hour, paths in damaged_hours.items() for path in paths][:20]
                )
                if damaged_hours
                else "none",
            },
        )

    return snapshot_set


def _metadata(stored_set: SnapshotSet, objects: ObjectStore) -> Metadata:
    return {
        "dagster/partition_row_count": len(stored_set.entries),
        "new_snapshots": stored_set.created,
        "index": dg.MetadataValue.path(f"{objects.url}/{stored_set.index_path}"),
        "keys": markdown_table(["key type", "keys"], sorted(Counter(kind for kind, _, _ in stored_set.entries).items())),
        "first_snapshots": markdown_table(["key type", "key", "hash"], stored_set.entries[:10]),
        "basis": markdown_table(
            ["log partition", "offset"], [(part.partition_id, part.offset) for part in stored_set.basis.partitions]
        ),
    }


snapshot_set_job = dg.define_asset_job(
    "snapshot_sets", dg.AssetSelection.assets(SNAPSHOT_SET), description="Materialise the snapshots of hours of event time."
)

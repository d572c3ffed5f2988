"""The log as an asset: external, observed."""

import dagster as dg

from ofp_platform.online.ranges.log_progress import LogProgress, progress
from ofp_platform.orchestration.partitions import LogPartitions
from ofp_platform.orchestration.receipt_metadata import ENVELOPE_COLUMNS, progress_metadata
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.vocabulary.profile import Profile

LOG_EVENTS = dg.AssetKey(["log", "events"])
INGRESS_RECEIPTS = dg.AssetKey(["ingress", "receipts"])
OWNERS = ["team:fraud-platform"]


def log_events_spec(profile: Profile, partitions: LogPartitions) -> dg.AssetSpec:
    """`log/events`: others append to it; `observe_log` and the sensors observe it."""
    count = len(partitions.log_partition.get_partition_keys())
    return dg.AssetSpec(
        LOG_EVENTS,
        # nothing stands in the log without the receipt of its admission
        deps=[dg.AssetDep(INGRESS_RECEIPTS, partition_mapping=dg.AllPartitionMapping())],
        description=(
            f"The stream `{profile.stream_name}`: canonical envelopes in {count} partitions by"
            f" `{profile.partition_key}`. Others append to it; here it is observed: head, retention floor, and how many records"
            " the live projection is behind."
        ),
        group_name="log",
        kinds={profile.log_kind},
        owners=OWNERS,
        tags={"stream": profile.stream_name},
        metadata={"dagster/column_schema": ENVELOPE_COLUMNS, "stream": profile.stream_name},
        partitions_def=partitions.log_partition,
    )


def log_observation(partition_progress: LogProgress) -> dg.AssetObservation:
    """One partition of the log as it is now."""
    return dg.AssetObservation(
        LOG_EVENTS, partition=partition_progress.partition_id, metadata=progress_metadata(partition_progress)
    )


@dg.op(description="Head, retention floor and lag of every partition of the log.")
def observe_partitions(context: dg.OpExecutionContext, plane: dg.ResourceParam[PlaneResource]) -> None:
    """One observation per partition."""
    with plane.open() as opened_plane:
        for partition_progress in progress(opened_plane, opened_plane.live()):
            context.log_event(log_observation(partition_progress))


@dg.job(name="observe_log", description="Observe `log/events` now: head, floor and lag per partition.", tags={"plane": "online"})
def observe_log_job() -> None:
    """Observe the log."""
    observe_partitions()

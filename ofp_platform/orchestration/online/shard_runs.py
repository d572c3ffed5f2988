"""Key shards as runs: one for each shard, wherever the run launcher places runs (on Kubernetes a pod each)."""

import json
import time
from collections.abc import Mapping

import dagster as dg
from pydantic import Field

from ofp_platform.online.projecting.epoch_barrier import missing_shards
from ofp_platform.online.ranges.log_progress import progress
from ofp_platform.online.ranges.shard_driver import drive, until_idle
from ofp_platform.online.state.key_shards import MOST_SHARDS, KeyShard, ShardRefused
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.orchestration.run_liveness import TICK_SECONDS, UNFINISHED, goes_on

KEY_SHARD = dg.StaticPartitionsDefinition([str(number) for number in range(MOST_SHARDS)])
RESOURCES = {"requests": {"cpu": "1", "memory": "2Gi"}}
"""What a run of a shard asks of Kubernetes; other launchers ignore it."""


class ShardConfig(dg.Config):
    """Settings of a run of a key shard."""

    idle_seconds: float = Field(
        default=60.0, ge=0, description="The run ends when no record has waited for so long; 0: when it is terminated."
    )


@dg.op(description="Applies the epochs of one key shard of the live projection to its keys.")
def apply_key_shard(context: dg.OpExecutionContext, config: ShardConfig, plane: dg.ResourceParam[PlaneResource]) -> None:
    """One shard, by the partition of the run."""
    with plane.open() as opened_plane:
        row = opened_plane.ensure_live()
        number = int(context.partition_key)
        if number >= row.shards:
            raise dg.Failure(
                f"projection {row.projection_id} has {row.shards} key shards, no shard {number}", allow_retries=False
            )
        shard = KeyShard(number, row.shards)
        receipts: list[tuple[int, int]] = []
        try:
            with until_idle(opened_plane, row, config.idle_seconds) as idle:
                drive(
                    opened_plane,
                    row,
                    shard,
                    stop=idle,
                    on_commit=lambda receipt: receipts.append((receipt.version, receipt.records)),
                    on_trouble=context.log.warning,
                    on_standby=lambda: context.log.info("another process applies shard %s: this run stands by", shard),
                )
        except ShardRefused as error:
            raise dg.Failure(str(error), allow_retries=False) from error
    metadata = {"shard": str(shard), "epochs": len(receipts), "records": sum(records for _, records in receipts)}
    context.add_output_metadata(metadata)


@dg.job(
    name="key_shard",
    partitions_def=KEY_SHARD,
    description="Apply one key shard of the live projection until nothing comes any more; its partition is the shard's number.",
    tags={"plane": "online", "dagster-k8s/config": json.dumps({"container_config": {"resources": RESOURCES}})},
)
def key_shard_job() -> None:
    """One key shard."""
    apply_key_shard()


@dg.sensor(
    job_name=key_shard_job.name,
    minimum_interval_seconds=TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for a run of each key shard that has no process, when records wait and the live projection has several.",
    tags={"plane": "online"},
)
def key_shards(context: dg.SensorEvaluationContext, plane: dg.ResourceParam[PlaneResource]) -> dg.SensorResult | dg.SkipReason:
    """A run each, with the shard in its tags."""
    with plane.open() as opened_plane:
        row = opened_plane.live()
        if row is None or row.shards == 1:
            return dg.SkipReason("the live projection has one key shard")
        lag = sum(partition.lag for partition in progress(opened_plane, row))
        with opened_plane.pool.connection() as connection:
            missing = missing_shards(connection, row.projection_id, row.shards)
    if not missing:
        return dg.SkipReason("each key shard has a process")
    if not lag:
        return dg.SkipReason("the basis is at the head of every partition")
    records = context.instance.get_run_records(dg.RunsFilter(job_name=key_shard_job.name, statuses=UNFINISHED), limit=200)
    now = time.time()
    under_way = {_partition(record.dagster_run.tags) for record in records if goes_on(record, is_held=False, now=now)}
    asked = [number for number in missing if str(number) not in under_way]
    if not asked:
        return dg.SkipReason(f"runs of key shards {', '.join(map(str, missing))} are about to begin")
    requests = [
        dg.RunRequest(partition_key=str(number), tags={"shard": f"{number}/{row.shards}", "lag_records": str(lag)})
        for number in asked
    ]
    return dg.SensorResult(run_requests=requests)


def _partition(tags: Mapping[str, str]) -> str:
    return tags.get("dagster/partition", "")

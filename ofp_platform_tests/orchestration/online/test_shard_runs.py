"""Key shards as runs of Dagster: who asks for them, and that they apply together."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import dagster as dg

from ofp_platform.online.plane import Plane
from ofp_platform.online.projecting.epoch_barrier import EpochBarrier
from ofp_platform.online.ranges.shard_driver import drive
from ofp_platform.online.state.key_shards import KeyShard, read_shards, reshard_in_time
from ofp_platform.orchestration.online.sensors import new_offsets
from ofp_platform.orchestration.online.shard_runs import key_shards
from ofp_platform.orchestration.resources import PlaneResource

CONFIG = {"ops": {"apply_key_shard": {"config": {"idle_seconds": 2.0}}}}


def ignore(_: object) -> None:
    """Whatever the driver tells."""


def tick(sensor: dg.SensorDefinition, plane: PlaneResource, instance: dg.DagsterInstance) -> object:
    return sensor(dg.build_sensor_context(instance=instance, resources={"plane": plane}))


def asked(result: object) -> list[tuple[str | None, str]]:
    assert isinstance(result, dg.SensorResult)
    assert result.run_requests is not None
    return [(request.partition_key, request.tags["shard"]) for request in result.run_requests]


def test_a_run_is_asked_for_each_shard_without_a_process(
    plane: Plane, plane_resource: PlaneResource, instance: dg.DagsterInstance
) -> None:
    row = plane.ensure_live()
    assert "has one key shard" in str(tick(key_shards, plane_resource, instance))
    reshard_in_time(plane.pool, row.projection_id, 3)
    assert "runs of their own" in str(tick(new_offsets, plane_resource, instance))
    assert asked(tick(key_shards, plane_resource, instance)) == [("0", "0/3"), ("1", "1/3"), ("2", "2/3")]
    with EpochBarrier(plane.dsn, row.projection_id, KeyShard(1, 3)):
        assert asked(tick(key_shards, plane_resource, instance)) == [("0", "0/3"), ("2", "2/3")]
        with (
            EpochBarrier(plane.dsn, row.projection_id, KeyShard(0, 3)),
            EpochBarrier(plane.dsn, row.projection_id, KeyShard(2, 3)),
        ):
            assert "each key shard has a process" in str(tick(key_shards, plane_resource, instance))


def test_runs_that_were_asked_for_are_waited_for(
    plane: Plane, plane_resource: PlaneResource, instance: dg.DagsterInstance
) -> None:
    reshard_in_time(plane.pool, plane.ensure_live().projection_id, 2)
    tags = {"dagster/partition": "1"}
    instance.add_run(
        dg.DagsterRun(job_name="key_shard", run_id=str(uuid.uuid4()), tags=tags, status=dg.DagsterRunStatus.NOT_STARTED)
    )
    assert asked(tick(key_shards, plane_resource, instance)) == [("0", "0/2")]


def test_runs_of_all_shards_apply_together_and_end(
    plane: Plane, plane_resource: PlaneResource, definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    row = plane.ensure_live()
    reshard_in_time(plane.pool, row.projection_id, 2)
    job = definitions.resolve_job_def("key_shard")

    def run(number: int) -> dg.ExecuteInProcessResult:
        return job.execute_in_process(instance=instance, partition_key=str(number), run_config=CONFIG, raise_on_error=False)

    # beside the run a driver that ends when it is told: two runs in one process would share what Dagster has for a process
    stop = threading.Event()
    beside = partial(drive, stop=stop, on_commit=ignore, on_trouble=ignore, on_standby=lambda: None)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(beside, plane, plane.row(row.projection_id), KeyShard(1, 2))
        try:
            assert run(0).success
        finally:
            stop.set()
        other.result()
    after = plane.row(row.projection_id)
    assert after.basis == plane.log.ends()
    with plane.pool.connection() as connection:
        assert read_shards(connection, row.projection_id)[1].version == after.version
    assert "at the head" in str(tick(key_shards, plane_resource, instance))
    assert not run(2).success  # there is no such shard

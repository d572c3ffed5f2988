"""Sensors and schedules, evaluated as the daemon does it."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import psycopg
import pytest

from ofp_platform.log.ranges import range_name, shared_ranges
from ofp_platform.online.plane import Plane, profile_pack
from ofp_platform.online.projecting import continuous
from ofp_platform.online.ranges.catch_up import CatchUpReceipt, catch_up
from ofp_platform.orchestration.dagster_internals import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from ofp_platform.orchestration.log.event_assets import LOG_EVENTS
from ofp_platform.orchestration.online.projection_assets import PROJECTION, PROJECTION_RANGE
from ofp_platform.orchestration.online.schedules import snapshot_set_hourly, verify_ranges_nightly
from ofp_platform.orchestration.online.sensors import commit_reporter, new_offsets
from ofp_platform.orchestration.partitions import HOUR_FORMAT, OFFSET_RANGE, REGISTRY_DIGEST, range_key, registry_key
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.orchestration.run_failures import run_failures
from ofp_platform.registry.pack import pack_digest
from ofp_platform.storage.governance_facts import read_facts
from ofp_platform.vocabulary.times import to_datetime
from ofp_platform_tests.oracle.simulated_log import RANGE_SIZE, heads


def tick(sensor: dg.SensorDefinition, plane: PlaneResource, instance: dg.DagsterInstance, cursor: str | None = None) -> object:
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"plane": plane})
    return sensor(context)


def whole_number(event: dg.AssetMaterialization, name: str) -> int:
    value = event.metadata[name].value
    assert isinstance(value, int)
    return value


def drain(plane: Plane) -> None:
    row = plane.ensure_live()
    for partition_id in heads(plane):
        catch_up(plane, row, partition_id)


def test_new_offsets_ask_for_one_run(plane: Plane, plane_resource: PlaneResource, instance: dg.DagsterInstance) -> None:
    result = tick(new_offsets, plane_resource, instance)
    assert isinstance(result, dg.SensorResult)
    assert result.run_requests is not None
    (request,) = result.run_requests
    assert (request.tags[ASSET_PARTITION_RANGE_START_TAG], request.tags[ASSET_PARTITION_RANGE_END_TAG]) == ("0000", "0001")
    assert int(request.tags["lag_records"]) == sum(heads(plane).values())
    assert {(event.asset_key, event.partition) for event in result.asset_events} == {(LOG_EVENTS, "0000"), (LOG_EVENTS, "0001")}
    drain(plane)
    skipped = tick(new_offsets, plane_resource, instance)
    assert isinstance(skipped, dg.SkipReason)
    assert "at the head" in str(skipped.skip_message)


def test_a_continuous_driver_is_left_alone(plane: Plane, plane_resource: PlaneResource, instance: dg.DagsterInstance) -> None:
    row = plane.ensure_live()
    with psycopg.connect(plane.dsn, autocommit=True) as driver:
        driver.execute("SELECT pg_advisory_lock_shared(%s, %s)", (continuous.DRIVER, row.projection_id))
        skipped = tick(new_offsets, plane_resource, instance)
        assert isinstance(skipped, dg.SkipReason)
        assert "continuous driver" in str(skipped.skip_message)
    assert isinstance(tick(new_offsets, plane_resource, instance), dg.SensorResult)


def add_run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> None:
    instance.add_run(dg.DagsterRun(job_name="catch_up", run_id=str(uuid.uuid4()), status=status))


def test_one_catch_up_at_a_time(plane: Plane, plane_resource: PlaneResource, instance: dg.DagsterInstance) -> None:
    add_run(instance, dg.DagsterRunStatus.STARTED)
    with continuous.holding(plane.dsn, plane.ensure_live().projection_id, continuous.CATCH_UP):
        skipped = tick(new_offsets, plane_resource, instance)
    assert isinstance(skipped, dg.SkipReason)
    assert "under way" in str(skipped.skip_message)


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING])
def test_a_catch_up_that_was_asked_for_is_waited_for(
    plane: Plane, plane_resource: PlaneResource, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    add_run(instance, status)
    assert isinstance(tick(new_offsets, plane_resource, instance), dg.SkipReason)


def test_a_run_that_died_with_its_machine_blocks_nothing(
    plane: Plane, plane_resource: PlaneResource, definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    add_run(instance, dg.DagsterRunStatus.STARTED)
    result = tick(new_offsets, plane_resource, instance)
    assert isinstance(result, dg.SensorResult)
    assert result.run_requests is not None
    (request,) = result.run_requests
    assert definitions.resolve_job_def("catch_up").execute_in_process(instance=instance, tags=request.tags).success
    assert "at the head" in str(tick(new_offsets, plane_resource, instance))


def test_a_catch_up_holds_the_projection(
    plane: Plane, definitions: dg.Definitions, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = plane.ensure_live().projection_id
    held: list[bool] = []

    def look(*arguments: Any) -> CatchUpReceipt:
        held.append(continuous.holds_projection(plane.pool, number, continuous.CATCH_UP))
        return catch_up(*arguments)

    monkeypatch.setattr("ofp_platform.orchestration.online.projection_assets.catch_up", look)
    span = {ASSET_PARTITION_RANGE_START_TAG: "0000", ASSET_PARTITION_RANGE_END_TAG: "0001"}
    assert definitions.resolve_job_def("catch_up").execute_in_process(instance=instance, tags=span).success
    assert held == [True, True]


def test_commits_of_any_driver_are_reported_once(
    plane: Plane, plane_resource: PlaneResource, instance: dg.DagsterInstance
) -> None:
    first = tick(commit_reporter, plane_resource, instance)
    assert isinstance(first, dg.SensorResult)
    shared = shared_ranges(plane.ranges.closed())
    added = {request.partitions_def_name: list(request.partition_keys) for request in first.dynamic_partitions_requests or ()}
    assert added == {
        OFFSET_RANGE.name: [range_name(number) for number in range(shared)],
        REGISTRY_DIGEST.name: [registry_key(profile_pack(plane.profile), pack_digest(profile_pack(plane.profile)))],
    }
    assert list(first.asset_events) == []
    for name, keys in added.items():
        instance.add_dynamic_partitions(str(name), keys)

    drain(plane)
    second = tick(commit_reporter, plane_resource, instance, first.cursor)
    assert isinstance(second, dg.SensorResult)
    assert not second.dynamic_partitions_requests
    reported = [event for event in second.asset_events if isinstance(event, dg.AssetMaterialization)]
    ranges = {event.partition for event in reported if event.asset_key == PROJECTION_RANGE}
    assert ranges == {range_key(name, number) for name in heads(plane) for number in range(shared)}
    moved = {event.partition: event.metadata for event in reported if event.asset_key == PROJECTION}
    assert {name: metadata["basis"].value for name, metadata in moved.items()} == {
        name: f"exclusive_next {head}" for name, head in heads(plane).items()
    }
    observed = {event.partition for event in second.asset_events if isinstance(event, dg.AssetObservation)}
    assert observed == set(heads(plane))
    for event in reported:
        if event.asset_key == PROJECTION_RANGE:
            parts = [whole_number(event, name) for name in ("events", "failures", "copies_or_ignored")]
            assert sum(parts) == whole_number(event, "dagster/partition_row_count")
            assert min(parts) >= 0
    assert second.skip_reason is not None
    assert f"{len(heads(plane))} partitions moved, {len(ranges)} ranges applied" in str(second.skip_reason.skip_message)
    assert isinstance(tick(commit_reporter, plane_resource, instance, second.cursor), dg.SkipReason)


def test_a_foreign_range_key_is_removed(plane: Plane, plane_resource: PlaneResource, instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("offset_range", ["banana"])
    result = tick(commit_reporter, plane_resource, instance)
    assert isinstance(result, dg.SensorResult)
    deletions = [one for one in result.dynamic_partitions_requests or () if isinstance(one, dg.DeleteDynamicPartitionsRequest)]
    assert [(one.partitions_def_name, list(one.partition_keys)) for one in deletions] == [("offset_range", ["banana"])]


def test_what_a_run_has_materialised_is_not_reported_again(
    plane: Plane, plane_resource: PlaneResource, definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    instance.add_dynamic_partitions(str(OFFSET_RANGE.name), [range_name(0), range_name(1)])
    span = {ASSET_PARTITION_RANGE_START_TAG: "0000", ASSET_PARTITION_RANGE_END_TAG: "0001"}
    assert definitions.resolve_job_def("catch_up").execute_in_process(instance=instance, tags=span).success
    replay = definitions.resolve_job_def("replay_ranges")
    assert replay.execute_in_process(instance=instance, partition_key=range_key("0000", 0)).success
    result = tick(commit_reporter, plane_resource, instance)
    assert isinstance(result, dg.SensorResult)
    reported = {(event.asset_key, event.partition) for event in result.asset_events if isinstance(event, dg.AssetMaterialization)}
    assert (PROJECTION_RANGE, range_key("0000", 0)) not in reported
    assert (PROJECTION_RANGE, range_key("0001", 0)) in reported
    assert not {key for key, _ in reported} - {PROJECTION_RANGE}  # the catch-up said where the partitions stand


def failure_context(
    result: dg.ExecuteInProcessResult, instance: dg.DagsterInstance, plane: PlaneResource
) -> dg.RunFailureSensorContext:
    """The sensor's context for a run that failed."""
    return dg.build_run_status_sensor_context(
        sensor_name=run_failures.name,
        dagster_event=result.get_run_failure_event(),
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        resources={"plane": plane},
    ).for_run_failure()


def test_a_failed_run_is_a_governance_fact(
    plane: Plane,
    plane_resource: PlaneResource,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    capsys: pytest.CaptureFixture[str],
) -> None:
    instance.add_dynamic_partitions(str(OFFSET_RANGE.name), [range_name(0), range_name(1)])
    job = definitions.resolve_job_def("replay_ranges")
    result = job.execute_in_process(instance=instance, partition_key=range_key("0000", 1), raise_on_error=False)
    context = failure_context(result, instance, plane_resource)
    capsys.readouterr()
    run_failures(context)
    (line,) = [written for written in capsys.readouterr().err.splitlines() if "governance fact" in written]
    assert f'"run_id": "{result.dagster_run.run_id}"' in line
    assert '"job_name": "replay_ranges"' in line
    assert '"partition": "0000|r0000001"' in line
    said = json.loads(line.partition("governance fact: ")[2])
    (reason,) = said["reasons"]
    assert "range r0000001 of partition 0000" in reason
    (recorded,) = read_facts(plane.pool)
    assert recorded.fact.wire() == said
    run_failures(context)  # told again: the row is there
    assert read_facts(plane.pool, about=result.dagster_run.run_id[:8]) == [recorded]

    nowhere = PlaneResource(
        profile_source=plane_resource.profile_source, database_url="postgresql://postgres@/postgres?host=/nonexistent"
    )
    lost = failure_context(result, instance, nowhere)
    capsys.readouterr()
    with pytest.raises(dg.Failure, match="in the log of the daemon and not in the database"):
        run_failures(lost)
    assert "governance fact: {" in capsys.readouterr().err


def test_the_cause_of_a_failure_outlives_its_retries(
    plane_resource: PlaneResource, instance: dg.DagsterInstance, capsys: pytest.CaptureFixture[str]
) -> None:
    @dg.op(retry_policy=dg.RetryPolicy(max_retries=2))
    def by_policy() -> None:
        raise ValueError("the broker is on fire") from OSError("no water")

    @dg.op
    def by_request() -> None:
        try:
            raise ValueError("the broker is on fire") from OSError("no water")
        except ValueError as error:
            raise dg.RetryRequested(max_retries=2) from error

    for retried in (by_policy, by_request):
        job = dg.GraphDefinition(f"fails_{retried.name}", node_defs=[retried]).to_job()
        result = job.execute_in_process(instance=instance, raise_on_error=False)
        context = dg.build_run_status_sensor_context(
            sensor_name=run_failures.name,
            dagster_event=result.get_run_failure_event(),
            dagster_instance=instance,
            dagster_run=result.dagster_run,
            resources={"plane": plane_resource},
        ).for_run_failure()
        capsys.readouterr()
        run_failures(context)
        (line,) = [written for written in capsys.readouterr().err.splitlines() if "governance fact" in written]
        (reason,) = json.loads(line.partition("governance fact: ")[2])["reasons"]
        assert "max_retries of 2" in reason
        assert "ValueError: the broker is on fire; because: OSError: no water" in reason


def schedule_context(plane: PlaneResource, instance: dg.DagsterInstance) -> dg.ScheduleEvaluationContext:
    return dg.build_schedule_context(
        instance=instance, scheduled_execution_time=datetime(2026, 2, 1, 3, tzinfo=UTC), resources={"plane": plane}
    )


def test_the_hour_of_the_schedule_is_of_event_time(
    plane: Plane, plane_resource: PlaneResource, instance: dg.DagsterInstance
) -> None:
    assert isinstance(snapshot_set_hourly(schedule_context(plane_resource, instance)), dg.SkipReason)
    drain(plane)
    watermark = plane.ensure_live().watermark
    assert watermark is not None
    request = snapshot_set_hourly(schedule_context(plane_resource, instance))
    assert isinstance(request, dg.RunRequest)
    start = datetime.strptime(str(request.partition_key), HOUR_FORMAT).replace(tzinfo=UTC)
    assert 3600 <= (to_datetime(watermark) - start).total_seconds() < 7200


def test_the_night_verifies_what_the_basis_holds(
    plane: Plane, plane_resource: PlaneResource, instance: dg.DagsterInstance
) -> None:
    assert isinstance(verify_ranges_nightly(schedule_context(plane_resource, instance)), dg.SkipReason)
    drain(plane)
    requests = verify_ranges_nightly(schedule_context(plane_resource, instance))
    assert isinstance(requests, list)
    last = min(heads(plane).values()) // RANGE_SIZE - 1
    assert [(one.tags[ASSET_PARTITION_RANGE_START_TAG], one.tags[ASSET_PARTITION_RANGE_END_TAG]) for one in requests] == [
        (range_key(name, 0), range_key(name, last)) for name in ("0000", "0001")
    ]
    assert len({one.run_key for one in requests}) == 2

"""Snapshot sets, rebuilds, the switch, the observation, and the reader: each is one call of the plane."""

from pathlib import Path

import dagster as dg
import pytest

from ofp_platform.online.plane import Plane, profile_pack
from ofp_platform.online.ranges.catch_up import catch_up
from ofp_platform.online.ranges.snapshot_sets import HOUR, last_full_hour
from ofp_platform.orchestration.code_location import code_location
from ofp_platform.orchestration.dagster_internals import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from ofp_platform.orchestration.log.event_assets import LOG_EVENTS
from ofp_platform.orchestration.online.rebuild_assets import EQUAL, REBUILD
from ofp_platform.orchestration.online.snapshot_assets import HASH_IS_NAME, SNAPSHOT_SET
from ofp_platform.orchestration.partitions import HOUR_FORMAT, REGISTRY_DIGEST, registry_key
from ofp_platform.orchestration.resources import FeatureReaderResource, PlaneResource
from ofp_platform.registry.pack import pack_digest
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.times import format_time, to_datetime
from ofp_platform_tests.oracle.simulated_log import PINS, heads, pack_with, write_profile
from ofp_platform_tests.oracle.stored_state import STATE_TABLES, first_key


@pytest.fixture
def watermark(plane: Plane) -> int:
    """Everything applied."""
    row = plane.ensure_live()
    for partition_id in heads(plane):
        catch_up(plane, row, partition_id)
    found = plane.ensure_live().watermark
    assert found is not None
    return found


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {one.check_name: one.passed for one in result.get_asset_check_evaluations()}


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    (event,) = result.get_asset_materialization_events()
    return {name: value.value for name, value in event.step_materialization_data.materialization.metadata.items()}


def test_the_snapshots_of_an_hour(
    definitions: dg.Definitions,
    plane: Plane,
    instance: dg.DagsterInstance,
    watermark: int,
) -> None:
    hour = last_full_hour(plane.ensure_live())
    assert hour is not None
    result = definitions.resolve_job_def("snapshot_sets").execute_in_process(
        instance=instance, partition_key=to_datetime(hour).strftime(HOUR_FORMAT)
    )
    assert result.success
    shown = metadata(result)
    count = shown["dagster/partition_row_count"]
    assert isinstance(count, int)
    assert count > 0
    assert shown["new_snapshots"] == count
    assert Path(str(shown["index"]).removeprefix("file://")).exists()
    assert checks(result) == {HASH_IS_NAME: True}


def test_an_hour_that_is_not_over(
    definitions: dg.Definitions, plane: Plane, instance: dg.DagsterInstance, watermark: int
) -> None:
    key = to_datetime(watermark).strftime("%Y-%m-%d-%H:00")
    result = definitions.resolve_job_def("snapshot_sets").execute_in_process(
        instance=instance, partition_key=key, raise_on_error=False
    )
    assert not result.success
    assert "the watermark is" in str(result.get_step_failure_events()[0].step_failure_data.user_failure_data)


def test_a_backfill_of_hours_is_one_run_and_never_all_of_them(
    definitions: dg.Definitions, plane: Plane, instance: dg.DagsterInstance, watermark: int
) -> None:
    job = definitions.resolve_job_def("snapshot_sets")
    hour = last_full_hour(plane.ensure_live())
    assert hour is not None
    keys = [to_datetime(hour - back * HOUR).strftime(HOUR_FORMAT) for back in (2, 1, 0)]
    tags = {ASSET_PARTITION_RANGE_START_TAG: keys[0], ASSET_PARTITION_RANGE_END_TAG: keys[-1]}
    result = job.execute_in_process(instance=instance, tags=tags)
    assert result.success
    assert sorted(str(event.partition) for event in result.get_asset_materialization_events()) == keys
    assert checks(result) == {HASH_IS_NAME: True}
    node = definitions.resolve_asset_graph().get(SNAPSHOT_SET)
    assert node.backfill_policy == dg.BackfillPolicy.single_run()
    first = node.partitions_def.get_first_partition_key() if node.partitions_def is not None else None
    everything = job.execute_in_process(
        instance=instance, tags={**tags, ASSET_PARTITION_RANGE_START_TAG: str(first)}, raise_on_error=False
    )
    told = str(everything.get_step_failure_events()[0].step_failure_data.user_failure_data)
    assert "one run takes at most 744. Nothing was done" in told


def test_rebuild_and_switch(plane: Plane, instance: dg.DagsterInstance, watermark: int, tmp_path: Path) -> None:
    group = "\n  - name: card_activity\n    version: v1\n"
    added = (
        "\n  - name: account_activity\n    version: v2\n    key_type: account\n    ttl_seconds: 60\n    features:\n"
        "      - {name: count_2h, aggregation: count, events: [card_payment], window: 2h}\n"
    )
    path = write_profile(tmp_path, pack=str(pack_with(tmp_path, [(group, added + group)])))
    resource = PlaneResource(profile_source=str(path), database_url=plane.dsn)
    location = code_location(resource.load_profile(), resource)
    digest = pack_digest(profile_pack(resource.load_profile()))
    key = registry_key(profile_pack(resource.load_profile()), digest)
    assert key == f"card_payments-2.{digest[:8]}"
    instance.add_dynamic_partitions(str(REGISTRY_DIGEST.name), [key, "0" * 64])
    before = plane.ensure_live()

    other = location.resolve_job_def("rebuild").execute_in_process(
        instance=instance, partition_key="0" * 64, raise_on_error=False
    )
    assert not other.success
    result = location.resolve_job_def("rebuild").execute_in_process(instance=instance, partition_key=key)
    assert checks(result) == {EQUAL: True}
    shown = metadata(result)
    assert shown["live_hash"] == shown["beside_hash"]
    assert "| account_activity v2 | beside only |" in str(shown["groups"])
    assert plane.ensure_live().projection_id == before.projection_id

    switch = location.resolve_job_def("switch_live")

    def config(wanted: str) -> dict[str, object]:
        return {"ops": {"make_rebuilt_projection_live": {"config": {"registry": wanted}}}}

    refused = switch.execute_in_process(instance=instance, run_config=config(before.registry_digest), raise_on_error=False)
    assert not refused.success
    assert plane.ensure_live().projection_id == before.projection_id
    assert switch.execute_in_process(instance=instance).success  # the launchpad has the registry of the profile's pack
    assert plane.ensure_live().registry_digest == digest
    (record,) = instance.fetch_observations(REBUILD, limit=5).records
    assert record.asset_observation is not None
    assert record.asset_observation.metadata["switched"].value is True
    assert record.asset_observation.partition == key


def test_a_rebuild_that_differs_stays_beside(plane: Plane, instance: dg.DagsterInstance, watermark: int, tmp_path: Path) -> None:
    path = write_profile(tmp_path, pack=str(pack_with(tmp_path, [])))
    resource = PlaneResource(profile_source=str(path), database_url=plane.dsn)
    location = code_location(resource.load_profile(), resource)
    digest = pack_digest(profile_pack(resource.load_profile()))
    instance.add_dynamic_partitions(str(REGISTRY_DIGEST.name), [digest])
    with plane.pool.connection() as connection:
        key_id = first_key(connection)
        for table in STATE_TABLES:
            connection.execute(f"DELETE FROM ofp.{table} WHERE key_id = %s", (key_id,))
    job = location.resolve_job_def("rebuild")
    result = job.execute_in_process(instance=instance, partition_key=digest, raise_on_error=False)
    assert checks(result) == {EQUAL: False}
    assert "differences" in metadata(result)


def test_the_same_pack_is_nothing_to_rebuild(
    definitions: dg.Definitions, plane: Plane, instance: dg.DagsterInstance, watermark: int
) -> None:
    digest = plane.ensure_live().registry_digest
    instance.add_dynamic_partitions(str(REGISTRY_DIGEST.name), [digest])
    result = definitions.resolve_job_def("rebuild").execute_in_process(instance=instance, partition_key=digest)
    assert checks(result) == {EQUAL: True}
    assert "live_hash" not in metadata(result)


def test_the_log_is_observed(definitions: dg.Definitions, plane: Plane, instance: dg.DagsterInstance) -> None:
    assert definitions.resolve_job_def("observe_log").execute_in_process(instance=instance).success
    found = {}
    for record in instance.fetch_observations(LOG_EVENTS, limit=10).records:
        assert record.asset_observation is not None
        found[record.asset_observation.partition] = record.asset_observation.metadata["lag_records"].value
    assert found == heads(plane)


def test_the_reader_answers_as_a_resource(plane: Plane, plane_resource: PlaneResource, watermark: int) -> None:
    request = {
        "context_pins": PINS,
        "feature_keys": [{"key_type": "card", "key_id": "card-0000001"}],
        "feature_groups": [{"group_name": "card_activity", "group_version": "v1"}],
        "as_of_time_utc": format_time(watermark),
    }
    with FeatureReaderResource(profile_source=plane_resource.profile_source, database_url=plane.dsn).open() as reader:
        answer = reader.answer(canonical_bytes(request))
    assert len(answer.hash) == 64

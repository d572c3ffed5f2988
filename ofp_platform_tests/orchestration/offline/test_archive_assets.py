"""The archive as runs: what is written, what is proven, what is refused, and what the night finds."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from ofp_platform.log.postgres import PostgresLog
from ofp_platform.log.ranges import range_name, shared_ranges
from ofp_platform.online.plane import Plane
from ofp_platform.orchestration.dagster_internals import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from ofp_platform.orchestration.offline.archive_assets import ARCHIVE_SEGMENT, COMPLETE
from ofp_platform.orchestration.offline.archive_schedules import archive_closed_hourly
from ofp_platform.orchestration.partitions import OFFSET_RANGE, range_key
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.storage.objects import ObjectStore
from ofp_platform_tests.oracle.simulated_log import RANGE_SIZE


@pytest.fixture
def ranges(plane: Plane, instance: dg.DagsterInstance) -> int:
    """The range partitions, as the commit reporter adds them; how many there are."""
    count = shared_ranges(plane.ranges.closed())
    instance.add_dynamic_partitions(str(OFFSET_RANGE.name), [range_name(number) for number in range(count)])
    assert count >= 3
    return count


def archive(definitions: dg.Definitions, instance: dg.DagsterInstance, first: str, last: str) -> dg.ExecuteInProcessResult:
    tags = {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}
    return definitions.resolve_job_def("archive").execute_in_process(instance=instance, tags=tags, raise_on_error=False)


def materialised(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetMaterialization]:
    events = [event.step_materialization_data.materialization for event in result.get_asset_materialization_events()]
    return {str(one.partition): one for one in events if one.asset_key == ARCHIVE_SEGMENT}


def check(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (found,) = result.get_asset_check_evaluations()
    assert found.check_name == COMPLETE
    assert found.blocking
    return found


def last_check(instance: dg.DagsterInstance) -> dg.AssetCheckEvaluation:
    """The check as the asset's page shows it, whoever evaluated it last."""
    (record,) = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(ARCHIVE_SEGMENT, COMPLETE), limit=1)
    assert record.event is not None
    evaluation = record.event.get_dagster_event().event_specific_data
    assert isinstance(evaluation, dg.AssetCheckEvaluation)
    return evaluation


def segments(folder: Path) -> list[Path]:
    return sorted((folder / "objects").rglob("*.parquet"))


def test_ranges_become_segments_with_receipts(
    definitions: dg.Definitions, plane: Plane, instance: dg.DagsterInstance, ranges: int
) -> None:
    result = archive(definitions, instance, range_key("0000", 0), range_key("0000", 2))
    assert result.success
    found = materialised(result)
    assert sorted(found) == [range_key("0000", number) for number in range(3)]
    assert check(result).passed
    assert check(result).metadata["records"].value == 3 * RANGE_SIZE
    objects = ObjectStore(plane.profile.object_store_url)
    for one in found.values():
        assert one.metadata["records"].value == one.metadata["dagster/partition_row_count"].value == RANGE_SIZE
        for name in ("segment", "receipt"):
            path = str(one.metadata[name].value).removeprefix(f"{objects.url}/")
            assert objects.exists(path)
        assert len(objects.get(str(one.metadata["segment"].value).removeprefix(f"{objects.url}/"))) == one.metadata["bytes"].value
    again = materialised(archive(definitions, instance, range_key("0000", 0), range_key("0000", 2)))
    assert {key: one.metadata for key, one in again.items()} == {key: one.metadata for key, one in found.items()}


def test_a_damaged_segment_fails_the_check_and_the_night(
    definitions: dg.Definitions, plane: Plane, instance: dg.DagsterInstance, ranges: int, tmp_path: Path
) -> None:
    for name in ("0000", "0001"):
        assert archive(definitions, instance, range_key(name, 0), range_key(name, 2)).success
    night = definitions.resolve_job_def("verify_archive")
    assert night.execute_in_process(instance=instance).success
    assert last_check(instance).passed
    broken = segments(tmp_path)[1]
    content = bytearray(broken.read_bytes())
    content[len(content) // 2] ^= 1
    broken.write_bytes(bytes(content))

    result = archive(definitions, instance, range_key("0000", 0), range_key("0000", 2))
    assert not result.success
    assert not check(result).passed
    assert "was changed" in str(check(result).metadata["refused"].value)
    assert list(materialised(result)) == [range_key("0000", 0), range_key("0000", 2)]  # the damaged range is refused alone
    failed = night.execute_in_process(instance=instance, raise_on_error=False)
    assert not failed.success
    (event,) = failed.filter_events(lambda event: event.is_step_failure)
    assert "SegmentDamaged" in str(event.step_failure_data.user_failure_data)
    (seen,) = instance.fetch_observations(ARCHIVE_SEGMENT, limit=1).records
    assert seen.asset_observation is not None
    assert seen.asset_observation.metadata["problems"].value
    red_check = last_check(instance)
    assert not red_check.passed
    assert "| 0000 | " in str(red_check.metadata["damaged"].value)
    assert "SegmentDamaged" in str(red_check.description)


def test_a_log_partition_that_vanished_is_not_a_verified_one(
    definitions: dg.Definitions, plane: Plane, instance: dg.DagsterInstance, ranges: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert archive(definitions, instance, range_key("0000", 0), range_key("0000", 2)).success
    listed = PostgresLog.partitions
    monkeypatch.setattr(PostgresLog, "partitions", lambda log: [info for info in listed(log) if info.partition_id != "0000"])
    result = definitions.resolve_job_def("verify_archive").execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    red_check = last_check(instance)
    assert not red_check.passed
    assert "0000" in str(red_check.description)
    assert red_check.metadata["problems"].value == 0


def test_an_empty_archive_is_not_a_verified_one(definitions: dg.Definitions, plane: Plane, instance: dg.DagsterInstance) -> None:
    result = definitions.resolve_job_def("verify_archive").execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    assert not last_check(instance).passed
    assert "nothing was verified" in str(last_check(instance).description)


def test_a_key_that_names_no_range_is_refused_alone(
    definitions: dg.Definitions, plane: Plane, instance: dg.DagsterInstance, ranges: int
) -> None:
    instance.add_dynamic_partitions(str(OFFSET_RANGE.name), ["banana", range_name(1000)])
    result = archive(definitions, instance, range_key("0000", 0), range_key("0000", 1000))
    assert list(materialised(result)) == [range_key("0000", number) for number in range(ranges)]
    refused = str(check(result).metadata["refused"].value)
    assert "'banana' is not the name of a range" in refused
    assert "| 0000\\|r0001000 | " in refused
    assert result.retry_attempts_for_node("offline__archive_segment") == 0


def test_a_range_that_is_not_closed_is_refused(
    definitions: dg.Definitions, instance: dg.DagsterInstance, ranges: int, tmp_path: Path
) -> None:
    instance.add_dynamic_partitions(str(OFFSET_RANGE.name), [range_name(1000)])
    result = archive(definitions, instance, range_key("0001", 1000), range_key("0001", 1000))
    assert not result.success
    assert "the log ends at" in str(check(result).metadata["refused"].value)
    assert segments(tmp_path) == []


def test_the_schedule_archives_what_has_closed(
    definitions: dg.Definitions, plane: Plane, plane_resource: PlaneResource, tmp_path: Path
) -> None:
    def due(instance: dg.DagsterInstance) -> list[dg.RunRequest] | dg.SkipReason:
        moment = datetime(2026, 2, 1, 3, 20, tzinfo=UTC)
        with dg.build_schedule_context(
            instance=instance, scheduled_execution_time=moment, resources={"plane": plane_resource}
        ) as context:
            found = archive_closed_hourly(context)
        assert isinstance(found, list | dg.SkipReason)
        return found

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:  # a schedule opens the instance by its reference
        count = shared_ranges(plane.ranges.closed())
        instance.add_dynamic_partitions(str(OFFSET_RANGE.name), [range_name(number) for number in range(count)])
        requests = due(instance)
        assert isinstance(requests, list)
        spans = [(one.tags[ASSET_PARTITION_RANGE_START_TAG], one.tags[ASSET_PARTITION_RANGE_END_TAG]) for one in requests]
        assert spans == [(range_key(name, 0), range_key(name, count - 1)) for name in ("0000", "0001")]
        assert archive(definitions, instance, *spans[0]).success
        requests = due(instance)
        assert isinstance(requests, list)
        assert [one.tags[ASSET_PARTITION_RANGE_START_TAG] for one in requests] == [range_key("0001", 0)]
        assert archive(definitions, instance, *spans[1]).success
        assert isinstance(due(instance), dg.SkipReason)

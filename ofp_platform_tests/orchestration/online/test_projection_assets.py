"""Ranges and catch-ups as runs: what is applied, what is shown, what is refused."""

from pathlib import Path

import dagster as dg
import pytest

from ofp_platform.log.ranges import range_name, shared_ranges
from ofp_platform.online.plane import Plane
from ofp_platform.orchestration.code_location import code_location
from ofp_platform.orchestration.dagster_internals import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from ofp_platform.orchestration.online.projection_assets import CONTIGUOUS, ONE_FATE, POSTURE, PROJECTION, PROJECTION_RANGE
from ofp_platform.orchestration.partitions import OFFSET_RANGE, range_key
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform_tests.oracle.simulated_log import RANGE_SIZE, heads, write_profile


@pytest.fixture
def ranges(plane: Plane, instance: dg.DagsterInstance) -> int:
    """The range partitions, as the commit reporter adds them; how many there are."""
    count = shared_ranges(plane.ranges.closed())
    instance.add_dynamic_partitions(str(OFFSET_RANGE.name), [range_name(number) for number in range(count)])
    assert count >= 3
    return count


def run(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    job: str,
    *,
    key: str | None = None,
    span: tuple[str, str] | None = None,
) -> dg.ExecuteInProcessResult:
    tags = {} if span is None else {ASSET_PARTITION_RANGE_START_TAG: span[0], ASSET_PARTITION_RANGE_END_TAG: span[1]}
    return definitions.resolve_job_def(job).execute_in_process(
        instance=instance, partition_key=key, tags=tags, raise_on_error=False
    )


def materialised(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> dict[str, dg.AssetMaterialization]:
    found = {}
    for event in result.get_asset_materialization_events():
        materialisation = event.step_materialization_data.materialization
        if materialisation.asset_key == key:
            found[str(materialisation.partition)] = materialisation
    return found


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {one.check_name: one for one in result.get_asset_check_evaluations()}


def number(materialisation: dg.AssetMaterialization, name: str) -> int:
    value = materialisation.metadata[name].value
    assert isinstance(value, int)
    return value


def test_one_range(definitions: dg.Definitions, plane: Plane, instance: dg.DagsterInstance, ranges: int) -> None:
    key = range_key("0000", 0)
    result = run(definitions, instance, "replay_ranges", key=key)
    assert result.success
    found = materialised(result, PROJECTION_RANGE)
    assert list(found) == [key]
    shown = found[key].metadata
    assert shown["status"].value == "applied"
    assert shown["basis"].value == f"exclusive_next {RANGE_SIZE}"
    fates = sum(number(found[key], name) for name in ("events", "duplicates", "failures", "ignored"))
    assert fates == number(found[key], "dagster/partition_row_count") == RANGE_SIZE
    for name in ("late", "anomalies", "watermark", "events_per_second", "seconds", "commits", "last_commits"):
        assert name in shown
    assert str(shown["events_per_range"].value).startswith("![events per range](data:image/png;base64,")
    assert len(str(shown["events_per_range"].value)) < 40_000
    assert {name: check.passed for name, check in checks(result).items()} == {CONTIGUOUS: True, ONE_FATE: True}


def test_a_single_run_over_several_ranges_and_then_again(
    definitions: dg.Definitions, plane: Plane, instance: dg.DagsterInstance, ranges: int
) -> None:
    span = (range_key("0001", 0), range_key("0001", ranges - 1))
    keys = [range_key("0001", one) for one in range(ranges)]
    first = run(definitions, instance, "replay_ranges", span=span)
    assert first.success
    found = materialised(first, PROJECTION_RANGE)
    assert sorted(found) == keys
    assert [found[key].metadata["basis"].value for key in keys] == [
        f"exclusive_next {(one + 1) * RANGE_SIZE}" for one in range(ranges)
    ]
    version = plane.ensure_live().version
    second = run(definitions, instance, "replay_ranges", span=span)
    assert second.success
    again = materialised(second, PROJECTION_RANGE)
    assert {key: one.metadata["status"].value for key, one in again.items()} == dict.fromkeys(keys, "verified")
    assert {key: number(one, "events") for key, one in again.items()} == {
        key: number(one, "events") for key, one in found.items()
    }
    assert "verification" in again[keys[0]].metadata
    assert plane.ensure_live().version == version


def test_all_log_partitions_in_one_run(
    definitions: dg.Definitions, plane: Plane, instance: dg.DagsterInstance, ranges: int
) -> None:
    result = run(definitions, instance, "replay_ranges", span=(range_key("0000", 0), range_key("0001", 1)))
    assert result.success
    assert sorted(materialised(result, PROJECTION_RANGE)) == [range_key(name, one) for name in ("0000", "0001") for one in (0, 1)]


def test_a_gap_fails_the_check_and_the_run(
    definitions: dg.Definitions, plane: Plane, instance: dg.DagsterInstance, ranges: int
) -> None:
    result = run(definitions, instance, "replay_ranges", key=range_key("0000", 2))
    assert not result.success
    assert not materialised(result, PROJECTION_RANGE)
    assert not checks(result)[CONTIGUOUS].passed
    assert "apply the ranges between first" in str(checks(result)[CONTIGUOUS].metadata["refused"].value)
    assert not checks(result)[ONE_FATE].passed  # no record was looked at
    assert plane.ensure_live().version == 0
    failure = result.get_step_failure_events()[0].step_failure_data
    assert "r0000002 of partition 0000 begins at 80" in str(failure.user_failure_data)


def test_a_key_that_names_no_range_is_refused_alone(
    definitions: dg.Definitions, plane: Plane, instance: dg.DagsterInstance, ranges: int
) -> None:
    instance.add_dynamic_partitions(str(OFFSET_RANGE.name), ["banana", "r00000001", range_name(1000)])
    result = run(definitions, instance, "replay_ranges", span=(range_key("0000", 0), range_key("0001", 1000)))
    assert not result.success
    good_keys = [range_key(name, one) for name in ("0000", "0001") for one in range(ranges)]
    assert sorted(materialised(result, PROJECTION_RANGE)) == good_keys
    refused = str(checks(result)[CONTIGUOUS].metadata["refused"].value)
    for name in ("0000", "0001"):
        assert f"{name}\\|banana" in refused
        assert f"{name}\\|r00000001" in refused
    assert not checks(result)[CONTIGUOUS].passed
    assert checks(result)[ONE_FATE].passed
    failure = result.get_step_failure_events()[0].step_failure_data
    assert "'banana' is not the name of a range" in str(failure.user_failure_data)
    assert result.retry_attempts_for_node("online__projection_range") == 0


def test_what_was_applied_before_a_refusal_is_said(
    definitions: dg.Definitions, plane: Plane, instance: dg.DagsterInstance, ranges: int
) -> None:
    """An open range at the end of a run does not make the others unsaid."""
    open_range = max(closed.count for closed in plane.ranges.closed().values())
    instance.add_dynamic_partitions(str(OFFSET_RANGE.name), [range_name(one) for one in range(ranges, open_range + 1)])
    name = max(heads(plane), key=lambda one: heads(plane)[one])
    result = run(definitions, instance, "replay_ranges", span=(range_key(name, 0), range_key(name, open_range)))
    assert not result.success
    assert sorted(materialised(result, PROJECTION_RANGE)) == [range_key(name, one) for one in range(open_range)]
    assert "wait, or run catch_up" in str(checks(result)[CONTIGUOUS].metadata["refused"].value)


def test_damage_fails_the_check(definitions: dg.Definitions, plane: Plane, instance: dg.DagsterInstance, ranges: int) -> None:
    key = range_key("0000", 0)
    assert run(definitions, instance, "replay_ranges", key=key).success
    with plane.pool.connection() as connection:
        connection.execute("DELETE FROM ofp.identity_run")
        connection.execute("UPDATE ofp.projection_partition SET records = records + 1")
    result = run(definitions, instance, "replay_ranges", key=key)
    assert {name: check.passed for name, check in checks(result).items()} == {CONTIGUOUS: False, ONE_FATE: False}
    assert checks(result)[ONE_FATE].metadata["lost"].value != "none"
    assert checks(result)[CONTIGUOUS].blocking


def test_a_bounded_catch_up(definitions: dg.Definitions, plane: Plane, instance: dg.DagsterInstance) -> None:
    result = run(definitions, instance, "catch_up", span=("0000", "0001"))
    assert result.success
    found = materialised(result, PROJECTION)
    assert {key: number(one, "records") for key, one in found.items()} == heads(plane)
    assert {number(one, "lag_records") for one in found.values()} == {0}
    assert "failures_by_reason" in {name for one in found.values() for name in one.metadata}
    assert checks(result)[POSTURE].passed
    assert checks(result)[POSTURE].metadata["lag_records"].value == 0
    again = run(definitions, instance, "catch_up", key="0000")
    assert number(materialised(again, PROJECTION)["0000"], "records") == 0


def test_the_posture_can_be_red(plane: Plane, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    path = write_profile(tmp_path, thresholds={"lag_records_amber": 1, "lag_records_red": 10})
    strict = PlaneResource(profile_source=str(path), database_url=plane.dsn)
    location = code_location(strict.load_profile(), strict)
    result = run(location, instance, "catch_up", key="0000")
    found = checks(result)[POSTURE]
    assert not found.passed
    assert str(found.description).startswith("LAG_RECORDS>10")
